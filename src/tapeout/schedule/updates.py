"""Decides which updates are written straight into the variable, and what must be copied aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph, Value, Variable
    from tapeout.schedule.group import Groups
    from tapeout.schedule.model import Group, Homes


@dataclass(frozen=True)
class Updates:
    """How variables get their new content.

    Attributes:
        in_place: New contents whose home is the variable itself.
        aside: Old contents that are needed after the variable is overwritten: copied before any update.
        copies: New contents and the variables that they are copied into at the end.
    """

    in_place: dict[Value, Variable]
    aside: dict[Value, None]
    copies: tuple[tuple[Value, Variable], ...]


def plan_updates(graph: Graph, groups: Groups) -> Updates:
    """Return how each update is written.

    An update is in place if a map makes it that serves only updates, reads the old content at the same index and nowhere else,
    and can run after every other reader of the old content. Where that adds an order between groups, `groups` learns it.
    """
    in_place: dict[Value, Variable] = {}
    copies: list[tuple[Value, Variable]] = []
    old = {graph.variable[name].value for name, _ in graph.updates}
    for name, new in graph.updates:
        variable = graph.variable[name]
        if new is variable.value:
            continue
        if new not in in_place and _may_be_in_place(new, variable, groups):
            in_place[new] = variable
        else:
            copies.append((new, variable))
    sources = [v for _, v in graph.outputs] + [v for v, _ in copies]
    aside = {v: None for v in sources if v in old}
    return Updates(in_place, aside, tuple(copies))


def _may_be_in_place(new: Value, variable: Variable, groups: Groups) -> bool:
    number = groups.maker.get(new)
    if number is None:
        return False
    g = groups.groups[number]
    if g.kind != "loop" or g.inner or not g.late:
        return False
    old = variable.value
    if not _reads_own_place(old, new, g, groups):
        return False
    others = [r for r in groups.readers.get(old, ()) if r != number]
    if any(groups.links.leads_to(number, r) for r in others):
        return False
    for r in others:
        groups.links.link(r, number)
    return True


def _reads_own_place(old: Value, new: Value, g: Group, groups: Groups) -> bool:
    """Whether a group reads the old content only where it writes the new one."""
    frame = g.bases[new]
    for node, at in g.members.items():
        bind = dict(zip(groups.fitter.facts[node].axes, at, strict=True))
        if any(r.value is old and r.at(bind) != frame for r in groups.leaves[node]):
            return False
    return True


def in_place_homes(updates: Updates, homes: Homes) -> None:
    """Give new contents the homes of their variables."""
    for new, variable in updates.in_place.items():
        homes[new] = homes[variable.value]
