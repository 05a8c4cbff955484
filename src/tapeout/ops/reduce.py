"""Reductions. Each drops the axes that it combines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tapeout.ir.affine import Affine
from tapeout.ir.dtype import i32
from tapeout.ir.op import Array, Reduction, register
from tapeout.ir.type import Shape, TensorType
from tapeout.ops.exact import rounded, wide
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym

T = TypeVar("T")
Ints = tuple[int, ...]
Cotangents = tuple["Sym | None", ...]


def normal_axes(axes: Sequence[int] | int | None, rank: int) -> Ints:
    """Return axes as rising non-negative numbers; None means all.

    Raises:
        ShapeError: An axis does not exist or is named twice.
    """
    given = range(rank) if axes is None else [axes] if isinstance(axes, int) else axes
    out = sorted(a + rank if a < 0 else a for a in given)
    if any(not 0 <= a < rank for a in out) or len(set(out)) != len(out):
        raise ShapeError(f"axes {list(given)} of a tensor with {rank} dimensions")
    return tuple(out)


class _AxisReduction(Reduction):
    """Combines the elements along `axes`."""

    axes: Ints
    kinds = "fiu"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the shape without the axes."""
        (x,) = types
        if any(not 0 <= a < x.rank for a in self.axes) or list(self.axes) != sorted(set(self.axes)):
            raise ShapeError(f"{self.name}: axes {list(self.axes)} of {x}")
        if x.dtype.kind not in self.kinds:
            raise ShapeError(f"{self.name} of {x}: elements of kind {self.kinds!r} are expected")
        return (x.with_shape(tuple(n for d, n in enumerate(x.shape) if d not in self.axes)),)

    def reduced(self, *types: TensorType) -> Shape:
        """Return the extents of the axes."""
        return tuple(types[0].shape[a] for a in self.axes)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        reduced: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the operand's element."""
        kept, gone = iter(index), iter(reduced)
        return reads[0](
            [next(gone) if d in self.axes else next(kept) for d in range(types[0].rank)]
        )

    def spread(self, y: Sym, x: Sym) -> Sym:
        """Return a result-shaped value repeated over the axes."""
        return y.broadcast(x.shape, [d for d in range(x.rank) if d not in self.axes])


@register
class ReduceSum(_AxisReduction):
    """The sum."""

    name = "reduce_sum"
    axes: Ints

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's sum; integers wrap."""
        x = wide(arrays[0])
        return rounded(np.asarray(np.sum(x, axis=self.axes, dtype=x.dtype)), arrays[0].dtype)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Every element gets the cotangent."""
        (dy,), (x,) = cotangents, operands
        assert dy is not None
        return (self.spread(dy, x),)


@register
class ReduceProd(_AxisReduction):
    """The product."""

    name = "reduce_prod"
    axes: Ints

    @property
    def combine(self) -> str:
        """Multiply."""
        return "prod"

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's product; integers wrap."""
        x = wide(arrays[0])
        return rounded(np.asarray(np.prod(x, axis=self.axes, dtype=x.dtype)), arrays[0].dtype)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """The product of all others, exact where elements are zero (never `y / x`).

        All n^2 pairs are formed, in the kernel and not in memory.
        """
        (dy,), (x,) = cotangents, operands
        assert dy is not None
        kept = [d for d in range(x.rank) if d not in self.axes]
        order = [*kept, *self.axes]
        moved = x.transpose(order)
        outer = [x.shape[d] for d in kept]
        flat = moved.reshape(
            [*outer, int(np.prod([x.shape[a] for a in self.axes], dtype=np.int64))]
        )
        n, rank = flat.shape[-1], flat.rank
        pairs = flat.broadcast([*outer, n, n], [*range(rank - 1), rank])
        from tapeout.ops.sym import iota

        same = iota(x.builder, (n, n), 0) == iota(x.builder, (n, n), 1)
        others = same.broadcast_to(pairs.shape).where(1.0, pairs).prod([rank])
        back = others.reshape(moved.shape).transpose([order.index(d) for d in range(x.rank)])
        return (self.spread(dy, x) * back,)


class _Extreme(_AxisReduction):
    """The greatest or least; equal elements share the gradient."""

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Share the cotangent equally among the elements that attain the extreme."""
        (dy,), (x,), (y,) = cotangents, operands, results
        assert dy is not None
        hit = (x == self.spread(y, x)).cast(x.dtype)
        share = dy / hit.sum(self.axes)
        return (self.spread(share, x) * hit,)


@register
class ReduceMax(_Extreme):
    """The greatest; NaN if any is."""

    name = "reduce_max"
    axes: Ints

    @property
    def combine(self) -> str:
        """Keep the greater."""
        return "max"

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's max."""
        return np.asarray(np.max(arrays[0], axis=self.axes, **_start(arrays[0], _lowest)))


@register
class ReduceMin(_Extreme):
    """The least; NaN if any is."""

    name = "reduce_min"
    axes: Ints

    @property
    def combine(self) -> str:
        """Keep the lesser."""
        return "min"

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's min."""
        return np.asarray(np.min(arrays[0], axis=self.axes, **_start(arrays[0], _highest)))


def _start(x: Array, limit: Callable[[Array], float]) -> dict[str, Any]:
    """Return the start value that an empty reduction needs; others have none, so that NaN and -0 stay."""
    return {} if x.size else {"initial": limit(x)}


def _lowest(x: Array) -> float | int:
    return int(np.iinfo(x.dtype).min) if x.dtype.kind in "iu" else -np.inf


def _highest(x: Array) -> float | int:
    return int(np.iinfo(x.dtype).max) if x.dtype.kind in "iu" else np.inf


@register
class ReduceAny(_AxisReduction):
    """Whether any is true."""

    name = "reduce_any"
    axes: Ints
    kinds = "b"

    @property
    def combine(self) -> str:
        """Or."""
        return "any"

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's any."""
        return np.asarray(np.any(arrays[0], axis=self.axes))


@register
class ReduceAll(_AxisReduction):
    """Whether all are true."""

    name = "reduce_all"
    axes: Ints
    kinds = "b"

    @property
    def combine(self) -> str:
        """And."""
        return "all"

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's all."""
        return np.asarray(np.all(arrays[0], axis=self.axes))


class _ArgReduction(_AxisReduction):
    """The row-major number (i32) of the first extreme over the axes; NaN counts as extreme."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return i32 without the axes; they must not be empty."""
        (y,) = super().infer(*types)
        if not all(types[0].shape[a] for a in self.axes):
            raise ShapeError(f"{self.name} over an empty axis of {types[0]}")
        return (y.with_dtype(i32),)

    def _flat(self, x: Array) -> Array:
        kept = [d for d in range(x.ndim) if d not in self.axes]
        outer = [x.shape[d] for d in kept]
        return x.transpose([*kept, *self.axes]).reshape([*outer, -1])


@register
class ArgMax(_ArgReduction):
    """The place of the first greatest element."""

    name = "argmax"
    axes: Ints

    @property
    def combine(self) -> str:
        """Keep the place of the greater."""
        return "argmax"

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's argmax."""
        return np.asarray(np.argmax(self._flat(arrays[0]), axis=-1), np.int32)


@register
class ArgMin(_ArgReduction):
    """The place of the first least element."""

    name = "argmin"
    axes: Ints

    @property
    def combine(self) -> str:
        """Keep the place of the lesser."""
        return "argmin"

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's argmin."""
        return np.asarray(np.argmin(self._flat(arrays[0]), axis=-1), np.int32)
