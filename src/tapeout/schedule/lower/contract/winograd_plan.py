"""Decides whether a contraction over windows of three taps runs by fewer products."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.dtype import f32
from tapeout.schedule.lower.contract.pairs import can_pair
from tapeout.schedule.lower.contract.tiles import choose_tiling
from tapeout.schedule.lower.contract.winograd import Windows, find_windows
from tapeout.schedule.lower.contract.winograd_spread import SpreadPlan, spread
from tapeout.schedule.lower.contract.winograd_taps import TapPlan, plan_taps
from tapeout.schedule.lower.contract.winograd_tiles import TilePlan, plan_tiles

if TYPE_CHECKING:
    from tapeout.kernel.compute import ContractionKernel
    from tapeout.kernel.target import Target

_GAIN = 1.1
"""Estimates are not exact: fewer products must be cheaper by so much."""
_FEWEST = 16
"""Below so many channels on either side, transforms cost what products save."""


Fewer = TilePlan | SpreadPlan | TapPlan


def plan_winograd(kernel: ContractionKernel, target: Target, prefix: str) -> Fewer | None:
    """Return how a contraction runs by fewer products, None if it does not have such windows or other ways are cheaper.

    Sums are in f32 only: a test holds their error to that of plain sums there.
    """
    if not target.winograd or any(
        d != f32 for d in (kernel.accumulate, kernel.a.dtype, kernel.b.dtype)
    ):
        return None
    windows = find_windows(kernel)
    if windows is None or _narrow(windows):
        return None
    plan = _cheapest(windows, target, prefix)
    if plan is None or _GAIN * plan.cycles > _direct(windows, target):
        return None
    return plan


def _cheapest(windows: Windows, target: Target, prefix: str) -> Fewer | None:
    if windows.taps_kept:
        return plan_taps(windows, target, prefix)
    tiles = plan_tiles(windows, target, prefix)
    if tiles is None:
        return None
    other = spread(tiles, target, prefix)
    return tiles if other is None or tiles.cycles <= other.cycles else other


def _narrow(windows: Windows) -> bool:
    sides = (windows.rows, windows.columns) if windows.taps_kept else (windows.k, windows.columns)
    return any(prod(a.extent for a in axes) < _FEWEST for axes in sides)


def _direct(windows: Windows, target: Target) -> float:
    """Return the estimated cycles of the same contraction taken as one product."""
    kernel = windows.kernel
    rows, columns, steps = (prod(a.extent for a in x) for x in (kernel.m, kernel.n, kernel.k))
    line = kernel.m[-1].extent if not windows.taps_kept else rows
    if can_pair(kernel.a, kernel.b, kernel.accumulate, target):
        steps = -(-steps // 2)
    tiling = choose_tiling(line, columns, steps, target, kernel.accumulate.bytes)
    return tiling.cycles * steps * rows / line
