"""Rows of movement, reductions, gather, scatter and random bits. The oracle is plain numpy or a loop."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir import dtype as dt
from tapeout.ir.tensor import Tensor
from tapeout.ops import gather as ga
from tapeout.ops import movement as mv
from tapeout.ops import reduce as rd
from tapeout.ops import scatter as sc
from tapeout.ops.random import RandomBits
from tapeout.ops.running import CumSum, Recurrence
from tests.ops.cases import Case, Operand

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.op import Array, Op

INF, NAN = math.inf, math.nan
TYPES = (dt.f64, dt.f32, dt.bf16, dt.i32, dt.u8, dt.bool_)


def moved(
    op: Op, shape: tuple[int, ...], expected: Callable[[Array], Array], **more: Any
) -> list[Case]:
    """Return a row per element type of an operation that only moves elements."""
    return [
        Case(
            op,
            (Operand(d, shape, 0 if d.kind in "ub" else -9, 9),),
            "exact",
            expected,
            **{"order": 1, **more},
        )
        for d in TYPES
    ]


def plain(op: Op, expected: Callable[..., Array], *operands: Operand, **more: Any) -> Case:
    return Case(op, operands, more.pop("kind", "exact"), expected, **{"order": 1, **more})


def x(*shape: int, dtype: dt.DType = dt.f64, **more: Any) -> Operand:
    return Operand(dtype, shape, **more)


def slid(op: mv.Windows) -> Callable[[Array], Array]:
    """Return the definition of windows as a loop over the result."""

    def run(a: Array) -> Array:
        out = op.counted(a.shape)
        y = np.full(out, op.value).astype(a.dtype)
        for at in np.ndindex(*out):
            place = list(at[: a.ndim])
            for i, axis in enumerate(op.axes):
                place[axis] = (
                    at[axis] * op.strides[i] + at[a.ndim + i] * op.dilations[i] - op.low[i]
                )
            if all(0 <= p < n for p, n in zip(place, a.shape, strict=True)):
                y[at] = a[tuple(place)]
        return y

    return run


def folded(op: mv.Fold) -> Callable[[Array], Array]:
    """Return the definition of fold as a loop over the windows."""

    def run(w: Array) -> Array:
        y = np.zeros(op.shape)
        for at in np.ndindex(*w.shape):
            place = list(at[: y.ndim])
            for i, axis in enumerate(op.axes):
                place[axis] = (
                    at[axis] * op.strides[i] + at[y.ndim + i] * op.dilations[i] - op.low[i]
                )
            if all(0 <= p < n for p, n in zip(place, op.shape, strict=True)):
                y[tuple(place)] += float(w[at])
        return y.astype(w.dtype)

    return run


def padded(op: mv.Pad) -> Callable[[Array], Array]:
    """Return the definition of padding as a loop over the operand."""

    def run(a: Array) -> Array:
        shape = [
            lo + hi + (n + (n - 1) * k if n else 0)
            for n, lo, hi, k in zip(a.shape, op.low, op.high, op.interior, strict=True)
        ]
        y = np.full(shape, op.value).astype(a.dtype)
        for at in np.ndindex(*a.shape):
            place = [lo + i * (k + 1) for i, lo, k in zip(at, op.low, op.interior, strict=True)]
            if all(0 <= p < n for p, n in zip(place, shape, strict=True)):
                y[tuple(place)] = a[at]
        return y

    return run


def pads(
    *rows: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], float],
) -> list[Case]:
    out = []
    for shape, low, high, interior, value in rows:
        op = mv.Pad(low=low, high=high, interior=interior, value=value)
        out += moved(op, shape, padded(op))
    return out


def windows(
    shape: tuple[int, ...], value: float = 0.0, **attributes: tuple[int, ...]
) -> list[Case]:
    """Return rows of windows and of their adjoint."""
    n = len(attributes["axes"])
    rest = {"strides": (1,) * n, "dilations": (1,) * n, "low": (0,) * n, "high": (0,) * n}
    given = {**rest, **attributes}
    there = mv.Windows(**given, value=value)  # type: ignore[arg-type]
    back = mv.Fold(**given, shape=shape)  # type: ignore[arg-type]
    return [
        *moved(there, shape, slid(there)),
        *(
            Case(back, (Operand(d, there.counted(shape)),), "reduction", folded(back), order=1)
            for d in (dt.f64, dt.f32, dt.bf16, dt.i32)
        ),
    ]


MOVEMENT = [
    plain(mv.Constant(tensor=Tensor.of(np.full((2, 3), 1.5))), lambda: np.full((2, 3), 1.5)),
    plain(mv.Constant(tensor=Tensor.of(np.array(7))), lambda: np.array(7)),
    plain(mv.Constant(tensor=Tensor.of(np.arange(3.0))), lambda: np.array([0.0, 1, 2]), at=False),
    plain(mv.Iota(shape=(2, 3), axis=1), lambda: np.array([[0, 1, 2]] * 2, np.int32)),
    plain(mv.Iota(shape=(4,), axis=0, dtype=dt.f64), lambda: np.array([0.0, 1, 2, 3])),
    plain(mv.Iota(shape=(3, 1), axis=1, dtype=dt.i64), lambda: np.zeros((3, 1), np.int64)),
    *moved(mv.Reshape(shape=(4, 6)), (2, 3, 4), lambda a: a.ravel().reshape(4, 6)),
    *moved(
        mv.Reshape(shape=(2, 2, 1, 3, 2)), (4, 3, 2), lambda a: a.ravel().reshape(2, 2, 1, 3, 2)
    ),
    *moved(mv.Reshape(shape=(6,)), (6, 1), lambda a: a.ravel()),
    *moved(mv.Reshape(shape=()), (1, 1), lambda a: np.array(a[0, 0])),
    *moved(mv.Reshape(shape=(1,)), (), lambda a: np.array([a[()]])),
    *moved(mv.Transpose(perm=(2, 0, 1)), (2, 3, 4), lambda a: np.moveaxis(a, 2, 0)),
    *moved(mv.Transpose(perm=()), (), lambda a: a),
    *moved(
        mv.Broadcast(shape=(2, 3, 4), axes=(1,)),
        (3,),
        lambda a: np.stack([np.stack([a] * 4, 1)] * 2),
    ),
    *moved(mv.Broadcast(shape=(3, 4), axes=(0, 1)), (3, 1), lambda a: np.repeat(a, 4, 1)),
    *moved(mv.Broadcast(shape=(2, 2), axes=()), (), lambda a: np.full((2, 2), a)),
    *moved(mv.Slice(starts=(1, 0), limits=(3, 5), strides=(1, 2)), (3, 5), lambda a: a[1:3, 0:5:2]),
    *moved(
        mv.Slice(starts=(1, 0), limits=(1, 2), strides=(1, 1)),
        (3, 5),
        lambda a: a[1:1, :2],
        zero=True,
    ),
    *pads(
        ((2, 3), (1, 0), (0, 2), (0, 0), 0.0),
        ((2, 3), (1, 2), (1, 1), (1, 2), 7.0),
        ((4, 5), (-1, 1), (-2, -3), (0, 0), 1.0),
        ((3, 4), (-1, 2), (1, -2), (2, 1), 0.0),
        ((), (), (), (), 0.0),
    ),
    *moved(mv.Reverse(axes=(0, 2)), (2, 3, 2), lambda a: a[::-1, :, ::-1]),
    *(
        Case(
            mv.Concat(axis=1),
            (Operand(d, (2, 1), 0, 9), Operand(d, (2, 3), 0, 9), Operand(d, (2, 2), 0, 9)),
            "exact",
            lambda *parts: np.hstack(parts),
            order=1,
        )
        for d in TYPES
    ),
    plain(mv.Concat(axis=0), lambda a: a, x(2, 2)),
    *windows((2, 6), axes=(1,), sizes=(3,)),
    *windows((5, 4), axes=(0, 1), sizes=(2, 2), strides=(2, 1)),
    *windows((7, 2), 3.0, axes=(0,), sizes=(3,), strides=(2,), dilations=(2,), low=(2,), high=(1,)),
    *windows((6, 7), axes=(0, 1), sizes=(2, 3), strides=(2, 3), high=(0, 2), low=(0, 0)),
    *windows((6, 4), axes=(0, 1), sizes=(3, 2), strides=(3, 2)),
    *windows((7,), axes=(0,), sizes=(2,), strides=(2,)),
    *windows((8,), axes=(0,), sizes=(3,), strides=(1,), low=(-2,), high=(-1,)),
]


def reduced(
    op: Callable[..., Op],
    function: Callable[..., Any],
    dtypes: str = "f64 f32 f16 bf16 i32 u8",
    kind: str = "reduction",
    order: int = 1,
    special: tuple[float, ...] = (),
) -> list[Case]:
    """Return rows per element type and choice of axes; `function` reduces a list of numbers."""
    rows = []
    for name in dtypes.split():
        for shape, axes in (((3, 4), (1,)), ((2, 3, 2), (0, 2)), ((5,), (0,)), ((2, 3), ())):
            d = dt.BY_NAME[name]
            low = 0 if d.kind in "ub" else -3
            drawn = Operand(d, shape, low, 3, special=special if d.is_float else ())
            expected = listwise(function, axes)
            label = "special" if special else ""
            grad = 0 if special else order
            rows.append(Case(op(axes=axes), (drawn,), kind, expected, order=grad, label=label))
    return rows


def listwise(function: Callable[..., Any], axes: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return a reduction that calls a function of a list for each element of the result."""

    def run(a: Array) -> Array:
        kept = [d for d in range(a.ndim) if d not in axes]
        outer = [a.shape[d] for d in kept]
        flat = a.transpose([*kept, *axes]).reshape([math.prod(outer), -1])
        wide = flat.astype(np.float64) if flat.dtype.kind not in "iub" else flat
        found = np.array([function(row.tolist()) for row in wide])
        if a.dtype.kind == "u" and found.dtype.kind in "iu":
            found = found % (1 << 8 * a.dtype.itemsize)
        return found.reshape(outer)

    def typed(a: Array) -> Array:
        found = run(a)
        integer = function in (first_greatest, first_least)
        return found.astype(np.int32 if integer else a.dtype)

    return typed


