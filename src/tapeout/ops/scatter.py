"""Scatters that replace, multiply, or keep the greater or the lesser. Those that add stand beside the gathers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tapeout.ir.dtype import bool_, i32
from tapeout.ir.op import Array, Scatter, register
from tapeout.ops.exact import rounded, wide
from tapeout.ops.gather import ScatterAdd, ScatterAddAlong, out_of_range
from tapeout.ops.movement import Iota
from tapeout.support.errors import OptionError, ShapeError

if TYPE_CHECKING:
    from tapeout.ir.affine import Affine
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ir.type import TensorType
    from tapeout.ops.sym import Sym

T = TypeVar("T")
Cotangents = tuple["Sym | None", ...]

REDUCTIONS = ("set", "mul", "max", "min")
_UFUNC = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


class _Put(Scatter):
    """What both forms share: the reduction, its reference and its gradient."""

    axis: int
    reduction: str

    def __post_init__(self) -> None:
        """Check the reduction."""
        if self.reduction not in REDUCTIONS:
            words = ", ".join(REDUCTIONS)
            raise OptionError(f"{self.name}: reduction {self.reduction!r}, one of {words} is meant")

    @property
    def combine(self) -> str:
        """The reduction."""
        return self.reduction

    @property
    def adding(self) -> ScatterAdd | ScatterAddAlong:
        """The scatter to the same places that adds."""
        raise NotImplementedError

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of operand 0; the updates must have the shape that a gather would give."""
        x = types[0]
        if x.dtype == bool_ and self.reduction == "mul":
            raise ShapeError(f"{self.name}: bools have no product, got {x}")
        return self.adding.infer(*types)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's assignment, or its unbuffered function."""
        x, indices, updates = arrays
        at = self.where(indices)
        if self.reduction == "set":
            y = x.copy()
            y[at] = updates
            return y
        y = wide(x).copy()
        _UFUNC[self.reduction].at(y, at, wide(updates))
        return rounded(y, x.dtype)

    def where(self, indices: Array) -> tuple[Any, ...]:
        """Return the numpy index of the places."""
        raise NotImplementedError

    def place(
        self,
        s: ScalarOps[T],
        point: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        indices: Read[T],
    ) -> tuple[Affine | T, ...]:
        """Return the place that the index names along the axis, other dimensions as they are."""
        return self.adding.place(s, point, types, indices)

    def precondition(self, operands: tuple[Sym, ...]) -> tuple[Sym, str] | None:
        """Every index must lie in range."""
        return out_of_range(operands[1], int(operands[0].shape[self.axis]), self.name)

    def taken(self, x: Sym, indices: Sym) -> Sym:
        """Return what stands at the places."""
        raise NotImplementedError

    def last(self, x: Sym, indices: Sym, updates: Sym) -> Sym:
        """Return for each update whether no later one goes to its place."""
        raise NotImplementedError

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the cotangents of the operand and the updates; of equal extremes each gets its share."""
        (dy,), (x, indices, updates), (y,) = cotangents, operands, results
        assert dy is not None
        if self.reduction == "set":
            dx = dy.emit(self, dy, indices, updates.zeros_like())
            du = self.last(x, indices, updates).where(self.taken(dy, indices), 0)
            return dx, None, du
        if self.reduction == "mul":
            return (
                dy.emit(self, dy, indices, updates),
                None,
                self.taken(dy * x, indices) * self.others(x, indices, updates),
            )
        kept = (x == y).cast(dy.dtype)
        hit = (updates == self.taken(y, indices)).cast(dy.dtype)
        share = dy / dy.emit(self.adding, kept, indices, hit)
        return share * kept, None, self.taken(share, indices) * hit

    def others(self, x: Sym, indices: Sym, updates: Sym) -> Sym:
        """Return for each update the product of the others that go to its place, exact where some are zero."""
        zero = updates == 0
        ones, count = x.like(1), zero.cast(x.dtype)
        product = x.emit(self, ones, indices, zero.where(updates.like(1), updates))
        zeros = self.taken(x.emit(self.adding, x.zeros_like(), indices, count), indices)
        rest = self.taken(product, indices) / zero.where(updates.like(1), updates)
        return (zeros == count).where(rest, 0)


@register
class ScatterRows(_Put):
    """`x` with `updates[a…, i…, b…]` combined into `[a…, indices[i…], b…]`; of several updates the last is `set`."""

    name = "scatter"
    axis: int
    reduction: str = "set"

    @property
    def adding(self) -> ScatterAdd:
        """The scatter to the same places that adds."""
        return ScatterAdd(axis=self.axis)

    def where(self, indices: Array) -> tuple[Any, ...]:
        """Return the numpy index of the places."""
        return (*(slice(None),) * self.axis, indices)

    def taken(self, x: Sym, indices: Sym) -> Sym:
        """Return what stands at the places."""
        return x.take(indices, self.axis)

    def last(self, x: Sym, indices: Sym, updates: Sym) -> Sym:
        """Return for each update whether no later one goes to its place: the same for a whole row."""
        flat = indices.reshape([-1]) if indices.type.size else indices.reshape([0])
        number = x.emit(Iota(shape=flat.shape, axis=0, dtype=i32))
        none = x.constant(-1, i32).broadcast([x.shape[self.axis]], ())
        winner = x.emit(ScatterRows(axis=0), none, flat, number)
        mine = (winner.take(flat, 0) == number).reshape(indices.shape)
        return mine.broadcast(updates.shape, range(self.axis, self.axis + indices.rank))


@register
class ScatterAlong(_Put):
    """`x` with `updates[…, i, …]` combined into `[…, indices[…, i, …], …]`; of several updates the last is `set`."""

    name = "scatter_along"
    axis: int
    reduction: str = "set"

    @property
    def adding(self) -> ScatterAddAlong:
        """The scatter to the same places that adds."""
        return ScatterAddAlong(axis=self.axis)

    def where(self, indices: Array) -> tuple[Any, ...]:
        """Return the numpy index of the places."""
        at: list[Any] = list(np.indices(indices.shape, sparse=True))
        at[self.axis] = indices
        return tuple(at)

    def taken(self, x: Sym, indices: Sym) -> Sym:
        """Return what stands at the places."""
        return x.take_along(indices, self.axis)

    def last(self, x: Sym, indices: Sym, updates: Sym) -> Sym:
        """Return for each update whether no later one goes to its place."""
        number = x.emit(Iota(shape=indices.shape, axis=self.axis, dtype=i32))
        none = x.constant(-1, i32).broadcast(x.shape, ())
        winner = x.emit(ScatterAlong(axis=self.axis), none, indices, number)
        return winner.take_along(indices, self.axis) == number
