"""Mixed precision: products read bf16, and what lies in memory between kernels is bf16; all else stays as it is.

Every value keeps its type. Rounding a value to bf16 and widening it again is a pair of casts, put where a value is read by a
product or kept for later; the scheduler stores the narrow one of the two and widens it where it is read. So sums, statistics,
losses, gradients of parameters and updates are f32 because nothing was said of them, and no operation needs to know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tapeout.ir.build import rebuilder
from tapeout.ir.dtype import bf16, f32
from tapeout.ir.op import Composite, Contraction, Op, Pointwise, Reduction, Scatter
from tapeout.ir.precision import Precision
from tapeout.ir.region import with_bodies
from tapeout.ir.rewrite import finish
from tapeout.ops import elementwise as ew
from tapeout.ops import gather
from tapeout.ops import movement as mv
from tapeout.passes.base import Pass
from tapeout.passes.recompute import LATE

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value

PRODUCT = "product"
"""Reads bf16 and sums in f32; its result is an activation."""
ACTIVATION = "activation"
"""Its result is an activation whatever it reads."""
FOLLOWS = "follows"
"""Computes in f32; its result is an activation if an operand is one."""
FULL = "full"
"""Needs f32: its result is kept in f32 unless a product reads it."""

KINDS: tuple[tuple[tuple[type[Op], ...], str], ...] = (
    ((Contraction,), PRODUCT),
    ((gather.Take,), ACTIVATION),
    # Sums, statistics and places that many elements are added to.
    ((Reduction, Scatter), FULL),
    # A small error before or after these is a large relative error of what is made of them.
    ((ew.Exp, ew.Expm1, ew.Log, ew.Log1p, ew.Pow, ew.Rsqrt, ew.Softplus, ew.LogSigmoid), FULL),
    ((Pointwise,), FOLLOWS),
    # Loops and branches: products inside read bf16, what they hand on stays.
    ((Op,), FULL),
)
"""What mixed precision means for each class of operations; the first entry that fits decides."""

MOVES = (mv.Reshape, mv.Transpose, mv.Broadcast, mv.Reverse, mv.Slice)
"""Operations whose elements are elements of their one operand."""


def kind_of(op: Op) -> str:
    """Return what mixed precision means for an operation."""
    return next(kind for classes, kind in KINDS if isinstance(op, classes))


@dataclass(frozen=True)
class Mixed(Pass):
    """Round what products read, and activations that are kept, to bf16. Composites must have become formulas.

    Attributes:
        precision: Which layers; those in f32 keep what they read and make.
    """

    name: ClassVar[str] = "mixed"
    precision: Precision = field(default_factory=lambda: Precision.of("bf16"))

    def run(self, graph: Graph) -> Graph:
        """Return the graph with casts."""
        if self.precision.is_full or not graph.nodes:
            return graph
        return _Rounding(graph, self.precision).run()


def layers_of(graph: Graph) -> list[str]:
    """Return what layers that may hold a product, and the variables that these read, are known by."""
    found: dict[str, None] = {}
    for node in graph.nodes:
        if isinstance(node.op, Contraction | Composite) or node.op.regions:
            found.update(dict.fromkeys(_names(node)))
    return list(found)


def _names(node: Node) -> list[str]:
    roots = [_root(v) for v in node.operands]
    return [node.loc.name, *(v.name for v in roots if v.node is None and v.name)]


def _root(value: Value) -> Value:
    """Return what a value's elements are elements of."""
    while value.node is not None and isinstance(value.node.op, MOVES):
        (value,) = value.node.operands
    return value