def first_greatest(row: list[float]) -> int:
    """Return the place of the first NaN, or of the first greatest."""
    return next((i for i, v in enumerate(row) if math.isnan(v)), row.index(max(row)))


def first_least(row: list[float]) -> int:
    """Return the place of the first NaN, or of the first least."""
    return next((i for i, v in enumerate(row) if math.isnan(v)), row.index(min(row)))


def greatest(row: list[float]) -> float:
    return row[first_greatest(row)]


def least(row: list[float]) -> float:
    return row[first_least(row)]


def running(exclusive: bool, reverse: bool) -> Callable[[Array], Array]:
    """Return running sums along axis 1 as a loop."""

    def run(a: Array) -> Array:
        y = np.zeros_like(a)
        n = a.shape[1]
        for i, j in itertools.product(range(n), range(n)):
            before = j > i if reverse else j < i
            if before or (i == j and not exclusive):
                y[:, i] += a[:, j]
        return y

    return run


REDUCTIONS = [
    *reduced(rd.ReduceSum, math.fsum, "f64 f32 f16 bf16"),
    *reduced(rd.ReduceSum, sum, "i32 u8 i64"),
    *reduced(rd.ReduceProd, math.prod, order=2),
    *reduced(rd.ReduceMax, greatest, kind="exact"),
    *reduced(rd.ReduceMin, least, kind="exact"),
    *reduced(rd.ReduceMax, greatest, "f64 f32 bf16", "exact", special=(NAN, 1, INF, -INF, NAN)),
    *reduced(rd.ReduceMin, least, "f64 f32 bf16", "exact", special=(NAN, 1, INF, -INF, NAN)),
    *reduced(rd.ReduceAny, any, "bool", "exact", 0),
    *reduced(rd.ReduceAll, all, "bool", "exact", 0),
    *reduced(rd.ArgMax, first_greatest, kind="exact", order=0),
    *reduced(rd.ArgMin, first_least, kind="exact", order=0),
    *reduced(rd.ArgMax, first_greatest, "f64 bf16", "exact", 0, special=(1, 2, 2, NAN, NAN)),
    *reduced(rd.ArgMin, first_least, "f64 bf16", "exact", 0, special=(1, 0, 0, NAN, NAN)),
    plain(
        rd.ReduceSum(axes=(0,)),
        lambda a: np.array(3000, a.dtype),
        x(3000, dtype=dt.bf16, low=1.0, high=1.0),
        kind="reduction",
        order=0,
    ),
    plain(rd.ReduceSum(axes=(1,)), lambda a: np.zeros(2), x(2, 0), zero=True, order=0),
    plain(rd.ReduceMax(axes=(1,)), lambda a: np.full(2, -INF), x(2, 0), order=0),
    plain(rd.ReduceMin(axes=(1,)), lambda a: np.full(2, INF), x(2, 0), order=0),
    plain(rd.ReduceProd(axes=(1,)), lambda a: np.ones(2), x(2, 0), order=0),
    *(
        Case(
            CumSum(axis=1, exclusive=e, reverse=r),
            (Operand(d, (2, 5), 0, 9),),
            "reduction",
            running(e, r),
            order=1,
        )
        for e in (False, True)
        for r in (False, True)
        for d in (dt.f64, dt.f32, dt.i32)
    ),
    plain(
        CumSum(axis=1, exclusive=True),
        running(exclusive=True, reverse=False),
        x(1, 4, values=(1.0, INF, 2.0, 3.0)),
        order=0,
    ),
]


