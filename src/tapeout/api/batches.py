"""From what users pass as data to batches of arrays by input name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.batching import batches as sliced
from tapeout.data.batching import epoch_order
from tapeout.support.errors import DataError, nearest

if TYPE_CHECKING:
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType

Batch = Mapping[str, Any]
Data = Mapping[str, Any] | Iterable[Any]


def array_of(value: Any) -> Array:
    """Return a numpy array of anything with `__array__` or `__dlpack__`, without a copy where possible."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


def fit_array(name: str, value: Any, type_: TensorType) -> Array:
    """Return a C-contiguous array of exactly this type.

    Integers widen and floats widen; nothing is narrowed in silence.

    Raises:
        DataError: Shape or dtype do not fit.
    """
    array = array_of(value)
    wanted = type_.dtype.numpy
    if array.dtype != wanted:
        if not np.can_cast(array.dtype, wanted, "safe"):
            raise DataError(
                f"dtype is {array.dtype}, the model takes {wanted}",
                where=name,
                hint=f"convert it: {name}.astype({str(wanted)!r})",
            )
        array = array.astype(wanted)
    if array.shape != type_.shape:
        raise DataError(
            f"shape is {list(array.shape)}, expected {list(map(int, type_.shape))}", where=name
        )
    return np.asarray(array, order="C")  # ascontiguousarray would give a scalar a dimension


class DataSource:
    """Batches from a mapping of arrays, or from a re-iterable of mappings or (inputs, labels) pairs."""

    def __init__(
        self, data: Data, names: Sequence[str], batch_size: int | None, *, what: str = "data"
    ) -> None:
        """Check the data.

        Args:
            data: Mapping of arrays with equal first dimension, or an iterable of batches. Without a batch size, arrays whose
                first dimensions differ (time may come before samples) are one batch.
            names: Input names; the pair form fills the first and the last.
            batch_size: Rows of a batch; needed for a mapping.
            what: How errors call it.
        """
        self.names, self.what, self.batch_size = list(names), what, batch_size
        self.data = data
        self.rows: int | None = None
        self._whole = False
        if isinstance(data, Mapping):
            self._check_mapping(data)
        elif not isinstance(data, Iterable):
            raise DataError(
                f"{what} is {type(data).__name__}; a mapping of arrays or an iterable of batches is expected"
            )

    def _check_mapping(self, data: Mapping[str, Any]) -> None:
        self.data = arrays = {n: array_of(a) for n, a in data.items()}
        for name in self.names:
            if name not in arrays:
                raise DataError(f"{self.what} has no array {name!r}", hint=nearest(name, arrays))
        for name in self.names:
            if not arrays[name].ndim:
                raise DataError("is a scalar; the first dimension must count samples", where=name)
        sizes = {n: len(arrays[n]) for n in self.names}
        self._whole = len(set(sizes.values())) != 1
        if self._whole and self.batch_size is not None:
            hint = (
                "where samples are not the first dimension, pass batches: an iterable of mappings"
            )
            raise DataError(f"arrays of {self.what} differ in length: {sizes}", hint=hint)
        self.rows = sizes[self.names[-1]]
        if not self.rows:
            raise DataError(f"{self.what} is empty")
        if self.batch_size is None:
            self.batch_size = self.rows
        if self.batch_size < 1:
            raise DataError(f"batch_size is {self.batch_size}, it must be at least 1")

    @property
    def is_one_shot(self) -> bool:
        """Whether a second pass would find nothing."""
        return isinstance(self.data, Iterator)

    @property
    def is_rows(self) -> bool:
        """Whether batches are cut from the rows of arrays."""
        return isinstance(self.data, Mapping) and not self._whole

    @property
    def is_list(self) -> bool:
        """Whether all batches lie in memory, each for itself."""
        return isinstance(self.data, (list, tuple)) or self._whole

    def order(self, *, shuffle: bool, seed: int, epoch: int) -> Array | None:
        """Return which row of a mapping comes when; None: as they lie."""
        if not shuffle:
            return None
        assert self.rows is not None
        return epoch_order(self.rows, seed, epoch)

    def __len__(self) -> int:
        """Return the number of batches of a mapping (0 when unknown)."""
        return 0 if self.rows is None or not self.batch_size else -(-self.rows // self.batch_size)

    def batches(
        self, *, shuffle: bool, seed: int, epoch: int, skip: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield batches; the order depends on seed and epoch alone. `skip` leaves out that many first rows.

        Raises:
            DataError: The batches of an iterable are not cut where `skip` ends.
        """
        if isinstance(self.data, Mapping):
            assert self.batch_size is not None
            arrays = {n: self.data[n] for n in self.names}
            assert self.rows is not None
            if self._whole:
                if skip < self.rows:
                    yield arrays
                return
            order = epoch_order(self.rows, seed, epoch) if shuffle else None
            if skip:
                order = (np.arange(self.rows) if order is None else order)[skip:]
            yield from sliced(arrays, self.batch_size, order)
            return
        for found in self.data:
            batch = self._named(found)
            if skip <= 0:
                yield batch
                continue
            skip -= rows_of(batch)
            if skip < 0:
                raise DataError(
                    f"the run stopped {-skip} rows before the end of a batch of {self.what}",
                    hint="give batches of the size that the run was started with",
                )

    def _named(self, batch: Any) -> dict[str, Any]:
        if isinstance(batch, Mapping):
            return dict(batch)
        if isinstance(batch, (tuple, list)) and len(batch) == 2 and len(self.names) >= 2:
            return {self.names[0]: batch[0], self.names[-1]: batch[1]}
        raise DataError(
            f"a batch of {self.what} is {type(batch).__name__}; a mapping or an (inputs, labels) pair is expected"
        )


def rows_of(batch: Batch) -> int:
    """Return the number of samples of a batch: the first dimension of its first array that has one."""
    for value in batch.values():
        array = array_of(value)
        if array.ndim:
            return len(array)
    return 1


def not_finite(batch: Batch) -> str:
    """Return a description of the first NaN or infinity in a batch, empty if there is none."""
    for name, value in batch.items():
        array = array_of(value)
        if array.dtype.kind != "f":
            continue
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            at = tuple(int(i) for i in bad[0])
            return f"{name} holds {array[at]} at index {list(at)}"
    return ""
