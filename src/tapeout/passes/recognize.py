"""Formulas that a file spells out become the operation that they are, so that the gradient is that operation's own.

An activation is recognised by what it computes, not by how it is written: what lies between a value and the only value that it
depends on is evaluated at some points and compared with the operations that there are. So any spelling will do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tapeout.ir.op import Elementwise
from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import rebuild
from tapeout.ops import elementwise as ew
from tapeout.ops.composite.softmax import Softmax
from tapeout.ops.contraction import DotGeneral
from tapeout.passes.base import Pass
from tapeout.passes.constants import splat_of
from tapeout.passes.fold import Fold
from tapeout.passes.recognize_attention import recognize_attention

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.op import Array, Op

MOST_NODES = 16
"""Formulas of more nodes are not looked at."""

CLOSE = 2e-6
"""Constants of a file are rounded to f32; no two of the operations come as near to each other."""

_TELLING = (ew.Erf, ew.Tanh, ew.Sigmoid)
_KNOWN: tuple[Op, ...] = (ew.Gelu(), ew.Gelu(approximate="tanh"), ew.Silu(), ew.Mish())
_POINTS = np.concatenate([np.linspace(-6, 6, 49), [-30.0, -1e-3, 1e-3, 30.0]])


@dataclass(frozen=True)
class Recognize(Pass):
    """Replace what is written out by its operation: GELU in both forms, SiLU, Mish, attention. Rounding may change.

    A row of attention in which nothing takes part becomes zero, where the formula gives NaN.
    """

    name: ClassVar[str] = "recognize"

    def run(self, graph: Graph) -> Graph:
        """Return the graph with the operations named."""
        graph = in_regions(graph, self.run)
        if not any(isinstance(n.op, (*_TELLING, Softmax)) for n in graph.nodes):
            return graph
        folded = Fold().run(graph)
        found = rebuild(folded, _Finder(folded).change)
        return graph if found is folded else found


class _Finder:
    """Looks at products, in the order of the graph."""

    def __init__(self, graph: Graph) -> None:
        self.order: dict[Node, int] = {}
        self.reads = Counter(v for n in graph.nodes for v in n.operands)
        self.reads.update(graph.results)

    def change(
        self, b: Builder, node: Node, operands: tuple[Value, ...]
    ) -> tuple[Value, ...] | None:
        for made in b.nodes[len(self.order) :]:
            self.order[made] = len(self.order)
        if isinstance(node.op, DotGeneral) and self.reads[node.operands[0]] == 1:
            whole = recognize_attention(b, node, operands)
            return None if whole is None else (whole,)
        if not isinstance(node.op, ew.Mul) or not node.results[0].type.dtype.is_float:
            return None
        found = self._source(node, operands)
        return None if found is None else b.emit(found[0], found[1])

    def _source(self, node: Node, operands: tuple[Value, ...]) -> tuple[Op, Value] | None:
        """Return the operation that a product is, and of what."""
        inside: list[Node] = []
        open_ = {v: None for v in operands if splat_of(v) is None}
        while open_ and len(inside) < MOST_NODES:
            last = max(open_, key=lambda v: -1 if v.node is None else self.order[v.node])
            if len(open_) == 1 and any(isinstance(n.op, _TELLING) for n in inside):
                op = _operation(node, operands, inside, last)
                if op is not None:
                    return op, last
            if last.node is None or not isinstance(last.node.op, Elementwise):
                return None
            if last.type != node.results[0].type:
                return None
            del open_[last]
            inside.append(last.node)
            open_.update({v: None for v in last.node.operands if splat_of(v) is None})
        return None


def _operation(
    node: Node, operands: tuple[Value, ...], inside: list[Node], source: Value
) -> Op | None:
    """Return the operation that a formula of one value is, None if there is none."""
    known: dict[Value, Array] = {source: _POINTS}

    def array(v: Value) -> Array:
        return known[v] if v in known else np.full(_POINTS.shape, splat_of(v), np.float64)

    for n in reversed(inside):
        known[n.results[0]] = np.asarray(n.op.reference(*map(array, n.operands)))
    got = np.asarray(node.op.reference(*map(array, operands)))
    for op in _KNOWN:
        want = np.asarray(op.reference(_POINTS))
        if np.all(np.abs(got - want) <= CLOSE * (1 + np.abs(want))):
            return op
    return None
