"""Nodes that nothing reads are removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tapeout.ir.build import rebuilder
from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import finish
from tapeout.passes.base import Pass

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph, Value


@dataclass(frozen=True)
class Dce(Pass):
    """Keep what outputs, updates and checks need. Inputs and variables stay, read or not."""

    name: ClassVar[str] = "dce"

    def run(self, graph: Graph) -> Graph:
        """Return the graph without dead nodes."""
        graph = in_regions(graph, self.run)
        needed: set[Value] = set(graph.results)
        live = []
        for node in reversed(graph.nodes):
            if needed.isdisjoint(node.results):
                continue
            live.append(node)
            needed.update(node.operands)
        if len(live) == len(graph.nodes):
            return graph
        b = rebuilder(graph)
        for node in reversed(live):
            b.keep(node)
        return finish(graph, b, {})
