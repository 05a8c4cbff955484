"""Composites without a gradient rule become their formula before differentiation, inside of regions too."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tapeout.ir.op import Composite
from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import rebuild
from tapeout.ops.control import Scan
from tapeout.ops.sym import Sym

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value


def needs_formula(node: Node) -> bool:
    """Return whether a node must be replaced by its formula before it can be differentiated."""
    return isinstance(node.op, Composite) and not node.op.has_gradient


def formulas(graph: Graph) -> Graph:
    """Return the graph with every composite that has no gradient rule replaced by its formula.

    Scans of which only last values are asked for give whole histories again, which their derivatives read.
    """
    graph = rebuild(graph, _histories)
    while any(map(needs_formula, graph.nodes)):
        graph = rebuild(graph, _formula)
    return in_regions(graph, formulas)


def _histories(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    op = node.op
    if not isinstance(op, Scan) or not op.finals:
        return None
    results = b.emit(dataclasses.replace(op, finals=()), *operands)
    last = 0 if op.reverse else op.length
    return tuple(Sym(b, r)[last].value if i in op.finals else r for i, r in enumerate(results))


def _formula(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if not needs_formula(node):
        return None
    assert isinstance(node.op, Composite)
    return tuple(s.value for s in node.op.decompose(*(Sym(b, v) for v in operands)))
