"""Chooses how a contraction runs: the cheaper orientation, tiles or dot products."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tapeout.schedule.lower.contract.dots import Dots, plan_dots
from tapeout.schedule.lower.contract.planner import Plan, Planner
from tapeout.schedule.lower.contract.product import oriented

if TYPE_CHECKING:
    from tapeout.kernel.compute import ContractionKernel
    from tapeout.kernel.target import Target

_ABOUT_EQUAL = 1.1


def plan_contraction(kernel: ContractionKernel, target: Target, prefix: str) -> Plan | Dots:
    """Return the cheapest of both orientations and of dot products. The kernel has rows and columns, and no empty axis."""
    both = [oriented(kernel, swap) for swap in (False, True)]
    plans = [Planner(p, target, prefix).plan() for p in both]
    dots = plan_dots(both[0], target, prefix)
    best = min(plans, key=lambda p: p.cycles)
    if dots is None:
        return best
    # Estimates are not that exact: of two that are about equal, the one that needs no scratch.
    slack = _ABOUT_EQUAL if best.steps and not dots.steps else 1.0
    return best if best.cycles * slack <= dots.cycles else dots


def no_columns(kernel: ContractionKernel) -> bool:
    """Return whether one side has a single point: then it is a plain reduction of rows."""
    return any(prod(a.extent for a in axes) == 1 for axes in (kernel.m, kernel.n))
