"""Horizontal places for the boxes and bends of rows.

After Brandes and Köpf, Fast and Simple Horizontal Coordinate Assignment (2001).

Four assignments, each aligning numbers into straight vertical blocks from one corner, are balanced
by the mean of the two medians. Blocks are packed as the longest paths of a graph of blocks, which
is exact where the original's classes are not.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = 26.0
"""Free space between two boxes of a row."""

BEND_GAP = 12.0
"""Free space between a bend and its neighbour."""

Rows = list[list[int]]


def horizontal(
    rows: Rows,
    up: Sequence[Sequence[int]],
    down: Sequence[Sequence[int]],
    widths: Sequence[float],
    boxes: int,
) -> list[float]:
    """Return the x of each number's centre; the row's order is kept and nothing overlaps.

    Args:
        rows: Numbers of each rank in order.
        up: Neighbours above, per number.
        down: Neighbours below, per number.
        widths: Width per number.
        boxes: Numbers from here on are bends.
    """
    if not widths:
        return []
    crossed = _conflicts(rows, up, boxes)
    found: list[list[float]] = []
    for flip_rows in (False, True):
        near = down if flip_rows else up
        for flip_order in (False, True):
            order = [
                row[::-1] if flip_order else row for row in (rows[::-1] if flip_rows else rows)
            ]
            xs = _pack(order, _align(order, near, crossed), widths, boxes)
            found.append([-x for x in xs] if flip_order else xs)
    return _balance(found, widths)


def _conflicts(rows: Rows, up: Sequence[Sequence[int]], boxes: int) -> set[tuple[int, int]]:
    """Return links that cross a link between two bends: those stay straight, these give way."""
    crossed: set[tuple[int, int]] = set()
    for above, row in pairwise(rows):
        place = {n: i for i, n in enumerate(above)}
        low, start = 0, 0
        for i, n in enumerate(row):
            inner = next((m for m in up[n] if n >= boxes and m >= boxes), None)
            if inner is None and i < len(row) - 1:
                continue
            high = len(above) if inner is None else place[inner]
            for m in row[start : i + 1]:
                for p in up[m]:
                    if not low <= place[p] <= high and not (m >= boxes and p >= boxes):
                        crossed.add((p, m))
            low, start = high, i + 1
    return crossed


def _align(rows: Rows, near: Sequence[Sequence[int]], crossed: set[tuple[int, int]]) -> list[int]:
    """Return the root of the block of each number: chains of median neighbours that do not cross."""
    root = list(range(len(near)))
    taken = [False] * len(near)
    for before, row in pairwise(rows):
        place = {n: i for i, n in enumerate(before)}
        last = -1
        for n in row:
            beside = sorted(near[n], key=place.__getitem__)
            if not beside:
                continue
            for at in sorted({(len(beside) - 1) // 2, len(beside) // 2}):
                m = beside[at]
                # A number's row before may already have given this neighbour away to one on its left.
                if taken[m] or place[m] <= last or (m, n) in crossed or (n, m) in crossed:
                    continue
                root[n], taken[m], last = root[m], True, place[m]
                break
    return root


def _pack(rows: Rows, root: Sequence[int], widths: Sequence[float], boxes: int) -> list[float]:
    """Return places with every block as far left as it goes, then drawn towards its right neighbours."""
    after: dict[int, dict[int, float]] = {}
    before: dict[int, dict[int, float]] = {}
    for row in rows:
        for a, b in pairwise(row):
            gap = (widths[a] + widths[b]) / 2 + (GAP if a < boxes and b < boxes else BEND_GAP)
            s, t = root[a], root[b]
            gap = max(gap, after.get(s, {}).get(t, 0.0))
            after.setdefault(s, {})[t] = gap
            before.setdefault(t, {})[s] = gap
    order = _topological([n for row in rows for n in row if root[n] == n], after, before)
    x = [0.0] * len(root)
    for n in order:
        x[n] = max((x[p] + gap for p, gap in before.get(n, {}).items()), default=0.0)
    for n in reversed(order):
        if after.get(n):
            x[n] = max(x[n], min(x[s] - gap for s, gap in after[n].items()))
    return [x[r] for r in root]


def _topological(
    blocks: list[int], after: dict[int, dict[int, float]], before: dict[int, dict[int, float]]
) -> list[int]:
    waiting = {n: len(before.get(n, ())) for n in blocks}
    ready = [n for n in blocks if not waiting[n]]
    for n in ready:
        for s in after.get(n, ()):
            waiting[s] -= 1
            if not waiting[s]:
                ready.append(s)
    assert len(ready) == len(blocks), "blocks of a layered drawing form no cycle"
    return ready


def _balance(found: list[list[float]], widths: Sequence[float]) -> list[float]:
    """Return, per number, the mean of the two middle places once all four are as wide as the narrowest."""
    spans = [
        (min(_left(xs, widths)), max(x + w / 2 for x, w in zip(xs, widths, strict=True)))
        for xs in found
    ]
    narrow = min(range(len(found)), key=lambda i: (spans[i][1] - spans[i][0], i))
    low, high = spans[narrow]
    # Those packed from the left keep the left border in common, the others the right one.
    moved = [
        [x + (high - span[1] if i % 2 else low - span[0]) for x in xs]
        for i, (xs, span) in enumerate(zip(found, spans, strict=True))
    ]
    places = [sorted(four) for four in zip(*moved, strict=True)]
    middle = [(four[1] + four[2]) / 2 for four in places]
    left = min(_left(middle, widths))
    return [x - left for x in middle]


def _left(xs: Sequence[float], widths: Sequence[float]) -> list[float]:
    return [x - w / 2 for x, w in zip(xs, widths, strict=True)]