def indices(*shape: int, n: int, dtype: dt.DType = dt.i64) -> Operand:
    """Return places along an axis of n, from both ends, some of them twice."""
    low = 0 if dtype.kind == "u" else -n
    return Operand(dtype, shape, low, n - 1, special=(0, 0, n - 1) if math.prod(shape) > 2 else ())


def taken(axis: int) -> Callable[[Array, Array], Array]:
    def run(a: Array, at: Array) -> Array:
        parts = [np.asarray(a[(slice(None),) * axis + (int(i),)]) for i in at.flat]
        joined = np.stack(parts, axis) if at.ndim else parts[0]
        return joined.reshape((*a.shape[:axis], *at.shape, *a.shape[axis + 1 :]))

    return run


def added(axis: int) -> Callable[[Array, Array, Array], Array]:
    def run(a: Array, at: Array, updates: Array) -> Array:
        y = np.moveaxis(a.copy(), axis, 0)
        flat = updates.reshape(*a.shape[:axis], -1, *a.shape[axis + 1 :])
        for i, part in zip(at.flat, np.moveaxis(flat, axis, 0), strict=True):
            y[int(i)] += part
        return np.moveaxis(y, 0, axis)

    return run


def along(axis: int) -> Callable[[Array, Array], Array]:
    def run(a: Array, at: Array) -> Array:
        y = np.empty(at.shape, a.dtype)
        for p in np.ndindex(*at.shape):
            q = list(p)
            q[axis] = int(at[p])
            y[p] = a[tuple(q)]
        return y

    return run


