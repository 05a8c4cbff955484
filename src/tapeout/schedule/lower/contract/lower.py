"""Chooses how a contraction runs: the cheaper orientation, tiles or dot products."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.schedule.lower.contract.dots import Dots, dots_like, plan_dots
from tapeout.schedule.lower.contract.form import Form
from tapeout.schedule.lower.contract.planner import Plan, Planner
from tapeout.schedule.lower.contract.product import oriented
from tapeout.schedule.lower.contract.tiles import tile_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapeout.kernel.compute import ContractionKernel
    from tapeout.kernel.target import Target

_ABOUT_EQUAL = 1.2
_WORTH_TRYING = 1.5
"""A form is tried if it is estimated to take at most so many times as long as the best one."""
_TILES = 5


def plan_contraction(
    kernel: ContractionKernel, target: Target, prefix: str, choice: str | None = None
) -> Plan | Dots:
    """Return the cheapest of both orientations and of dot products.

    Args:
        kernel: The contraction; it has rows and columns, and no empty axis.
        target: The machine.
        prefix: Begins the names of scratch buffers.
        choice: What one of `alternatives` is called, to take that one; a name that none has leaves the default.
    """
    best = _best(kernel, target, prefix)
    if choice is None or choice == best.choice:
        return best
    other = _chosen(kernel, target, prefix, choice, best)
    return best if other is None or other.bits != best.bits else other


def _best(kernel: ContractionKernel, target: Target, prefix: str) -> Plan | Dots:
    both = [oriented(kernel, swap) for swap in (False, True)]
    plans = [Planner(p, bool(n), target, prefix).plan() for n, p in enumerate(both)]
    dots = plan_dots(both[0], target, prefix)
    best = min(plans, key=lambda p: p.cycles)
    if dots is None:
        return best
    # Estimates are not that exact: of two that are about equal, the one that needs no scratch.
    slack = _ABOUT_EQUAL if best.steps and not dots.steps else 1.0
    return best if best.cycles * slack <= dots.cycles else dots


def alternatives(kernel: ContractionKernel, target: Target, prefix: str) -> list[Plan | Dots]:
    """Return other ways to run a contraction that give the same bits as the default, which comes first.

    Each has a `choice`, a name by which `plan_contraction` finds it again.
    """
    best = _best(kernel, target, prefix)
    found: dict[str, Plan | Dots] = {best.choice: best}
    if isinstance(best, Dots):
        for d in dots_like(best, target):
            found.setdefault(d.choice, d)
        return list(found.values())
    for form in _forms(kernel, target, prefix, best):
        plan = _plan(kernel, target, prefix, form)
        if plan.bits == best.bits and plan.cycles <= _WORTH_TRYING * best.cycles:
            found.setdefault(plan.choice, plan)
    return list(found.values())


def _forms(kernel: ContractionKernel, target: Target, prefix: str, best: Plan) -> Iterator[Form]:
    """Yield forms that differ from the best one of an orientation in one respect; the likelier ones first."""
    for swap in (best.form.swap, not best.form.swap):
        product = oriented(kernel, swap)
        base = best.form if swap == best.form.swap else _own_form(kernel, target, prefix, swap)
        yield base
        for panels in (1, 2, 4, 8, 16):
            yield replace(base, panels=panels)
        yield replace(base, b="panels" if base.b == "direct" else "direct")
        for rows in ("direct", "panels", "lines"):
            yield replace(base, a=rows)
        for steps in (128, 192, 256, 384, 512, 1024):
            if steps < product.steps:
                yield replace(base, steps=steps)
        yield replace(base, steps=product.steps)
        tiles = [
            _plan(kernel, target, prefix, replace(base, rows=rows, registers=registers))
            for rows, registers in tile_shapes(target)
        ]
        for plan in sorted(tiles, key=lambda p: p.cycles)[:_TILES]:
            yield plan.form


def _own_form(kernel: ContractionKernel, target: Target, prefix: str, swap: bool) -> Form:
    return Planner(oriented(kernel, swap), swap, target, prefix).plan().form


def _plan(kernel: ContractionKernel, target: Target, prefix: str, form: Form) -> Plan:
    return Planner(oriented(kernel, form.swap), form.swap, target, prefix, form).plan()


def _chosen(
    kernel: ContractionKernel, target: Target, prefix: str, choice: str, best: Plan | Dots
) -> Plan | Dots | None:
    """Return what a choice names, None if it names nothing that there is."""
    if isinstance(best, Dots):
        return next((d for d in dots_like(best, target) if d.choice == choice), None)
    form = Form.parse(choice)
    plan = None if form is None else _plan(kernel, target, prefix, form)
    return plan if plan is not None and plan.choice == choice else None


def no_columns(kernel: ContractionKernel) -> bool:
    """Return whether one side has a single point: then it is a plain reduction of rows."""
    return any(prod(a.extent for a in axes) == 1 for axes in (kernel.m, kernel.n))
