"""Layered drawing of a directed graph, after Sugiyama: ranks, order within ranks, then horizontal places.

Deterministic, and bounded: a layout of n boxes whose long links need d bends takes O(m log m) per
sweep, m = n + d; the number of sweeps falls with the size, and links beyond the budget of bends are
drawn straight through.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from tapeout.view.place import horizontal

if TYPE_CHECKING:
    from collections.abc import Sequence

Edge = tuple[int, int]

MOST_BENDS = 20_000
"""Links that would need more bends in all than this are drawn straight."""

_MOST_SWEEPS = 16
_WORK = 400_000
"""Boxes and bends times sweeps stay below about this number."""


@dataclass
class Layers:
    """Boxes and bends in rows. Bends are numbered on from the boxes.

    Attributes:
        boxes: How many boxes there are.
        rows: The numbers in each rank, from left to right.
        rank: The rank of each number.
        down: For each number, its neighbours one rank below, in order.
        up: The same above.
        bends: For the number of a link, its bends from the upper end to the lower.
    """

    boxes: int
    rows: list[list[int]]
    rank: list[int]
    down: list[list[int]]
    up: list[list[int]]
    bends: dict[int, list[int]] = field(default_factory=dict)


def ranks(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return a rank per box: links lead from lower to higher ranks, and most of them to the next.

    Args:
        count: Number of boxes.
        edges: Links; one from a higher number to a lower counts as if it were turned round.
    """
    after: list[list[int]] = [[] for _ in range(count)]
    before: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        if a != b:
            after[min(a, b)].append(max(a, b))
            before[max(a, b)].append(min(a, b))
    rank = [0] * count
    for n in range(count):
        rank[n] = max((rank[p] + 1 for p in before[n]), default=0)
    # What mostly feeds others moves down to them; this shortens more links than it lengthens.
    for n in range(count - 1, -1, -1):
        if after[n] and len(after[n]) > len(before[n]):
            rank[n] = min(rank[s] for s in after[n]) - 1
    return rank


def layers(rank: Sequence[int], edges: Sequence[Edge]) -> Layers:
    """Return the rows with bends for long links, each row in an order with few crossings.

    Args:
        rank: The rank of each box, from 0. Links within a rank are left out.
        edges: Links in either direction.
    """
    made = _with_bends(list(rank), edges)
    _order(made)
    return made


def _with_bends(rank: list[int], edges: Sequence[Edge]) -> Layers:
    count = len(rank)
    spans = sorted((abs(rank[a] - rank[b]), i) for i, (a, b) in enumerate(edges))
    made = Layers(count, [], rank, [[] for _ in rank], [[] for _ in rank])
    spent = 0
    bent: dict[int, None] = {}
    for span, i in spans:
        spent += max(0, span - 1)
        if spent > MOST_BENDS:
            break
        if span:
            bent[i] = None
    for i in sorted(bent):
        a, b = edges[i]
        top, bottom = (a, b) if rank[a] < rank[b] else (b, a)
        chain = list(range(len(rank), len(rank) + rank[bottom] - rank[top] - 1))
        rank += range(rank[top] + 1, rank[bottom])
        made.down += [[] for _ in chain]
        made.up += [[] for _ in chain]
        made.bends[i] = chain
        path = [top, *chain, bottom]
        for u, v in pairwise(path):
            made.down[u].append(v)
            made.up[v].append(u)
    made.rows = [[] for _ in range(max(rank, default=-1) + 1)]
    for n, r in enumerate(rank):
        made.rows[r].append(n)
    return made


def _order(made: Layers) -> None:
    """Reorder the rows by sweeps of medians down and up, and keep the best order seen."""
    _first_order(made)
    sweeps = max(2, min(_MOST_SWEEPS, _WORK // max(1, len(made.rank))))
    best, fewest, stale = [list(row) for row in made.rows], crossings(made), 0
    for sweep in range(sweeps):
        if fewest == 0 or stale >= 4:
            break
        _sweep(made, upwards=sweep % 2 == 1)
        found = crossings(made)
        stale += 1
        if found < fewest:
            best, fewest, stale = [list(row) for row in made.rows], found, 0
    made.rows = best


def _first_order(made: Layers) -> None:
    """Order each row as a walk from the top meets it first, which keeps chains beside each other."""
    seen = [False] * len(made.rank)
    rows: list[list[int]] = [[] for _ in made.rows]
    for start in [n for row in made.rows for n in row if not made.up[n]]:
        stack = [start]
        while stack:
            n = stack.pop()
            if seen[n]:
                continue
            seen[n] = True
            rows[made.rank[n]].append(n)
            stack += reversed(made.down[n])
    made.rows = rows


def _sweep(made: Layers, *, upwards: bool) -> None:
    order = range(len(made.rows) - 2, -1, -1) if upwards else range(1, len(made.rows))
    near = made.down if upwards else made.up
    for r in order:
        place = {n: i for i, n in enumerate(made.rows[r + 1 if upwards else r - 1])}
        made.rows[r] = _by_weight(
            made.rows[r], [_middle([place[m] for m in near[n]]) for n in made.rows[r]]
        )


def _by_weight(row: list[int], weights: list[float | None]) -> list[int]:
    """Return the row sorted by weight; numbers without weight keep their places."""
    moved = sorted(
        ((w, i) for i, w in enumerate(weights) if w is not None), key=lambda t: (t[0], t[1])
    )
    source = iter(moved)
    return [row[i] if w is None else row[next(source)[1]] for i, w in enumerate(weights)]


def _middle(places: list[int]) -> float | None:
    if not places:
        return None
    places.sort()
    half = len(places) // 2
    if len(places) % 2:
        return float(places[half])
    if len(places) == 2:
        return (places[0] + places[1]) / 2
    left, right = places[half - 1] - places[0], places[-1] - places[half]
    if left + right == 0:
        return (places[half - 1] + places[half]) / 2
    # Gansner's weighting: leans to the side where neighbours lie closer together.
    return (places[half - 1] * right + places[half] * left) / (left + right)


def crossings(made: Layers) -> int:
    """Return how many pairs of links cross."""
    total = 0
    for upper, lower in pairwise(made.rows):
        place = {n: i for i, n in enumerate(lower)}
        seen: list[int] = []
        for n in upper:
            ends = sorted(place[m] for m in made.down[n])
            total += sum(len(seen) - bisect_right(seen, e) for e in ends)
            for e in ends:
                insort(seen, e)
    return total


def arrange(
    rank: Sequence[int], widths: Sequence[float], edges: Sequence[Edge]
) -> tuple[list[float], dict[int, list[float]]]:
    """Return the centres of the boxes, and for each bent link its x at every rank between its ends, from the top.

    Args:
        rank: The rank of each box.
        widths: The width of each box.
        edges: Links in either direction.
    """
    made = layers(rank, edges)
    x = horizontal(
        made.rows, made.up, made.down, [*widths, *[0.0] * (len(made.rank) - made.boxes)], made.boxes
    )
    return x[: made.boxes], {i: [x[n] for n in chain] for i, chain in made.bends.items()}
