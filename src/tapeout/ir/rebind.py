"""Binding named dimensions of a recorded graph by inferring every type anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.ir.build import Builder
from tapeout.ir.type import Dim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.ir.graph import Graph, Value


def rebind(graph: Graph, dims: Mapping[str, int]) -> Graph:
    """Return a graph with named dimensions bound: the same variables, new inputs and nodes.

    Args:
        graph: A graph whose types and attributes remember how they follow from `graph.dims`.
        dims: The number of every dimension.

    Raises:
        ShapeError: The numbers do not fit an operation; names its place.
    """
    b = Builder(graph.name)
    new: dict[Value, Value] = {}
    for x in graph.inputs:
        shape = tuple(n.resolve(dims) if isinstance(n, Dim) else n for n in x.type.shape)
        new[x] = b.add_input(x.name, x.type.with_shape(shape))
    for variable in graph.variables:
        new[variable.value] = b.adopt(variable)
    for node in graph.nodes:
        results = b.emit(node.op.resolve(dims), *(new[v] for v in node.operands), loc=node.loc)
        new.update(zip(node.results, results, strict=True))
    for name, value in graph.outputs:
        b.set_output(name, new[value])
    for name, value in graph.updates:
        b.set_update(name, new[value])
    for check in graph.checks:
        b.add_check(new[check.bad], check.message)
    return replace(b.graph(), origin=graph.origin)