class _Rounding:
    """One graph."""

    def __init__(self, graph: Graph, precision: Precision) -> None:
        self.graph, self.precision = graph, precision
        self.readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            for v in dict.fromkeys(node.operands):
                self.readers.setdefault(v, []).append(node)
        self.products = self._products()
        self.activations = self._activations()
        self.linear = self._linear()
        self.held = self._held()
        self.new: dict[Value, Value] = {}
        self.rounded: dict[Value, Value] = {}

    def run(self) -> Graph:
        b = rebuilder(self.graph)
        changed = False
        for node in self.graph.nodes:
            b.loc = node.loc
            changed = self._node(b, node) or changed
        return finish(self.graph, b, self.new) if changed else self.graph

    # -- which layers, which values -----------------------------------------------------------------

    def _products(self) -> set[Node]:
        """Return the products of f32 that read bf16; the gradients of a layer in f32 are known by its name."""
        found = [n for n in self.graph.nodes if kind_of(n.op) == PRODUCT]
        names = [(n.loc.name, self.precision.at(*_names(n))) for n in found]
        full = {name for name, precision in names if precision == "f32"}
        return {n for n in found if n.loc.name not in full and n.results[0].type.dtype == f32}

    def _activations(self) -> set[Value]:
        found = {v for v in self.graph.inputs if v.type.dtype == f32}
        for node in self.graph.nodes:
            kind = kind_of(node.op)
            is_one = kind == ACTIVATION or (node in self.products)
            if is_one or (kind == FOLLOWS and any(v in found for v in node.operands)):
                found.update(r for r in node.results if r.type.dtype == f32)
        return {
            v for v in found if v.node is None or "loss" not in (v.node.loc.role, v.node.loc.name)
        }

    def _linear(self) -> set[Value]:
        """Return values of the backward pass that depend on a product there: cotangents, as opposed to derivatives of the forward pass."""
        found: set[Value] = set()
        for node in self.graph.nodes:
            late = node.loc.role in LATE
            if late and (kind_of(node.op) == PRODUCT or any(v in found for v in node.operands)):
                found.update(node.results)
        return found

    def _held(self) -> set[Value]:
        """Return the values that are rounded where they are made, for all who read them."""
        found: dict[Value, None] = {}
        summed: dict[Value, None] = {}
        for node in self.graph.nodes:
            if node in self.products:
                found.update(dict.fromkeys(map(_root, node.operands)))
                summed.update(dict.fromkeys(node.results))
            elif kind_of(node.op) == FOLLOWS:
                # A kernel can end in one product; the others lie in memory when it runs.
                found.update(dict.fromkeys([v for v in node.operands if v in summed][:-1]))
            for v in node.results:
                if v in self.activations and self._is_kept(v):
                    found[_root(v)] = None
        kept = (v for v in found if v.node is not None and v.type.dtype == f32)
        return {v for v in kept if v.type.size > 1 and not self._is_full(v)}

    def _is_kept(self, value: Value) -> bool:
        """Whether an activation will probably lie in memory: the backward pass reads it, or what reads it cannot make it."""
        node, readers = value.node, self.readers.get(value, [])
        assert node is not None
        late = node.loc.role in LATE
        if not late and any(r.loc.role in LATE for r in readers):
            return True
        # A derivative may be taken in the forward pass, in place of what it is a derivative of.
        if late and value not in self.linear and any(r.results[0] in self.linear for r in readers):
            return True
        if isinstance(node.op, MOVES):
            return False
        pointwise = [isinstance(r.op, Pointwise) for r in readers]
        if kind_of(node.op) == PRODUCT:
            return bool(readers) and pointwise != [True]
        return len(readers) > 1 and not all(pointwise)

    def _is_full(self, value: Value) -> bool:
        """Whether a layer in f32 makes or reads a value."""
        pending = [value]
        touching = [value.node] if value.node is not None else []
        while pending:
            for r in self.readers.get(pending.pop(), ()):
                touching.append(r)
                pending += r.results if isinstance(r.op, MOVES) else ()
        return any(isinstance(n.op, Contraction) and n not in self.products for n in touching)

    # -- the new graph ------------------------------------------------------------------------------

    def _node(self, b: Builder, node: Node) -> bool:
        """Append a node; return whether anything changed."""
        if node in self.products:
            operands = tuple(self._operand(b, v) for v in node.operands)
        else:
            operands = tuple(self.new.get(v, v) for v in node.operands)
        op = with_bodies(node.op, self._body) if node.op.regions else node.op
        results = node.results
        if op is node.op and operands == node.operands:
            b.keep(node)
        else:
            results = b.emit(op, *operands)
            self.new.update(zip(node.results, results, strict=True))
        for old, new in zip(node.results, results, strict=True):
            if old in self.held:
                self.new[old] = _round(b, new)
        return results is not node.results or any(v in self.held for v in node.results)

    def _operand(self, b: Builder, value: Value) -> Value:
        """Return an operand of a product, rounded: what was held is; of all else a rounded copy is made once."""
        if value.type.dtype != f32 or _root(value) in self.held:
            return self.new.get(value, value)
        chain: list[Node] = []
        at = value
        while at not in self.rounded and at.node is not None and isinstance(at.node.op, MOVES):
            chain.append(at.node)
            (at,) = at.node.operands
        if at not in self.rounded:
            self.rounded[at] = _round(b, self.new.get(at, at))
        for node in reversed(chain):
            (self.rounded[node.results[0]],) = b.emit(node.op, self.rounded[node.operands[0]])
        return self.rounded[value]

    def _body(self, body: Graph) -> Graph:
        """Return a region whose products read bf16."""
        inner = _Rounding(body, self.precision)
        inner.held = set()
        return inner.run()


def _round(b: Builder, value: Value) -> Value:
    """Return a value rounded to bf16, as f32."""
    (narrow,) = b.emit(ew.Cast(dtype=bf16), value)
    (wide,) = b.emit(ew.Cast(dtype=f32), narrow)
    return wide