def added_along(axis: int) -> Callable[[Array, Array, Array], Array]:
    def run(a: Array, at: Array, updates: Array) -> Array:
        y = a.copy()
        for p in np.ndindex(*at.shape):
            q = list(p)
            q[axis] = int(at[p])
            y[tuple(q)] += updates[p]
        return y

    return run


GATHER = [
    *(
        plain(ga.Take(axis=0), taken(0), x(4, 3, dtype=d), indices(2, 2, n=4))
        for d in (dt.f64, dt.f32, dt.bf16)
    ),
    plain(ga.Take(axis=1), taken(1), x(2, 5, 3), indices(4, n=5, dtype=dt.i32)),
    plain(ga.Take(axis=1), taken(1), x(2, 5), indices(3, n=5, dtype=dt.u8)),
    plain(ga.Take(axis=0), taken(0), x(5), indices(n=5)),
    plain(ga.Take(axis=0), taken(0), x(5, dtype=dt.i32), indices(3, n=5), order=0),
    plain(
        ga.ScatterAdd(axis=0), added(0), x(4, 3), indices(2, 2, n=4), x(2, 2, 3), kind="reduction"
    ),
    plain(
        ga.ScatterAdd(axis=1), added(1), x(2, 5, 2), indices(6, n=5), x(2, 6, 2), kind="reduction"
    ),
    plain(
        ga.ScatterAdd(axis=0),
        added(0),
        x(4, dtype=dt.i32),
        indices(5, n=4, dtype=dt.i32),
        x(5, dtype=dt.i32),
        order=0,
    ),
    plain(ga.TakeAlong(axis=1), along(1), x(3, 4), indices(3, 2, n=4)),
    plain(ga.TakeAlong(axis=0), along(0), x(3, 4, 2), indices(5, 3, 2, n=3, dtype=dt.i32)),
    plain(
        ga.ScatterAddAlong(axis=1),
        added_along(1),
        x(3, 4),
        indices(3, 5, n=4),
        x(3, 5),
        kind="reduction",
    ),
    plain(
        ga.ScatterAddAlong(axis=0),
        added_along(0),
        x(3, 4),
        indices(4, 2, n=3),
        x(4, 2),
        kind="reduction",
    ),
]


