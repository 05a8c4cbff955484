"""Any graph as plain ONNX."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.export.onnx.table import spell
from tapeout.export.onnx.writer import PLAIN_OPSET, Writer, value_info
from tapeout.ir.build import rebuilder
from tapeout.ir.op import Composite
from tapeout.ops.sym import Sym
from tapeout.support.errors import CompileError, OptionError, UnboundDimension
from tapeout.support.files import write_atomic

if TYPE_CHECKING:
    import onnx

    from tapeout.ir.graph import Graph, Value

_NESTED = 32
"""How deep formulas of formulas may be written out."""


def save(graph: Graph, path: str | Path) -> None:
    """Write a graph as plain ONNX, for any runtime.

    Inputs and outputs keep their names. A variable `p` is the input `p`, with its initial value in the
    file, so that it need not be fed; what it becomes is the output `p.next`. Check `i` is the bool
    output `check.i`: when it is true, the step must not be applied. The metadata entry
    `tapeout.variables` maps each variable to its kind and its output, `tapeout.checks` each check to
    its message.

    Raises:
        UnboundDimension: A named dimension has no number yet.
        OptionError: Two of the names would be equal.
        DataError: The file cannot be written.
    """
    data = model(graph).SerializeToString(deterministic=True)
    write_atomic(Path(path), data)


def model(graph: Graph) -> onnx.ModelProto:
    """Return a graph as an ONNX model; see `save`."""
    from onnx import helper

    if graph.dims:
        hint = f"bind them first: graph.bind({{{', '.join(f'{n!r}: ...' for n in graph.dims)}}})"
        text = f"named dimensions are not bound: {', '.join(graph.dims)}"
        raise UnboundDimension(text, where=graph.name, hint=hint)
    graph = primitives(graph)
    results = _results(graph)
    _check_names(graph, results)
    given = {v.name: v.type for v in graph.inputs} | {v.name: v.type for v in graph.variables}
    w = Writer([*given, *results])
    names: dict[Value, str] = {v: v.name for v in graph.inputs}
    names.update((v.value, v.name) for v in graph.variables)
    for node in graph.nodes:
        w.label = node.loc.name or node.op.name
        names[node.results[0]] = spell(w, node, [names[v] for v in node.operands])
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


def primitives(graph: Graph) -> Graph:
    """Return the graph with every composite written out as its formula.

    Raises:
        CompileError: Formulas are nested beyond all measure.
    """
    for _ in range(_NESTED):
        if not any(isinstance(n.op, Composite) for n in graph.nodes):
            return graph
        graph = _written_out(graph)
    raise CompileError(f"formulas are nested more than {_NESTED} deep", where=graph.name)


def _written_out(graph: Graph) -> Graph:
    b = rebuilder(graph)
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        operands = [new.get(v, v) for v in node.operands]
        with b.at(node.loc):
            if isinstance(node.op, Composite):
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
        source=None,
    )
