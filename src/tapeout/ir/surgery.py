"""Changing a graph that was made in Python: fewer outputs, other names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.ir.build import Builder
from tapeout.ir.graph import Graph, Variable
from tapeout.support.errors import OptionError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tapeout.ir.graph import Value


def truncate(graph: Graph, names: Sequence[str]) -> Graph:
    """Return the graph with these outputs alone, without the nodes, inputs, parameters and updates that only others need.

    Raises:
        OptionError: A name is no output.
    """
    for name in names:
        if name not in graph.output:
            raise OptionError(
                f"truncate: no output is called {name!r}",
                where=graph.name,
                hint=f"{nearest(name, graph.output)} A value becomes an output by g.output(name, value)",
            )
    made = graph.then(lambda g: _cut(g, names))
    return replace(made, notes=(*graph.notes, f"cut at {', '.join(names)}"))


def _cut(graph: Graph, names: Sequence[str]) -> Graph:
    outputs = tuple((n, graph.output[n]) for n in dict.fromkeys(names))
    read = _read_by(graph, [v for _, v in outputs])
    gone = {*graph.inputs, *(p.value for p in graph.parameters.values())} - read
    # A state goes on following what is left: the statistics of a layer that was cut off read its parameters.
    updates = [(n, v) for n, v in graph.updates if gone.isdisjoint(_read_by(graph, [v]))]
    read = _read_by(graph, [v for _, v in (*outputs, *updates)])
    checks = tuple(c for c in graph.checks if gone.isdisjoint(_read_by(graph, [c.bad])))
    read |= _read_by(graph, [c.bad for c in checks])
    updated = {n for n, _ in updates}
    return replace(
        graph,
        inputs=tuple(v for v in graph.inputs if v in read),
        nodes=tuple(n for n in graph.nodes if not read.isdisjoint(n.results)),
        variables=tuple(v for v in graph.variables if v.value in read or v.name in updated),
        outputs=outputs,
        updates=tuple(updates),
        checks=checks,
    )


def _read_by(graph: Graph, values: Sequence[Value]) -> set[Value]:
    """Return the values and all that they are computed from."""
    found = set(values)
    for node in reversed(graph.nodes):
        if not found.isdisjoint(node.results):
            found.update(node.operands)
    return found


def rename(graph: Graph, names: Mapping[str, str]) -> Graph:
    """Return the graph with other names for inputs, outputs and variables, all at once.

    Raises:
        OptionError: An old name is unknown, or a new one is taken.
    """
    given = [*graph.input, *graph.variable]
    _check(graph, names, given)
    known: dict[Variable, Variable] = {}

    def renamed(v: Variable) -> Variable:
        if v.name not in names:
            return v
        if v not in known:
            known[v] = Variable(names[v.name], v.type, v.kind, v.trainable, v.initial)
        return known[v]

    made = graph.then(lambda g: _rebuilt(g, names, renamed))
    told = ", ".join(f"{old} to {new}" for old, new in names.items())
    return replace(made, notes=(*graph.notes, f"renamed {told}"))


def _check(graph: Graph, names: Mapping[str, str], given: Sequence[str]) -> None:
    for old, new in names.items():
        if old not in given and old not in graph.output:
            hint = nearest(old, dict.fromkeys((*given, *graph.output)))
            raise OptionError(f"rename: nothing is called {old!r}", where=graph.name, hint=hint)
        if not isinstance(new, str) or not new:
            raise OptionError(f"rename: {old!r} gets the name {new!r}", where=graph.name)
    now = [names.get(n, n) for n in dict.fromkeys((*given, *graph.output))]
    for new in names.values():
        if now.count(new) > 1:
            text = f"rename: two things would be called {new!r}"
            hint = "choose a name that is not taken"
            raise OptionError(text, where=graph.name, hint=hint)


def _rebuilt(
    graph: Graph, names: Mapping[str, str], renamed: Callable[[Variable], Variable]
) -> Graph:
    b = Builder(graph.name)
    new: dict[Value, Value] = {}
    for x in graph.inputs:
        new[x] = b.add_input(names.get(x.name, x.name), x.type)
    for v in graph.variables:
        new[v.value] = b.adopt(renamed(v))
    for node in graph.nodes:
        results = b.emit(node.op, *(new[v] for v in node.operands), loc=node.loc)
        new.update(zip(node.results, results, strict=True))
    for name, value in graph.outputs:
        b.set_output(names.get(name, name), new[value])
    for name, value in graph.updates:
        b.set_update(names.get(name, name), new[value])
    for check in graph.checks:
        b.add_check(new[check.bad], check.message)
    return b.graph(graph.dims)
