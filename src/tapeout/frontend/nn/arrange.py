"""Layers without parameters that arrange: flatten, pad, upsample, pixel shuffle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.frontend.nn.base import expect, expect_shape, known, per_axis
from tapeout.ir.type import Dim
from tapeout.ops.composite.resample import repeat, resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ops.sym import Sym

    Table = np.ndarray[tuple[int, ...], np.dtype[Any]]

_CUBIC = -0.75
"""The slope of the cubic kernel, PyTorch's choice."""


def flatten(x: Sym, start: int = 1, end: int = -1) -> Sym:
    """Return the dimensions from `start` to `end` joined into one."""
    expect(
        -x.rank <= start < x.rank and -x.rank <= end < x.rank and start % x.rank <= end % x.rank,
        f"flatten: no axes {start} to {end} in {x.type.text}",
    )
    first, last = start % x.rank, end % x.rank + 1
    return x.reshape([*x.shape[:first], math.prod(x.shape[first:last]), *x.shape[last:]])


def pad(x: Sym, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Sym:
    """Return `x` with elements put around it.

    Args:
        x: Any shape.
        pads: Before and after the last dimension, before and after the one in front of it, and so on; negative numbers crop.
        mode: `constant`, `reflect`, `replicate` or `circular`.
        value: What is put around in mode `constant`.
    """
    expect(
        len(pads) % 2 == 0 and len(pads) // 2 <= x.rank,
        f"pad: {len(pads)} numbers for {x.type.text}, expected two for each of the last dimensions",
    )
    expect(
        mode in ("constant", "reflect", "replicate", "circular"),
        f"pad: the mode is {mode!r}, expected constant, reflect, replicate or circular",
    )
    low, high = [0] * x.rank, [0] * x.rank
    for i in range(len(pads) // 2):
        low[-1 - i], high[-1 - i] = pads[2 * i], pads[2 * i + 1]
    if mode == "constant":
        return x.pad(low, high, value)
    for axis in range(x.rank):
        if low[axis] or high[axis]:
            x = _continued(x, axis, low[axis], high[axis], mode)
    return x


def _continued(x: Sym, axis: int, low: int, high: int, mode: str) -> Sym:
    """Return `x` continued along an axis; it stays where a number is negative."""
    n = known(x, axis, f"pad in mode {mode}")
    most = n - 1 if mode == "reflect" else n if mode == "circular" else max(low, high, 0)
    expect_shape(
        max(low, high) <= most, f"pad: {max(low, high)} elements of axis {axis} of {x.type.text}"
    )
    start, end = max(-low, 0), n - max(-high, 0)
    parts = [_cut(x, axis, start, end)]
    if low > 0:
        parts.insert(0, _before(x, axis, low, n, mode))
    if high > 0:
        parts.append(_before(x.reverse([axis]), axis, high, n, mode).reverse([axis]))
    return parts[0].concat(parts[1:], axis) if len(parts) > 1 else parts[0]


def _before(x: Sym, axis: int, count: int, n: int, mode: str) -> Sym:
    """Return what stands in front of `x`."""
    if mode == "reflect":
        return _cut(x, axis, 1, count + 1).reverse([axis])
    if mode == "circular":
        return _cut(x, axis, n - count, n)
    first = _cut(x, axis, 0, 1)
    return first.broadcast_to([count if a == axis else s for a, s in enumerate(x.shape)])


def _cut(x: Sym, axis: int, start: int, end: int) -> Sym:
    return x[(slice(None),) * axis + (slice(start, end),)]


def upsample(
    x: Sym,
    scale: float | Sequence[float] | None = None,
    *,
    size: int | Sequence[int] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Sym:
    """Return `x` resized over its spatial dimensions, which may also become smaller.

    Args:
        x: [N, C, *spatial].
        scale: How many times larger, per dimension or one for all.
        size: The sizes instead.
        mode: `nearest`, `linear` (over any number of dimensions: bilinear, trilinear), or `cubic`.
        align_corners: Whether the outermost elements stay where they are (`linear` and `cubic`).

    Returns:
        [N, C, *sizes].
    """
    expect_shape(x.rank >= 3, f"upsample: [N, C, *spatial] is expected, got {x.type.text}")
    expect((scale is None) != (size is None), "upsample: give either scale or size")
    expect(
        mode in ("nearest", "linear", "cubic"),
        f"upsample: the mode is {mode!r}, expected nearest, linear or cubic",
    )
    expect(not (align_corners and mode == "nearest"), "upsample: nearest aligns no corners")
    sizes, scales = _sizes(x, scale, size)
    for axis, (m, s) in enumerate(zip(sizes, scales, strict=True), 2):
        n = x.shape[axis]
        if s is not None and mode == "nearest" and s == int(s):
            x = repeat(x, {axis: int(s)})
        elif n != m or isinstance(n, Dim):
            places = _places(known(x, axis, "upsample"), m, s, mode, align_corners)
            x = _resampled(x, axis, places, mode)
    return x


def _sizes(
    x: Sym, scale: float | Sequence[float] | None, size: int | Sequence[int] | None
) -> tuple[list[int], list[float | None]]:
    axes = x.rank - 2
    if size is not None:
        return list(per_axis(size, axes, "upsample: size")), [None] * axes
    assert scale is not None
    scales = [float(scale)] * axes if isinstance(scale, int | float) else [float(s) for s in scale]
    expect(
        len(scales) == axes and all(s > 0 for s in scales),
        f"upsample: the scale is {scale}, expected one number or {axes} of them, above 0",
    )
    sizes = [
        n * int(s) if s == int(s) else math.floor(known(x, a, "upsample") * s)
        for a, (n, s) in enumerate(zip(x.shape[2:], scales, strict=True), 2)
    ]
    expect_shape(all(m > 0 for m in sizes), f"upsample: the result would have the sizes {sizes}")
    return sizes, list(scales)


def _places(n: int, m: int, scale: float | None, mode: str, align_corners: bool) -> Table:
    """Return where in `x` the elements of the result lie."""
    i = np.arange(m, dtype=np.float64)
    if align_corners:
        return i * ((n - 1) / (m - 1)) if m > 1 else i
    step = n / m if scale is None else 1 / scale
    return i * step if mode == "nearest" else (i + 0.5) * step - 0.5


def _resampled(x: Sym, axis: int, places: Table, mode: str) -> Sym:
    n = int(x.shape[axis])
    if mode == "nearest":
        at = np.minimum(np.floor(places), n - 1).astype(np.int64)
        return resample(x, axis, at[:, None], np.ones((len(at), 1)))
    return resample(x, axis, *(_linear if mode == "linear" else _cubic)(places, n))


def _linear(places: Table, n: int) -> tuple[Table, Table]:
    """Return which two elements each takes, and how much of them, [out, 2]."""
    at = np.clip(places, 0, None)
    low = np.minimum(np.floor(at).astype(np.int64), n - 1)
    share = at - low
    return (
        np.stack([low, np.minimum(low + 1, n - 1)], 1),
        np.stack([1 - share, share], 1),
    )


def _cubic(places: Table, n: int) -> tuple[Table, Table]:
    """Return which four elements each takes, and how much of them, [out, 4]."""
    low = np.floor(places).astype(np.int64)
    share = places - low
    taps, weights = [], []
    for tap in range(-1, 3):
        d = np.abs(share - tap)
        near = ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1
        far = ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC
        taps.append(np.clip(low + tap, 0, n - 1))
        weights.append(np.where(d <= 1, near, far))
    return np.stack(taps, 1), np.stack(weights, 1)


def pixel_shuffle(x: Sym, factor: int) -> Sym:
    """Return `x` [N, C·factor², H, W] as [N, C, H·factor, W·factor]: channels become pixels."""
    expect_shape(x.rank == 4, f"pixel_shuffle: [N, C, H, W] is expected, got {x.type.text}")
    channels = known(x, 1, "pixel_shuffle")
    expect_shape(
        factor > 0 and channels % (factor * factor) == 0,
        f"pixel_shuffle: {channels} channels do not part by {factor}²",
    )
    n, _, h, w = x.shape
    parted = x.reshape([n, channels // (factor * factor), factor, factor, h, w])
    return parted.transpose([0, 1, 4, 2, 5, 3]).reshape([n, -1, h * factor, w * factor])
