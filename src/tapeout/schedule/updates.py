"""Decides which updates are written straight into the variable, and what must be copied aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph, Node, Value, Variable
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
        if new not in in_place and _may_be_in_place(new, variable, groups, in_place):
            in_place[new] = variable
        else:
            copies.append((new, variable))
    sources = [v for _, v in graph.outputs] + [v for v, _ in copies]
    aside = {v: None for v in sources if v in old}
    return Updates(in_place, aside, tuple(copies))


def _may_be_in_place(
    new: Value, variable: Variable, groups: Groups, chosen: dict[Value, Variable]
) -> bool:
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
    if store_order(g, groups, {**chosen, new: variable}) is None:
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


def store_order(g: Group, groups: Groups, in_place: dict[Value, Variable]) -> list[Node] | None:
    """Return the members in an order in which the old content of a variable is read before it is overwritten.

    Stores run one after the other at each point, so a new content must be stored after all that follows from the old one.
    Returns None if there is no such order.
    """
    written = {v: variable.value for v, variable in in_place.items() if v in g.bases}
    if not written:
        return list(g.members)
    origins = _origins(g, groups, set(written.values()))
    left = list(g.members)
    order: list[Node] = []
    while left:
        ready = [n for n in left if _may_store(n, left, written, origins)]
        if not ready:
            return None
        order.append(ready[0])
        left.remove(ready[0])
    return order


def _may_store(
    node: Node, left: list[Node], written: dict[Value, Value], origins: dict[Node, set[Value]]
) -> bool:
    old = written.get(node.results[0])
    return old is None or not any(old in origins[n] for n in left if n is not node)


def _origins(g: Group, groups: Groups, olds: set[Value]) -> dict[Node, set[Value]]:
    """Return which old contents each member's expression loads, directly or through other members."""
    found: dict[Node, set[Value]] = {}
    makers = {n.results[0]: n for n in g.members}
    for node in g.members:
        mine: set[Value] = set()
        for r in groups.leaves[node]:
            if r.value in olds:
                mine.add(r.value)
            elif r.value in makers:
                mine |= found[makers[r.value]]
        found[node] = mine
    return found


def in_place_homes(updates: Updates, homes: Homes) -> None:
    """Give new contents the homes of their variables."""
    for new, variable in updates.in_place.items():
        homes[new] = homes[variable.value]
