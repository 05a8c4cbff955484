"""Arrays that a model accepts, made up: what profiles and benchmarks run on where the user gives no data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.build import rebuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.op import Array

_MOST = 1 << 20
"""No class or token number is taken above this."""


def example_batch(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Return arrays for the inputs of an entry point: normal numbers, and integers that pass its checks.

    Args:
        graph: Every dimension is bound.
        seed: Another seed gives other arrays.
    """
    rng = np.random.default_rng(seed)
    return {v.name: _array(v, graph, rng) for v in graph.inputs}


def likely_labels(graph: Graph, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return shapes for labels that nobody has seen: one for each token where a model scores every token it reads."""
    read = [v.type.shape for v in graph.inputs if v.type.rank > 1]
    scored = [v.type.shape[:-1] for _, v in graph.outputs]
    shape = next((s for s in scored if s in read), None)
    return {} if shape is None else dict.fromkeys(names, shape)


def _array(value: Value, graph: Graph, rng: np.random.Generator) -> Array:
    shape, dtype = tuple(map(int, value.type.shape)), value.type.dtype
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(0, highest(graph, value) + 1, shape).astype(dtype.numpy)


def highest(graph: Graph, value: Value) -> int:
    """Return the highest integer that an input may hold, as far as the graph's checks look at the input alone; at least 1.

    The checks are asked, so this knows of no operation: gathers, embeddings and losses over classes all bound their indices.
    """
    from tapeout.oracle.graph import run  # made-up arrays alone need it

    asked = _checks_of(graph, value)
    if not asked.checks:
        return 1
    shape, dtype = tuple(map(int, value.type.shape)), value.type.dtype.numpy
    low, high = 1, min(_MOST, int(np.iinfo(dtype).max))

    def fits(number: int) -> bool:
        return not run(asked, {value.name: np.full(shape, number, dtype)}).failed

    if fits(high):
        return 1  # nothing bounds it: flags, more likely than numbers of classes
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _checks_of(graph: Graph, value: Value) -> Graph:
    """Return the graph of the checks that follow from one input and from nothing else."""
    builder = rebuilder(graph)
    builder.inputs, builder.variables = {value.name: value}, {}
    known: dict[Value, None] = {value: None}
    touched: dict[Value, None] = {value: None}
    kept: list[Node] = []
    for node in graph.nodes:
        if all(v in known for v in node.operands):
            kept.append(node)
            known.update(dict.fromkeys(node.results))
            if any(v in touched for v in node.operands):
                touched.update(dict.fromkeys(node.results))
    for node in kept:
        builder.keep(node)
    for check in graph.checks:
        if check.bad in touched:
            builder.add_check(check.bad, check.message)
    return builder.graph()
