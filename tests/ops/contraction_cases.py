"""Rows of matrix products and convolutions. The oracle sums the definition term by term."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir import dtype as dt
from tapeout.ops.contraction import Conv, DotGeneral
from tests.ops.cases import Case, Operand

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.op import Array

Ints = tuple[int, ...]


def dot(contract: tuple[Ints, Ints], batch: tuple[Ints, Ints], a: Ints, b: Ints) -> list[Case]:
    """Return a row per element type."""
    op = DotGeneral(
        contract_a=contract[0], contract_b=contract[1], batch_a=batch[0], batch_b=batch[1]
    )
    letters = iter("abcdefghij")
    left, right = [""] * len(a), [""] * len(b)
    for i, j in [*zip(*batch, strict=True), *zip(*contract, strict=True)]:
        left[i] = right[j] = next(letters)
    left = [c or next(letters) for c in left]
    right = [c or next(letters) for c in right]
    free = [c for d, c in enumerate(left) if d not in (*contract[0], *batch[0])]
    free += [c for d, c in enumerate(right) if d not in (*contract[1], *batch[1])]
    out = "".join([left[i] for i in batch[0]] + free)
    formula = f"{''.join(left)},{''.join(right)}->{out}"

    def expected(x: Array, y: Array) -> Array:
        if x.dtype.kind in "iu":
            return np.einsum(formula, x, y)
        return np.einsum(formula, x.astype(np.float64), y.astype(np.float64)).astype(x.dtype)

    return [
        Case(op, (Operand(d, a), Operand(d, b)), "contraction", expected, order=2)
        for d in (dt.f64, dt.f32, dt.bf16, dt.i32)
    ]


def convolution(
    x: Ints,
    w: Ints,
    strides: Ints | None = None,
    low: Ints | None = None,
    high: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> list[Case]:
    """Return rows for the result, for the data and for the weight of a convolution."""
    d = len(x) - 2
    attributes = {
        "strides": strides or (1,) * d,
        "low": low or (0,) * d,
        "high": high or (0,) * d,
        "dilations": dilations or (1,) * d,
    }
    forward = Conv(out="y", groups=groups, **attributes)
    y = forward.result_shape(x, w)
    data = Conv(out="x", groups=groups, shape=x, **attributes)
    weight = Conv(out="w", groups=groups, shape=w, **attributes)
    shapes = {"x": x, "w": w, "y": y}
    rows = []
    for op, first, second in ((forward, "x", "w"), (data, "y", "w"), (weight, "x", "y")):
        for dtype in (dt.f64, dt.f32, dt.bf16):
            operands = (Operand(dtype, shapes[first]), Operand(dtype, shapes[second]))
            expected = by_definition(op, shapes, first, second)
            rows.append(
                Case(op, operands, "contraction", expected, order=2 if dtype == dt.f64 else 0)
            )
    return rows


def by_definition(
    op: Conv, shapes: dict[str, Ints], first: str, second: str
) -> Callable[..., Array]:
    """Return the trilinear form, summed over every (sample, group, features, place, tap)."""
    x, w, y = (shapes[k] for k in "xwy")

    def run(a: Array, b: Array) -> Array:
        known = {first: a.astype(np.float64), second: b.astype(np.float64)}
        out = np.zeros(shapes[op.out])
        per_group = w[0] // op.groups
        for n, f, c in np.ndindex(x[0], w[0], w[1]):
            channel = f // per_group * w[1] + c
            for o in np.ndindex(*y[2:]):
                for k in np.ndindex(*w[2:]):
                    p = [
                        o[i] * op.strides[i] + k[i] * op.dilations[i] - op.low[i]
                        for i in range(len(o))
                    ]
                    if any(not 0 <= q < m for q, m in zip(p, x[2:], strict=True)):
                        continue
                    at = {"x": (n, channel, *p), "w": (f, c, *k), "y": (n, f, *o)}
                    out[at[op.out]] += known[first][at[first]] * known[second][at[second]]
        return out.astype(a.dtype)

    return run


NONE = ((), ())
CASES = [
    *dot(((1,), (0,)), NONE, (3, 4), (4, 5)),
    *dot(((1,), (1,)), NONE, (3, 4), (2, 4)),
    *dot(((0,), (0,)), NONE, (4,), (4,)),
    *dot(((), ()), NONE, (3,), (2,)),
    *dot(((2,), (1,)), ((0,), (0,)), (2, 3, 4), (2, 4, 3)),
    *dot(((0, 2), (2, 0)), NONE, (2, 3, 4), (4, 2, 2)),
    *dot(((2, 0), (0, 2)), NONE, (2, 3, 4), (4, 2, 2)),
    *dot(((3,), (1,)), ((2, 0), (0, 3)), (2, 3, 2, 4), (2, 4, 3, 2)),
    *convolution((2, 2, 6), (3, 2, 3)),
    *convolution((1, 2, 5, 6), (3, 2, 3, 2), strides=(2, 1), low=(1, 0), high=(1, 1)),
    *convolution((2, 4, 7), (6, 2, 2), strides=(2,), dilations=(2,), low=(2,), high=(1,), groups=2),
    *convolution((1, 3, 5, 5), (3, 1, 3, 3), low=(1, 1), high=(1, 1), groups=3),
    *convolution((1, 2, 8), (2, 2, 3), strides=(3,)),
    *convolution((1, 1, 7), (1, 1, 2), low=(-1,), high=(-2,)),
    *convolution((1, 1, 3, 4, 3), (2, 1, 2, 2, 2), strides=(1, 2, 1)),
]
assert all(math.prod(o.shape) <= 130 for c in CASES for o in c.operands)
