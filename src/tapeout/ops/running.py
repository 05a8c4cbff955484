"""Results that follow from the elements before them along an axis: running sums and linear recurrences."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tapeout.ir.affine import Affine, Guard
from tapeout.ir.dtype import bool_
from tapeout.ir.op import Array, Running, register
from tapeout.ops.exact import rounded, wide
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ir.type import TensorType
    from tapeout.ops.sym import Sym

T = TypeVar("T")
Cotangents = tuple["Sym | None", ...]


def _moved(index: tuple[Affine, ...], axis: int, by: int) -> tuple[Affine, ...]:
    """Return the index of the element `by` further along the axis."""
    return (*index[:axis], index[axis] + by, *index[axis + 1 :])


def _behind(index: tuple[Affine, ...], axis: int, n: int, *, reverse: bool) -> list[Guard]:
    """Return the condition that an element has one before it, in the order in which they are made."""
    return [Guard(index[axis], 0, n - 1) if reverse else Guard(index[axis], 1, n)]


@register
class CumSum(Running):
    """`y[i] = sum of x[j]` for `j <= i` (`<` if exclusive, from the other end if reverse)."""

    name = "cumsum"
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the operand's type."""
        (x,) = types
        if not 0 <= self.axis < x.rank or x.dtype == bool_:
            raise ShapeError(f"cumsum: axis {self.axis} of {x}")
        return (x,)

    def reference(self, *arrays: Array) -> Array:
        """Return the running sums."""
        x = wide(arrays[0])
        x = np.flip(x, self.axis) if self.reverse else x
        y = np.cumsum(x, axis=self.axis, dtype=x.dtype)
        if self.exclusive and x.shape[self.axis]:
            y = np.roll(y, 1, self.axis)
            y[(slice(None),) * self.axis + (0,)] = 0
        return rounded(np.flip(y, self.axis) if self.reverse else y, arrays[0].dtype)

    def step(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        made: Read[T],
        *reads: Read[T],
    ) -> T:
        """Return the sum before, plus the element (the one before, if exclusive)."""
        n = types[0].shape[self.axis]
        before = _moved(index, self.axis, 1 if self.reverse else -1)
        where = _behind(index, self.axis, n, reverse=self.reverse)
        total = made(before, where)
        return s.add(total, reads[0](before, where) if self.exclusive else reads[0](index))

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Sum from the other end."""
        (dy,) = cotangents
        assert dy is not None
        return (
            dy.emit(CumSum(axis=self.axis, exclusive=self.exclusive, reverse=not self.reverse), dy),
        )


@register
class Recurrence(Running):
    """`y[i] = a[i] * y[i-1] + b[i]` along the axis, `y[0] = b[0]` (from the other end if reverse)."""

    name = "recurrence"
    axis: int
    reverse: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the common type of both operands."""
        a, b = types
        if a != b or not 0 <= self.axis < a.rank or a.dtype == bool_:
            raise ShapeError(f"recurrence: axis {self.axis} of {a} and {b}; both must be equal")
        return (b,)

    def reference(self, *arrays: Array) -> Array:
        """Return the elements, one place along the axis after the other."""
        a, b = (np.moveaxis(wide(x), self.axis, 0) for x in arrays)
        y = b.copy()
        order = range(len(y) - 2, -1, -1) if self.reverse else range(1, len(y))
        for i in order:
            y[i] += a[i] * y[i + 1 if self.reverse else i - 1]
        return rounded(np.moveaxis(y, 0, self.axis).copy(), arrays[1].dtype)

    def step(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        made: Read[T],
        *reads: Read[T],
    ) -> T:
        """Return the factor times the element before, plus the addend."""
        where = _behind(index, self.axis, types[0].shape[self.axis], reverse=self.reverse)
        before = made(_moved(index, self.axis, 1 if self.reverse else -1), where)
        return s.add(s.mul(reads[0](index, where), before), reads[1](index))

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """The cotangents follow the same recurrence from the other end, with the factors one place on."""
        (dy,), (a, _), (y,) = cotangents, operands, results
        assert dy is not None
        n = int(a.shape[self.axis])
        if n < 2:
            return a.zeros_like(), dy
        back = Recurrence(axis=self.axis, reverse=not self.reverse)
        towards = -1 if self.reverse else 1
        db = dy.emit(back, shifted(a, self.axis, -towards), dy)
        return db * shifted(y, self.axis, towards), db


def shifted(x: Sym, axis: int, by: int) -> Sym:
    """Return `y[i] = x[i - by]` along an axis, zero where there is no such element."""
    low, high = [0] * x.rank, [0] * x.rank
    low[axis], high[axis] = by, -by
    return x.pad(low, high)


def cumulative_product(x: Sym, axis: int, *, exclusive: bool = False, reverse: bool = False) -> Sym:
    """Return `y[i] = product of x[j]` for `j <= i` (`<` if exclusive, from the other end if reverse).

    The gradient is exact where elements are zero: it never divides.

    Args:
        x: Numbers of any shape.
        axis: Along which axis; not negative.
        exclusive: Whether an element leaves itself out.
        reverse: Whether to start at the end.

    Returns:
        The type of `x`.
    """
    if not x.type.size:
        return x
    from tapeout.ops.sym import iota

    first = iota(x.builder, x.shape, axis) == (int(x.shape[axis]) - 1 if reverse else 0)
    if exclusive:
        x = first.where(x.like(1), shifted(x, axis, -1 if reverse else 1))
    return x.emit(Recurrence(axis=axis, reverse=reverse), x, first.where(x, x.zeros_like()))
