"""The checked, named arrays that every reader ends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

_CHUNK = 1 << 20
_ACCEPTED = "bool, int8…int64, uint8…uint64, float16, float32 and float64 are accepted"


@dataclass(frozen=True)
class Dataset:
    """Arrays with one sample per row.

    Attributes:
        arrays: Name -> array, one of the dtypes bool, int, uint, float16, float32, float64; all of
            them have the same first axis, which is not empty, and hold no NaN and no infinity.
        notes: What the reader decided by itself, one readable line each.
    """

    arrays: dict[str, Array]
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.arrays.values())))

    def take(self, rows: NDArray[np.int64]) -> Dataset:
        """Return the dataset of these rows, in this order; the arrays are copies."""
        return Dataset({name: array[rows] for name, array in self.arrays.items()}, self.notes)


def checked_dataset(arrays: Mapping[str, Array], notes: tuple[str, ...], where: str) -> Dataset:
    """Check arrays that a reader produced and return them as a dataset.

    Args:
        arrays: Name -> array of any dtype and shape.
        notes: What the reader decided by itself.
        where: The file or folder, for messages.

    Returns:
        The dataset; arrays of foreign byte order are converted, others are not copied.

    Raises:
        DataError: No arrays, an unusable dtype, no rows, rows that differ in number, a NaN or an
            infinity.
    """
    if not arrays:
        raise DataError("holds no arrays", where=where)
    native = {name: _usable(array, f"{where}: array {name!r}") for name, array in arrays.items()}
    rows = {name: len(array) for name, array in native.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
        raise DataError(f"the arrays differ in their number of rows: {counts}", where=where)
    for name, array in native.items():
        check_finite(array, f"{where}: array {name!r}")
    return Dataset(native, notes)


def check_finite(array: Array, where: str) -> None:
    """Raise DataError with the index of the first NaN or infinity of `array`, if there is one."""
    if array.dtype.kind != "f":
        return
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        good = np.isfinite(flat[start : start + _CHUNK])
        if good.all():
            continue
        first = start + int(np.argmin(good))
        index = [int(i) for i in np.unravel_index(first, array.shape)]
        raise DataError(
            f"holds {flat[first]} at index {index}; only finite numbers can be trained on",
            where=where,
        )


def describe(array: Array) -> str:
    """Return dtype and shape as in `u8[4000,28,28]`."""
    return f"{short_dtype(array.dtype)}[{','.join(str(size) for size in array.shape)}]"


def short_dtype(dtype: np.dtype[Any]) -> str:
    """Return the name that tapeout's texts use: `f32`, `u8`, `bool`."""
    return "bool" if dtype.kind == "b" else f"{dtype.kind}{8 * dtype.itemsize}"


def _usable(array: Array, where: str) -> Array:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise DataError(f"has dtype {array.dtype}", where=where, hint=_ACCEPTED)
    if array.ndim == 0:
        raise DataError("is a single number; one row per sample is expected", where=where)
    if array.size == 0:
        raise DataError(f"is empty: its shape is {list(array.shape)}", where=where)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
