"""Gather and scatter: places chosen by integer data. Every index is bounded before the step updates anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tapeout.ir.dtype import i64
from tapeout.ir.op import Array, Pointwise, Scatter, register
from tapeout.ir.type import TensorType
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.affine import Affine
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym

T = TypeVar("T")
Cotangents = tuple["Sym | None", ...]


def _check_axis(name: str, axis: int, x: TensorType, indices: TensorType) -> None:
    if not 0 <= axis < x.rank:
        raise ShapeError(f"{name}: axis {axis} of {x}")
    if not indices.dtype.is_integer:
        raise ShapeError(f"{name}: the indices are {indices}, integers are expected")


def _counted(s: ScalarOps[T], index: T, n: int) -> T:
    """Return an index as i64, negative ones counted from the end."""
    at = s.cast(index, i64)
    return s.select(s.compare("lt", at, s.const(0, i64)), s.add(at, s.const(n, i64)), at)


def out_of_range(indices: Sym, n: int, name: str) -> tuple[Sym, str]:
    """Return whether any index lies outside of -n..n-1, and what to tell the user."""
    bad = (
        (indices < indices.like(-n)) | (indices >= indices.like(n))
        if indices.dtype.kind == "i"
        else indices >= indices.like(n)
    )
    return bad.any(), f"{name}: an index lies outside -{n}..{n - 1}"


@register
class Take(Pointwise):
    """`y[a…, i…, b…] = x[a…, indices[i…], b…]` (ONNX's Gather); negative indices count from the end."""

    name = "take"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the shape of `x` with the axis replaced by the indices' shape."""
        x, indices = types
        _check_axis(self.name, self.axis, x, indices)
        return (x.with_shape((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :])),)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's take."""
        return np.asarray(np.take(arrays[0], arrays[1], axis=self.axis))

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element at the place read from the indices."""
        x, indices = types
        chosen = reads[1](index[self.axis : self.axis + indices.rank])
        place = _counted(s, chosen, x.shape[self.axis])
        return reads[0]([*index[: self.axis], place, *index[self.axis + indices.rank :]])

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Add the cotangent where it was read."""
        (dy,), (x, indices) = cotangents, operands
        assert dy is not None
        return (x.zeros_like().scatter_add(indices, dy, self.axis), None)

    def precondition(self, operands: tuple[Sym, ...]) -> tuple[Sym, str] | None:
        """Every index must lie in range."""
        return out_of_range(operands[1], int(operands[0].shape[self.axis]), self.name)


@register
class ScatterAdd(Scatter):
    """`x` with `updates[a…, i…, b…]` added at `[a…, indices[i…], b…]`: the adjoint of take."""

    name = "scatter_add"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of `x`; the updates must have the shape that take would give."""
        x, indices, updates = types
        _check_axis(self.name, self.axis, x, indices)
        wanted = (*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :])
        if updates.shape != wanted or updates.dtype != x.dtype:
            raise ShapeError(
                f"scatter_add: the updates are {updates}, expected {x.with_shape(wanted)}"
            )
        return (x,)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's unbuffered add."""
        x, indices, updates = arrays
        y = x.copy()
        at: tuple[Any, ...] = (*(slice(None),) * self.axis, indices)
        np.add.at(y, at, updates)
        return y

    def place(
        self,
        s: ScalarOps[T],
        point: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        indices: Read[T],
    ) -> tuple[Affine | T, ...]:
        """Return the place that the index names along the axis, other dimensions as they are."""
        x, at, _ = types
        chosen = _counted(s, indices(point[self.axis : self.axis + at.rank]), x.shape[self.axis])
        return (*point[: self.axis], chosen, *point[self.axis + at.rank :])

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """The target passes through; the updates get what stands where they went."""
        (dy,), (_, indices, _) = cotangents, operands
        assert dy is not None
        return (dy, None, dy.take(indices, self.axis))

    def precondition(self, operands: tuple[Sym, ...]) -> tuple[Sym, str] | None:
        """Every index must lie in range."""
        return out_of_range(operands[1], int(operands[0].shape[self.axis]), self.name)


@register
class TakeAlong(Pointwise):
    """`y[…, i, …] = x[…, indices[…, i, …], …]` along the axis, other dimensions alike (ONNX's GatherElements)."""

    name = "take_along"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the shape of the indices, which fit inside `x` off the axis."""
        x, indices = types
        _check_axis(self.name, self.axis, x, indices)
        fits = x.rank == indices.rank and all(
            m <= n
            for d, (m, n) in enumerate(zip(indices.shape, x.shape, strict=True))
            if d != self.axis
        )
        if not fits:
            raise ShapeError(
                f"{self.name}: the indices {indices} do not fit {x} along axis {self.axis}"
            )
        return (x.with_shape(indices.shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's take_along_axis on the part that the indices cover."""
        x, indices = arrays
        part = tuple(
            slice(None) if d == self.axis else slice(m) for d, m in enumerate(indices.shape)
        )
        return np.take_along_axis(x[part], indices, axis=self.axis)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element at the place read from the indices."""
        place = _counted(s, reads[1](index), types[0].shape[self.axis])
        return reads[0]([*index[: self.axis], place, *index[self.axis + 1 :]])

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Add the cotangent where it was read."""
        (dy,), (x, indices) = cotangents, operands
        assert dy is not None
        return (dy.emit(ScatterAddAlong(axis=self.axis), x.zeros_like(), indices, dy), None)

    def precondition(self, operands: tuple[Sym, ...]) -> tuple[Sym, str] | None:
        """Every index must lie in range."""
        return out_of_range(operands[1], int(operands[0].shape[self.axis]), self.name)


@register
class ScatterAddAlong(Scatter):
    """`x` with `updates[…, i, …]` added at `[…, indices[…, i, …], …]`: the adjoint of take_along."""

    name = "scatter_add_along"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of `x`; the updates must have the indices' shape."""
        x, indices, updates = types
        TakeAlong(axis=self.axis).infer(x, indices)
        if updates.shape != indices.shape or updates.dtype != x.dtype:
            raise ShapeError(
                f"scatter_add_along: the updates are {updates}, expected {x.with_shape(indices.shape)}"
            )
        return (x,)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's unbuffered add."""
        x, indices, updates = arrays
        y = x.copy()
        at: list[Any] = list(np.indices(indices.shape, sparse=True))
        at[self.axis] = indices
        np.add.at(y, tuple(at), updates)
        return y

    def place(
        self,
        s: ScalarOps[T],
        point: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        indices: Read[T],
    ) -> tuple[Affine | T, ...]:
        """Return the place that the index names along the axis, other dimensions as they are."""
        chosen = _counted(s, indices(point), types[0].shape[self.axis])
        return (*point[: self.axis], chosen, *point[self.axis + 1 :])

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """The target passes through; the updates get what stands where they went."""
        (dy,), (_, indices, _) = cotangents, operands
        assert dy is not None
        return (dy, None, dy.take_along(indices, self.axis))

    def precondition(self, operands: tuple[Sym, ...]) -> tuple[Sym, str] | None:
        """Every index must lie in range."""
        return out_of_range(operands[1], int(operands[0].shape[self.axis]), self.name)
