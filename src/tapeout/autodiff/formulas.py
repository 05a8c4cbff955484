"""Composites without a gradient rule become their formula before differentiation, inside of regions too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.op import Composite
from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import rebuild
from tapeout.ops.sym import Sym

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value


def needs_formula(node: Node) -> bool:
    """Return whether a node must be replaced by its formula before it can be differentiated."""
    return isinstance(node.op, Composite) and not node.op.has_gradient


def formulas(graph: Graph) -> Graph:
    """Return the graph with every composite that has no gradient rule replaced by its formula."""
    while any(map(needs_formula, graph.nodes)):
        graph = rebuild(graph, _formula)
    return in_regions(graph, formulas)


def _formula(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if not needs_formula(node):
        return None
    assert isinstance(node.op, Composite)
    return tuple(s.value for s in node.op.decompose(*(Sym(b, v) for v in operands)))
