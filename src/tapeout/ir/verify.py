"""The rules that every graph keeps, as a list of small named checks.

The message of a `VerifyError` shows the statement with its neighbours.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tapeout.ir.attribute import spell_type
from tapeout.ir.dtype import bool_
from tapeout.ir.graph import Graph, Module
from tapeout.ir.op import Op
from tapeout.ir.region import nested
from tapeout.ir.text import excerpt
from tapeout.support.errors import TapeoutError, VerifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tapeout.ir.graph import Node
    from tapeout.ir.type import TensorType

Fault = tuple["Node | None", str]
"""A node (None: the graph as a whole) and what is wrong there."""

LARGEST = (1 << 62) - 1
"""Elements that a tensor may have: sizes in bytes must fit 64 bits."""


def verify(graph: Graph) -> None:
    """Check a graph and the regions of its nodes.

    Raises:
        VerifyError: The first fault found, with the statement, five lines on each side, and the reason.
    """
    for inner in nested(graph):
        for check in CHECKS:
            for node, reason in check(inner):
                name = graph.name if inner is graph else f"{graph.name}, region {inner.name}"
                at = f", {node.loc}" if node is not None and node.loc else ""
                shown = f"\n{excerpt(inner, node)}" if node is not None else ""
                raise VerifyError(f"{reason}{shown}", where=f"graph {name}{at}")


def verify_module(module: Module) -> None:
    """Check a module: every graph, and that all of them share the module's variables.

    Raises:
        VerifyError: The first fault found.
    """
    names = [v.name for v in module.variables]
    for name in _repeated(names):
        raise VerifyError(f"two variables are called {name!r}", where=f"module {module.name}")
    for name in _repeated(g.name for g in module.graphs):
        raise VerifyError(f"two graphs are called {name!r}", where=f"module {module.name}")
    known = set(module.variables)
    for graph in module.graphs:
        for v in graph.variables:
            if v not in known:
                message = f"variable {v.name!r} is not that of the module"
                raise VerifyError(message, where=f"module {module.name}, graph {graph.name}")
        verify(graph)


# -- checks ---------------------------------------------------------------------------------------------------


def check_names(graph: Graph) -> Iterator[Fault]:
    """Inputs and variables have names, each once; so have outputs, and each variable has one update at most."""
    values = [x.name for x in graph.inputs] + [v.name for v in graph.variables]
    if "" in values:
        yield None, "an input or variable has no name"
    for name in _repeated(values):
        yield None, f"two inputs or variables are called {name!r}"
    for name in _repeated(n for n, _ in graph.outputs):
        yield None, f"two outputs are called {name!r}"
    for name in _repeated(n for n, _ in graph.updates):
        yield None, f"variable {name!r} is updated twice"
    for v in graph.variables:
        if v.value.name != v.name or v.value.type != v.type:
            yield None, f"variable {v.name!r}: its value has another name or type"


def check_order(graph: Graph) -> Iterator[Fault]:
    """Each node stands once, after what it reads, and owns its results."""
    defined = set(graph.inputs) | {v.value for v in graph.variables}
    if any(v.node is not None for v in defined):
        yield None, "an input or variable is the result of a node"
    seen: set[Node] = set()
    for node in graph.nodes:
        if node in seen:
            yield node, "the node stands in the graph twice"
        seen.add(node)
        for i, v in enumerate(node.operands):
            if v not in defined:
                yield node, f"operand {i} ({v.type}) is not defined above in this graph"
        if not node.results:
            yield node, "the node has no result"
        for i, v in enumerate(node.results):
            if v.node is not node or v.index != i:
                yield node, f"result {i} belongs to another node"
            defined.add(v)


def check_operations(graph: Graph) -> Iterator[Fault]:
    """Every operation has a name that the parser finds."""
    for node in graph.nodes:
        if not isinstance(node.op, Op) or not node.op.name:
            yield node, f"{node.op!r} is no registered operation"


def check_sizes(graph: Graph) -> Iterator[Fault]:
    """Sizes are numbers, not negative, and every tensor fits the address space."""
    declared = [(None, v.type) for v in (*graph.inputs, *(v.value for v in graph.variables))]
    made = [(node, v.type) for node in graph.nodes for v in node.results]
    for node, type_ in (*declared, *made):
        reason = _bad_size(type_)
        if reason:
            yield node, reason


def check_types(graph: Graph) -> Iterator[Fault]:
    """The types of the results are what the operation infers from its operands."""
    for node in graph.nodes:
        try:
            expected = node.op.infer(*(v.type for v in node.operands))
        except TapeoutError as e:
            yield node, e.message
            continue
        found = tuple(v.type for v in node.results)
        if found != expected:
            yield node, f"the results are {_types(found)}, the operation gives {_types(expected)}"


def check_results(graph: Graph) -> Iterator[Fault]:
    """Outputs, updates and checks are defined; updates fit their variable; checks are bool scalars."""
    defined = set(graph.inputs) | {v.value for v in graph.variables}
    defined.update(v for node in graph.nodes for v in node.results)
    known = graph.variable
    for name, value in graph.outputs:
        if value not in defined:
            yield value.node, f"output {name!r} is not defined in this graph"
    for name, value in graph.updates:
        if value not in defined:
            yield value.node, f"the update of {name!r} is not defined in this graph"
        if name not in known:
            yield value.node, f"the update of {name!r} has no variable"
        elif known[name].type != value.type:
            yield value.node, f"the update of {name!r} is {value.type}, not {known[name].type}"
    for check in graph.checks:
        if check.bad not in defined:
            yield check.bad.node, f"the check {check.message!r} is not defined in this graph"
        if check.bad.type.dtype != bool_ or check.bad.type.shape:
            yield check.bad.node, f"a check is {check.bad.type}, a bool scalar is expected"


def check_initial(graph: Graph) -> Iterator[Fault]:
    """Initial values have the type of their variable."""
    for v in graph.variables:
        if v.initial is None:
            continue
        if v.initial.dtype != v.type.dtype.numpy or v.initial.shape != v.type.shape:
            got = f"{v.initial.dtype}{list(v.initial.shape)}"
            yield None, f"the initial value of {v.name!r} is {got}, not {v.type}"


CHECKS: tuple[Callable[[Graph], Iterator[Fault]], ...] = (
    check_names,
    check_order,  # before all that follow operands
    check_operations,
    check_sizes,
    check_types,
    check_results,
    check_initial,
)


def _bad_size(type_: TensorType) -> str:
    count = 1
    for n in type_.shape:
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            return f"{n!r} is no size"
        count *= max(n, 1)
    return "" if count <= LARGEST // type_.dtype.bytes else f"{spell_type(type_)} is too large"


def _types(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types))


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
