"""Buffers of the kernel oracle: bounds-checked, poisoned at first, with a memory of who touched what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tapeout.support.errors import VerifyError

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array


class MemoryFault(VerifyError):
    """A kernel touches an element out of bounds, or two threads touch one without waiting for each other."""


class Stamp(NamedTuple):
    """Who touches memory, and after which barriers.

    Attributes:
        task: Number of the iteration of the grid loop; tasks never wait for each other.
        warp: Number of the group iteration inside the block.
        thread: Number of the thread inside the block.
        block_epoch: Barriers of the block passed so far.
        warp_epoch: Barriers of the warp passed so far.
    """

    task: int = 0
    warp: int = 0
    thread: int = 0
    block_epoch: int = 0
    warp_epoch: int = 0

    def follows(self, before: Stamp) -> bool:
        """Whether an earlier touch is over for sure: it was the same thread's, or a barrier lies between."""
        if before.task != self.task:
            return False
        if before.thread == self.thread or before.block_epoch != self.block_epoch:
            return True
        return before.warp == self.warp and before.warp_epoch != self.warp_epoch


@dataclass
class Memory:
    """A flat buffer.

    Attributes:
        name: For messages.
        data: The elements.
        size: How many of them may be touched.
        unit: Elements per index: the lanes of a register buffer, else 1.
        owner: The thread that made it, None if all may touch it.
        access: `r`, `w` or `rw`.
        watched: Whether touches are logged to find races.
    """

    name: str
    data: Array
    size: int
    unit: int = 1
    owner: object = None
    access: str = "rw"
    watched: bool = False
    _writes: dict[int, Stamp] = field(default_factory=dict, repr=False)
    _reads: dict[int, Stamp] = field(default_factory=dict, repr=False)

    def read(self, at: Array, stamp: Stamp) -> Array:
        """Return elements at positions."""
        for i in at.tolist():
            self._touch(i, stamp, "read")
        found: Array = self.data[at]
        return found

    def read_one(self, at: int, stamp: Stamp) -> Array:
        """Return one element, as an array of one entry."""
        self._touch(at, stamp, "read")
        found: Array = self.data[at : at + 1].copy()
        return found

    def write_one(self, at: int, value: Array, stamp: Stamp) -> None:
        """Set one element to the only entry of an array."""
        self._check_write(value)
        self._touch(at, stamp, "written")
        self.data[at] = value[0]

    def write(self, at: Array, values: Array, stamp: Stamp) -> None:
        """Set elements at positions."""
        self._check_write(values)
        for i in at.tolist():
            self._touch(i, stamp, "written")
        self.data[at] = values

    def _check_write(self, values: Array) -> None:
        if "w" not in self.access:
            raise MemoryFault(f"{self.name} is only read by its declaration, but it is written")
        if values.dtype != self.data.dtype:
            raise MemoryFault(f"{self.name} holds {self.data.dtype}, but {values.dtype} is stored")

    def _touch(self, at: int, stamp: Stamp, how: str) -> None:
        if not 0 <= at < self.size:
            raise MemoryFault(f"{self.name}[{at}] is {how}, but it has {self.size} elements")
        if not self.watched:
            return
        written = self._writes.get(at)
        if written is not None and not stamp.follows(written):
            self._conflict(at, stamp, how, written, "written")
        if how == "read":
            self._reads[at] = stamp
            return
        read = self._reads.get(at)
        if read is not None and not stamp.follows(read):
            self._conflict(at, stamp, how, read, "read")
        self._writes[at] = stamp

    def _conflict(self, at: int, now: Stamp, how: str, before: Stamp, was: str) -> None:
        other = (
            "another iteration of the grid"
            if before.task != now.task
            else f"thread {before.thread} with no barrier between"
        )
        raise MemoryFault(
            f"{self.name}[{at}] is {how} by thread {now.thread}, and was {was} by {other}"
        )


def poisoned(dtype: DType, count: int) -> Array:
    """Return `count` elements that look wrong when used: NaN, or a number that is unlikely otherwise."""
    if dtype.is_float:
        return np.full(count, np.nan, dtype.numpy)
    if dtype.kind == "b":
        return np.asarray(np.arange(count) % 2 == 0)
    return np.full(count, 0xA5, np.uint8).repeat(dtype.bytes).view(dtype.numpy)
