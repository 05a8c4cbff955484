"""What a picture of a graph shows: boxes and the links between them, before anything has a place.

    Scene = boxes[Box], links[Link]
    Box   = key, kind, role, title, lines[Line], facts     (facts: plain data for the side panel)
    Link  = source, target (numbers of boxes), label

Parameters, states and constants are lines in the boxes that read them, not boxes: a parameter is
read in the forward part, in the backward part and by its update, and three long edges would say
less than its name does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tapeout.ir.attribute import spell_dim, spell_op, spell_value
from tapeout.ir.literal import spell_name
from tapeout.ir.op import Composite, Contraction, Elementwise, Op, Pointwise, Reduction, Scatter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.type import TensorType
    from tapeout.support.loc import Loc

ROLES = ("forward", "loss", "backward", "update", "check")
"""In the order in which they happen, which is the order of the legend."""

_KINDS: tuple[tuple[type[Op], str], ...] = (
    (Contraction, "contraction"),
    (Reduction, "reduction"),
    (Elementwise, "elementwise"),
    (Pointwise, "movement"),
    (Scatter, "scatter"),
    (Composite, "composite"),
)
KINDS = ("input", *(name for _, name in _KINDS), "operation", "group", "output", "update")
"""Every kind of box; each has its own outline."""

_LONGEST_VALUE = 160
"""Attributes and lists longer than this are shortened in facts, so that pages stay small."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a box below its title.

    Attributes:
        text: What it says.
        tone: `type` (what the node makes), `variable` (a parameter or state that it reads),
            `constant`, `update` (a variable that becomes the result) or `note`.
    """

    text: str
    tone: str = "type"


@dataclass(frozen=True, slots=True)
class Box:
    """One thing in the picture.

    Attributes:
        key: Unique in the scene and stable from run to run: `n12`, `i0`, `o0`, `u0`, `g3`.
        kind: One of `KINDS`; decides the outline.
        role: One of `ROLES`; decides the colour.
        title: The operation, or the name of an input or output.
        lines: What stands below.
        name: Name of the source node, which ties forward and backward boxes together.
        facts: Plain data (JSON) for whoever asks about the box.
    """

    key: str
    kind: str
    role: str
    title: str
    lines: tuple[Line, ...] = ()
    name: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """Data that flow from one box to another; box numbers, and what flows."""

    source: int
    target: int
    label: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture without places."""

    title: str
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
    note: str = ""
    """What was left out or drawn together, for the reader; empty when everything is there."""


def kind_of(op: Op) -> str:
    """Return the kind of box for an operation, by its class."""
    return next((name for cls, name in _KINDS if isinstance(op, cls)), "operation")


def role_of(loc: Loc) -> str:
    """Return the role of a place; unknown roles count as forward."""
    return loc.role if loc.role in ROLES else "forward"


def shorten(text: str, longest: int = _LONGEST_VALUE) -> str:
    """Return the text, its middle replaced by an ellipsis where it is too long."""
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def value_names(graph: Graph) -> dict[Value, str]:
    """Return the name of every value as `.tape` text writes it: `%7`, `%8`, … for results."""
    names: dict[Value, str] = {v: f"%{spell_name(v.name)}" for v in graph.inputs}
    names |= {v.value: f"%{spell_name(v.name)}" for v in graph.variables}
    for node in graph.nodes:
        for value in node.results:
            names[value] = f"%{len(names)}"
    return names


def type_text(type: TensorType, dims: Mapping[str, int]) -> str:
    """Return a type as people write it, unbound dimensions by name: `f32[N,1,28,28]`."""
    sizes = [spell_dim(n, dims) for n in type.shape]
    return f"{type.dtype.name}[{','.join(s[1:-1] if s.startswith('(') else s for s in sizes)}]"


def is_inline(node: Node) -> bool:
    """Whether a node is shown as a line of its readers: it reads nothing, as constants and iotas do."""
    return not node.operands


def inline_text(node: Node) -> str:
    """Return a constant's line: what it is and its type."""
    text = shorten(spell_op(node.op), 40)
    return f"{text}: {node.results[0].type}" if node.results else text


def every_node(graph: Graph) -> Scene:
    """Return the scene with one box per node that reads something, one per input and one per output."""
    return _Collector(graph).scene()


