"""Where gradients flow in a graph, found by asking each operation for its rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.build import Builder
from tapeout.ir.op import Composite
from tapeout.ir.region import bodies
from tapeout.ops.sym import Sym
from tapeout.support.errors import TapeoutError

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.op import Op
    from tapeout.ir.type import TensorType

Edges = tuple[bool, ...]


class GradientPath:
    """Which values get a gradient when the float outputs are differentiated by the trainable parameters."""

    def __init__(self, graph: Graph) -> None:
        """Follow the graph forwards from the parameters and backwards from the outputs."""
        self._asked: dict[tuple[Op, tuple[TensorType, ...]], tuple[Edges, str]] = {}
        self._behind = {v.value for v in graph.variables if v.trainable and v.kind == "parameter"}
        for node in graph.nodes:
            if any(o in self._behind for o in node.operands):
                self._behind.update(r for r in node.results)
        self._reached = {v for _, v in graph.outputs if v.type.dtype.is_float}
        for node in reversed(graph.nodes):
            if any(r in self._reached for r in node.results):
                edges, _ = self._edges(node)
                pairs = zip(node.operands, edges, strict=True)
                self._reached.update(o for o, flows in pairs if flows)
        self._nodes: dict[str, list[Node]] = {}
        for node in graph.nodes:
            self._nodes.setdefault(node.loc.name, []).append(node)

    def reaches(self, value: Value) -> bool:
        """Return whether a gradient comes from a float output back to a value."""
        return value in self._reached

    def through(self, name: str, *, inside: bool = False) -> tuple[str, str]:
        """Return how a gradient fares at a node of the model, and why; see `NodeReport.gradient`.

        Args:
            name: The node.
            inside: Whether it stands for nodes inside of it: those of a function or of a branch.
        """
        here = list(self._nodes.get(name, ()))
        if inside:
            here += [n for k, ns in self._nodes.items() if k.startswith(f"{name}/") for n in ns]
        nodes = [n for n in here if any(o in self._behind for o in n.operands)]
        if not nodes:
            return "no", "nothing that trains lies behind it"
        worst = ("yes", "")
        for node in nodes:
            found = self._at(node)
            if found[0] == "none":
                return found
            worst = found if found[0] != "yes" and worst[0] == "yes" else worst
        return worst

    def _at(self, node: Node) -> tuple[str, str]:
        if not any(r.type.dtype.is_float for r in node.results):
            return "stops", f"{node.op.name} gives {node.results[0].type}"
        edges, why = self._edges(node)
        wanted = [flows for o, flows in zip(node.operands, edges, strict=True) if o in self._behind]
        if why:
            return "none", why
        return ("yes", "") if any(wanted) else ("zero", f"the gradient of {node.op.name} is zero")

    def _edges(self, node: Node) -> tuple[Edges, str]:
        types = tuple(o.type for o in node.operands)
        key = (node.op, types)
        if key not in self._asked:
            self._asked[key] = _ask(node.op, types)
        return self._asked[key]


def _ask(op: Op, types: tuple[TensorType, ...]) -> tuple[Edges, str]:
    """Return through which operands a gradient flows, and why the operation has none."""
    none = (False,) * len(types)
    b = Builder("probe")
    operands = tuple(Sym(b, b.add_input(f"x{i}", t)) for i, t in enumerate(types))
    try:
        results = tuple(Sym(b, v) for v in b.emit(op, *(o.value for o in operands)))
        if not any(r.dtype.is_float for r in results):
            return none, ""
        if op.regions and not isinstance(op, Composite):
            return _through_regions(op, len(types))
        if isinstance(op, Composite) and not op.has_gradient:
            inner = Builder("formula")
            parts = tuple(Sym(inner, inner.add_input(f"x{i}", t)) for i, t in enumerate(types))
            for i, made in enumerate(op.decompose(*parts)):
                inner.set_output(f"y{i}", made.value)
            return _formula_path(inner.graph(), [p.value for p in parts])
        cotangents = tuple(
            Sym(b, b.add_input(f"dy{i}", r.type)) if r.dtype.is_float else None
            for i, r in enumerate(results)
        )
        found = op.pullback(cotangents, operands, results)
    except (TapeoutError, ArithmeticError) as error:
        return none, getattr(error, "message", str(error))
    return tuple(c is not None for c in found), ""


def _through_regions(op: Op, count: int) -> tuple[Edges, str]:
    """Return through which operands of a loop or branch a gradient flows: those whose inputs reach a float result of a body."""
    flows = [False] * count
    for body in bodies(op):
        first = count - len(body.inputs)  # a branch is chosen by an operand that it does not get
        edges, why = _formula_path(body, list(body.inputs))
        if why:
            return (False,) * count, why
        for i, flows_here in enumerate(edges, first):
            flows[i] |= flows_here
    return tuple(flows), ""


def _formula_path(graph: Graph, operands: list[Value]) -> tuple[Edges, str]:
    """Return which operands a gradient reaches from the float outputs, and why an operation on the way has none."""
    behind = set(operands)
    for node in graph.nodes:
        if not behind.isdisjoint(node.operands):
            behind.update(node.results)
    reached = {v for _, v in graph.outputs if v.type.dtype.is_float}
    for node in reversed(graph.nodes):
        if any(r in reached for r in node.results):
            edges, why = _ask(node.op, tuple(o.type for o in node.operands))
            if why and any(r in behind for r in node.results):
                return (False,) * len(operands), why
            reached.update(o for o, flows in zip(node.operands, edges, strict=True) if flows)
    return tuple(o in reached for o in operands), ""
