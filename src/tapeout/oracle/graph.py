"""The oracle of graphs: every node through its numpy reference, one after the other.

Slow and simple on purpose. Composites run through their formula, so that what is checked is what is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.build import Builder
from tapeout.ir.dtype import from_numpy
from tapeout.ir.op import Composite
from tapeout.ir.type import TensorType
from tapeout.ops.sym import Sym
from tapeout.support.errors import DataError, VerifyError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.op import Array


@dataclass(frozen=True)
class Result:
    """What a run of a graph gives.

    Attributes:
        outputs: Arrays by name; empty when a check fired.
        updates: The new values of the variables that the graph updates, by name; empty when a check fired.
        failed: The messages of the checks that fired.
    """

    outputs: dict[str, Array] = field(default_factory=dict)
    updates: dict[str, Array] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def run(
    graph: Graph, inputs: Mapping[str, Array], variables: Mapping[str, Array] | None = None
) -> Result:
    """Run a graph on arrays.

    Args:
        graph: What to run, with every dimension bound.
        inputs: One array per input, of its type exactly.
        variables: Values of variables; those that are missing stand at their initial value.

    Returns:
        The outputs and updates, or the messages of the checks that fired.

    Raises:
        DataError: An input or a variable is missing, unknown or of another type.
        VerifyError: The reference of an operation gave another type than its rule of types says.
    """
    known = _start(graph, inputs, variables or {})
    checked = _needed(graph.nodes, (c.bad for c in graph.checks))
    # As in a compiled program, checks come before anything that their failing would make senseless.
    _run_nodes([n for n in graph.nodes if n in checked], known, keep=True)
    failed = [c.message for c in graph.checks if known[c.bad].any()]
    if failed:
        return Result(failed=failed)
    rest = [n for n in graph.nodes if n not in checked]
    _run_nodes(rest, known, keep=False, kept=graph.results)
    return Result(
        {name: known[v] for name, v in graph.outputs},
        {name: known[v] for name, v in graph.updates},
    )


def run_node(node: Node, operands: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return the results of one node.

    Raises:
        VerifyError: A result has another type than the node says.
    """
    if isinstance(node.op, Composite):
        found = _run_formula(node.op, operands)
    else:
        with np.errstate(all="ignore"):
            made = node.op.reference(*operands)
        # numpy gives scalars, not arrays, where a reduction or a choice leaves one number.
        found = tuple(np.asarray(a) for a in (made if isinstance(made, tuple) else (made,)))
    wanted = tuple(r.type for r in node.results)
    got = tuple(_type_of(a) for a in found)
    if got != wanted:
        says, gives = (", ".join(map(str, t)) for t in (wanted, got))
        raise VerifyError(
            f"{node.op!r}: its type is {says}, its reference gives {gives}", where=str(node.loc)
        )
    return found


def _run_formula(op: Composite, operands: tuple[Array, ...]) -> tuple[Array, ...]:
    b = Builder(op.name)
    symbols = [Sym(b, b.add_input(f"x{i}", _type_of(a))) for i, a in enumerate(operands)]
    results = op.decompose(*symbols)
    known = {s.value: a for s, a in zip(symbols, operands, strict=True)}
    values = tuple(r.value for r in results)
    _run_nodes(b.nodes, known, keep=False, kept=values)
    return tuple(known[v] for v in values)


def _run_nodes(
    nodes: Iterable[Node],
    known: dict[Value, Array],
    *,
    keep: bool,
    kept: Iterable[Value] = (),
) -> None:
    """Run nodes in order; unless `keep`, forget arrays that no later node reads."""
    order = list(nodes)
    last: dict[Value, Node] = {}
    if not keep:
        last = {v: n for n in order for v in n.operands}
        for value in kept:
            last.pop(value, None)
    for node in order:
        found = run_node(node, tuple(known[v] for v in node.operands))
        known.update(zip(node.results, found, strict=True))
        for value in node.operands:
            if last.get(value) is node:
                known.pop(value, None)


def _needed(nodes: tuple[Node, ...], roots: Iterable[Value]) -> set[Node]:
    """Return the nodes that some values depend on."""
    wanted = set(roots)
    found: set[Node] = set()
    for node in reversed(nodes):
        if any(r in wanted for r in node.results):
            found.add(node)
            wanted.update(node.operands)
    return found


def _start(
    graph: Graph, inputs: Mapping[str, Array], variables: Mapping[str, Array]
) -> dict[Value, Array]:
    known: dict[Value, Array] = {}
    for given, names, what in (
        (inputs, graph.input, "input"),
        (variables, graph.variable, "variable"),
    ):
        for name in given:
            if name not in names:
                raise DataError(f"no {what} is called {name!r}", hint=nearest(name, names))
    for value in graph.inputs:
        if value.name not in inputs:
            raise DataError(f"input {value.name!r} is missing; it is {value.type}")
        known[value] = _fitting("input", value, inputs[value.name])
    for variable in graph.variables:
        array = variables.get(variable.name, variable.initial)
        if array is None:
            raise DataError(f"variable {variable.name!r} has no value; it is {variable.type}")
        known[variable.value] = _fitting("variable", variable.value, array)
    return known


def _fitting(what: str, value: Value, array: Array) -> Array:
    if _type_of(array) != value.type:
        raise DataError(f"{what} {value.name!r} is {_type_of(array)}, expected {value.type}")
    return array


def _type_of(array: Array) -> TensorType:
    if not isinstance(array, np.ndarray):
        raise DataError(f"an array is expected, got {type(array).__name__}")
    return TensorType(from_numpy(array.dtype), array.shape)
