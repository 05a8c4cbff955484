"""Graphs: immutable records in static single assignment form.

    Graph    = name, inputs, variables, nodes, outputs, updates, checks
    Node     = op, operands, results, loc          results are new values
    Value    = type, name | (node, index)          defined by a node, an input or a variable
    Variable = name, type, kind, trainable, initial, value
    Module   = name, variables, graphs             several entry points over one set of variables

Nodes stand in an order in which each comes after what it reads. A graph is a pure function of its inputs and variables; an
update says what a variable becomes after the whole graph ran, a check is a bool that must be false or nothing is updated.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from tapeout.support.loc import UNKNOWN, Loc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tapeout.ir.modes import Mode
    from tapeout.ir.op import Array, Op
    from tapeout.ir.type import TensorType
    from tapeout.support.patterns import Pattern

Kind = Literal["parameter", "state", "hyper"]


class Value:
    """One tensor of a graph. Compared by identity."""

    __slots__ = ("index", "name", "node", "type")

    def __init__(
        self, type: TensorType, name: str = "", node: Node | None = None, index: int = 0
    ) -> None:
        """Make a value; `node` and `index` say which result of which node it is."""
        self.type, self.name, self.node, self.index = type, name, node, index

    def __repr__(self) -> str:
        made = f" = {self.node.op!r}" if self.node else ""
        return f"<Value {self.name or '%'}: {self.type}{made}>"


class Node:
    """One operation applied to values. Compared by identity."""

    __slots__ = ("loc", "op", "operands", "results")

    def __init__(
        self, op: Op, operands: tuple[Value, ...], types: tuple[TensorType, ...], loc: Loc = UNKNOWN
    ) -> None:
        """Make a node and its results."""
        self.op, self.operands, self.loc = op, operands, loc
        self.results = tuple(Value(t, "", self, i) for i, t in enumerate(types))

    def __repr__(self) -> str:
        return f"<Node {self.op!r} at {self.loc}>" if self.loc else f"<Node {self.op!r}>"


@dataclass(frozen=True, eq=False)
class Variable:
    """A tensor that lives longer than a step.

    Attributes:
        name: Unique in the module.
        type: Element type and shape; never depends on an unbound dimension.
        kind: `parameter`, `state` (moments, statistics, counters) or `hyper` (a run-time scalar such as the learning rate).
        trainable: Whether training updates a parameter.
        initial: The value at the start; None for a graph that was parsed without its data.
        value: What nodes of a graph read.
    """

    name: str
    type: TensorType
    kind: Kind = "parameter"
    trainable: bool = True
    initial: Array | None = None
    value: Value = field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Give the variable its value."""
        if self.value is None:
            object.__setattr__(self, "value", Value(self.type, self.name))


@dataclass(frozen=True, eq=False)
class Check:
    """A bool scalar that is true when the data break a rule; then the step updates nothing and `message` is told."""

    bad: Value
    message: str


