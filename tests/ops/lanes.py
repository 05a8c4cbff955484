"""Evaluates `at` of an operation with numpy: all elements of the result at once, one lane each.

Every read is checked: inside its guards it must lie inside the operand. Every scalar operation is checked against its signature.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.affine import Affine, Axis, index_of
from tapeout.ir.dtype import bool_, from_numpy, i64
from tapeout.ir.op import Pointwise, Reduction, Running, Scatter
from tapeout.ir.scalar import SCALAR_OPS, ScalarOps
from tapeout.ir.type import TensorType
from tapeout.oracle import scalars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.affine import Guard
    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array, Op


class Lanes(ScalarOps[np.ndarray]):
    """Scalars as arrays with one entry per point of a grid of axes."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        """Lay out the grid, row-major."""
        extents = [a.extent for a in axes]
        self.count = math.prod(extents)
        grid = np.indices(extents).reshape(len(extents), self.count)
        self.places = dict(zip(axes, grid.astype(np.int64), strict=True))

    def const(self, value: float, dtype: DType) -> Array:
        with np.errstate(all="ignore"):
            return np.full(self.count, np.array(value).astype(dtype.numpy))

    def cast(self, x: Array, dtype: DType) -> Array:
        with np.errstate(all="ignore"):
            return scalars.cast(x, dtype)

    def bitcast(self, x: Array, dtype: DType) -> Array:
        assert x.dtype.itemsize == dtype.bytes
        return scalars.bitcast(x, dtype)

    def index(self, index: Affine) -> Array:
        found = Affine.of(index).evaluate(lambda a: self.places[a])  # type: ignore[arg-type, return-value]
        return np.broadcast_to(np.asarray(found, np.int64), (self.count,))

    def dtype(self, x: Array) -> DType:
        return from_numpy(x.dtype)

    def apply(self, name: str, *xs: Array) -> Array:
        signature = SCALAR_OPS[name]
        dtypes = [self.dtype(x) for x in xs]
        assert len(xs) == signature.arity, name
        if name == "select":
            assert dtypes.pop(0) == bool_, name
        assert len(set(dtypes)) == 1 and dtypes[0].kind in signature.kinds, (name, dtypes)
        with np.errstate(all="ignore"):
            out = scalars.apply(name, xs, dtypes[-1])
        assert self.dtype(out) == (bool_ if signature.result == "bool" else dtypes[-1]), name
        return out

    def read(self, x: Array):
        """Return what reads elements of an operand."""

        def read(
            index: Sequence[Affine | Array], where: Sequence[Guard] = (), other: float = 0.0
        ) -> Array:
            assert len(index) == x.ndim
            inside = np.ones(self.count, bool)
            for guard in where:
                place = self.index(guard.index)
                inside &= (guard.lo <= place) & (place < guard.hi)
            places = [self._place(i) for i in index]
            for place, n in zip(places, x.shape, strict=True):
                assert ((place >= 0) & (place < n) | ~inside).all(), "a read outside of its operand"
            fill = self.const(other, from_numpy(x.dtype))
            if not x.size:
                return fill
            bounded = [np.clip(p, 0, n - 1) for p, n in zip(places, x.shape, strict=True)]
            found = x[tuple(bounded)] if x.ndim else np.full(self.count, x)
            return np.where(inside, found, fill)

        return read

    def _place(self, index: Affine | Array) -> Array:
        if isinstance(index, np.ndarray):
            assert from_numpy(index.dtype) == i64
            return index
        return self.index(index)


def evaluate(op: Op, arrays: tuple[Array, ...]) -> Array:
    """Return the result of an operation, element by element."""
    types = tuple(TensorType(from_numpy(a.dtype), a.shape) for a in arrays)
    (out,) = op.infer(*types)
    axes = [Axis(f"i{d}", int(n)) for d, n in enumerate(out.shape)]
    if isinstance(op, Pointwise):
        s = Lanes(axes)
        y = op.at(s, index_of(axes), types, *map(s.read, arrays))
        assert from_numpy(y.dtype) == out.dtype
        return np.broadcast_to(y, (s.count,)).reshape(out.shape)
    if isinstance(op, Reduction):
        return _reduce(op, arrays, types, out, axes)
    if isinstance(op, Running):
        return _run(op, arrays, types, out)
    assert isinstance(op, Scatter)
    x, indices, updates = arrays
    points = [Axis(f"p{d}", int(n)) for d, n in enumerate(updates.shape)]
    s = Lanes(points)
    places = op.place(s, index_of(points), types, s.read(indices))  # type: ignore[attr-defined]
    y = x.copy()
    at = tuple(np.broadcast_to(s._place(p), (s.count,)) for p in places)
    if op.combine == "set":
        y[at] = updates.reshape(-1)
        return y
    _AT[op.combine](y, at, updates.reshape(-1))
    return y


_AT = {
    "add": np.add.at,
    "mul": np.multiply.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def _run(op: Running, arrays: tuple[Array, ...], types: tuple[TensorType, ...], out: TensorType):
    """Make the result one place along the axis after the other; what is not made yet is NaN or wrong."""
    n = out.shape[op.axis]
    y = np.full(out.shape, math.nan if out.dtype.is_float else 99).astype(out.dtype.numpy)
    axes = [Axis(f"i{d}", 1 if d == op.axis else int(m)) for d, m in enumerate(out.shape)]
    for i in reversed(range(n)) if op.reverse else range(n):
        s = Lanes(axes)
        at = [Affine.of(a) for a in axes]
        at[op.axis] = Affine((), i)
        made = op.step(s, tuple(at), types, s.read(y), *map(s.read, arrays))
        cut = (slice(None),) * op.axis + (slice(i, i + 1),)
        y[cut] = made.reshape(y[cut].shape)
    return y


_COMBINE = {
    "sum": lambda x: x.sum(-1),
    "prod": lambda x: x.prod(-1),
    "max": lambda x: x.max(-1),
    "min": lambda x: x.min(-1),
    "any": lambda x: x.any(-1),
    "all": lambda x: x.all(-1),
    "argmax": lambda x: x.argmax(-1),
    "argmin": lambda x: x.argmin(-1),
}
_NEUTRAL = {"max": -math.inf, "min": math.inf}


def _reduce(
    op: Reduction,
    arrays: tuple[Array, ...],
    types: tuple[TensorType, ...],
    out: TensorType,
    axes: list[Axis],
) -> Array:
    inner = [Axis(f"r{d}", int(n)) for d, n in enumerate(op.reduced(*types))]
    s = Lanes([*axes, *inner])
    each = op.at(s, index_of(axes), index_of(inner), types, *map(s.read, arrays))
    terms = np.broadcast_to(each, (s.count,)).reshape(
        *out.shape, math.prod(a.extent for a in inner)
    )
    if terms.dtype.kind not in "iub":
        terms = terms.astype(np.float64)
    if not terms.shape[-1] and op.combine in _NEUTRAL:
        return np.full(out.shape, _NEUTRAL[op.combine]).astype(out.dtype.numpy)
    with np.errstate(all="ignore"):
        return np.asarray(_COMBINE[op.combine](terms)).astype(out.dtype.numpy)
