"""Rows of a table that are looked up and then multiplied by a matrix: multiply the table first, and look up in the product.

A batch that has more positions than the table has rows meets each row several times, and its product with the matrix is the same
each time. So does the backward pass: cotangents are added up by row of the table first, and both products of the gradient sum over
rows of the table instead of positions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import rebuild
from tapeout.ops import movement as mv
from tapeout.ops.contraction import DotGeneral
from tapeout.ops.gather import Take
from tapeout.passes.base import Pass

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value

WORTH = 32
"""Multiplications that must be spared for each number of the product that is moved once more."""


@dataclass(frozen=True)
class Tables(Pass):
    """Replace products with looked up rows by looked up products, where a table has fewer rows than are looked up."""

    name: ClassVar[str] = "tables"

    def run(self, graph: Graph) -> Graph:
        """Return the graph with such products changed."""
        graph = in_regions(graph, self.run)
        if not any(isinstance(n.op, Take) for n in graph.nodes):
            return graph
        reads = Counter(v for n in graph.nodes for v in n.operands)
        reads.update(graph.results)
        return rebuild(graph, lambda b, node, operands: _change(b, node, operands, reads))


def _change(
    b: Builder, node: Node, operands: tuple[Value, ...], reads: Counter[Value]
) -> tuple[Value, ...] | None:
    op = node.op
    if not isinstance(op, DotGeneral) or op.batch_a or op.batch_b or len(op.contract_a) != 1:
        return None
    found = _looked_up(node.operands[0], reads)
    if found is None:
        return None
    take, perm = found
    table, indices = take.operands
    (axis,) = op.contract_a
    positions = indices.type.rank
    if perm[axis] != positions or not _is_worth_it(table, indices):
        return None
    product = b.emit(replace(op, contract_a=(1,)), table, operands[1], loc=node.loc)
    rows = b.emit(take.op, product[0], indices, loc=take.loc)
    order = [p for d, p in enumerate(perm) if d != axis]
    order += range(positions, rows[0].type.rank)
    if order == list(range(len(order))):
        return rows
    return b.emit(mv.Transpose(perm=tuple(order)), rows[0], loc=node.loc)


def _looked_up(value: Value, reads: Counter[Value]) -> tuple[Node, tuple[int, ...]] | None:
    """Return the node that looks up the rows of a table which a value is made of, and from which dimension each of the value's comes.

    None if the value is something else, or is needed for more than one product.
    """
    perm = tuple(range(value.type.rank))
    while True:
        node = value.node
        if node is None or reads[value] != 1:
            return None
        if isinstance(node.op, Take):
            return (node, perm) if node.op.axis == 0 and node.operands[0].type.rank == 2 else None
        if not isinstance(node.op, mv.Transpose):
            return None
        inner = node.op.perm
        perm = tuple(inner[p] for p in perm)
        (value,) = node.operands


def _is_worth_it(table: Value, indices: Value) -> bool:
    rows, width = map(int, table.type.shape)
    positions = prod(map(int, indices.type.shape))
    return (positions - rows) * width >= WORTH * positions
