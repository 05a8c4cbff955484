"""Composites become formulas of primitives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tapeout.ir.op import Composite
from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import rebuild
from tapeout.ops.sym import Sym
from tapeout.passes.base import Pass
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class Decompose(Pass):
    """Replace every composite by its formula, until none is left.

    Attributes:
        depth: How deep formulas may nest.
    """

    name: ClassVar[str] = "decompose"
    depth: int = 32

    def run(self, graph: Graph) -> Graph:
        """Return the graph without composites.

        Raises:
            CompileError: Formulas nest deeper than `depth`, which means that one contains itself.
        """
        graph = in_regions(graph, self.run)
        for _ in range(self.depth):
            before, graph = graph, rebuild(graph, _decomposed)
            if graph is before:
                return in_regions(graph, self.run)
        node = next((n for n in graph.nodes if isinstance(n.op, Composite)), None)
        if node is None:
            return graph
        raise CompileError(f"{node.op.name} does not come to primitives", where=str(node.loc))


def _decomposed(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if not isinstance(node.op, Composite):
        return None
    return tuple(r.value for r in node.op.decompose(*(Sym(b, v) for v in operands)))
