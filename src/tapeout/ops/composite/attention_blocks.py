"""Long attention with a window, cut into blocks of queries: each reads only the keys that its queries can see.

Of causal attention half the scores are never needed. Four blocks leave out three quarters of that half, and the scores of one block at a
time are all that has to lie in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ops.sym import Sym

LEAST_QUERIES = 256
"""Shorter attention stays whole: its products are small, and more kernels would cost more than they save."""

BLOCKS = 4
_ROUND = 16


@dataclass(frozen=True)
class Block:
    """Queries `start .. stop-1` and the keys `first .. last-1` that they may see."""

    start: int
    stop: int
    first: int
    last: int

    def queries(self, x: Sym, axis: int = -2) -> Sym:
        """Return the part of a value with a dimension of queries; one of size 1 stands for all."""
        return cut(x, axis, self.start, self.stop)

    def keys(self, x: Sym, axis: int = -2) -> Sym:
        """Return the part of a value with a dimension of keys; one of size 1 stands for all."""
        return cut(x, axis, self.first, self.last)

    def among_keys(self, x: Sym, total: int) -> Sym:
        """Return rows of this block's keys among those of all keys, zeros elsewhere."""
        low = (*(0,) * (x.rank - 2), self.first, 0)
        high = (*(0,) * (x.rank - 2), total - self.last, 0)
        return x.pad(low, high)


def blocks_of(queries: int, keys: int, left: int, right: int, offset: int) -> list[Block]:
    """Return the blocks of attention: one of everything if it is short or has no window.

    Args:
        queries: How many there are.
        keys: How many there are.
        left: How many keys before its own position a query sees, -1 for all.
        right: How many behind it, -1 for all.
        offset: Position of the first query among the keys.
    """
    if queries < LEAST_QUERIES or (left < 0 and right < 0):
        return [Block(0, queries, 0, keys)]
    rows = -(-queries // BLOCKS)
    rows = -(-rows // _ROUND) * _ROUND
    found = []
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        first = 0 if left < 0 else max(start + offset - left, 0)
        last = keys if right < 0 else min(stop + offset + right, keys)
        # At least one key, so that no tensor is empty; the window still masks it.
        last = max(last, 1)
        found.append(Block(start, stop, min(first, last - 1), last))
    return found


def cut(x: Sym, axis: int, start: int, stop: int) -> Sym:
    """Return `start .. stop-1` of a dimension; one of size 1 stands for all."""
    axis %= x.rank
    if x.shape[axis] == 1:
        return x
    starts, limits = [0] * x.rank, list(x.shape)
    starts[axis], limits[axis] = start, stop
    return x.slice(starts, limits)


def joined(parts: Sequence[Sym], axis: int) -> Sym:
    """Return parts one after the other."""
    return parts[0].concat(parts[1:], axis) if len(parts) > 1 else parts[0]


def total(parts: Sequence[Sym]) -> Sym:
    """Return the sum of parts, in order."""
    found = parts[0]
    for p in parts[1:]:
        found = found + p
    return found
