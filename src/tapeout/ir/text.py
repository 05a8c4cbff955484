"""Graphs and modules as `.tape` text; `ir.parse` reads it back, docs/reference/tape-format.md has the grammar.

    tape 1
    graph mlp {
      dims N = 2
      input %x: f32[N=2,784]
      parameter %fc1.weight: f32[784,10] = #8c0c9a…
      state %step: i64[] = 0
      %0: f32[2,10] = dot_general{contract_a = [1], contract_b = [0]} %x, %fc1.weight @ mlp.onnx:fc1/MatMul
      output logits = %0
    }

What a text does not hold: `Graph.source` (a parsed graph with unbound dimensions infers its types anew when they are bound),
`Graph.origin` and `Graph.evaluation`. Tensors of more than a few elements stand in a side file by hash (`ir.side`).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tapeout.ir.attribute import hash_of, is_inline, spell_op, spell_tensor, spell_type
from tapeout.ir.graph import Module
from tapeout.ir.literal import spell_name
from tapeout.ir.region import nested
from tapeout.ir.side import pack, side_file
from tapeout.ir.tensor import Tensor
from tapeout.support.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tapeout.ir.graph import Graph, Node, Value, Variable
    from tapeout.ir.op import Array
    from tapeout.support.loc import Loc

HEADER = "tape 1"
"""First line of every file of this version of the format."""

LOC_WORD = re.compile(
    r"[A-Za-z0-9_<][A-Za-z0-9_.<>-]*(?:/[A-Za-z0-9_.<>-]+)*|(?:/[A-Za-z0-9_.<>-]+)+", re.ASCII
)
"""A file or node name that needs no quotes: no colon, no two slashes together."""


def print_graph(graph: Graph) -> str:
    """Return a graph as text; ends with a newline.

    Raises:
        TapeoutError: An attribute has a type that the text format does not know.
    """
    return "\n".join([HEADER, *_Printer(graph.dims).graph(graph, graph.variables)]) + "\n"


def print_module(module: Module) -> str:
    """Return a module as text; ends with a newline."""
    lines = [HEADER, f"module {spell_name(module.name)} {{"]
    lines += [f"  {variable_line(v)}" for v in module.variables]
    for graph in module.graphs:
        printer = _Printer(graph.dims)
        used = None if graph.variables == module.variables else graph.variables
        lines += [f"  {line}" for line in printer.graph(graph, (), used)]
    return "\n".join([*lines, "}"]) + "\n"


def print_region(
    body: Graph, dims: Mapping[str, int] | None = None, *, places: bool = True
) -> list[str]:
    """Return the statements of a region (see `ir.region`), one a line.

    Args:
        body: The region.
        dims: Named dimensions of the graph around it that are unbound.
        places: Whether provenance is shown.
    """
    return _Printer(dims or {}, places=places).statements(body)


def write_tape(path: Path, content: Graph | Module) -> None:
    """Write a graph or module to `NAME.tape`, and its larger tensors to `NAME.tensors.safetensors`.

    Each file is written whole or not at all, the tensors first. `ir.parse.read_tape` reads them back.

    Raises:
        TapeoutError: An attribute cannot be written as text.
        DataError: A file cannot be written.
    """
    module = content if isinstance(content, Module) else Module("", content.variables, (content,))
    text = print_module(content) if isinstance(content, Module) else print_graph(content)
    tensors = tensors_of(module.graphs, module.variables)
    if tensors:
        write_atomic(side_file(path), pack(tensors))
    write_atomic(path, text.encode())


def tensors_of(graphs: Iterable[Graph], variables: Iterable[Variable]) -> dict[str, Array]:
    """Return the tensors that a text names by hash, for its side file."""
    found: dict[str, Array] = {}
    for tensor in _tensors(graphs, variables):
        if not is_inline(tensor):
            found.setdefault(hash_of(tensor), tensor.array)
    return dict(sorted(found.items()))


def excerpt(graph: Graph, node: Node | None, around: int = 5) -> str:
    """Return the lines of a graph's text around a node, which is marked with `>`; tensor data are left out."""
    printer = _Printer(graph.dims, data=False)
    lines = printer.graph(graph, graph.variables)
    at = printer.lines.get(node, 0) if node is not None else 0
    first = max(0, at - around)
    shown = lines[first : at + around + 1]
    return "\n".join(f"{'>' if n == at else ' '} {t}" for n, t in enumerate(shown, first))


