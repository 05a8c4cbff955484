"""Buffers of the kernel oracle: bounds-checked, poisoned at first, with a memory of who touched what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tapeout.support.errors import VerifyError

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array


class MemoryFault(VerifyError):
    """A kernel touches an element out of bounds, or two threads touch one without waiting for each other."""


@dataclass
class Stamp:
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

    def row(self) -> tuple[int, int, int, int, int]:
        """Return the stamp as a row of a `Memory` log."""
        return (self.task, self.warp, self.thread, self.block_epoch, self.warp_epoch)


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
    _writes: Array = field(init=False, repr=False)
    _reads: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Start with an empty log."""
        rows = self.size if self.watched else 0
        self._writes = np.full((rows, 5), -1, np.int64)
        self._reads = np.full((rows, 5), -1, np.int64)

    def read(self, at: Array, stamp: Stamp) -> Array:
        """Return elements at positions."""
        self._inside(at, "read")
        if self.watched and at.size:
            self._conflict(self._writes, at, stamp, "reads", "written")
            self._reads[at] = stamp.row()
        found: Array = self.data[at]
        return found

    def write(self, at: Array, values: Array, stamp: Stamp) -> None:
        """Set elements at positions."""
        self._inside(at, "written")
        if "w" not in self.access:
            raise MemoryFault(f"{self.name} is only read by its declaration, but it is written")
        if values.dtype != self.data.dtype:
            raise MemoryFault(f"{self.name} holds {self.data.dtype}, but {values.dtype} is stored")
        if self.watched and at.size:
            self._conflict(self._writes, at, stamp, "writes", "written")
            self._conflict(self._reads, at, stamp, "writes", "read")
            self._writes[at] = stamp.row()
        self.data[at] = values

    def _inside(self, at: Array, how: str) -> None:
        bad = (at < 0) | (at >= self.size)
        if bad.any():
            first = int(at[bad][0])
            raise MemoryFault(f"{self.name}[{first}] is {how}, but it has {self.size} elements")

    def _conflict(self, log: Array, at: Array, stamp: Stamp, now: str, before: str) -> None:
        rows = log[at]
        task, warp, thread, block_epoch, warp_epoch = rows.T
        same = (task == stamp.task) & (thread == stamp.thread)
        waited = (task == stamp.task) & (
            (block_epoch != stamp.block_epoch)
            | ((warp == stamp.warp) & (warp_epoch != stamp.warp_epoch))
        )
        bad = (task >= 0) & ~same & ~waited
        if not bad.any():
            return
        first = int(at[bad][0])
        other = (
            "another iteration of the grid"
            if (task != stamp.task)[bad][0]
            else (f"thread {int(thread[bad][0])} with no barrier between")
        )
        raise MemoryFault(
            f"{self.name}[{first}]: thread {stamp.thread} {now} what was {before} by {other}"
        )


def poisoned(dtype: DType, count: int) -> Array:
    """Return `count` elements that look wrong when used: NaN, or a number that is unlikely otherwise."""
    if dtype.is_float:
        return np.full(count, np.nan, dtype.numpy)
    if dtype.kind == "b":
        return np.asarray(np.arange(count) % 2 == 0)
    return np.full(count, 0xA5, np.uint8).repeat(dtype.bytes).view(dtype.numpy)
