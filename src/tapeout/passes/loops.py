"""Loops and branches carry, stack and read no more than they need, and compute outside what is the same at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import rebuild
from tapeout.ops.control import Cond, Scan
from tapeout.ops.movement import Slice
from tapeout.passes.base import Pass
from tapeout.passes.branch import simpler_branch
from tapeout.passes.cse import Cse
from tapeout.passes.dce import Dce
from tapeout.passes.fold import Fold
from tapeout.passes.loop import simpler_loop
from tapeout.passes.simplify import Simplify

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class Loops(Pass):
    """Simplify `scan` and `cond`.

    Results that nothing reads go, with the carries, operands and computation behind them. A stacked result that is an operand or a
    carry anyway is read from there. Numbers and values that are repeated over time move into the body, computation that is
    the same at every step out of it. A branch with a known predicate is no branch.

    Attributes:
        rounds: Times that the graph is gone through at most.
    """

    name: ClassVar[str] = "loops"
    rounds: int = 8

    def run(self, graph: Graph) -> Graph:
        """Return the graph with simpler loops and branches."""
        for _ in range(self.rounds):
            before, graph = graph, in_regions(graph, self.run)
            graph = _simpler(graph)
            if graph is before:
                break
            for step in (Fold(), Simplify(), Cse(), Dce()):
                graph = step.run(graph)
        return graph


def _simpler(graph: Graph) -> Graph:
    if not any(isinstance(n.op, Scan | Cond) for n in graph.nodes):
        return graph
    read = {v for n in graph.nodes for v in n.operands} | set(graph.results)
    whole = _read_whole(graph)

    def change(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        used = [r in read for r in node.results]
        if isinstance(node.op, Scan):
            last = [r not in whole for r in node.results]
            return simpler_loop(b, node.op, operands, used, last)
        if isinstance(node.op, Cond):
            return simpler_branch(b, node.op, operands, used)
        return None

    return rebuild(graph, change)


def _read_whole(graph: Graph) -> set[Value]:
    """Return the values of which more is read than the last slot of a history."""
    whole = set(graph.results)
    for node in graph.nodes:
        for value in node.operands:
            if not _reads_last(node, value):
                whole.add(value)
    return whole


def _reads_last(node: Node, value: Value) -> bool:
    """Whether a node reads nothing but the last slot of a scan's history."""
    made, cut = value.node, node.op
    if made is None or not isinstance(made.op, Scan) or not isinstance(cut, Slice):
        return False
    slot = 0 if made.op.reverse else made.op.length
    whole = tuple(cut.limits[1:]) == tuple(value.type.shape[1:]) and not any(cut.starts[1:])
    one = (cut.starts[0], cut.limits[0]) == (slot, slot + 1)
    return one and whole and all(s == 1 for s in cut.strides)