def variable_line(v: Variable, *, data: bool = True) -> str:
    """Return the statement that declares a variable."""
    frozen = "" if v.trainable else "frozen "
    text = f"{frozen}{v.kind} {_named(v)}: {spell_type(v.type)}"
    if v.initial is None:
        return text
    return f"{text} = {spell_tensor(Tensor(v.initial)) if data else '…'}"


def spell_loc(loc: Loc) -> str:
    """Return a place as `@ file:name role`, empty for none."""
    if not loc:
        return ""
    role = "" if loc.role == "forward" else f" {spell_name(loc.role)}"
    return f"@ {_loc_part(loc.file)}:{_loc_part(loc.name)}{role}"


def _loc_part(text: str) -> str:
    return text if not text or LOC_WORD.fullmatch(text) else json.dumps(text)


def _tensors(graphs: Iterable[Graph], variables: Iterable[Variable]) -> Iterator[Tensor]:
    for v in variables:
        if v.initial is not None:
            yield Tensor(v.initial)
    for graph in (inner for g in graphs for inner in nested(g)):
        for node in graph.nodes:
            for x in vars(node.op).values():
                if isinstance(x, Tensor):
                    yield x


def _named(x: Value | Variable) -> str:
    return f"%{spell_name(x.name)}"


class _Printer:
    """Prints one graph. Values that the graph does not define are shown as `%?`, so that errors can be shown too."""

    def __init__(self, dims: Mapping[str, int], *, data: bool = True, places: bool = True) -> None:
        self.dims, self.data, self.places = dims, data, places
        self.names: dict[Value, str] = {}
        self.lines: dict[Node, int] = {}
        self.count = 0

    def graph(
        self,
        graph: Graph,
        declared: Iterable[Variable],
        used: tuple[Variable, ...] | None = None,
    ) -> list[str]:
        out = [f"graph {spell_name(graph.name)} {{"]
        if graph.dims:
            shown = ", ".join(f"{spell_name(n)} = {int(d)}" for n, d in graph.dims.items())
            out.append(f"  dims {shown}")
        out += [f"  input {_named(x)}: {spell_type(x.type, self.dims)}" for x in graph.inputs]
        out += [f"  {variable_line(v, data=self.data)}" for v in declared]
        if used is not None:
            names = ", ".join(_named(v) for v in used)
            out.append(f"  uses {names}" if names else "  without variables")
        self.names = {x: _named(x) for x in (*graph.inputs, *(v.value for v in graph.variables))}
        for node in graph.nodes:
            self.lines.setdefault(node, len(out))
            out += [f"  {line}" for line in self.node(node)]
        out += [f"  output {spell_name(n)} = {self.ref(v)}" for n, v in graph.outputs]
        out += [f"  update {spell_name(n)} = {self.ref(v)}" for n, v in graph.updates]
        out += [f"  check {self.ref(c.bad)} {json.dumps(c.message)}" for c in graph.checks]
        return [*out, "}"]

    def ref(self, value: Value) -> str:
        return self.names.get(value, "%?")

    def statements(self, body: Graph) -> list[str]:
        """Return what stands between the braces of a region."""
        out = [f"input {_named(x)}: {spell_type(x.type, self.dims)}" for x in body.inputs]
        self.names = {x: _named(x) for x in body.inputs}
        for node in body.nodes:
            out += self.node(node)
        return out + [f"output {spell_name(n)} = {self.ref(v)}" for n, v in body.outputs]

    def node(self, node: Node) -> list[str]:
        operands = ", ".join(self.ref(v) for v in node.operands)
        results = []
        for value in node.results:
            self.names[value] = f"%{self.count}"
            self.count += 1
            results.append(f"{self.ref(value)}: {spell_type(value.type)}")
        parts = [
            f"{', '.join(results)} =",
            spell_op(node.op, self.dims, without=node.op.regions),
            operands,
            spell_loc(node.loc) if self.places else "",
        ]
        lines = [" ".join(p for p in parts if p)]
        for name in node.op.regions:
            inner = _Printer(self.dims, places=self.places)
            lines[-1] += f" {name} {{"
            lines += [f"  {line}" for line in inner.statements(getattr(node.op, name))]
            lines.append("}")
        return lines
