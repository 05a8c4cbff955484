"""Structural equality: whether two graphs or modules say the same, bit by bit, places included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.attribute import spell_op, spell_type
from tapeout.ir.graph import Graph, Module
from tapeout.ir.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapeout.ir.graph import Node, Value, Variable


def same(a: Graph | Module, b: Graph | Module) -> bool:
    """Return whether two graphs (or two modules) are equal but for the identity of their records.

    Names, types, unbound dimensions, operations, operands, places, outputs, updates, checks and initial values count;
    `source` and `origin` do not.
    """
    if isinstance(a, Module) or isinstance(b, Module):
        return (
            isinstance(a, Module)
            and isinstance(b, Module)
            and a.name == b.name
            and _variables(a.variables) == _variables(b.variables)
            and len(a.graphs) == len(b.graphs)
            and all(_graph(x) == _graph(y) for x, y in zip(a.graphs, b.graphs, strict=True))
        )
    return _graph(a) == _graph(b)


def _graph(g: Graph) -> tuple[object, ...]:
    number: dict[Value, object] = {x: ("input", x.name) for x in g.inputs}
    number |= {v.value: ("variable", v.name) for v in g.variables}
    nodes = [_node(n, g, number) for n in g.nodes]
    return (
        g.name,
        [(x.name, spell_type(x.type, g.dims)) for x in g.inputs],
        _variables(g.variables),
        nodes,
        [(n, number[v]) for n, v in g.outputs],
        [(n, number[v]) for n, v in g.updates],
        [(number[c.bad], c.message) for c in g.checks],
        list(g.dims.items()),
    )


def _node(node: Node, graph: Graph, number: dict[Value, object]) -> tuple[object, ...]:
    operands = [number[v] for v in node.operands]
    for value in node.results:
        number[value] = len(number)
    types = [spell_type(v.type) for v in node.results]
    return (spell_op(node.op, graph.dims), operands, types, node.loc)


def _variables(variables: Iterable[Variable]) -> list[tuple[object, ...]]:
    return [
        (
            v.name,
            v.type,
            v.kind,
            v.trainable,
            None if v.initial is None else Tensor(v.initial).digest,
        )
        for v in variables
    ]
