"""Any graph as plain ONNX."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.export.onnx.table import is_native, spell
from tapeout.export.onnx.writer import PLAIN_OPSET, Writer, value_info
from tapeout.ir.build import rebuilder
from tapeout.ir.op import Composite
from tapeout.ir.region import in_regions
from tapeout.ir.type import Dim
from tapeout.ops.sym import Sym
from tapeout.support.errors import CompileError, OptionError, UnboundDimension
from tapeout.support.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    import onnx

    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.type import TensorType

_NESTED = 32
"""How deep formulas of formulas may be written out."""


def save(graph: Graph, path: str | Path, *, feed_parameters: bool = True) -> None:
    """Write a graph as plain ONNX, for any runtime.

    Inputs and outputs keep their names. A variable `p` is the input `p`, with its initial value in the
    file, so that it need not be fed; what it becomes is the output `p.next`. Check `i` is the bool
    output `check.i`: when it is true, the step must not be applied. The metadata entry
    `tapeout.variables` maps each variable to its kind and its output, `tapeout.checks` each check to
    its message. Named dimensions stay named where the graph depends on them by shapes alone.

    Args:
        graph: What to write.
        path: Where to.
        feed_parameters: Whether parameters and states that the graph does not update are inputs too. As plain
            initializers, runtimes may fold them; then they cannot be fed.

    Raises:
        UnboundDimension: A named dimension has no number yet, and decides more than shapes.
        OptionError: Two of the names would be equal.
        DataError: The file cannot be written.
    """
    data = model(graph, feed_parameters=feed_parameters).SerializeToString(deterministic=True)
    write_atomic(Path(path), data)


def model(graph: Graph, *, feed_parameters: bool = True) -> onnx.ModelProto:
    """Return a graph as an ONNX model; see `save`."""
    from onnx import helper

    source = graph
    graph = written_out(graph)
    if graph.dims:
        check_by_shapes_only(source, graph)
    results = _results(graph)
    _check_names(graph, results)
    given = {v.name: v.type for v in graph.inputs} | _fed(graph, feed_parameters)
    variables = [v.name for v in graph.variables]
    w = Writer([*given, *variables, *results], _sources(graph))
    names: dict[Value, str] = {v: v.name for v in graph.inputs}
    names.update((v.value, v.name) for v in graph.variables)
    read = _read(graph)
    for node in graph.nodes:
        w.label = node.loc.name or node.op.name
        made_names = spell(w, node, [names[v] for v in node.operands], read)
        names.update(zip(node.results, made_names, strict=False))
    w.label = "outputs"
    for name, value in results.items():
        w.emit_to(name, "Identity", names[value])
    for v in graph.variables:
        if v.initial is not None:
            w.store(v.name, v.initial)
    made = helper.make_graph(
        w.nodes,
        graph.name,
        [value_info(n, t) for n, t in given.items()],
        [value_info(name, v.type) for name, v in results.items()],
        w.initializers,
    )
    opset = helper.make_opsetid("", w.opset)
    ir_version = helper.find_min_ir_version_for(
        [helper.make_opsetid("", max(w.opset, PLAIN_OPSET))]
    )
    whole = helper.make_model(
        made, opset_imports=[opset], ir_version=ir_version, producer_name="tapeout"
    )
    helper.set_model_props(whole, _metadata(graph))
    return whole


def _fed(graph: Graph, feed_parameters: bool) -> dict[str, TensorType]:
    """Return the types of the variables that are inputs."""
    updated = dict(graph.updates)
    return {
        v.name: v.type
        for v in graph.variables
        if feed_parameters or v.kind == "hyper" or v.name in updated or v.initial is None
    }


def _sources(graph: Graph) -> dict[str, tuple[str, int]]:
    """Return for each named dimension an input and the axis where it stands."""
    found: dict[str, tuple[str, int]] = {}
    for v in graph.inputs:
        for axis, n in enumerate(v.type.shape):
            if isinstance(n, Dim) and n.expr[0] == "dim":
                found.setdefault(str(n.expr[1]), (v.name, axis))
    return found


def check_by_shapes_only(source: Graph, written: Graph) -> None:
    """Check that a graph depends on its named dimensions by shapes alone.

    Anything else, such as a mean that multiplies by 1/N, holds for one number only. So the graph is
    bound to others and compared with what its shapes foretell.

    Raises:
        UnboundDimension: It does not, or nobody can tell.
    """
    names = ", ".join(f"{n!r}: ..." for n in source.dims)
    hint = f"bind them first: graph.bind({{{names}}})"
    if source.source is None:
        text = f"named dimensions are not bound: {', '.join(source.dims)}"
        raise UnboundDimension(text, where=source.name, hint=hint)
    for factor in (3, 4):
        dims = {name: factor * n for name, n in source.dims.items()}
        bound = written_out(source.bind(dims))
        place = _difference(written, bound, dims)
        if place is not None:
            text = f"depends on {', '.join(source.dims)} by more than shapes, at {place}"
            raise UnboundDimension(text, where=source.name, hint=hint)


def _difference(written: Graph, bound: Graph, dims: Mapping[str, int]) -> str | None:
    """Return where a graph with dimensions resolved differs from one that was built with them bound."""
    if len(written.nodes) != len(bound.nodes):
        return "its number of nodes"
    for a, b in zip(written.nodes, bound.nodes, strict=True):
        resolved = [tuple(_resolved(n, dims) for n in r.type.shape) for r in a.results]
        if a.op.resolve(dims) != b.op or resolved != [r.type.shape for r in b.results]:
            return str(a.loc) or a.op.name
    return None


def _resolved(n: int, dims: Mapping[str, int]) -> int:
    return n.resolve(dims) if isinstance(n, Dim) else n


def _results(graph: Graph) -> dict[str, Value]:
    found = dict(graph.outputs)
    found.update((f"{name}.next", v) for name, v in graph.updates)
    found.update((f"check.{i}", c.bad) for i, c in enumerate(graph.checks))
    return found


def _check_names(graph: Graph, results: dict[str, Value]) -> None:
    given = dict.fromkeys([v.name for v in graph.inputs] + [v.name for v in graph.variables])
    if len(results) < len(graph.outputs) + len(graph.updates) + len(graph.checks):
        text = "an output is called like the next value of a variable or like a check"
        raise OptionError(text, where=graph.name, hint="rename the output")
    for name in results:
        if name in given:
            text = f"{name!r} is the name of an output and of an input or variable"
            raise OptionError(text, where=graph.name, hint="rename the output")


def _metadata(graph: Graph) -> dict[str, str]:
    updated = dict(graph.updates)
    variables = {
        v.name: {"kind": v.kind, "next": f"{v.name}.next" if v.name in updated else None}
        for v in graph.variables
    }
    checks = {f"check.{i}": c.message for i, c in enumerate(graph.checks)}
    found = {"tapeout.variables": json.dumps(variables, sort_keys=True)}
    return found | ({"tapeout.checks": json.dumps(checks, sort_keys=True)} if checks else {})


def _read(graph: Graph) -> set[Value]:
    """Return the values that something reads."""
    return {*graph.results, *(v for n in graph.nodes for v in n.operands)}


def written_out(graph: Graph) -> Graph:
    """Return the graph with every composite that ONNX does not have itself written out as its formula.

    Raises:
        CompileError: Formulas are nested beyond all measure.
    """
    graph = in_regions(graph, written_out)
    for _ in range(_NESTED):
        read = _read(graph)
        formulas = {
            n for n in graph.nodes if isinstance(n.op, Composite) and not is_native(n, read)
        }
        if not formulas:
            return in_regions(graph, written_out)
        graph = _written_out(graph, formulas)
    raise CompileError(f"formulas are nested more than {_NESTED} deep", where=graph.name)


def _written_out(graph: Graph, formulas: Container[Node]) -> Graph:
    b = rebuilder(graph)
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        operands = [new.get(v, v) for v in node.operands]
        with b.at(node.loc):
            if node in formulas and isinstance(node.op, Composite):
                made = [s.value for s in node.op.decompose(*(Sym(b, v) for v in operands))]
            else:
                made = list(b.emit(node.op, *operands))
        new.update(zip(node.results, made, strict=True))
    return replace(
        graph,
        nodes=tuple(b.nodes),
        outputs=tuple((n, new.get(v, v)) for n, v in graph.outputs),
        updates=tuple((n, new.get(v, v)) for n, v in graph.updates),
        checks=tuple(replace(c, bad=new.get(c.bad, c.bad)) for c in graph.checks),
    )
