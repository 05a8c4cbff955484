"""Register tiles: how many rows and vectors of columns the accumulators of a contraction cover, and how extents divide into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.schedule.lower.choose import VECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapeout.kernel.target import Target

MOST_ROWS = 14
"""Rows at static offsets from one pointer; more of them at a stride of 4 KiB fall out of the first-level cache."""

LATENCY = 8.4
"""Accumulator registers that keep two multiply-add units of four cycles busy; a few more hide a late load."""
LOADS = 1.8
"""Vector loads that a cycle takes; two units, not always both."""
_LINE = 64
_START = 24.0
_FORM, _SPLIT = 0.02, 0.05
_PER_REGISTER = 3.0


@dataclass(frozen=True)
class Vector:
    """One vector of a tile.

    Attributes:
        start: Its first column, counted from the tile's.
        lanes: Its lanes.
        used: How many of them are columns.
    """

    start: int
    lanes: int
    used: int


@dataclass(frozen=True)
class Rows:
    """An extent cut into row tiles: `whole` tiles of `size` rows, then one tile of each size in `rest`."""

    size: int
    whole: int
    rest: tuple[int, ...]

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.whole + len(self.rest)


@dataclass(frozen=True)
class Tiling:
    """The tiles of a contraction.

    Attributes:
        rows: Of the innermost row axis.
        panel: Columns of a whole panel.
        panels: Whole panels.
        rest: Columns of the last, narrower panel; 0 if there is none.
        registers: Registers across a whole panel.
        cycles: Estimated cycles per step of k for all tiles of the two axes.
        element: Bytes of an element.
        register: Elements of a vector register.
    """

    rows: Rows
    panel: int
    panels: int
    rest: int
    registers: int
    cycles: float
    element: int
    register: int

    def vectors(self, columns: int) -> tuple[Vector, ...]:
        """Return the vectors that cover so many columns of a panel."""
        return vectors(columns, self.element, self.register)

    def width(self, columns: int) -> int:
        """Return the lanes of all vectors over so many columns."""
        last = self.vectors(columns)[-1]
        return last.start + last.lanes

    @property
    def widest(self) -> int:
        """The lanes of the vectors of the widest panel that there is."""
        return self.width(self.panel if self.panels else self.rest)

    @property
    def all_panels(self) -> int:
        """Number of panels, the narrower one included."""
        return self.panels + (self.rest > 0)


def vectors(columns: int, element_bytes: int, register: int) -> tuple[Vector, ...]:
    """Return the vectors that cover a number of columns; only the last one may have lanes to spare.

    Whole panels, which are whole registers wide, never have any.
    """
    found: list[Vector] = []
    start = 0
    while start < columns:
        left = columns - start
        # No wider than the registers that hold what is left, and no wider than that needs.
        lanes = VECTOR_BYTES // element_bytes
        while lanes > -(-left // register) * register or lanes // 2 >= left:
            lanes //= 2
        if lanes > left and _halves(left, lanes, register):
            lanes //= 2
        found.append(Vector(start, lanes, min(lanes, left)))
        start += lanes
    return tuple(found)


def _halves(left: int, lanes: int, register: int) -> bool:
    """Return whether half the lanes leave what fills a smaller vector, at least half a register (24 = 16 + 8)."""
    rest = left - lanes // 2
    return rest & (rest - 1) == 0 and 2 * rest >= register


def divide(extent: int, size: int) -> Rows:
    """Return an extent in tiles of `size` rows; a last tile too small to be worth it is shared with the one before."""
    whole, rest = divmod(extent, size)
    if not rest:
        return Rows(size, whole, ())
    if whole and rest <= size // 2:
        both = size + rest
        return Rows(size, whole - 1, (both - both // 2, both // 2))
    return Rows(size, whole, (rest,))


def choose_tiling(
    rows: int,
    columns: int,
    steps: int,
    target: Target,
    element_bytes: int,
    only: tuple[int, int] | None = None,
) -> Tiling:
    """Return the cheapest tiling of `rows` x `columns` for `steps` steps of k by the cost model.

    Args:
        rows: Rows.
        columns: Columns.
        steps: Steps of k.
        target: The machine.
        element_bytes: Bytes of an element.
        only: The one tile to consider, as (rows, registers), if it is one that spills nothing.
    """
    shapes = list(tile_shapes(target))
    if only in shapes:
        shapes = [only]
    found = [
        _tiling(rows, columns, steps, size, registers, element_bytes, target)
        for size, registers in shapes
    ]
    return min(found, key=lambda t: t.cycles)


def tile_shapes(target: Target) -> Iterator[tuple[int, int]]:
    """Yield (rows, registers of columns) of the tiles to consider."""
    for registers, most in _shapes(target):
        for size in range(max(1, most // 2), most + 1):
            yield size, registers


def _shapes(target: Target) -> Iterator[tuple[int, int]]:
    """Yield (registers of columns, most rows) of tiles that spill nothing: accumulators, columns, one broadcast."""
    spare = 1 if target.fma else 2
    for registers in range(1, 5):
        rows = min(MOST_ROWS, (target.registers - spare - registers) // registers)
        if rows > 0:
            yield registers, rows


def _tiling(
    rows: int,
    columns: int,
    steps: int,
    size: int,
    registers: int,
    element_bytes: int,
    target: Target,
) -> Tiling:
    lanes, line, fma = target.lanes(element_bytes), _LINE // element_bytes, target.fma
    panel = registers * lanes
    panels, rest = divmod(columns, panel)
    cut = divide(rows, min(size, rows))
    cycles = 0.0
    for count, r in ((cut.whole, cut.size), *((1, r) for r in cut.rest)):
        if not count:
            continue
        wide = _tile_cycles(r, registers, steps, fma) * panels
        narrow = _tile_cycles(r, -(-rest // lanes), steps, fma) if rest else 0.0
        cycles += count * (wide + narrow)
    # Every further form of a tile costs code and cache.
    cycles *= 1 + _FORM * ((rest > 0 and panels > 0) + len(set(cut.rest)))
    if panels > 1 and panel % line:
        cycles *= 1 + _SPLIT
    return Tiling(cut, panel, panels, rest, registers, cycles, element_bytes, lanes)


def _tile_cycles(rows: int, registers: int, steps: int, fma: bool) -> float:
    busy = rows * registers / (2 if fma else 1)
    loads = (rows + registers) / LOADS
    # A vector of columns comes from further away, or is loaded again by more tiles, than an entry of a row.
    per_step = max(busy, loads, LATENCY / 2) + 0.02 * rows + 0.06 * registers
    return per_step + (_START + _PER_REGISTER * rows * registers) / max(steps, 1)
