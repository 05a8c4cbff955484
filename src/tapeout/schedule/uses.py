"""Who reads each value of a graph, and which values must be kept whatever happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.ir.op import Pointwise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class Uses:
    """The readers of values.

    Attributes:
        readers: Nodes that read a value, in order, each once.
        wanted: Values that the caller, a check or a variable needs.
        late: Nodes that only serve updates.
    """

    readers: dict[Value, tuple[Node, ...]]
    wanted: dict[Value, None]
    late: dict[Node, None]

    @classmethod
    def of(cls, graph: Graph, nodes: Sequence[Node]) -> Uses:
        """Return the uses of a graph's values; `nodes` are those that matter, in order."""
        found: dict[Value, dict[Node, None]] = {}
        for node in nodes:
            for v in node.operands:
                found.setdefault(v, {})[node] = None
        readers = {v: tuple(nodes) for v, nodes in found.items()}
        wanted = dict.fromkeys(graph.results)
        return cls(readers, wanted, _late(graph, nodes, readers))

    def of_value(self, value: Value) -> tuple[Node, ...]:
        """Return the nodes that read a value."""
        return self.readers.get(value, ())


def needed_nodes(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes that a result depends on, in order."""
    needed = set(graph.results)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(r in needed for r in node.results):
            needed.update(node.operands)
            kept.append(node)
    return tuple(reversed(kept))


def _late(
    graph: Graph, nodes: Sequence[Node], readers: dict[Value, tuple[Node, ...]]
) -> dict[Node, None]:
    """Return the pointwise nodes from which nothing but updates follows.

    They run after every check, and are kept apart from gradients so that equal update formulas of several parameters can
    become one sweep. What a gradient rule emitted is not among them, even where only an update reads it.
    """
    early = {v for _, v in graph.outputs} | {c.bad for c in graph.checks}
    updated = {v for _, v in graph.updates}
    late: dict[Node, None] = {}
    for node in reversed(nodes):
        if not isinstance(node.op, Pointwise) or node.loc.role in ("backward", "loss", "check"):
            continue
        (result,) = node.results
        followers = readers.get(result, ())
        serves = result in updated or bool(followers)
        if serves and result not in early and all(f in late for f in followers):
            late[node] = None
    return late
