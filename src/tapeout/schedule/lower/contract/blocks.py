"""Blocks of a contraction: steps of k that a panel keeps in the first-level cache, panels and row tiles of one task."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Axis
from tapeout.schedule.lower.contract.tiles import Tiling
from tapeout.schedule.lower.grid import Grid, plan_grid

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from tapeout.kernel.target import Target
    from tapeout.schedule.lower.contract.product import Product

K_BLOCK = 256
K_WHOLE = 400
"""A sum of at most this many steps is one block, where tiles share what they read of a block or leave a border out."""

LONG_BLOCK = 4096
LONG_WHOLE = 16384
"""The same where operands just pass by: keeping sums between blocks costs more than the caches beyond the first."""

LOCAL_BYTES = 40 * 1024
_LEAST, _GOOD, _MOST = 64 * 1024, 256 * 1024, 4 * 1024 * 1024
_FEW_TASKS, _TASKS = 48, 96
PANELS = 8
_ROW_TILES = 8
_NEAR = 0.8
"""Rows that fill no more of the second-level cache stay there: a task takes all of them, so that they share its panels."""


@dataclass(frozen=True)
class KBlocks:
    """How a sum is cut: loops over `outer`, then chunks of `cut`, and inside a block the rest of `cut` and the axes `inner`.

    Attributes:
        outer: Axes that blocks run over one step at a time.
        cut: The axis that is cut into chunks, if there is one.
        chunk: Steps of `cut` in one block; the last one may have fewer.
        inner: Axes wholly inside a block.
    """

    outer: tuple[Axis, ...]
    cut: Axis | None
    chunk: int
    inner: tuple[Axis, ...]

    @property
    def whole(self) -> bool:
        """Whether there is just one block."""
        return self.cut is None and not self.outer

    @property
    def steps(self) -> int:
        """Most steps of one block."""
        return self.chunk * prod(a.extent for a in self.inner)


def most_steps(steps: int, shared: bool) -> int:
    """Return how many steps of k a block has at most.

    Args:
        steps: Of the sum.
        shared: Whether a block is to stay in the first-level cache.
    """
    whole, block = (K_WHOLE, K_BLOCK) if shared else (LONG_WHOLE, LONG_BLOCK)
    return steps if steps <= whole else block


def k_blocks(k: Sequence[Axis], limited: Container[Axis], most: int) -> KBlocks:
    """Return the blocks of a sum over axes, outermost first, of at most so many steps; limited ones are not cut."""
    if prod(a.extent for a in k) <= most:
        return KBlocks((), None, 1, tuple(k))
    inner = 1
    for n in range(len(k) - 1, -1, -1):
        if inner * k[n].extent > most:
            break
        inner *= k[n].extent
    if k[n] in limited:
        return KBlocks(tuple(k[: n + 1]), None, 1, tuple(k[n + 1 :]))
    extent = k[n].extent
    count = -(-extent // max(1, most // inner))
    return KBlocks(tuple(k[:n]), k[n], -(-extent // count), tuple(k[n + 1 :]))


@dataclass(frozen=True)
class Blocks:
    """The whole plan.

    Attributes:
        k: Blocks of the sum.
        panels: Whole panels of one block of panels.
        panel_axis: Runs over blocks of panels.
        tile_axis: Runs over whole row tiles.
        axes: What the grid is cut from: batch, blocks of panels, outer columns, outer rows, row tiles. Panels come before outer
            columns because neighbouring windows of one panel share what they read.
        row_axes: The number of the first axis that belongs to rows.
        grid: The tasks.
        by_tile: Whether all panels of a row tile come before the next tile: the first-level cache holds them, and results are written
            line by line.
        windows: Row axes that each tile runs over by itself, inside its loop: what they read of one panel of rows overlaps.
    """

    k: KBlocks
    panels: int
    panel_axis: Axis
    tile_axis: Axis
    axes: tuple[Axis, ...]
    row_axes: int
    grid: Grid
    by_tile: bool = False
    windows: tuple[Axis, ...] = ()


def plan_blocks(
    product: Product,
    tiling: Tiling,
    crossing: bool,
    target: Target,
    *,
    windows: bool = False,
    most_panels: int = PANELS,
    most_steps: int = K_WHOLE,
) -> Blocks:
    """Return blocks and tasks. They change no rounding: each sum is taken in one order.

    Tiles that cross lines have no common form, so a task takes all of them.

    Args:
        product: The contraction.
        tiling: Its tiles.
        crossing: Whether row tiles cross lines.
        target: The machine.
        windows: Whether rows lie in panels of which the outer row axes read overlapping parts.
        most_panels: Most panels of one task.
        most_steps: Most steps of k in one block.
    """
    element = product.accumulate.bytes
    k = k_blocks(product.k, product.limited, most_steps)
    unit = tiling.rows.size * tiling.widest
    work = float(unit * product.steps)
    outer = prod(a.extent for a in (*product.batch, *product.cols[:-1]))
    tiles = prod(a.extent for a in product.rows[:-1]) * tiling.rows.tiles
    total = work * tiles * tiling.all_panels * outer
    # A long sum is taken in blocks, which many tiles of one task then share.
    least = max(total / _FEW_TASKS, min(_GOOD, max(total / 16, _LEAST)))
    least = min(least, _MOST if k.whole else max(_MOST, total / _TASKS))
    panels = 1 if len(product.cols) > 1 else min(most_panels, max(tiling.panels, 1))
    panel_bytes = tiling.widest * product.steps * element
    by_tile = k.whole and panels * panel_bytes <= target.l1 * 3 // 16
    near = tiles * tiling.rows.size * product.steps * element <= _NEAR * target.l2
    some = tiles if near and k.whole and not by_tile else min(_ROW_TILES, tiles)
    while panels > 1 and work * panels * some > least:
        panels //= 2
    if not k.whole:
        room = LOCAL_BYTES // (unit * element) // (panels + 1)
        # The work of a line counts its whole tiles only; all of its tiles keep their sums.
        share = max(tiling.rows.whole, 1) / tiling.rows.tiles
        least = min(least, work * panels * max(share * room - len(tiling.rows.rest), 1))
    inside = product.rows[:-1] if windows else ()
    return _with_grid(product, tiling, k, panels, work * panels, least, crossing, by_tile, inside)


def _with_grid(
    product: Product,
    tiling: Tiling,
    k: KBlocks,
    panels: int,
    work: float,
    least: float,
    crossing: bool,
    by_tile: bool,
    windows: tuple[Axis, ...],
) -> Blocks:
    count = max(1, -(-tiling.panels // panels))
    panel_axis = Axis("panels", count)
    tile_axis = Axis("tiles", tiling.rows.whole)
    outside = [a for a in product.rows[:-1] if a not in windows]
    axes = [*product.batch, panel_axis, *product.cols[:-1], *outside]
    row_axes = len(axes) - len(outside)
    work *= prod(a.extent for a in windows)
    if tiling.rows.whole and not crossing:
        axes.append(tile_axis)
    else:
        work *= tiling.rows.tiles
    grid = plan_grid([a.extent for a in axes], work, least)
    return Blocks(k, panels, panel_axis, tile_axis, tuple(axes), row_axes, grid, by_tile, windows)
