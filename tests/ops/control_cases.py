"""Rows of loops and branches; the oracle is a loop over numpy formulas."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir import dtype as dt
from tapeout.ir.build import Builder
from tapeout.ir.type import TensorType
from tapeout.ops.control import Cond, Control, cond, scan
from tapeout.ops.sym import Sym
from tests.ops.cases import Case, Operand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array

T, B, H = 3, 2, 4


def looped(
    step: Callable[..., Any], carries: int, xs: int, *, reverse: bool = False
) -> Callable[..., tuple[Array, ...]]:
    """Return the plain loop of a step over numpy arrays; the length is that of the first stacked operand."""

    def run(*arrays: Array) -> tuple[Array, ...]:
        state, stacked, rest = (
            list(arrays[:carries]),
            arrays[carries : carries + xs],
            arrays[carries + xs :],
        )
        length = len(stacked[0])
        histories = [[x] for x in state]
        ys: list[list[Array]] = []
        for t in range(length)[:: -1 if reverse else 1]:
            state, made = step(state, [x[t] for x in stacked], rest)
            for history, x in zip(histories, state, strict=True):
                history.append(np.asarray(x))
            ys.append(list(made))
        stacks = [np.array([y[i] for y in ys]) for i in range(len(ys[0]) if ys else 0)]
        found = [np.array(h) for h in histories] + stacks
        return tuple(a[::-1] if reverse else a for a in found)

    return run


def op_of(
    step: Callable[..., Any], types: Sequence[TensorType], carries: int, xs: int, **more: Any
) -> Control:
    """Return the scan of a step."""
    b = Builder("case")
    operands = [Sym(b, b.add_input(f"v{i}", t)) for i, t in enumerate(types)]
    stop = carries + xs
    scan(step, operands[:carries], operands[carries:stop], operands[stop:], **more)
    op = b.nodes[-1].op
    assert isinstance(op, Control)
    return op


def rnn(c: Any, x: Any, k: Any) -> Any:
    new = (x[0] @ k[0] + c[0] @ k[1] + k[2]).tanh()
    return [new], []


def rnn_numpy(c: Any, x: Any, k: Any) -> Any:
    return [np.tanh(x[0] @ k[0] + c[0] @ k[1] + k[2])], []


def two_carries(c: Any, x: Any, k: Any) -> Any:
    """A carry that stays, one that swaps in, a stacked input passed on, and a count of steps."""
    a, b, n = c
    new = a * 0.5 + b * x[0]
    return [b, new, n + 1], [x[0], new * k[0], n]


def rows(d: DType) -> list[Case]:
    weights = (Operand(d, (H, H)), Operand(d, (H, H)), Operand(d, (H,)))
    recurrent = (Operand(d, (B, H)), Operand(d, (T, B, H)), *weights)
    many = (
        *(Operand(d, (B,)), Operand(d, (B,)), Operand(dt.i32, ())),
        *(Operand(d, (T, B)), Operand(d, (B,))),
    )
    found = []
    for reverse in (False, True):
        for step, oracle, operands, carries, label in (
            (rnn, rnn_numpy, recurrent, 1, ""),
            (two_carries, two_carries, many, 3, "passing"),
        ):
            op = op_of(step, [o.type for o in operands], carries, 1, reverse=reverse)
            expected = looped(oracle, carries, 1, reverse=reverse)
            found.append(Case(op, operands, "reduction", expected, at=False, label=label))
    return found


def short() -> list[Case]:
    """Loops of no step and of one."""
    found = []
    for length in (0, 1):
        operands = (Operand(dt.f64, (B, H)), Operand(dt.f64, (H, H)))
        op = op_of(
            lambda c, _, k: ([(c[0] @ k[0]).sin()], []),
            [o.type for o in operands],
            1,
            0,
            length=length,
        )

        def expected(h: Array, w: Array, length: int = length) -> tuple[Array, ...]:
            return (np.array([h, np.sin(h @ w)][: length + 1]),)

        found.append(Case(op, operands, "reduction", expected, at=False, label=f"{length} steps"))
    return found


def last_values() -> list[Case]:
    """Carries of which only the last value is a result, among them two that change places."""
    operands = (
        *(Operand(dt.f64, (B, H)), Operand(dt.f64, (B, H)), Operand(dt.f64, (B, H))),
        *(Operand(dt.f64, (T, B, H)), Operand(dt.f64, (H, H))),
    )

    def step(c: Any, x: Any, k: Any) -> Any:
        a, b, total = c
        return [b, a, total + (a @ k[0] + b) * x[0]], [a * x[0]]

    found = []
    for reverse in (False, True):
        op = op_of(step, [o.type for o in operands], 3, 1, reverse=reverse)
        whole, slot = looped(step, 3, 1, reverse=reverse), 0 if reverse else T

        def expected(*arrays: Array, whole: Any = whole, slot: int = slot) -> tuple[Array, ...]:
            a, b, total, y = whole(*arrays)
            return a[slot], b[slot], total[slot], y

        last = dataclasses.replace(op, finals=(0, 1, 2))
        found.append(Case(last, operands, "reduction", expected, at=False, label="last"))
    return found


def forgetful() -> list[Case]:
    """A carry that becomes a number: its initial value is read once all the same."""
    operands = (Operand(dt.f64, (H,)), Operand(dt.f64, (T, H)))

    def step(c: Any, x: Any, k: Any) -> Any:
        return [c[0].like(2.0)], [c[0] * x[0]]

    def expected(c: Array, x: Array) -> tuple[Array, ...]:
        return np.full_like(c, 2.0), x * np.concatenate([c[None], np.full_like(x[1:], 2.0)])

    op = op_of(step, [o.type for o in operands], 1, 1)
    last = dataclasses.replace(op, finals=(0,))
    return [Case(last, operands, "arithmetic", expected, at=False, label="forgetful")]


def branches() -> list[Case]:
    """A branch that would give NaN stays untaken, and so does its derivative."""
    b = Builder("case")
    operands = (Operand(dt.bool_, ()), Operand(dt.f64, (B, H), 0.5, 2.0), Operand(dt.f64, (B, H)))
    p, x, y = (Sym(b, b.add_input(f"v{i}", o.type)) for i, o in enumerate(operands))
    cond(p, lambda x, y: [x.sqrt() * y], lambda x, y: [(x * -1.0).abs() + y.sin()], [x, y])
    op = b.nodes[-1].op
    assert isinstance(op, Cond)
    return [
        Case(
            op,
            (Operand(dt.bool_, (), values=(chosen,)), *operands[1:]),
            "transcendental",
            lambda p, x, y: np.sqrt(x) * y if p else np.abs(x) + np.sin(y),
            at=False,
            label=str(bool(chosen)),
        )
        for chosen in (0.0, 1.0)
    ]


CASES = [*rows(dt.f64), *rows(dt.f32), *short(), *last_values(), *forgetful(), *branches()]
