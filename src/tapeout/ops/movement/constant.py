"""Tensors out of nothing: constants and counted numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import DType, i32
from tapeout.ir.op import Array, Pointwise, register
from tapeout.ir.tensor import Tensor
from tapeout.ir.type import Shape, TensorType
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.affine import Affine
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.movement.base import T


@register
class Constant(Pointwise):
    """A tensor known when the graph is built."""

    name = "constant"
    tensor: Tensor

    @property
    def is_splat(self) -> bool:
        """Whether every element is the same number."""
        return self.tensor.splat is not None

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the tensor's type."""
        return (TensorType(self.tensor.dtype, self.tensor.shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return the tensor."""
        return self.tensor.array

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the number of a splat; other constants live in memory and are read, never inlined."""
        if self.tensor.splat is None:
            raise ShapeError("a constant whose elements differ must be kept in memory")
        return s.const(self.tensor.splat, self.tensor.dtype)


@register
class Iota(Pointwise):
    """`0, 1, 2, …` along one dimension."""

    name = "iota"
    shape: Shape
    axis: int
    dtype: DType = i32

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type; the axis must exist."""
        if not 0 <= self.axis < len(self.shape):
            raise ShapeError(f"iota: axis {self.axis} of shape {list(self.shape)}")
        return (TensorType(self.dtype, self.shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return the numbers."""
        line = np.arange(self.shape[self.axis], dtype=self.dtype.numpy)
        place = [-1 if i == self.axis else 1 for i in range(len(self.shape))]
        return np.broadcast_to(line.reshape(place), self.shape).copy()

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the index itself."""
        return s.cast(s.index(index[self.axis]), self.dtype)
