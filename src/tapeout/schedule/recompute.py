"""Decides which values that kernels would hand to each other are computed anew by every reader instead.

A backward pass wants many products of what is kept anyway. Storing such a product costs a pass over memory for each kernel that
writes or reads it; computing it again costs a few operations on elements that the reader mostly has in registers already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapeout.ir.op import Contraction, Pointwise, Reduction
from tapeout.schedule.facts import is_factor
from tapeout.schedule.group import Groups, group_nodes
from tapeout.schedule.inline import LinearProbe

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.schedule.fit import Fitter

MOST_OPERATIONS = 6
"""Most operations of a value that every reader computes."""

LEAST_BYTES = 32 * 1024
"""Smaller values stay in the first-level cache: nothing is gained."""


def group_with_recomputed(nodes: Sequence[Node], fitter: Fitter) -> tuple[Groups, Fitter]:
    """Return the groups of nodes, and the fitter that knows which values their kernels do not keep."""
    groups = group_nodes(nodes, fitter)
    found = choose_recomputed(nodes, groups, fitter)
    if not found:
        return groups, fitter
    fitter = replace(fitter, inlined={**fitter.inlined, **found})
    same = {n: r for n, r in groups.leaves.items() if not any(x.value in found for x in r)}
    return group_nodes(nodes, fitter, same), fitter


def choose_recomputed(nodes: Sequence[Node], groups: Groups, fitter: Fitter) -> dict[Value, None]:
    """Return the values that are better computed anew by each kernel that reads them.

    Args:
        nodes: The nodes that matter, in order.
        groups: A first grouping, in which all of them are kept.
        fitter: What the grouping knew.
    """
    chooser = _Chooser(groups, fitter)
    for node in nodes:
        if node.results[0] not in fitter.inlined:
            chooser.visit(node)
    return chooser.found


@dataclass(frozen=True)
class Formula:
    """A value as operations on values that are kept.

    Attributes:
        cost: Number of operations.
        leaves: The values that are kept.
        inside: Values on the way, which only the kernel that makes this one has.
    """

    cost: int
    leaves: dict[Value, None]
    inside: dict[Value, None]


class _Chooser:
    def __init__(self, groups: Groups, fitter: Fitter) -> None:
        self.groups, self.fitter = groups, fitter
        self.crossing = groups.crossing
        self.loaded = {number: dict(loaded) for number, loaded in groups.loaded.items()}
        self.found: dict[Value, None] = {}
        self.formulas: dict[Value, Formula] = {}

    def visit(self, node: Node) -> None:
        if not isinstance(node.op, Pointwise):
            return
        (value,) = node.results
        formula = self._formula(node)
        if formula is None:
            return
        self.formulas[value] = formula
        if value not in self.crossing or value.type.bytes < LEAST_BYTES:
            return
        readers = self.groups.readers.get(value, {})
        leaves = [(r, v) for r in readers for v in formula.leaves if not self._has(r, v)]
        # What is much smaller than the value costs next to nothing.
        added = sum(v.type.bytes for _, v in leaves if 8 * v.type.bytes > value.type.bytes)
        if added > value.type.bytes * (1 + len(readers)) or not self._may_read(value, formula):
            return
        self.found.update({**formula.inside, value: None})
        for r in readers:
            self.loaded[r].update(formula.leaves)

    def _has(self, group: int, value: Value) -> bool:
        """Whether a group loads or makes a value anyway."""
        return value in self.loaded[group] or self.groups.maker.get(value) == group

    def _formula(self, node: Node) -> Formula | None:
        """Return a node's result as a few operations on kept values, None if it is no such thing."""
        (value,) = node.results
        if not isinstance(node.op, Pointwise) or value in self.fitter.uses.wanted:
            return None
        facts, late = self.fitter.facts[node], self.fitter.uses.late
        if facts.dear or any(a.gathers or a.where for a in facts.accesses):
            return None
        # What updates read stays a buffer of its own, so that the same formula over many variables is one sweep.
        if any(r in late for r in self.fitter.uses.of_value(value)):
            return None
        cost = facts.cheap
        leaves: dict[Value, None] = {}
        inside: dict[Value, None] = {}
        for v in dict.fromkeys(r.value for r in self.groups.leaves[node]):
            kept = v in self.crossing or v not in self.groups.maker
            if kept and v not in self.found:
                leaves[v] = None
                continue
            below = self.formulas.get(v)
            if below is None:
                return None
            cost += below.cost
            leaves |= below.leaves
            inside |= {**below.inside, v: None}
        fits = leaves and cost <= MOST_OPERATIONS
        return Formula(cost, leaves, inside) if fits else None

    def _may_read(self, value: Value, formula: Formula) -> bool:
        """Whether all who read a value, or one on the way to it, can evaluate it where they read it."""
        new = {**formula.inside, value: None}
        inlined = {**self.fitter.inlined, **self.found, **new}
        pending = [r for v in new for r in self.fitter.uses.of_value(v)]
        while pending:
            reader = pending.pop()
            if not isinstance(reader.op, Pointwise | Reduction) or not self._fits(reader, inlined):
                return False
            if reader.results[0] in inlined and reader.results[0] not in new:
                pending += self.fitter.uses.of_value(reader.results[0])
        return True

    def _fits(self, reader: Node, inlined: Container[Value]) -> bool:
        probe = LinearProbe(inlined, self.fitter.orders)
        for value, access in self.fitter.facts.accessed(reader):
            if value not in inlined:
                continue
            if access.gathers or access.where:
                return False
            element = probe.elements.read(value, access.index, access.where, access.other)
            if isinstance(reader.op, Contraction) and not is_factor(element):
                return False
        return probe.linear
