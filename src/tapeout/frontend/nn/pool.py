"""Pooling over one, two and three spatial dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.nn.base import expect, expect_shape, known, per_axis
from tapeout.ops.composite import pool as composite_pool
from tapeout.ops.composite.resample import resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.frontend.nn.arrange import Table
    from tapeout.ops.sym import Sym

    Ints = int | Sequence[int]


def max_pool(
    x: Sym,
    kernel: Sequence[int],
    strides: Ints | None = None,
    padding: Ints = 0,
    *,
    dilations: Ints = 1,
    ceil: bool = False,
) -> Sym:
    """Return the greatest of each window; the first of equals in row-major order gets the gradient.

    Args:
        x: [N, C, *spatial].
        kernel: Size of the window per dimension.
        strides: Steps between windows (default: the kernel).
        padding: How far windows reach over either end, at most half of the kernel; padding is never the greatest.
        dilations: Steps inside the window.
        ceil: Whether a last window that is not whole counts.

    Returns:
        [N, C, *counts].
    """
    size, steps, pads = _window(x, kernel, strides, padding)
    spread = per_axis(dilations, len(size), "dilations")
    high = _reach(x, size, steps, pads, spread) if ceil else pads
    return composite_pool.max_pool(x, size, steps, pads, high, spread)


def avg_pool(
    x: Sym,
    kernel: Sequence[int],
    strides: Ints | None = None,
    padding: Ints = 0,
    *,
    ceil: bool = False,
    count_padding: bool = True,
) -> Sym:
    """Return the mean of each window.

    Args:
        x: [N, C, *spatial].
        kernel: Size of the window per dimension.
        strides: Steps between windows (default: the kernel).
        padding: How far windows reach over either end, at most half of the kernel.
        ceil: Whether a last window that is not whole counts.
        count_padding: Whether padding counts as zeros, or not at all.

    Returns:
        [N, C, *counts].
    """
    size, steps, pads = _window(x, kernel, strides, padding)
    if not ceil:
        return composite_pool.avg_pool(x, size, steps, pads, pads, count_padding)
    high = _reach(x, size, steps, pads, (1,) * len(size))
    axes = range(2, x.rank)
    total = x.windows(axes, size, steps, None, pads, high)
    ones = x.constant(1.0, x.dtype).broadcast(x.shape[2:], ())
    if count_padding:
        ones = ones.pad(pads, pads, 1.0)
    before = (0,) * len(size) if count_padding else pads
    after = tuple(h - p for h, p in zip(high, pads, strict=True)) if count_padding else high
    count = ones.windows(range(len(size)), size, steps, None, before, after)
    sums = total.sum(range(x.rank, total.rank))
    return sums / count.sum(range(len(size), 2 * len(size))).broadcast(sums.shape, axes)


def adaptive_avg_pool(x: Sym, sizes: Ints) -> Sym:
    """Return means over windows so chosen that the result has given spatial sizes.

    Args:
        x: [N, C, *spatial], with known sizes.
        sizes: The size per dimension, or one for all.

    Returns:
        [N, C, *sizes].
    """
    wanted = per_axis(sizes, x.rank - 2, "adaptive_avg_pool: sizes")
    have = [known(x, a, "adaptive_avg_pool") for a in range(2, x.rank)]
    if all(n % m == 0 for n, m in zip(have, wanted, strict=True)):
        return avg_pool(x, [n // m for n, m in zip(have, wanted, strict=True)])
    for axis, (n, m) in enumerate(zip(have, wanted, strict=True), 2):
        x = resample(x, axis, *_shares(n, m))
    return x


def _shares(n: int, m: int) -> tuple[Table, Table]:
    """Return which of `n` elements each of `m` windows takes, and how much of them, [m, longest window]."""
    start = np.arange(m) * n // m
    size = -(-(np.arange(m) + 1) * n // m) - start
    at = np.arange(size.max())
    inside = at < size[:, None]
    return np.where(inside, start[:, None] + at, 0), inside / size[:, None]


def global_avg_pool(x: Sym) -> Sym:
    """Return the mean over the spatial dimensions of `x` [N, C, *spatial], which become 1."""
    _check_spatial(x)
    return composite_pool.global_avg_pool(x)


def global_max_pool(x: Sym) -> Sym:
    """Return the greatest over the spatial dimensions of `x`, which become 1; the first of equals gets the gradient."""
    _check_spatial(x)
    return composite_pool.global_max_pool(x)


def _check_spatial(x: Sym) -> None:
    expect_shape(x.rank >= 3, f"pooling: [N, C, *spatial] is expected, got {x.type.text}")


def _window(
    x: Sym, kernel: Sequence[int], strides: Ints | None, padding: Ints
) -> tuple[tuple[int, ...], ...]:
    """Return kernel, strides and padding per dimension."""
    _check_spatial(x)
    spatial = x.rank - 2
    expect_shape(
        len(kernel) == spatial,
        f"pooling: a kernel of {len(kernel)} dimensions for {spatial} spatial dimensions of {x.type.text}",
    )
    size = per_axis(kernel, spatial, "pooling: the kernel")
    steps = size if strides is None else per_axis(strides, spatial, "pooling: strides")
    pads = per_axis(padding, spatial, "pooling: padding", least=0)
    expect(
        all(2 * p <= k for p, k in zip(pads, size, strict=True)),
        f"pooling: padding {list(pads)} is more than half of the kernel {list(size)}",
    )
    return size, steps, pads


def _reach(
    x: Sym,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Return padding behind, so that a last window that starts on `x` or on the padding before it is whole."""
    found = []
    for axis, (k, s, p, d) in enumerate(zip(kernel, strides, padding, dilations, strict=True), 2):
        n = known(x, axis, "pooling with ceil")
        room = n + 2 * p - ((k - 1) * d + 1)
        last = (room // s + 1) * s
        found.append(p + s - room % s if room % s and last < n + p else p)
    return tuple(found)


def max_pool1d(
    x: Sym,
    kernel: Ints,
    strides: Ints | None = None,
    padding: Ints = 0,
    *,
    dilations: Ints = 1,
    ceil: bool = False,
) -> Sym:
    """Return `max_pool` over one spatial dimension."""
    size = per_axis(kernel, 1, "max_pool1d: the kernel")
    return max_pool(x, size, strides, padding, dilations=dilations, ceil=ceil)


def max_pool2d(
    x: Sym,
    kernel: Ints,
    strides: Ints | None = None,
    padding: Ints = 0,
    *,
    dilations: Ints = 1,
    ceil: bool = False,
) -> Sym:
    """Return `max_pool` over two spatial dimensions."""
    size = per_axis(kernel, 2, "max_pool2d: the kernel")
    return max_pool(x, size, strides, padding, dilations=dilations, ceil=ceil)


def max_pool3d(
    x: Sym,
    kernel: Ints,
    strides: Ints | None = None,
    padding: Ints = 0,
    *,
    dilations: Ints = 1,
    ceil: bool = False,
) -> Sym:
    """Return `max_pool` over three spatial dimensions."""
    size = per_axis(kernel, 3, "max_pool3d: the kernel")
    return max_pool(x, size, strides, padding, dilations=dilations, ceil=ceil)


def avg_pool1d(
    x: Sym,
    kernel: Ints,
    strides: Ints | None = None,
    padding: Ints = 0,
    *,
    ceil: bool = False,
    count_padding: bool = True,
) -> Sym:
    """Return `avg_pool` over one spatial dimension."""
    size = per_axis(kernel, 1, "avg_pool1d: the kernel")
    return avg_pool(x, size, strides, padding, ceil=ceil, count_padding=count_padding)


def avg_pool2d(
    x: Sym,
    kernel: Ints,
    strides: Ints | None = None,
    padding: Ints = 0,
    *,
    ceil: bool = False,
    count_padding: bool = True,
) -> Sym:
    """Return `avg_pool` over two spatial dimensions."""
    size = per_axis(kernel, 2, "avg_pool2d: the kernel")
    return avg_pool(x, size, strides, padding, ceil=ceil, count_padding=count_padding)


def avg_pool3d(
    x: Sym,
    kernel: Ints,
    strides: Ints | None = None,
    padding: Ints = 0,
    *,
    ceil: bool = False,
    count_padding: bool = True,
) -> Sym:
    """Return `avg_pool` over three spatial dimensions."""
    size = per_axis(kernel, 3, "avg_pool3d: the kernel")
    return avg_pool(x, size, strides, padding, ceil=ceil, count_padding=count_padding)
