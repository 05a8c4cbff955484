"""Register tiles of windows: how many points of the long axis share loads, and which of them touch the border."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.schedule.lower.contract.tiles import LOADS, divide

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapeout.kernel.target import Target

MOST_TILE = 16
MOST_RUNS = 10
"""Forms of tiles that are written out; the border of wider windows is left to plain reductions."""
_AHEAD = 4
"""Registers for loads that the back end takes ahead: with fewer, sums that live around a loop are spilled."""
_START = 3.0
_FORM = 0.02
_SHARE = 0.75
"""Part of the first-level cache that the lanes of a task fill."""


@dataclass(frozen=True)
class Run:
    """Tiles of equal size that follow each other: one that touches the border, or any number that do not."""

    start: int
    size: int
    count: int
    whole: bool


@dataclass(frozen=True)
class Tiles:
    """The tiles of a contraction along windows.

    Attributes:
        runs: Tiles of the long axis, in order.
        taps: Points of the short axis that are taken together; the last ones may be fewer.
        lanes: Lanes of a vector.
        vectors: Whole vectors of one block of lanes.
        chunks: Blocks of lanes.
        rest: Lanes beyond whole vectors.
    """

    runs: tuple[Run, ...]
    taps: int
    lanes: int
    vectors: int
    chunks: int
    rest: int


def choose_tiles(
    pair: tuple[Axis, Axis],
    steps: tuple[int, int],
    limits: Sequence[Guard],
    target: Target,
    element: int,
    lanes: int,
    around: int,
    summed: bool,
) -> Tiles | None:
    """Return the cheapest tiles by the cost model, None if the border takes too many forms.

    Args:
        pair: The long axis and the short one.
        steps: Elements by which the sliding operand moves along each.
        limits: What must hold for it to have an element.
        target: The class of machines.
        element: Bytes of an element.
        lanes: Extent of the axis across lanes.
        around: Points of the other short axes.
        summed: Whether sums lie in memory.
    """
    tile, taps = pair
    spare = (1 if summed else _AHEAD) + (not target.fma)
    found: list[tuple[float, int, int, tuple[Run, ...]]] = []
    for size in range(1, min(MOST_TILE, tile.extent) + 1):
        room = target.registers - spare - size
        if room < 1:
            break
        groups = -(-taps.extent // room)
        together = -(-taps.extent // groups)
        runs = tuple(_runs(pair, size, limits))
        if len(runs) > MOST_RUNS:
            continue
        cycles = sum(
            r.count * _cycles(r.size, taps.extent, together, steps, target, summed) for r in runs
        )
        found.append((cycles * (1 + _FORM * len(runs)), size, together, runs))
    if not found:
        return None
    _, size, together, runs = min(found, key=lambda f: f[0])
    wide = target.lanes(element)
    whole, rest = divmod(lanes, wide)
    bytes_ = element * wide * (around * (2 * taps.extent + size) + size)
    most = max(1, int(target.l1 * _SHARE) // bytes_)
    chunks = max(1, -(-whole // most))
    vectors = -(-whole // chunks)
    return Tiles(runs, together, wide, vectors, -(-whole // vectors) if whole else 1, rest)


def _cycles(
    size: int, taps: int, together: int, steps: tuple[int, int], target: Target, summed: bool
) -> float:
    """Return the estimated cycles of one tile at one point of the other axes."""
    loads = stores = 0
    for first in range(0, taps, together):
        some = range(first, min(first + together, taps))
        loads += len({steps[0] * t + steps[1] * s for t in range(size) for s in some})
        loads += size if summed else len(some)
    if summed:
        loads, stores = loads + taps, taps
    busy = size * taps / (2 if target.fma else 1)
    return max(busy, loads / LOADS, stores) + 0.1 * loads + _START


def _runs(pair: tuple[Axis, Axis], size: int, limits: Sequence[Guard]) -> Iterator[Run]:
    """Return the tiles of the long axis, those inside the border together."""
    tile, taps = pair
    rows = divide(tile.extent, size)
    sizes = [rows.size] * rows.whole + list(rows.rest)
    start = 0
    pending: Run | None = None
    for n in sizes:
        whole = all(
            holds(g, pair, start + t, s)
            for g in limits
            for t in (0, n - 1)
            for s in (0, taps.extent - 1)
        )
        if pending is not None and whole and pending.whole and pending.size == n:
            pending = Run(pending.start, n, pending.count + 1, True)
        else:
            if pending is not None:
                yield pending
            pending = Run(start, n, 1, whole)
        start += n
    if pending is not None:
        yield pending


def holds(limit: Guard, pair: tuple[Axis, Axis], long: int, short: int) -> bool:
    """Whether a limit that speaks of a pair alone holds at a point of it."""
    at = dict(zip(pair, (long, short), strict=True))
    return limit.lo <= limit.index.evaluate(lambda a: at[a]) < limit.hi


def offset(at: Affine, pair: tuple[Axis, Axis], long: int, short: int) -> int:
    """Return the distance in memory between a point of a pair and its first one."""
    return at.coefficient(pair[0]) * long + at.coefficient(pair[1]) * short
