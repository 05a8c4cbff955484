"""Sliding windows and their adjoint, which adds every window back to where it came from."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir.affine import Affine, Guard
from tapeout.ir.op import Array, Pointwise, Reduction, register
from tapeout.ir.type import Shape, TensorType
from tapeout.ops.exact import rounded, wide
from tapeout.ops.movement.base import Cotangents, Ints, T, one_operand
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym


@register
class Windows(Pointwise):
    """Sliding windows over `axes`: those dimensions become window counts, the window sizes are appended.

    `y[…, o, …, k] = x[…, o*stride + k*dilation - low, …]`, `value` outside.
    """

    name = "windows"
    axes: Ints
    sizes: Ints
    strides: Ints
    dilations: Ints
    low: Ints
    high: Ints
    value: float = 0.0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return counts in place of the windowed dimensions, then the sizes."""
        x = one_operand(types, self.name)
        return (x.with_shape(self.counted(x.shape)),)

    def counted(self, shape: Shape) -> Shape:
        """Return the result's shape for an operand's shape."""
        out = list(shape)
        for i, a in enumerate(self.axes):
            if not 0 <= a < len(shape):
                raise ShapeError(f"windows: axis {a} of shape {list(map(int, shape))}")
            span = (self.sizes[i] - 1) * self.dilations[i] + 1
            room = shape[a] + self.low[i] + self.high[i] - span
            if room < 0 or self.strides[i] < 1 or self.sizes[i] < 1:
                raise ShapeError(
                    f"windows: a window of {span} does not fit dimension {a} of {list(map(int, shape))}"
                )
            out[a] = room // self.strides[i] + 1
        return (*out, *self.sizes)

    def reference(self, *arrays: Array) -> Array:
        """Return the windows as a copy."""
        x = arrays[0]
        out = self.counted(x.shape)
        y = np.empty(out, x.dtype)
        padded, base = _padded(x, self)
        for k in product(*map(range, self.sizes)):
            y[_last(k)] = padded[_taps(x.ndim, self, k, out, base)]
        return y

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element under the window, guarded."""
        x = types[0]
        inside, where = list(index[: x.rank]), []
        for i, a in enumerate(self.axes):
            inside[a] = (
                index[a] * self.strides[i] + index[x.rank + i] * self.dilations[i] - self.low[i]
            )
            where.append(Guard(inside[a], 0, x.shape[a]))
        return reads[0](inside, where, self.value)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the windows added back where they came from."""
        (dy,), (x,) = cotangents, operands
        assert dy is not None
        return (fold(dy, self, x.shape),)


def fold(y: Sym, windows: Windows, shape: Shape) -> Sym:
    """Return the adjoint of `windows` (without its fill): elements added back into a tensor of `shape`."""
    rank = len(shape)
    plain = all(d == 1 or n == 1 for d, n in zip(windows.dilations, windows.sizes, strict=True))
    if plain and windows.sizes == windows.strides and not any(windows.low):
        return _unfold_tiles(y, windows, shape, rank)
    op = Fold(
        windows.axes,
        windows.sizes,
        windows.strides,
        windows.dilations,
        windows.low,
        windows.high,
        shape=shape,
    )
    return y.emit(op, y)


def _unfold_tiles(y: Sym, windows: Windows, shape: Shape, rank: int) -> Sym:
    """Windows that tile without overlap go back by a transpose and a reshape: no sum is needed."""
    perm: list[int] = []
    sizes: list[int] = []
    for d in range(rank):
        perm.append(d)
        sizes.append(y.shape[d])
        if d in windows.axes:
            i = windows.axes.index(d)
            perm.append(rank + i)
            sizes[-1] = sizes[-1] * windows.sizes[i]
    joined = y.transpose(perm).reshape(sizes)
    extra = [n - m for n, m in zip(shape, sizes, strict=True)]
    return joined.pad([0] * rank, extra) if any(extra) else joined


@register
class Fold(Reduction):
    """The adjoint of `Windows`: every window element added back to the place it came from, in a tensor of `shape`."""

    name = "fold"
    axes: Ints
    sizes: Ints
    strides: Ints
    dilations: Ints
    low: Ints
    high: Ints
    shape: Shape

    @property
    def windows(self) -> Windows:
        """The operation this is the adjoint of."""
        return Windows(self.axes, self.sizes, self.strides, self.dilations, self.low, self.high)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return `shape`; the operand must have the windows of it."""
        y = one_operand(types, self.name)
        wanted = self.windows.counted(self.shape)
        if y.shape != wanted:
            raise ShapeError(
                f"fold: the operand is {y}, the windows of {list(map(int, self.shape))} are {list(map(int, wanted))}"
            )
        return (y.with_shape(self.shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return the sums."""
        y = wide(arrays[0])
        padded, base = _padded(np.zeros(self.shape, y.dtype), self.windows)
        for k in product(*map(range, self.sizes)):
            padded[_taps(len(self.shape), self.windows, k, y.shape, base)] += y[_last(k)]
        cut = [slice(None)] * len(self.shape)
        for i, a in enumerate(self.axes):
            cut[a] = slice(base[i] + self.low[i], base[i] + self.low[i] + self.shape[a])
        return rounded(padded[tuple(cut)].copy(), arrays[0].dtype)

    def reduced(self, *types: TensorType) -> Shape:
        """Return the window sizes."""
        return self.sizes

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        reduced: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the window element that came from here, zero where there is none."""
        inside, where = list(index), []
        for i, a in enumerate(self.axes):
            t = index[a] + self.low[i] - reduced[i] * self.dilations[i]
            if self.strides[i] > 1:
                where.append(Guard(t % self.strides[i], 0, 1))
            inside[a] = t // self.strides[i]
            where.append(Guard(inside[a], 0, types[0].shape[a]))
        return reads[0]([*inside, *reduced], where)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the windows of the cotangent."""
        (dx,) = cotangents
        assert dx is not None
        return (dx.emit(self.windows, dx),)


def _padded(x: Array, w: Windows) -> tuple[Array, list[int]]:
    """Return `x` with room for every tap, and how far low sides were cropped below zero (then the base is positive)."""
    widths = [(0, 0)] * x.ndim
    base = []
    for i, a in enumerate(w.axes):
        widths[a] = (max(w.low[i], 0), max(w.high[i], 0))
        base.append(max(w.low[i], 0) - w.low[i])
    return np.pad(x, widths, constant_values=np.asarray(w.value).astype(x.dtype)), base


def _last(k: Ints) -> tuple[Any, ...]:
    """Return the numpy index of the last dimensions."""
    return (Ellipsis, *k)


def _taps(rank: int, w: Windows, k: Ints, counts: Shape, base: list[int]) -> tuple[slice, ...]:
    cut = [slice(None)] * rank
    for i, a in enumerate(w.axes):
        first = base[i] + k[i] * w.dilations[i]
        cut[a] = slice(first, first + (counts[a] - 1) * w.strides[i] + 1, w.strides[i])
    return tuple(cut)
