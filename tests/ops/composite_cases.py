"""Rows of composites. Each is decomposed and run; the oracle is its own reference or a loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir import dtype as dt
from tapeout.ir.build import Builder
from tapeout.ir.type import TensorType
from tapeout.ops.composite.custom import Custom
from tapeout.ops.composite.loss import SoftmaxCrossEntropy
from tapeout.ops.composite.norm import BatchNorm, BatchNormInference, Normalize, RmsNorm
from tapeout.ops.composite.pool import MaxPool
from tapeout.ops.composite.resample import Resample, transposed
from tapeout.ops.composite.softmax import LogSoftmax, LogSumExp, Softmax
from tapeout.ops.sym import Sym
from tests.ops.cases import Case, Operand

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.op import Array, Composite

INF = math.inf
FLOATS = (dt.f64, dt.f32, dt.bf16)


def rows(
    op: Composite, shape: tuple[int, ...], function: Callable[[Array], Array], **more: Any
) -> list[Case]:
    """Return a row per float type; the oracle computes in f64."""

    def expected(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(x.astype(np.float64))).astype(x.dtype)

    return [
        Case(
            op,
            (Operand(d, shape, **more),),
            "reduction",
            expected,
            at=False,
            order=0 if more else 2,
        )
        for d in FLOATS[: 2 if more else 3]
    ]


def naive_softmax(axis: int) -> Callable[[Array], Array]:
    return lambda x: np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def log_sum(axes: tuple[int, ...]) -> Callable[[Array], Array]:
    return lambda x: np.log(np.exp(x).sum(axes))


BIG = (1000.0, 999.0, -1000.0, 998.0, -INF)

SOFTMAX = [
    *rows(Softmax(axis=1), (3, 5), naive_softmax(1)),
    *rows(Softmax(axis=0), (4, 2, 2), naive_softmax(0)),
    *rows(Softmax(axis=0), (4,), lambda x: np.full(4, np.nan), values=(-INF,) * 4),
    *rows(
        Softmax(axis=0),
        (3,),
        lambda x: np.array([1, math.exp(-1), 0]) / (1 + math.exp(-1)),
        values=(1000.0, 999.0, -INF),
    ),
    *rows(LogSoftmax(axis=1), (3, 5), lambda x: np.log(naive_softmax(1)(x))),
    *rows(
        LogSoftmax(axis=0),
        (3,),
        lambda x: np.array([0, -1, -2000]) - math.log1p(math.exp(-1)),
        values=(1000.0, 999.0, -1000.0),
    ),
    *rows(LogSumExp(axes=(1,)), (3, 5), log_sum((1,))),
    *rows(LogSumExp(axes=(0, 2)), (2, 3, 2), log_sum((0, 2))),
    *rows(LogSumExp(axes=()), (2, 3), lambda x: x),
    *rows(LogSumExp(axes=(0,)), (2,), lambda x: np.array(-INF), values=(-INF, -INF)),
    *rows(LogSumExp(axes=(0,)), (2,), lambda x: np.array(INF), values=(INF, 1.0)),
    *rows(
        LogSumExp(axes=(0,)), (2,), lambda x: np.array(1000 + math.log(2)), values=(1000.0, 1000.0)
    ),
]


def loss(
    dtype: dt.DType, shape: tuple[int, ...], *, weight: bool = False, **attributes: Any
) -> Case:
    op = SoftmaxCrossEntropy(**attributes)
    classes, outer = shape[-1], shape[:-1]
    count = math.prod(outer)
    labels = tuple(
        op.ignore_index if i == 1 and count > 1 else i * 7 % classes for i in range(count)
    )
    operands = [Operand(dtype, shape), Operand(dt.i64, outer, values=labels)]
    if weight:
        operands.append(Operand(dtype, (classes,), 0.5, 2.0))
    return Case(op, tuple(operands), "reduction", op.reference, at=False)


LOSSES = [
    loss(
        dtype,
        shape,
        weight=weight,
        label_smoothing=smoothing,
        reduction=reduction,
        normalized=normalized,
    )
    for dtype in FLOATS
    for shape in ((4, 5), (2, 3, 4))
    for weight in (False, True)
    for smoothing in (0.0, 0.1)
    for reduction in ("mean", "sum")
    for normalized in (False, True)
] + [
    loss(dt.f64, (3,)),
    loss(dt.f64, (3, 4), ignore_index=2),
    loss(dt.f64, (3, 4), label_smoothing=1.0),
]


def pooled(op: MaxPool) -> Callable[[Array], tuple[Array, Array]]:
    """Return the definition of pooling as a loop over the result."""

    def run(x: Array) -> tuple[Array, Array]:
        d = len(op.kernel)
        counts = [
            (x.shape[2 + i] + op.low[i] + op.high[i] - (op.kernel[i] - 1) * op.dilations[i] - 1)
            // op.strides[i]
            + 1
            for i in range(d)
        ]
        y = np.empty((*x.shape[:2], *counts), x.dtype)
        at = np.empty(y.shape, np.int32)
        for place in np.ndindex(*y.shape):
            best = None
            for number, k in enumerate(np.ndindex(*op.kernel)):
                p = [
                    place[2 + i] * op.strides[i] + k[i] * op.dilations[i] - op.low[i]
                    for i in range(d)
                ]
                if any(not 0 <= q < n for q, n in zip(p, x.shape[2:], strict=True)):
                    continue
                v = x[(*place[:2], *p)]
                if best is None or v > best or (math.isnan(v) and not math.isnan(best)):
                    best, y[place], at[place] = v, v, number
        return y, at

    return run


def pool(shape: tuple[int, ...], kernel: tuple[int, ...], **more: Any) -> list[Case]:
    d = len(kernel)
    rest = {"strides": kernel, "low": (0,) * d, "high": (0,) * d, "dilations": (1,) * d}
    special = more.pop("special", ())
    op = MaxPool(kernel=kernel, **{**rest, **more})
    return [
        Case(
            op,
            (Operand(t, shape, -9, 9, special=special if t.is_float else ()),),
            "exact",
            pooled(op),
            order=0 if special else 1,
            at=False,
        )
        for t in (dt.f64, dt.f32, dt.bf16, dt.i32)
    ]


POOLS = [
    *pool((2, 3, 4, 6), (2, 2)),
    *pool((1, 2, 5, 5), (3, 3), strides=(2, 2), low=(1, 1), high=(1, 1)),
    *pool((1, 2, 7), (3,), strides=(1,), dilations=(2,)),
    *pool((1, 2, 5, 4), (2, 3), strides=(2, 1), low=(0, 1), high=(1, 0)),
    *pool((1, 1, 4, 4), (2, 2), special=(math.nan, 1, math.nan, 2, 3, -INF, 5)),
]


def norm(
    op: Composite, shape: tuple[int, ...], *affine: tuple[int, ...], **more: Any
) -> list[Case]:
    """Return rows with as many of scale and bias as shapes are given; the oracle is the definition in f64."""
    return [
        Case(
            op,
            (
                Operand(d, shape, **more),
                *(Operand(d, s, low, 2.0) for s, low in zip(affine, (0.5, -2.0), strict=False)),
            ),
            "reduction",
            op.reference,
            order=0 if more else 2,
            at=False,
        )
        for d in FLOATS
    ]


NORMS = [
    *norm(BatchNorm(axes=(0, 2)), (3, 2, 4), (2,), (2,)),
    *norm(BatchNorm(axes=(0,), epsilon=0.1), (4, 3), (3,)),
    *norm(BatchNorm(axes=(0,)), (4, 2, 2)),
    *norm(Normalize(axes=(1,), places=(1,)), (3, 4), (4,), (4,)),
    *norm(Normalize(axes=(1, 2), places=(1, 2)), (2, 3, 2), (3, 2)),
    *norm(Normalize(axes=(2, 3), places=(1,)), (2, 3, 2, 2), (3,), (3,)),
    *norm(Normalize(axes=(2, 3), places=(1, 2)), (2, 2, 3, 2), (2, 3), (2, 3)),
    *norm(Normalize(axes=(0, 2), places=()), (3, 2, 2)),
    *norm(RmsNorm(axes=(1,)), (3, 4), (4,)),
    *norm(RmsNorm(axes=(1, 2), epsilon=0.1), (2, 3, 2)),
]


def resampled(axis: int) -> Callable[..., Array]:
    """Return the definition of resampling as a loop over the result."""

    def run(x: Array, places: Array, weights: Array, *_: Array) -> Array:
        moved = np.moveaxis(x, axis, 0).astype(np.float64)
        y = [
            sum(w * moved[p] for p, w in zip(at, ws, strict=True))
            for at, ws in zip(places.T, weights.T.astype(np.float64), strict=True)
        ]
        return np.moveaxis(np.stack(y), 0, axis).astype(x.dtype)

    return run


def resamplings() -> list[Case]:
    """Return rows with few terms, and with so many that they are a reduction."""
    out = []
    for axis, shape, terms in ((0, (5,), 2), (1, (2, 4, 3), 3), (2, (2, 2, 5), 11)):
        rng = np.random.default_rng(terms)
        places = rng.integers(0, shape[axis], (7, terms))
        weights = rng.uniform(-1, 1, (7, terms)).round(3)
        for d in (dt.f64, dt.f32):
            tables = [places, weights, *transposed(places, weights.astype(d.numpy), shape[axis])]
            operands = [
                Operand(k, t.T.shape, values=tuple(t.T.ravel().tolist()))
                for t, k in zip(tables, (dt.i32, d, dt.i32, d), strict=True)
            ]
            x = Operand(d, shape)
            out.append(
                Case(Resample(axis=axis), (x, *operands), "reduction", resampled(axis), 1, at=False)
            )
    return out


def custom() -> list[Case]:
    """Return rows of a function with the true gradient as its rule, and of one without operands' gradient."""
    out = []
    for d in (dt.f64, dt.f32):
        x = TensorType(d, (2, 3))
        b = Builder("formula")
        given = [Sym(b, b.add_input(f"x{i}", x)) for i in (0, 1)]
        b.set_output("y0", (given[0].tanh() * given[1]).value)
        rule = Builder("rule")
        dy, u, v, _ = (Sym(rule, rule.add_input(n, x)) for n in ("dy0", "x0", "x1", "y0"))
        t = u.tanh()
        rule.set_output("d0", (dy * v * (1 - t * t)).value)
        rule.set_output("d1", (dy * t).value)
        op = Custom("bent", b.graph(), rule.graph())
        operands = (Operand(d, (2, 3)), Operand(d, (2, 3)))
        out.append(Case(op, operands, "transcendental", lambda x, y: np.tanh(x) * y, at=False))
    return out


def given(shape: tuple[int, ...], rank: int = 1, **attributes: Any) -> list[Case]:
    """Return rows of normalisation by given statistics."""
    op, affine = BatchNormInference(**attributes), shape[1 : 1 + rank]
    return [
        Case(
            op,
            (
                Operand(d, shape),
                *(Operand(d, affine) for _ in range(3)),
                Operand(d, affine, 0.3, 2.0),
            ),
            "reduction",
            op.reference,
            at=False,
        )
        for d in FLOATS
    ]


NORMS += [*given((2, 3, 4)), *given((3, 2), epsilon=0.1), *given((2, 3, 2), 2)]

CASES = [*custom(), *resamplings(), *SOFTMAX, *LOSSES, *POOLS, *NORMS]
