"""Pooling over the spatial dimensions of `x` [N, C, *spatial]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import from_numpy, i32
from tapeout.ir.op import Composite, register
from tapeout.ops import movement as mv
from tapeout.ops.sym import iota
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType
    from tapeout.ops.sym import Sym

Ints = tuple[int, ...]


@register
class MaxPool(Composite):
    """The greatest element of each window, and its row-major number in the window (i32).

    Of equal elements the first counts, and it alone gets the gradient; NaN counts as the greatest. Padding is never the greatest.
    """

    name = "max_pool"
    kernel: Ints
    strides: Ints
    low: Ints
    high: Ints
    dilations: Ints

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the counts of windows in place of the spatial dimensions, twice."""
        if len(types) != 1:
            raise ShapeError(f"max_pool takes one operand, got {len(types)}")
        (x,) = types
        _check_fits("max_pool", x, self.kernel, self.strides, self.low, self.high, self.dilations)
        y = x.with_shape(self._windows(x.dtype).counted(x.shape)[: x.rank])
        return y, y.with_dtype(i32)

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the maximum over windows and where it stands."""
        (x,) = operands
        w = x.emit(self._windows(x.dtype), x)
        inside = range(x.rank, w.rank)
        return w.max(inside), w.argmax(inside)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """Return numpy's maximum over the windows, one tap after the other."""
        (x,) = arrays
        w = self._windows(from_numpy(x.dtype)).reference(x)
        flat = w.reshape(*w.shape[: x.ndim], -1)
        best = np.argmax(flat, axis=-1)
        y = np.take_along_axis(flat, best[..., None], axis=-1)[..., 0]
        return y, best.astype(np.int32)

    def pullback(
        self,
        cotangents: tuple[Sym | None, ...],
        operands: tuple[Sym, ...],
        results: tuple[Sym, ...],
    ) -> tuple[Sym | None, ...]:
        """Send the cotangent of each window to its first greatest element."""
        (dy, _), (x,), (_, index) = cotangents, operands, results
        assert dy is not None
        windows = self._windows(x.dtype)
        shape = windows.counted(x.shape)
        outer = range(x.rank)
        number = iota(x.builder, [math.prod(self.kernel)], 0).reshape(self.kernel)
        here = number.broadcast(shape, range(x.rank, len(shape))) == index.broadcast(shape, outer)
        return (mv.fold(here.where(dy.broadcast(shape, outer), 0), windows, x.shape),)

    def _windows(self, dtype: DType) -> mv.Windows:
        lowest = -math.inf if dtype.is_float else int(np.iinfo(dtype.numpy).min)
        axes = tuple(range(2, 2 + len(self.kernel)))
        return mv.Windows(
            axes, self.kernel, self.strides, self.dilations, self.low, self.high, lowest
        )


def _check_fits(name: str, x: TensorType, *per_axis: Sequence[int]) -> None:
    spatial = x.rank - 2
    if spatial < 1 or any(len(p) != spatial for p in per_axis):
        given = [len(p) for p in per_axis]
        raise ShapeError(
            f"{name}: {x} has {max(spatial, 0)} spatial dimensions, kernel, strides and padding have {given}"
        )


def max_pool(
    x: Sym,
    kernel: Sequence[int],
    strides: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
    dilations: Sequence[int] | None = None,
) -> Sym:
    """Return the greatest of each window; the first of equals gets the gradient.

    Args:
        x: [N, C, *spatial].
        kernel: Window size per spatial dimension.
        strides: Steps between windows.
        low: Padding before each spatial dimension.
        high: Padding after it.
        dilations: Steps inside a window (default 1).

    Returns:
        [N, C, *counts].
    """
    steps = (1,) * len(kernel) if dilations is None else tuple(dilations)
    op = MaxPool(
        kernel=tuple(kernel),
        strides=tuple(strides),
        low=tuple(low),
        high=tuple(high),
        dilations=steps,
    )
    return x.emit_all(op, x)[0]


def avg_pool(
    x: Sym,
    kernel: Sequence[int],
    strides: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
    count_include_pad: bool = False,
) -> Sym:
    """Return the mean of each window of `x` [N, C, *spatial].

    Padding counts as zeros if `count_include_pad`, else not at all.
    """
    _check_fits("avg_pool", x.type, kernel, strides, low, high)
    total = _window_sum(x, 2, kernel, strides, low, high)
    padded = any(p > 0 for p in (*low, *high))
    if count_include_pad or not padded:
        return total * (1.0 / math.prod(kernel))
    ones = x.constant(1.0, x.dtype).broadcast(x.shape[2:], ())
    count = _window_sum(ones, 0, kernel, strides, low, high)
    return total / count.broadcast(total.shape, range(2, x.rank))


def _window_sum(
    x: Sym,
    first: int,
    kernel: Sequence[int],
    strides: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
) -> Sym:
    axes = range(first, first + len(kernel))
    w = x.windows(axes, kernel, strides, None, low, high)
    return w.sum(range(x.rank, w.rank))


def global_avg_pool(x: Sym) -> Sym:
    """Return the mean over the spatial dimensions of `x` [N, C, *spatial], which become 1."""
    return x.mean(range(2, x.rank), keepdims=True)


def global_max_pool(x: Sym) -> Sym:
    """Return the greatest over the spatial dimensions of `x`, which become 1; the first of equals gets the gradient."""
    none, one = (0,) * (x.rank - 2), (1,) * (x.rank - 2)
    return max_pool(x, x.shape[2:], one, none, none)
