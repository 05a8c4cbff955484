"""Conversions of the element type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import DType, bool_
from tapeout.ir.op import Unary, register
from tapeout.ops.exact import rounded
from tapeout.support.errors import NotDifferentiable, ShapeError

if TYPE_CHECKING:
    from typing import Any

    from tapeout.ir.op import Array, T
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ir.type import TensorType
    from tapeout.ops.sym import Sym


@register
class Cast(Unary):
    """The value converted to another type.

    Float to integer truncates and stays in range (NaN gives 0), to bool tests for non-zero; integer
    to a narrower integer keeps the low bits.
    """

    name = "cast"
    dtype: DType

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the shape in the new type."""
        self._check_arity(types)
        return (types[0].with_dtype(self.dtype),)

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.cast(xs[0], self.dtype)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        if self.dtype == bool_:
            return np.asarray(x != 0)
        with np.errstate(all="ignore"):
            if self.dtype.is_float or x.dtype.kind in "iub":
                return rounded(x, self.dtype.numpy)
            return _truncate(x.astype(np.float64), self.dtype.numpy)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy.cast(x.dtype) if x.dtype.is_float else None


def _truncate(x: Array, dtype: np.dtype[Any]) -> Array:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    # The highest i64 and u64 are no f64, so `x >= high` compares with the power of two above.
    inside = (x > float(low)) & (x < float(high))
    whole = np.where(inside, x, 0).astype(dtype)
    return np.where(x >= float(high), high, np.where(x <= float(low), low, whole)).astype(dtype)


@register
class Bitcast(Unary):
    """The same bits as another type of the same width."""

    name = "bitcast"
    dtype: DType

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the shape in the new type."""
        self._check_arity(types)
        (x,) = types
        if x.dtype.bits != self.dtype.bits or bool_ in (x.dtype, self.dtype):
            raise ShapeError(f"bitcast: {x} has no bits of {self.dtype}; the widths must be equal")
        return (x.with_dtype(self.dtype),)

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.bitcast(xs[0], self.dtype)

    def reference(self, *arrays: Array) -> Array:
        return np.ascontiguousarray(arrays[0]).view(self.dtype.numpy).reshape(arrays[0].shape)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        if x.dtype.is_float:
            raise NotDifferentiable("bitcast between floats has no gradient")
        return None
