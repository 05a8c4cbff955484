"""Nodes that compute the same are merged into the first of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tapeout.ir.attribute import spell_op
from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import rebuild
from tapeout.ops import elementwise as ew
from tapeout.passes.base import Pass
from tapeout.support.loc import AGAIN

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value

COMMUTATIVE = (ew.Add, ew.Mul, ew.And, ew.Or, ew.Xor, ew.Equal, ew.NotEqual)
"""Operations whose two operands may change places without a change of any bit (of numbers that are not NaN)."""


@dataclass(frozen=True)
class Cse(Pass):
    """Merge equal operations on the same operands; the first keeps its place.

    What is computed twice on purpose stays apart from what it was computed with first.
    Operations are compared by their text, so that -0.0 is not 0.0. Random bits differ by their stream, which is an attribute.
    """

    name: ClassVar[str] = "cse"

    def run(self, graph: Graph) -> Graph:
        """Return the graph with each computation once."""
        graph = in_regions(graph, self.run)
        known: dict[tuple[object, ...], tuple[Value, ...]] = {}
        numbers: dict[Value, int] = {}

        def number(value: Value) -> int:
            return numbers.setdefault(value, len(numbers))

        def change(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
            places = [number(v) for v in operands]
            if isinstance(node.op, COMMUTATIVE):
                places.sort()
            # Regions that differ in provenance only are equal.
            op = repr(node.op) if node.op.regions else spell_op(node.op)
            key = (op, node.loc.role == AGAIN, *places)
            first = known.get(key)
            if first is not None:
                return first
            if operands == node.operands:
                b.keep(node)
                known[key] = node.results
            else:
                known[key] = b.emit(node.op, *operands, loc=node.loc)
            return known[key]

        return rebuild(graph, change)
