"""Expressions of level L as straight-line lists of steps, so that shared ones are computed once per statement.

A value is a Python int (i64, 1 lane), or an array of one entry per lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tapeout.ir.dtype import DType, i64
from tapeout.kernel import loops
from tapeout.kernel.walk import parts, postorder
from tapeout.oracle import scalars
from tapeout.support.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.op import Array
    from tapeout.oracle.memory import Memory, Stamp

Number = Any
"""An int, or an array of lanes."""


class Threadlike(Protocol):
    """What expressions need of a thread."""

    vars: dict[str, Number]
    stamp: Stamp

    def memory(self, name: str) -> Memory:
        """Return a buffer by name."""


Step = Callable[[Threadlike, list[Number]], Number]


class Tape:
    """The expressions of one statement. `steps[i]` gives slot i; a `Cross` stands as itself, the interpreter resolves it."""

    def __init__(self, roots: Sequence[loops.Expr]) -> None:
        """Lay out the steps of all roots."""
        done: set[int] = set()
        slot: dict[int, int] = {}
        self.steps: list[Step | loops.Cross] = []
        self.args: list[tuple[int, ...]] = []
        for root in roots:
            for expr in postorder(root, done):
                at = tuple(slot[id(p)] for p in parts(expr))
                slot[id(expr)] = len(self.steps)
                self.args.append(at)
                self.steps.append(expr if isinstance(expr, loops.Cross) else _step(expr, at))
        self.roots = tuple(slot[id(r)] for r in roots)
        self.crosses = any(isinstance(s, loops.Cross) for s in self.steps)

    def run(self, thread: Threadlike) -> list[Number]:
        """Return the values of the roots; only for tapes without `Cross`."""
        slots: list[Number] = []
        for step in self.steps:
            slots.append(step(thread, slots))  # type: ignore[operator]
        return [slots[r] for r in self.roots]


def as_lanes(x: Number, dtype: DType) -> Array:
    """Return a value as an array of lanes."""
    return np.array([x], dtype.numpy) if isinstance(x, int) else np.asarray(x)


def as_number(x: Array, dtype: DType, lanes: int) -> Number:
    """Return an array of lanes in the form that the type asks for."""
    return int(x[0]) if dtype == i64 and lanes == 1 else x


def wrap(x: int) -> int:
    """Return an integer wrapped to 64 bits, signed."""
    return x if -(1 << 63) <= x < 1 << 63 else (x + (1 << 63)) % (1 << 64) - (1 << 63)


def touched(
    expr: loops.Load | loops.Store, lanes: int, index: Number, mask: Number, unit: int
) -> tuple[Array, Array]:
    """Return the positions of a load or store and which of its lanes are touched."""
    at = np.asarray(index) if not isinstance(index, int) else index * unit + np.arange(lanes)
    live = np.ones(lanes, np.bool_) if mask is None else np.asarray(mask).copy()
    if expr.active is not None:
        live[expr.active :] = False
    return at, live


def _step(expr: loops.Expr, at: tuple[int, ...]) -> Step:
    if isinstance(expr, loops.Const):
        return _const(expr)
    if isinstance(expr, loops.Var):
        name = expr.name
        return lambda t, _: t.vars[name]
    if isinstance(expr, loops.Load):
        return _load(expr, at)
    if isinstance(expr, loops.Apply):
        return _apply(expr, at)
    return _shape(expr, at)


def _const(expr: loops.Const) -> Step:
    if expr.dtype == i64 and expr.lanes == 1:
        number = wrap(int(expr.value))
        return lambda _, __: number
    array = scalars.cast(np.full(expr.lanes, expr.value), expr.dtype)
    return lambda _, __: array


def _load(expr: loops.Load, at: tuple[int, ...]) -> Step:
    plain = expr.lanes == 1 and expr.mask is None and expr.active is None
    if plain and expr.index.lanes == 1:
        return _load_one(expr, at[0])

    def load(t: Threadlike, slots: list[Number]) -> Number:
        memory = t.memory(expr.buffer)
        mask = slots[at[1]] if len(at) > 1 else None
        positions, live = touched(expr, expr.lanes, slots[at[0]], mask, memory.unit)
        out = np.full(expr.lanes, expr.other, memory.data.dtype)
        out[live] = memory.read(positions[live], t.stamp)
        return as_number(out, expr.dtype, expr.lanes)

    return load


def _load_one(expr: loops.Load, slot: int) -> Step:
    name = expr.buffer

    def load(t: Threadlike, slots: list[Number]) -> Number:
        memory = t.memory(name)
        return memory.read_one(slots[slot] * memory.unit, t.stamp)

    if expr.dtype != i64:
        return load
    return lambda t, slots: int(load(t, slots)[0])


FALSE_TRUE = (np.array([False]), np.array([True]))
_QUICK: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, y: wrap(x + y),
    "sub": lambda x, y: wrap(x - y),
    "mul": lambda x, y: wrap(x * y),
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "min": min,
    "max": max,
}
"""Arithmetic of indices, which are Python ints."""

_QUICK_TESTS: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
}


def _apply(expr: loops.Apply, at: tuple[int, ...]) -> Step:
    name, of, lanes = expr.op, expr.args[-1].dtype, expr.lanes
    types = [a.dtype for a in expr.args]
    if of == i64 and lanes == 1 and len(at) == 2:
        a, b = at
        if name in _QUICK:
            quick = _QUICK[name]
            return lambda _, slots: quick(slots[a], slots[b])
        if name in _QUICK_TESTS:
            test = _QUICK_TESTS[name]
            return lambda _, slots: FALSE_TRUE[test(slots[a], slots[b])]

    def apply(_: Threadlike, slots: list[Number]) -> Number:
        xs = tuple([as_lanes(slots[i], t) for i, t in zip(at, types, strict=True)])
        return scalars.apply(name, xs, of)

    if expr.dtype != i64 or lanes != 1:
        return apply
    return lambda t, slots: int(apply(t, slots)[0])


def _shape(expr: loops.Expr, at: tuple[int, ...]) -> Step:
    (a,) = at
    dtype, lanes = expr.dtype, expr.lanes
    (of,) = (p.dtype for p in parts(expr))
    if isinstance(expr, loops.Cast):
        return lambda _, s: as_number(scalars.cast(as_lanes(s[a], of), dtype), dtype, lanes)
    if isinstance(expr, loops.Bitcast):
        return lambda _, s: as_number(scalars.bitcast(as_lanes(s[a], of), dtype), dtype, lanes)
    if isinstance(expr, loops.Splat):
        return lambda _, s: as_number(np.repeat(as_lanes(s[a], of), lanes), dtype, lanes)
    if isinstance(expr, loops.Ramp):
        return lambda _, s: as_number(s[a] + np.arange(lanes), dtype, lanes)
    if isinstance(expr, loops.Lanes):
        combine = expr.combine
        return lambda _, s: as_number(
            scalars.tree(combine, as_lanes(s[a], of), of)[None], dtype, lanes
        )
    raise VerifyError(f"no expression of a kernel is a {type(expr).__name__}")
