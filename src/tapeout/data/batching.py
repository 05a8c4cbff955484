"""The order of samples and batches of them: fixed by seed and epoch on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.dataset import Dataset
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

_SPLIT_STREAM = 0x5B117
"""Keeps the random numbers of `split` apart from those of any epoch."""


def epoch_order(samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return a random order of the rows 0 … samples-1.

    Raw Philox words are sorted, which numpy promises to keep the same from version to version (it
    does not promise that of `Generator.permutation`), so a run can be resumed in the middle of an
    epoch anywhere.

    Args:
        samples: How many rows there are.
        seed: Seed of the run, >= 0.
        epoch: Number of the epoch, from 0.

    Returns:
        i64[samples], a permutation.
    """
    return _permutation(samples, (seed, epoch))


def batches(
    arrays: Mapping[str, Array], batch_size: int, order: NDArray[np.int64] | None = None
) -> Iterator[dict[str, Array]]:
    """Yield consecutive batches; the last one is shorter where the rows run out.

    Args:
        arrays: Name -> array[rows, …], all with the same number of rows.
        batch_size: Rows per batch, >= 1.
        order: Which row comes when; None: as they lie (the batches are then views, otherwise
            copies).

    Raises:
        DataError: No arrays, arrays of different lengths, a batch size below 1, a row that does not
            exist.
    """
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) != 1:
        raise DataError(f"arrays with one common number of rows are expected, got {rows}")
    if batch_size < 1:
        raise DataError(f"the batch size is {batch_size}, at least 1 is expected")
    count = next(iter(rows.values()))
    if order is not None and order.size:
        low, high = int(order.min()), int(order.max())
        if low < 0 or high >= count:
            raise DataError(f"the order names rows from {low} to {high}, there are {count}")
    return _batches(arrays, batch_size, order, count if order is None else len(order))


def _batches(
    arrays: Mapping[str, Array], batch_size: int, order: NDArray[np.int64] | None, count: int
) -> Iterator[dict[str, Array]]:
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        rows = slice(start, stop) if order is None else order[start:stop]
        yield {name: array[rows] for name, array in arrays.items()}


def split(
    dataset: Dataset, fraction: float, *, seed: int, labels: str | None = None
) -> tuple[Dataset, Dataset]:
    """Return (train, held out), both in the order of the file.

    Args:
        dataset: What to split.
        fraction: Share of the rows to hold out, strictly between 0 and 1.
        seed: Seed of the choice, >= 0.
        labels: Name of an integer array: the share is then held out of every class alike.

    Raises:
        DataError: The fraction is out of range, one part would be empty, or there are no such
            labels.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(f"the share to hold out is {fraction}, between 0 and 1 is expected")
    if labels is not None and (labels not in dataset.arrays or dataset.arrays[labels].ndim != 1):
        raise DataError(f"there is no array {labels!r} with one label per row")
    order = _permutation(dataset.samples, (seed, _SPLIT_STREAM))
    classes = (
        dataset.arrays[labels][order] if labels is not None else np.zeros(dataset.samples, np.int64)
    )
    held = np.zeros(dataset.samples, np.bool_)
    for label in np.unique(classes):
        rows = order[classes == label]
        held[rows[: round(len(rows) * fraction)]] = True
    if held.all() or not held.any():
        raise DataError(f"{dataset.samples} rows are too few to hold out a share of {fraction}")
    return dataset.take(np.flatnonzero(~held)), dataset.take(np.flatnonzero(held))


def _permutation(count: int, key: tuple[int, int]) -> NDArray[np.int64]:
    if min(key) < 0:
        raise DataError(f"the seed is {key[0]} and the epoch {key[1]}; neither may be negative")
    words = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)