def put(axis: int, reduction: str, rows: bool) -> Callable[[Array, Array, Array], Array]:
    """Return the definition of scatters as a loop over the updates, in order."""
    one = {
        "set": lambda old, new: new,
        "mul": lambda old, new: old * new,
        "max": max,
        "min": min,
    }[reduction]

    def run(a: Array, at: Array, updates: Array) -> Array:
        y = a.copy()
        for p in np.ndindex(*updates.shape):
            q = (
                [*p[:axis], int(at[p[axis : axis + at.ndim]]), *p[axis + at.ndim :]]
                if rows
                else list(p)
            )
            q[axis] = q[axis] if rows else int(at[p])
            y[tuple(q)] = one(y[tuple(q)], updates[p])
        return y

    return run


def puts() -> list[Case]:
    """Return rows of every reduction, with places that several updates share."""
    out = []
    for how in ("set", "mul", "max", "min"):
        order = 2 if how == "mul" else 1
        kind = "reduction" if how == "mul" else "exact"
        rows, along = sc.ScatterRows(axis=0, reduction=how), sc.ScatterAlong(axis=1, reduction=how)
        out += [
            plain(
                rows,
                put(0, how, True),
                x(4, 3),
                indices(2, 3, n=4),
                x(2, 3, 3),
                kind=kind,
                order=order,
            ),
            plain(
                rows,
                put(0, how, True),
                x(4),
                indices(6, n=4, dtype=dt.i32),
                x(6),
                kind=kind,
                order=order,
            ),
            plain(
                rows,
                put(0, how, True),
                x(4, 33, dtype=dt.f32),
                indices(5, n=4),
                x(5, 33, dtype=dt.f32),
                kind=kind,
            ),
            plain(rows, put(0, how, True), x(4, dtype=dt.i32), indices(5, n=4), x(5, dtype=dt.i32)),
            plain(
                along,
                put(1, how, False),
                x(3, 4),
                indices(3, 5, n=4),
                x(3, 5),
                kind=kind,
                order=order,
            ),
            plain(
                along,
                put(1, how, False),
                x(3, 4, dtype=dt.f32),
                indices(2, 5, n=4),
                x(2, 5, dtype=dt.f32),
                kind=kind,
            ),
        ]
        one = sc.ScatterRows(axis=1, reduction=how)
        out.append(
            plain(one, put(1, how, True), x(2, 5, 2), indices(6, n=5), x(2, 6, 2), kind=kind)
        )
    at = Operand(dt.i64, (4,), values=(0, 0, 1, 1))
    for zeros in ((0.0, 3.0, 0.0, 0.0), (2.0, 0.0, 4.0, 5.0)):
        update = Operand(dt.f64, (4,), values=zeros)
        op = sc.ScatterRows(axis=0, reduction="mul")
        out.append(plain(op, put(0, "mul", True), x(3), at, update, kind="reduction"))
    flags = sc.ScatterRows(axis=0)
    out.append(plain(flags, put(0, "set", True), x(3, dtype=dt.bool_), at, x(4, dtype=dt.bool_)))
    return out


def recurrent(axis: int, reverse: bool) -> Callable[[Array, Array], Array]:
    """Return the definition of a recurrence as a loop."""

    def run(a: Array, b: Array) -> Array:
        p, q = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
        rows: list[Any] = []
        for f, c in zip(p[::-1], q[::-1], strict=True) if reverse else zip(p, q, strict=True):
            rows.append(c + (f * rows[-1] if rows else 0))
        return np.moveaxis(np.stack(rows[::-1] if reverse else rows), 0, axis)

    return run


RUNNING = [
    *(
        plain(
            Recurrence(axis=a, reverse=r),
            recurrent(a, r),
            x(*s, dtype=d),
            x(*s, dtype=d),
            kind="reduction",
            order=2,
        )
        for r in (False, True)
        for a, s in ((0, (5,)), (1, (2, 4, 3)), (2, (2, 3, 6)), (0, (4, 37)))
        for d in (dt.f64, dt.f32, dt.i32)
    ),
    plain(Recurrence(axis=0), recurrent(0, False), x(1, 2), x(1, 2), kind="reduction"),
]


def _scalar(value: int) -> Operand:
    return Operand(dt.i64, (), values=(value,))


RANDOM = [
    Case(RandomBits(shape=shape, stream=stream), (_scalar(seed), _scalar(step)), order=0)
    for shape, stream, seed, step in (
        ((4,), 0, 0, 0),
        ((3, 7), 5, 1234567890123456789, 3),
        ((13,), 0xFFFFFFFF, -1, 1 << 40),
        ((), 1, 2, 3),
        ((2, 0), 1, 2, 3),
    )
]

CASES = [*MOVEMENT, *REDUCTIONS, *GATHER, *puts(), *RUNNING, *RANDOM]