@dataclass(frozen=True, eq=False)
class Graph:
    """A pure function of inputs and variables, with the updates of variables that follow it."""

    name: str
    inputs: tuple[Value, ...] = ()
    variables: tuple[Variable, ...] = ()
    nodes: tuple[Node, ...] = ()
    outputs: tuple[tuple[str, Value], ...] = ()
    updates: tuple[tuple[str, Value], ...] = ()
    checks: tuple[Check, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict)
    """Named dimensions that are not bound yet, at the preview numbers that the types show."""
    source: Callable[[Mapping[str, int]], Graph] | None = field(default=None, repr=False)
    """Builds the graph anew for a binding of `dims`; None when nothing is unbound."""
    origin: object = field(default=None, repr=False)
    """The original file (bytes) that the graph was imported from, for writing trained weights back."""
    evaluation: Callable[[], Graph] | None = field(default=None, repr=False)
    """Builds the same model in inference mode; None when the graph has only one mode."""
    modes: Callable[[Mode], Graph] | None = field(default=None, repr=False)
    """Builds the model with modes laid over those it has; None when the graph has only one mode."""
    imported: object = field(default=None, repr=False)
    """What a frontend read the graph from, so that the file can be edited; None for a graph made otherwise."""
    notes: tuple[str, ...] = ()
    """What was decided when the graph was made, one readable line each."""

    @property
    def parameters(self) -> dict[str, Variable]:
        """The parameters by name."""
        return {v.name: v for v in self.variables if v.kind == "parameter"}

    @cached_property
    def variable(self) -> dict[str, Variable]:
        """All variables by name."""
        return {v.name: v for v in self.variables}

    @property
    def output(self) -> dict[str, Value]:
        """The outputs by name."""
        return dict(self.outputs)

    @property
    def input(self) -> dict[str, Value]:
        """The inputs by name."""
        return {v.name: v for v in self.inputs}

    @property
    def results(self) -> tuple[Value, ...]:
        """Every value that must be computed: outputs, updates and checks."""
        return (
            *(v for _, v in self.outputs),
            *(v for _, v in self.updates),
            *(c.bad for c in self.checks),
        )

    def bind(self, dims: Mapping[str, int]) -> Graph:
        """Return the graph with every named dimension bound.

        Raises:
            ShapeError: The numbers do not fit the operations.
        """
        if self.source is None or not self.dims:
            return self
        evaluation, modes = self.evaluation, self.modes
        return replace(
            self.source({**self.dims, **dims}),
            evaluation=None if evaluation is None else lambda: evaluation().bind(dims),
            modes=None if modes is None else lambda mode: modes(mode).bind(dims),
            notes=self.notes,
        )

    def then(self, change: Callable[[Graph], Graph], *, variables_only: bool = False) -> Graph:
        """Return `change(self)`, applied again whenever dimensions are bound, or modes chosen, anew.

        Args:
            change: The change.
            variables_only: It touches nothing but variables: what the graph was read from still describes it, and the file can
                be edited.
        """
        source, evaluation, modes = self.source, self.evaluation, self.modes

        def again(graph: Graph) -> Graph:
            return graph.then(change, variables_only=variables_only)

        return replace(
            change(self),
            dims=self.dims,
            origin=self.origin,
            source=None if source is None else lambda dims: again(source(dims)),
            evaluation=None if evaluation is None else lambda: again(evaluation()),
            modes=None if modes is None else lambda mode: again(modes(mode)),
            imported=self.imported if variables_only else None,
            notes=self.notes,
        )

    def freeze(self, pattern: Pattern) -> Graph:
        """Return the graph with parameters frozen: training leaves them as they are, and computes no gradient for them.

        Running statistics are states, not parameters, and go on following the data; `with_mode` stops them.

        Args:
            pattern: A glob (`"encoder.*"`), several of which the last that matches decides (`["*", "!head.*"]`: all but the
                head), or a function of the name. Parameters that it does not name stay as they are.

        Raises:
            OptionError: A glob names no parameter.
        """
        from tapeout.ir.freeze import with_trainable

        return with_trainable(self, pattern, "freeze", trainable=False)

    def unfreeze(self, pattern: Pattern) -> Graph:
        """Return the graph with parameters made trainable; patterns as for `freeze`.

        Raises:
            OptionError: A glob names no parameter.
        """
        from tapeout.ir.freeze import with_trainable

        return with_trainable(self, pattern, "unfreeze", trainable=True)

    def with_mode(self, mode: Mode) -> Graph:
        """Return the graph with dropout and batch normalisation in another mode; evaluation and prediction always infer.

        Args:
            mode: `train`, `eval` or `as-exported`, or one of these by glob (`{"bn*": "eval"}`). A glob names a node, or a
                parameter of it; of several the last that matches decides, and what none names stays as it is.

        Raises:
            OptionError: A mode is unknown, or a glob names nothing that has modes.
        """
        from tapeout.ir.modes import Modes

        if self.modes is not None:
            return self.modes(mode)
        Modes().over(mode, self.name).check((), self.name)
        return self

    def to_networkx(self) -> Any:  # noqa: ANN401 (its package is loaded when it is asked for)
        """Return a `networkx.MultiDiGraph`: a node for each input, variable, operation and output, an edge for each value.

        Nodes have `kind` (`input`, `variable`, `op`, `output`) and `label`, operations also `loc`; edges have `type`, the
        position `operand` at which the value is read, and `result`, which result it is. Nodes are called
        `input:NAME`, `variable:NAME`, `op:NUMBER` and `output:NAME`.
        """
        from tapeout.ir.networks import to_networkx

        return to_networkx(self)

    @classmethod
    def parse(cls, text: str) -> Graph:
        """Return the graph that a `.tape` text spells: the inverse of `str`.

        Raises:
            ParseError: The text is no graph; names line and column.
        """
        from tapeout.ir.parse import parse_graph

        return parse_graph(text)

    def __str__(self) -> str:
        from tapeout.ir.text import print_graph

        return print_graph(self)


@dataclass(frozen=True, eq=False)
class Module:
    """Several entry points (`step`, `gradients`, `evaluate`, `predict`) over one set of variables."""

    name: str
    variables: tuple[Variable, ...]
    graphs: tuple[Graph, ...]

    @cached_property
    def graph(self) -> dict[str, Graph]:
        """The entry points by name."""
        return {g.name: g for g in self.graphs}