class _Collector:
    """Walks a graph once, in its order, and numbers boxes as they come."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.names = value_names(graph)
        self.variables = {v.value: v for v in graph.variables}
        self.made_by: dict[Value, int] = {}
        self.boxes: list[Box] = []
        self.links: list[Link] = []
        self.updates: dict[Value, list[str]] = {}
        for name, value in graph.updates:
            self.updates.setdefault(value, []).append(name)
        self.checks: dict[Value, list[str]] = {}
        for check in graph.checks:
            self.checks.setdefault(check.bad, []).append(check.message)
        self.kept = self._inline_results()

    def type(self, value: Value) -> str:
        return type_text(value.type, self.graph.dims)

    def _inline_results(self) -> dict[Node, None]:
        """Return the nodes without operands that need a box all the same: an output or update is their result."""
        return {
            v.node: None for v in self.graph.results if v.node is not None and is_inline(v.node)
        }

    def scene(self) -> Scene:
        for i, value in enumerate(self.graph.inputs):
            facts = {"name": value.name, "type": self.type(value)}
            self._add(
                Box(
                    f"i{i}",
                    "input",
                    "forward",
                    value.name,
                    (Line(self.type(value)),),
                    value.name,
                    facts,
                ),
                (value,),
            )
        for i, node in enumerate(self.graph.nodes):
            if not is_inline(node) or node in self.kept:
                self._add_node(i, node)
        for i, (name, value) in enumerate(self.graph.outputs):
            self._add_end(f"o{i}", "output", name, value)
        for i, (name, value) in enumerate(self.graph.updates):
            if value.node is None:
                self._add_end(f"u{i}", "update", name, value)
        return Scene(self.graph.name, tuple(self.boxes), tuple(self.links))

    def _add(self, box: Box, makes: tuple[Value, ...]) -> int:
        number = len(self.boxes)
        self.boxes.append(box)
        for value in makes:
            self.made_by[value] = number
        return number

    def _add_node(self, index: int, node: Node) -> None:
        lines = [Line(self.type(v)) for v in node.results]
        lines += [self._read(v) for v in dict.fromkeys(node.operands) if v not in self.made_by]
        written = [name for v in node.results for name in self.updates.get(v, ())]
        lines += [Line(f"→ {name}", "update") for name in written]
        checked = [m for v in node.results for m in self.checks.get(v, ())]
        lines += [Line(f"stops if true: {m}", "note") for m in checked]
        box = Box(
            f"n{index}",
            kind_of(node.op),
            role_of(node.loc),
            node.op.name,
            tuple(lines),
            node.loc.name,
            self._facts(node, written, checked),
        )
        number = self._add(box, node.results)
        for value in dict.fromkeys(node.operands):
            if value in self.made_by:
                self.links.append(
                    Link(self.made_by[value], number, f"{self.names[value]}: {self.type(value)}")
                )

    def _add_end(self, key: str, kind: str, name: str, value: Value) -> None:
        lines = [Line(self.type(value))]
        if value not in self.made_by:
            lines.append(self._read(value))
        facts = {"name": name, "type": self.type(value), "value": self.names[value]}
        role = role_of(value.node.loc) if value.node is not None else "forward"
        number = self._add(Box(key, kind, role, name, tuple(lines), name, facts), ())
        if value in self.made_by:
            self.links.append(
                Link(self.made_by[value], number, f"{self.names[value]}: {self.type(value)}")
            )

    def _read(self, value: Value) -> Line:
        """Return the line of an operand that has no box of its own."""
        variable = self.variables.get(value)
        if variable is not None:
            return Line(f"{variable.name}: {variable.type}", "variable")
        assert value.node is not None, "an operand is an input, a variable or a result"
        return Line(inline_text(value.node), "constant")

    def _facts(self, node: Node, written: list[str], checked: list[str]) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "op": node.op.name,
            "attributes": {
                k: shorten(spell_value(v, self.graph.dims)) for k, v in node.op.attributes.items()
            },
            "operands": [self._operand(v) for v in node.operands],
            "results": [f"{self.names[v]}: {self.type(v)}" for v in node.results],
            "source": node.loc.name,
            "file": node.loc.file,
        }
        if written:
            facts["updates"] = written
        if checked:
            facts["checks"] = checked
        return facts

    def _operand(self, value: Value) -> dict[str, str]:
        variable = self.variables.get(value)
        if variable is not None:
            trained = ", frozen" if variable.kind == "parameter" and not variable.trainable else ""
            return {
                "text": f"{variable.name}: {variable.type}",
                "from": f"{variable.kind}{trained}",
            }
        if value in self.made_by:
            return {
                "text": f"{self.names[value]}: {self.type(value)}",
                "box": self.boxes[self.made_by[value]].key,
            }
        assert value.node is not None, "an operand is an input, a variable or a result"
        return {"text": f"{self.names[value]} = {inline_text(value.node)}", "from": "constant"}
