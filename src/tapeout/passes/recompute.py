"""Activations that the backward pass can compute anew at little cost are not kept for it.

What the backward pass reads of the forward pass must be kept, or be computed again from something that is. A minimum cut through
the forward graph, weighted by bytes, says what to keep; the rest is cloned right before the backward nodes that read it. Only
what costs about as much as reading it counts as computable: data movement, cheap elementwise operations, and contractions that
together add a few per cent to the arithmetic. Reductions, transcendental functions and random numbers are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from tapeout.ir.op import Contraction, Elementwise, Pointwise, Reduction
from tapeout.ir.rewrite import rebuild
from tapeout.passes.base import Pass
from tapeout.support.loc import AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value

LATE = ("backward", "update", AGAIN)
"""Roles of nodes that read what the forward pass kept."""

CHEAP = frozenset(
    [
        *("add", "sub", "mul", "neg", "abs", "max", "min", "select", "cast", "clip", "sign"),
        *("relu", "relu6", "leaky_relu", "thresholded_relu", "prelu", "hard_tanh", "hard_sigmoid"),
        *("not", "and", "or", "xor", "equal", "not_equal"),
        *("less", "less_equal", "greater", "greater_equal"),
    ]
)
"""Elementwise operations that cost about as much as a load."""


@dataclass(frozen=True)
class Recompute(Pass):
    """Clone cheap forward nodes into the backward pass where that keeps fewer bytes alive.

    Attributes:
        least: Bytes from which a value is worth it.
        chain: Most elementwise operations between what is kept and what is computed anew from it.
        large: Bytes from which a value leaves the caches, so that what it is made from comes from memory every time.
        short: Most such operations for a large value.
        share: Most operations of contractions computed anew, as a share of those of the forward pass.
        per_byte: Most operations of a contraction for each byte of its result.
        window: Backward nodes after which a clone is made anew instead of being kept from its last reader to the next.
    """

    name: ClassVar[str] = "recompute"
    least: int = 64 * 1024
    chain: int = 16
    large: int = 4 * 1024 * 1024
    short: int = 4
    share: float = 0.1
    per_byte: int = 16
    window: int = 32

    def run(self, graph: Graph) -> Graph:
        """Return the graph with clones."""
        early = {v: node for node in graph.nodes if not _is_late(node) for v in node.results}
        late = [node for node in graph.nodes if _is_late(node)]
        needed = dict.fromkeys(v for node in late for v in node.operands if v in early)
        if sum(v.type.bytes for v in needed if v.type.bytes >= self.least) < 2 * self.least:
            return graph
        kept = self._kept(graph, early, needed)
        again = {v for v in _above(needed, early, kept) if v not in kept}
        return rebuild(graph, _Cloner(early, again, self.window).change) if again else graph

    # -- what may be computed anew ------------------------------------------------------------------

    def _kept(
        self, graph: Graph, early: dict[Value, Node], needed: Iterable[Value]
    ) -> dict[Value, None]:
        """Return the values of the forward pass that are kept, by a minimum cut."""
        import networkx as nx

        able = self._computable(graph, early)
        numbers: dict[Value, int] = {}
        net = nx.DiGraph()
        pending = list(needed)
        wanted = dict.fromkeys(needed)
        while pending:
            v = pending.pop()
            if v in numbers:
                continue
            numbers[v] = n = len(numbers)
            net.add_edge(2 * n, 2 * n + 1, capacity=v.type.bytes if v in early else 0)
            if v in wanted:
                net.add_edge(2 * n + 1, "end")
            if v not in able:
                net.add_edge("start", 2 * n)
                continue
            pending += early[v].operands
        for v, n in numbers.items():
            for u in early[v].operands if v in able else ():
                net.add_edge(2 * numbers[u] + 1, 2 * n)
        if "start" not in net:
            return {}
        _, (near, _) = nx.minimum_cut(net, "start", "end")
        return {v: None for v, n in numbers.items() if 2 * n in near and 2 * n + 1 not in near}

    def _computable(self, graph: Graph, early: dict[Value, Node]) -> dict[Value, None]:
        """Return the values that may be computed anew."""
        able: dict[Value, None] = {}
        depth: dict[Value, int] = {}
        for node in graph.nodes:
            value = node.results[0]
            if value not in early or len(node.results) != 1 or not self._is_cheap(node):
                continue
            below = max((depth.get(v, 0) for v in node.operands), default=0)
            depth[value] = below + isinstance(node.op, Elementwise)
            most = self.short if value.type.bytes >= self.large else self.chain
            if depth[value] <= most:
                able[value] = None
            else:
                depth[value] = 0
        return able | self._contractions(early, able)

    def _contractions(self, early: dict[Value, Node], able: dict[Value, None]) -> dict[Value, None]:
        """Return the contractions that may be computed anew: the cheapest, of operands that are there anyway."""
        found = [n for n in early.values() if isinstance(n.op, Contraction)]
        left = self.share * sum(map(_operations, found))
        more: dict[Value, None] = {}
        for node in sorted(found, key=lambda n: _operations(n) / n.results[0].type.bytes):
            value, work = node.results[0], _operations(node)
            if value.type.bytes < self.least or any(v in able for v in node.operands):
                continue
            if work <= min(left, self.per_byte * value.type.bytes):
                more[value] = None
                left -= work
        return more

    def _is_cheap(self, node: Node) -> bool:
        if isinstance(node.op, Elementwise):
            return node.op.name in CHEAP and node.results[0].type.bytes >= self.least
        return isinstance(node.op, Pointwise) and not getattr(node.op, "gathers", False)


def _is_late(node: Node) -> bool:
    return node.loc.role in LATE


def _operations(node: Node) -> int:
    """Return the multiply-adds of a contraction, times two."""
    assert isinstance(node.op, Reduction)
    types = [v.type for v in node.operands]
    return 2 * int(prod(node.op.reduced(*types))) * int(node.results[0].type.size)


def _above(
    values: Iterable[Value], early: dict[Value, Node], kept: dict[Value, None]
) -> list[Value]:
    """Return the values of the forward pass from which others are made, up to those that are kept."""
    found: dict[Value, None] = {}
    pending = list(values)
    while pending:
        v = pending.pop()
        if v in found or v not in early:
            continue
        found[v] = None
        if v not in kept:
            pending += early[v].operands
    return list(found)


class _Cloner:
    """Puts clones before the backward nodes that read them."""

    def __init__(self, early: dict[Value, Node], again: set[Value], window: int) -> None:
        self.early, self.again, self.window = early, again, window
        self.clones: dict[Value, tuple[Value, int]] = {}
        self.position = 0

    def change(
        self, b: Builder, node: Node, operands: tuple[Value, ...]
    ) -> tuple[Value, ...] | None:
        """Replace what a backward node reads; leave every other node as it is."""
        if not _is_late(node):
            return None
        self.position += 1
        if not any(v in self.again for v in operands):
            return None
        new = tuple(self._clone(b, v) if v in self.again else v for v in operands)
        b.loc = node.loc
        return b.emit(node.op, *new)

    def _clone(self, b: Builder, value: Value) -> Value:
        """Return the clone of a value; those that it is made from come first."""
        stack = [value]
        while stack:
            v = stack[-1]
            node = self.early[v]
            if self._is_at_hand(v):
                stack.pop()
                continue
            missing = [u for u in node.operands if u in self.again and not self._is_at_hand(u)]
            if missing:
                stack += missing
                continue
            stack.pop()
            operands = [self.clones[u][0] if u in self.again else u for u in node.operands]
            results = b.emit(node.op, *operands, loc=node.loc.as_role(AGAIN))
            self.clones[v] = results[0], self.position
        made, _ = self.clones[value]
        self.clones[value] = made, self.position
        return made

    def _is_at_hand(self, value: Value) -> bool:
        found = self.clones.get(value)
        return found is not None and self.position - found[1] <= self.window
