"""Pictures brought to the size that a model takes: padded, resized, grey ones given more channels.

Pictures are `[samples, rows, columns]`, `[samples, channels, rows, columns]`, or, if the last axis has at most 4 entries and
axis 1 has more, `[samples, rows, columns, channels]`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.bounded import LIMIT_BYTES
from tapeout.data.dataset import describe
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

_CHANNELS = 4


def pad(array: Array, sizes: Sequence[int], where: str) -> Array:
    """Return pictures with zeros around them.

    Args:
        array: Pictures.
        sizes: How many above, below, left and right; or (above and below, left and right).
        where: The expression, for errors.
    """
    rows, columns = _two(sizes)
    spatial = _spatial(array, "pad", where)
    around = [(0, 0)] * array.ndim
    around[spatial[0]], around[spatial[1]] = (rows, rows), (columns, columns)
    _check_size(array, [n + a + b for n, (a, b) in zip(array.shape, around, strict=True)], where)
    return np.pad(array, around)


def resize(array: Array, sizes: Sequence[int], where: str) -> Array:
    """Return pictures of other sizes, linearly between the centres of their entries (ONNX's `half_pixel`, without smoothing).

    Args:
        array: Pictures.
        sizes: Rows and columns, or one number for both.
        where: The expression, for errors.
    """
    wanted = _two(sizes)
    if min(wanted) < 1:
        raise DataError(f"resize: sizes are {wanted[0]} and {wanted[1]}", where=where)
    for axis, size in zip(_spatial(array, "resize", where), wanted, strict=True):
        _check_size(array, [*array.shape[:axis], size, *array.shape[axis + 1 :]], where)
        array = _along(array, axis, size)
    return array


def channels(array: Array, sizes: Sequence[int], where: str) -> Array:
    """Return grey pictures with the one channel repeated, channels in front: `[samples, n, rows, columns]`."""
    count = sizes[0]
    spatial = _spatial(array, "channels", where)
    grey = array.ndim == 3 or array.size == len(array) * math.prod(array.shape[a] for a in spatial)
    if not grey or len(sizes) != 1 or count < 1:
        text = f"channels: one number of 1 or more and grey pictures are expected, the array is {describe(array)}"
        raise DataError(text, where=where)
    flat = array.reshape(len(array), 1, *(array.shape[a] for a in spatial))
    _check_size(array, [len(array), count, *flat.shape[2:]], where)
    return np.repeat(flat, count, axis=1)


FUNCTIONS = {"pad": pad, "resize": resize, "channels": channels}
"""What `--transform` knows beside arithmetic, each with an array and whole numbers as arguments."""


def _two(sizes: Sequence[int]) -> tuple[int, int]:
    return sizes[0], sizes[-1]


def _spatial(array: Array, what: str, where: str) -> tuple[int, int]:
    """Return the axes of rows and columns."""
    if array.ndim == 3:
        return 1, 2
    if array.ndim == 4:
        return (1, 2) if array.shape[3] <= _CHANNELS < array.shape[1] else (2, 3)
    text = f"{what}: pictures are expected, [samples, rows, columns] with or without channels; the array is {describe(array)}"
    raise DataError(text, where=where)


def _check_size(array: Array, shape: Sequence[int], where: str) -> None:
    if math.prod(shape) * array.itemsize > LIMIT_BYTES:
        text = f"the result {list(shape)} would be larger than {LIMIT_BYTES >> 30} GiB"
        raise DataError(text, where=where)


def _along(array: Array, axis: int, size: int) -> Array:
    """Return an array resized along one axis."""
    old = array.shape[axis]
    if old == size:
        return array
    places = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0, old - 1)
    low = np.minimum(np.floor(places).astype(np.int64), old - 1)
    high = np.minimum(low + 1, old - 1)
    share = (places - low).astype(array.dtype)
    share = share.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    first, second = array.take(low, axis), array.take(high, axis)
    result: Array = first + (second - first) * share
    return result
