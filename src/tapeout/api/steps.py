"""Many training steps in one native call: how many, and the batches that they read.

The native side runs step after step on rows of addresses. Between two steps of one call nothing of Python runs, so a call takes only so many as
leave Ctrl-C and callbacks prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.api.batches import array_of, fit_array, rows_of
from tapeout.support.errors import DataError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapeout.api.batches import Batch, DataSource
    from tapeout.api.session import CheckFailed, Entry
    from tapeout.ir.op import Array

SECONDS = 0.05
"""A native call of many steps takes about this long at most, unless one step alone takes longer."""

MOST = 256
"""Most steps of a call whose number is chosen here."""

STAGING = 16 << 20
"""Bytes of shuffled rows that are gathered for one call, at most (unless one batch is larger)."""


class Pace:
    """How many steps the next native call may take.

    Args:
        asked: That many; None: as many as run in about `SECONDS`, going by those before.

    Raises:
        OptionError: The number is not positive.
    """

    def __init__(self, asked: int | None = None) -> None:
        """Begin with one step, whose time is not known yet."""
        if asked is not None and asked < 1:
            raise OptionError(f"steps_per_call is {asked}, it must be at least 1")
        self._asked = asked
        self._next = 1

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self._next if self._asked is None else self._asked

    def took(self, steps: int, seconds: float) -> None:
        """Note how long a call took."""
        if steps:
            fit = int(SECONDS * steps / max(seconds, 1e-9))
            # One slow call must not be followed by many short ones, nor one lucky call by a very long one.
            self._next = max(1, min(fit, 4 * self._next, MOST))


@dataclass(frozen=True)
class Rows:
    """Batches of equal size that lie one after the other in the rows of arrays.

    Attributes:
        arrays: By input name, contiguous, of the types that the program takes.
        size: Rows of a batch.
        count: Number of batches.
    """

    arrays: Mapping[str, Array]
    size: int
    count: int

    def batch(self, n: int) -> dict[str, Array]:
        """Return a batch."""
        return {k: a[n * self.size : (n + 1) * self.size] for k, a in self.arrays.items()}

    def addresses(self, names: Sequence[str]) -> Array:
        """Return the addresses of the inputs of each batch, u64[batches, inputs]."""
        arrays = [self.arrays[n] for n in names]
        starts = np.array([a.ctypes.data for a in arrays], np.uint64)
        steps = np.array([self.size * a.strides[0] for a in arrays], np.uint64)
        return starts + np.arange(self.count, dtype=np.uint64)[:, None] * steps

    def rows(self, n: int) -> int:
        """Return the number of rows of a batch."""
        return self.size


@dataclass
class Listed:
    """Batches that lie anywhere.

    Attributes:
        batches: Arrays by input name, contiguous, of the types that the program takes.
        starts: The addresses of the inputs of each.
    """

    batches: list[Mapping[str, Array]] = field(default_factory=list)
    starts: list[list[int]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def batch(self, n: int) -> Mapping[str, Array]:
        """Return a batch."""
        return self.batches[n]

    def addresses(self, names: Sequence[str]) -> Array:
        """Return the addresses of the inputs of each batch, u64[batches, inputs]."""
        return np.array(self.starts, np.uint64).reshape(self.count, len(names))

    def rows(self, n: int) -> int:
        """Return the number of rows of a batch."""
        return rows_of(self.batches[n])


Block = Rows | Listed


Ran = tuple[dict[str, list[float]], list[int]]
"""The outputs of the steps of one native call by name, and the rows of each batch."""


@dataclass
class Runner:
    """Runs training steps, many in one native call where their batches lie in memory.

    Attributes:
        step: Runs one step.
        entry_for: Gives the entry point for a batch, compiled when it is new.
        refused: Gives the error of a batch that a check refused.
        pace: How many steps a call takes.
        word: How errors call a step.
        number: The number of the next step in errors.
    """

    step: Callable[[Batch], Mapping[str, float]]
    entry_for: Callable[[Batch], Entry]
    refused: Callable[[CheckFailed, Batch], DataError]
    pace: Pace
    word: str
    number: int

    def epoch(
        self, source: DataSource, *, shuffle: bool, seed: int, epoch: int, skip: int
    ) -> Iterator[Ran]:
        """Run the steps of an epoch; yield what those of each call gave."""
        if source.is_rows:
            order = source.order(shuffle=shuffle, seed=seed, epoch=epoch)
            for arrays, whole in row_groups(source, order, skip, self.pace):
                yield from self._rows(source, arrays, whole)
            return
        found = source.batches(shuffle=shuffle, seed=seed, epoch=epoch, skip=skip)
        if source.is_list:
            yield from self.listed(found)
            return
        for batch in found:  # a loader may use its memory again for the next one
            yield self._single(batch)

    def listed(self, batches: Iterable[Batch]) -> Iterator[Ran]:
        """Run batches that all lie in memory; yield what those of each call gave."""
        ready, entry = Listed(), None
        for batch in batches:
            arrays = batch
            starts = None if entry is None else entry.addresses_if_fit(batch)
            if entry is None or starts is None:
                try:
                    found = self.entry_for(batch)
                    arrays = fitted(found, batch)
                except DataError as error:
                    # What comes before is done first, as it would be step by step.
                    yield from self._block(entry, ready)
                    raise self._at(error) from None
                if found is not entry:
                    yield from self._block(entry, ready)
                    ready, entry = Listed(), found
                starts = [a.ctypes.data for a in arrays.values()]
            ready.batches.append(arrays)
            ready.starts.append(starts)
            if ready.count >= self.pace.steps:
                yield from self._block(entry, ready)
                ready = Listed()
        yield from self._block(entry, ready)

    def _rows(self, source: DataSource, arrays: dict[str, Array], whole: int) -> Iterator[Ran]:
        size = source.batch_size
        assert size is not None
        if whole < 2:
            yield self._single(arrays)
            return
        entry = self.entry_for({n: a[:size] for n, a in arrays.items()})
        block = block_of(entry, arrays, size)
        if block is not None:
            yield from self._block(entry, block)
            return
        for n in range(whole):
            yield self._single({k: a[n * size : (n + 1) * size] for k, a in arrays.items()})

    def _single(self, batch: Batch) -> Ran:
        start = time.perf_counter()
        try:
            result = self.step(batch)
        except DataError as error:
            raise self._at(error) from None
        self.pace.took(1, time.perf_counter() - start)
        self.number += 1
        return {n: [v] for n, v in result.items()}, [rows_of(batch)]

    def _block(self, entry: Entry | None, block: Block) -> Iterator[Ran]:
        if entry is None or block.count < 2 or not entry.many:
            for n in range(block.count):
                yield self._single(block.batch(n))
            return
        addresses = np.ascontiguousarray(block.addresses(entry.program.inputs))
        start = time.perf_counter()
        columns, failed = entry.run_steps(addresses)
        done = len(next(iter(columns.values())))
        self.pace.took(done, time.perf_counter() - start)
        self.number += done
        if done:
            yield columns, [block.rows(n) for n in range(done)]
        if failed is not None:
            raise self._at(self.refused(failed, block.batch(done)))

    def _at(self, error: DataError) -> DataError:
        """Return an error that says at which step it was."""
        place = f"{self.word} {self.number}"
        where = f"{place}: {error.where}" if error.where else place
        return DataError(error.message, where=where, hint=error.hint)


def block_of(entry: Entry, arrays: Mapping[str, Any], size: int) -> Rows | None:
    """Return rows as batches of an entry point; None if a row is no sample of it, which a single step says better."""
    made: dict[str, Array] = {}
    count = 0
    for name, type_ in entry.program.input_types.items():
        array, wanted = array_of(arrays[name]), type_.dtype.numpy
        if array.dtype != wanted:
            if not np.can_cast(array.dtype, wanted, "safe"):
                return None
            array = array.astype(wanted)
        if (size, *array.shape[1:]) != tuple(type_.shape):
            return None
        if not (array.flags.c_contiguous and array.flags.aligned):
            array = array.copy(order="C")
        made[name], count = array, len(array) // size
    return Rows(made, size, count)


def fitted(entry: Entry, batch: Batch) -> dict[str, Array]:
    """Return the arrays of a batch as an entry point takes them.

    Raises:
        DataError: One is missing or does not fit.
    """
    found = {}
    for name, type_ in entry.program.input_types.items():
        if name not in batch:
            raise DataError(f"the batch has no array {name!r}")
        array = fit_array(name, batch[name], type_)
        found[name] = array if array.flags.aligned else array.copy(order="C")
    return found


def row_groups(source: DataSource, order: Array | None, first: int, pace: Pace) -> Iterator[Any]:
    """Yield the rows of an epoch in groups that one call may take: mappings of arrays and the number of whole batches in each.

    A last batch that is shorter comes alone, with 0 for the number.

    Args:
        source: A mapping with a batch size.
        order: Which row comes when; None: as they lie, without a copy.
        first: How many rows are left out at the start.
        pace: How many batches a group may have.
    """
    data, size, rows = source.data, source.batch_size, source.rows
    assert isinstance(data, Mapping)
    assert size is not None
    assert rows is not None
    arrays = {n: data[n] for n in source.names}
    bytes_ = size * sum(a.nbytes // rows for a in arrays.values())
    at = first
    while at < rows:
        most = pace.steps if order is None else min(pace.steps, max(1, STAGING // max(1, bytes_)))
        whole = min(most, (rows - at) // size)
        stop = min(at + max(whole, 1) * size, rows)
        chosen = slice(at, stop) if order is None else order[at:stop]
        yield {n: a[chosen] for n, a in arrays.items()}, whole
        at = stop
