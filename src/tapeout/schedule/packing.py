"""Looks for an order in which blocks of memory, placed one by one into the tightest gap, lose few bytes between them.

A fixed number of moves of one block to another place in the order, chosen by a fixed sequence of numbers; a move that does no harm
stays. The result depends on the blocks alone.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOVES = 3000
"""Most orders that are tried."""

WORK = 1_000_000
"""Most pairs of blocks that are compared, about: less than a second."""

Block = tuple[int, int, int]
"""Bytes, the first and the last item that touches it."""


def improved(blocks: Sequence[Block]) -> list[int]:
    """Return the numbers of blocks in a better order than they come in, or in the same."""
    order = list(range(len(blocks)))
    beside = _beside(blocks)
    pairs = sum(map(len, beside)) + 1
    least = _alive_at_once(blocks)
    end = _end(order, blocks, beside)
    state = 1
    for _ in range(min(MOVES, WORK // pairs)):
        if end <= least:
            break
        state, source = _next(state, len(order))
        state, target = _next(state, len(order))
        tried = list(order)
        tried.insert(target, tried.pop(source))
        found = _end(tried, blocks, beside)
        if found <= end:
            order, end = tried, found
    return order


def _next(state: int, count: int) -> tuple[int, int]:
    """Return the next state of a linear congruential generator, and a number below `count`."""
    state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
    return state, (state >> 33) % count


def _beside(blocks: Sequence[Block]) -> list[list[int]]:
    """Return for each block the others that are alive with it."""
    return [
        [m for m, (_, a, b) in enumerate(blocks) if m != n and a <= last and b >= first]
        for n, (_, first, last) in enumerate(blocks)
    ]


def _alive_at_once(blocks: Sequence[Block]) -> int:
    steps: dict[int, int] = {}
    for size, first, last in blocks:
        steps[first] = steps.get(first, 0) + size
        steps[last + 1] = steps.get(last + 1, 0) - size
    return max(accumulate(steps[n] for n in sorted(steps)), default=0)


def _end(order: Sequence[int], blocks: Sequence[Block], beside: Sequence[Sequence[int]]) -> int:
    """Return where the last block ends if they are placed in an order."""
    places: dict[int, int] = {}
    end = 0
    for n in order:
        size = blocks[n][0]
        taken = sorted((places[m], places[m] + blocks[m][0]) for m in beside[n] if m in places)
        reach, best, at = 0, -1, -1
        for start, stop in taken:
            gap = start - reach
            if gap >= size and (best < 0 or gap < best):
                best, at = gap, reach
            reach = max(reach, stop)
        places[n] = at if best >= 0 else reach
        end = max(end, places[n] + size)
    return end
