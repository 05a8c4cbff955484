"""The append-only builder: the only way to make graphs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tapeout.ir.graph import Check, Graph, Node, Value, Variable
from tapeout.support.errors import ShapeError, TapeoutError
from tapeout.support.loc import UNKNOWN, Loc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tapeout.ir.graph import Kind
    from tapeout.ir.op import Array, Op
    from tapeout.ir.type import TensorType


class Builder:
    """Appends inputs, variables and nodes, and infers the types; `graph()` freezes the result.

    `loc` is the place given to new nodes; `at` sets it for a while.
    """

    def __init__(self, name: str) -> None:
        """Start an empty graph."""
        self.name = name
        self.loc: Loc = UNKNOWN
        self.inputs: dict[str, Value] = {}
        self.variables: dict[str, Variable] = {}
        self.nodes: list[Node] = []
        self.outputs: dict[str, Value] = {}
        self.updates: dict[str, Value] = {}
        self.checks: list[Check] = []

    @contextmanager
    def at(self, loc: Loc) -> Iterator[None]:
        """Give new nodes this place inside a `with` block."""
        before, self.loc = self.loc, loc
        try:
            yield
        finally:
            self.loc = before

    def add_input(self, name: str, type: TensorType) -> Value:
        """Append an input."""
        self._fresh(name)
        value = self.inputs[name] = Value(type, name)
        return value

    def add_variable(
        self,
        name: str,
        type: TensorType,
        kind: Kind = "parameter",
        *,
        trainable: bool = True,
        initial: Array | None = None,
    ) -> Value:
        """Declare a variable and return the value that nodes read."""
        return self.adopt(Variable(name, type, kind, trainable, initial))

    def adopt(self, variable: Variable) -> Value:
        """Declare a variable that exists already (of the graph that is being rebuilt)."""
        known = self.variables.get(variable.name)
        if known is variable:
            return variable.value
        self._fresh(variable.name)
        self.variables[variable.name] = variable
        return variable.value

    def adopt_input(self, value: Value) -> Value:
        """Append an input value that exists already (of the graph that is being rebuilt)."""
        self._fresh(value.name)
        self.inputs[value.name] = value
        return value

    def emit(self, op: Op, *operands: Value, loc: Loc | None = None) -> tuple[Value, ...]:
        """Append a node and return its results.

        Raises:
            ShapeError: The operands do not fit; names the place.
        """
        place = self.loc if loc is None else loc
        try:
            types = op.infer(*(v.type for v in operands))
        except ShapeError as e:
            if e.where or not place:
                raise
            raise type(e)(e.message, where=str(place), hint=e.hint) from None
        node = Node(op, operands, types, place)
        self.nodes.append(node)
        return node.results

    def keep(self, node: Node) -> None:
        """Append a node of the graph that is being rebuilt as it is, with its results."""
        self.nodes.append(node)

    def set_output(self, name: str, value: Value) -> None:
        """Name an output."""
        if name in self.outputs:
            raise TapeoutError(f"two outputs are called {name!r}")
        self.outputs[name] = value

    def set_update(self, variable: str, value: Value) -> None:
        """Say what a variable becomes after the graph ran."""
        declared = self.variables[variable]
        if declared.type != value.type:
            raise ShapeError(f"update of {variable!r}: {value.type} does not fit {declared.type}")
        self.updates[variable] = value

    def add_check(self, bad: Value, message: str) -> None:
        """Add a condition that must be false for the updates to happen."""
        self.checks.append(Check(bad, message))

    def graph(self, dims: Mapping[str, int] | None = None) -> Graph:
        """Return the frozen graph."""
        return Graph(
            self.name,
            tuple(self.inputs.values()),
            tuple(self.variables.values()),
            tuple(self.nodes),
            tuple(self.outputs.items()),
            tuple(self.updates.items()),
            tuple(self.checks),
            dict(dims or {}),
        )

    def _fresh(self, name: str) -> None:
        if not name:
            raise TapeoutError("inputs and variables need a name")
        if name in self.inputs or name in self.variables:
            raise TapeoutError(f"two inputs or variables are called {name!r}")


def rebuilder(graph: Graph, name: str | None = None) -> Builder:
    """Return a builder that starts with the inputs and variables of `graph`, the same values."""
    b = Builder(name or graph.name)
    for value in graph.inputs:
        b.adopt_input(value)
    for variable in graph.variables:
        b.adopt(variable)
    return b
