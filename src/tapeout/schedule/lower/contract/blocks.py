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

    from tapeout.schedule.lower.contract.product import Product

K_BLOCK = 256
K_WHOLE = 400
"""A sum of at most this many steps is one block."""

LOCAL_BYTES = 40 * 1024
_LEAST, _MOST = 64 * 1024, 4 * 1024 * 1024
_TASKS = 96
PANELS = 8
_ROW_TILES = 8


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


def most_steps(steps: int) -> int:
    """Return how many steps of k a block has at most, for a sum of so many."""
    return steps if steps <= K_WHOLE else K_BLOCK


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
        windows: Row axes that each tile runs over by itself, inside its loop: what they read of one panel of rows overlaps.
    """

    k: KBlocks
    panels: int
    panel_axis: Axis
    tile_axis: Axis
    axes: tuple[Axis, ...]
    row_axes: int
    grid: Grid
    windows: tuple[Axis, ...] = ()


def plan_blocks(
    product: Product,
    tiling: Tiling,
    crossing: bool,
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
    least = min(max(total / 16, _LEAST), _MOST if k.whole else max(_MOST, total / _TASKS))
    panels = 1 if len(product.cols) > 1 else min(most_panels, max(tiling.panels, 1))
    while panels > 1 and work * panels * min(_ROW_TILES, tiles) > least:
        panels //= 2
    if not k.whole:
        room = LOCAL_BYTES // (unit * element) // (panels + 1)
        # The work of a line counts its whole tiles only; all of its tiles keep their sums.
        share = max(tiling.rows.whole, 1) / tiling.rows.tiles
        least = min(least, work * panels * max(share * room - len(tiling.rows.rest), 1))
    inside = product.rows[:-1] if windows else ()
    return _with_grid(product, tiling, k, panels, work * panels, least, crossing, inside)


def _with_grid(
    product: Product,
    tiling: Tiling,
    k: KBlocks,
    panels: int,
    work: float,
    least: float,
    crossing: bool,
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
    return Blocks(k, panels, panel_axis, tile_axis, tuple(axes), row_axes, grid, windows)
