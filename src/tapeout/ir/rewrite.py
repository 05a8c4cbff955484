"""Passes over graphs: `rebuild` a graph node by node, or `rewrite` it by a table of rules.

A rule shows a pattern beside its result:

    transpose = match(mv.Transpose)
    rule("transpose-twice", transpose(transpose(X, perm=P), perm=Q), lambda x, p, q: x.transpose(compose(p, q)))

`X` stands for any value and `P` for an attribute; the result is a function whose parameters carry the names of what the pattern
bound. The same graph object back means that nothing changed.
"""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tapeout.ir.build import rebuilder
from tapeout.ir.graph import Check, Graph, Node, Value
from tapeout.support.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tapeout.ir.build import Builder
    from tapeout.ir.op import Op
    from tapeout.ir.type import TensorType

    Change = Callable[[Builder, Node, tuple[Value, ...]], tuple[Value, ...] | None]


def rebuild(graph: Graph, change: Change) -> Graph:
    """Return the graph with nodes replaced.

    Args:
        graph: What to change.
        change: Called as `change(builder, node, operands)` for each node in order; `operands` are those of the new graph.
            Returns the new results, appended to `builder` under the node's place, or None to keep the node.

    Returns:
        The new graph, or `graph` itself if every node was kept. A changed graph with unbound dimensions has no `source`:
        apply the pass with `graph.then`.

    Raises:
        VerifyError: A replacement has other types than the node.
    """
    b = rebuilder(graph)
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        operands = node.operands
        if new:
            operands = tuple([new.get(v, v) for v in operands])
        b.loc = node.loc
        results = change(b, node, operands)
        if results is None:
            _keep(b, node, operands, new)
        elif results != node.results:
            _replace(node, results, new)
    return finish(graph, b, new) if new else graph


def finish(graph: Graph, b: Builder, new: Mapping[Value, Value]) -> Graph:
    """Return the graph that a builder holds, with the outputs, updates and checks of the old one."""
    return replace(
        b.graph(graph.dims),
        outputs=tuple((n, new.get(v, v)) for n, v in graph.outputs),
        updates=tuple((n, new.get(v, v)) for n, v in graph.updates),
        checks=tuple(Check(new.get(c.bad, c.bad), c.message) for c in graph.checks),
        origin=graph.origin,
    )


def _keep(b: Builder, node: Node, operands: tuple[Value, ...], new: dict[Value, Value]) -> None:
    # Operands were replaced by values of the same types, so there is nothing to infer.
    if operands == node.operands:
        b.keep(node)
        return
    made = Node(node.op, operands, tuple([v.type for v in node.results]), node.loc)
    b.keep(made)
    new.update(zip(node.results, made.results, strict=True))


def _replace(node: Node, results: tuple[Value, ...], new: dict[Value, Value]) -> None:
    old = tuple([v.type for v in node.results])
    if tuple([v.type for v in results]) != old:
        got = ", ".join(str(v.type) for v in results)
        expected = ", ".join(map(str, old))
        message = f"{node.op!r} is replaced by {got}, but its results are {expected}"
        raise VerifyError(message, where=str(node.loc))
    new.update(zip(node.results, results, strict=True))


# -- patterns -------------------------------------------------------------------------------------------------


class Pattern:
    """What a value must look like."""

    def names(self) -> tuple[str, ...]:
        """Return the names that a match binds."""
        raise NotImplementedError

    def match(self, value: Value, found: dict[str, Any]) -> bool:
        """Whether a value fits; `found` grows by what is bound, and may keep some of it after a failure."""
        raise NotImplementedError


@dataclass(frozen=True)
class Anything(Pattern):
    """Any value; twice the same name means the same value."""

    name: str

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def match(self, value: Value, found: dict[str, Any]) -> bool:
        return found.setdefault(self.name, value) is value


@dataclass(frozen=True)
class Such(Pattern):
    """A value for which a test is true, such as a constant 1; bound if it has a name."""

    test: Callable[[Value], bool]
    name: str = ""

    def names(self) -> tuple[str, ...]:
        return (self.name,) if self.name else ()

    def match(self, value: Value, found: dict[str, Any]) -> bool:
        if not self.test(value):
            return False
        return not self.name or found.setdefault(self.name, value) is value


@dataclass(frozen=True)
class Attribute:
    """Any value of an attribute; twice the same name means equal values."""

    name: str


@dataclass(frozen=True)
class Made(Pattern):
    """A value made by an operation of a class (the only result of its node)."""

    cls: type[Op]
    operands: tuple[Pattern, ...]
    attributes: tuple[tuple[str, object], ...] = ()
    swaps: bool = False

    def names(self) -> tuple[str, ...]:
        below = [n for o in self.operands for n in o.names()]
        own = [a.name for _, a in self.attributes if isinstance(a, Attribute)]
        return tuple(dict.fromkeys([*below, *own]))

    def match(self, value: Value, found: dict[str, Any]) -> bool:
        node = value.node
        if node is None or type(node.op) is not self.cls or len(node.results) != 1:
            return False
        return self.match_node(node.op, node.operands, found)

    def match_node(self, op: Op, operands: Sequence[Value], found: dict[str, Any]) -> bool:
        """Whether an operation on operands fits."""
        if len(operands) != len(self.operands) or not self._match_attributes(op, found):
            return False
        if not self.swaps:
            return self._match_operands(operands, found)
        before = dict(found)
        if self._match_operands(operands, found):
            return True
        found.clear()
        found.update(before)
        return self._match_operands(operands[::-1], found)

    def _match_attributes(self, op: Op, found: dict[str, Any]) -> bool:
        for name, wanted in self.attributes:
            value = getattr(op, name)
            same = found.setdefault(wanted.name, value) if isinstance(wanted, Attribute) else wanted
            if value != same:
                return False
        return True

    def _match_operands(self, operands: Sequence[Value], found: dict[str, Any]) -> bool:
        # A plain loop: this is the inner loop of every pass with rules.
        for pattern, value in zip(self.operands, operands, strict=True):
            if not pattern.match(value, found):
                return False
        return True


def match(cls: type[Op], *, swaps: bool = False) -> Callable[..., Made]:
    """Return the pattern of an operation: `match(ew.Add)(X, Y)`, attributes as keywords.

    Args:
        cls: The operation's class.
        swaps: Whether the two operands may stand in either order.
    """

    def made(*operands: Pattern, **attributes: object) -> Made:
        return Made(cls, operands, tuple(attributes.items()), swaps)

    return made


# -- rules ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """Where a rule is tried: a node as it stands in the graph under construction.

    Attributes:
        op: The operation.
        operands: The values read, those of the new graph.
        type: The type of the result.
    """

    op: Op
    operands: tuple[Value, ...]
    type: TensorType


@dataclass(frozen=True)
class Rule:
    """A pattern and what takes its place.

    Attributes:
        name: Unique in its set.
        pattern: What the node looks like.
        result: Called with what the pattern bound, by parameter name, in the rule set's own terms; `node` gives the `Site`,
            `once` says whether its operands are read by nothing else. Returns the replacement, or None if the rule does not
            apply after all.
        wants: The parameters of `result`.
    """

    name: str
    pattern: Made
    result: Callable[..., Any]
    wants: tuple[str, ...]


def rule(name: str, pattern: Made, result: Callable[..., Any]) -> Rule:
    """Return a rule.

    Raises:
        ValueError: The result asks for a name that the pattern does not bind.
    """
    wants = tuple(inspect.signature(result).parameters)
    unknown = [w for w in wants if w not in (*pattern.names(), "node", "once")]
    if unknown:
        raise ValueError(f"rule {name}: the pattern does not bind {', '.join(unknown)}")
    return Rule(name, pattern, result, wants)


class RuleSet:
    """Rules, tried in order at each node; the first that fits is applied.

    Args:
        rules: The rules.
        lift: Makes what `result` functions work with out of a builder and a value (such as `ops.sym.Sym`).
        lower: Gives the value back.
    """

    def __init__(
        self,
        *rules: Rule,
        lift: Callable[[Builder, Value], Any] = lambda _, value: value,
        lower: Callable[[Any], Value] = lambda value: value,
    ) -> None:
        names = [r.name for r in rules]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"two rules are called {', '.join(twice)}")
        self.rules, self.lift, self.lower = rules, lift, lower
        self._of: dict[type[Op], list[Rule]] = {}
        for r in rules:
            self._of.setdefault(r.pattern.cls, []).append(r)

    def apply(
        self, b: Builder, node: Node, operands: tuple[Value, ...], reads: Mapping[Value, int]
    ) -> tuple[Rule, Value] | None:
        """Return the first rule that fits a node, and the value that replaces its result.

        `reads` counts how often each value of the node's own graph is read.
        """
        for r in self._of.get(type(node.op), ()):
            found: dict[str, Any] = {}
            if not r.pattern.match_node(node.op, operands, found):
                continue
            found["node"] = Site(node.op, operands, node.results[0].type)
            found["once"] = all(reads[v] == 1 for v in node.operands)
            result = r.result(*(self._lifted(b, found[w]) for w in r.wants))
            if result is not None:
                return r, self.lower(result)
        return None

    def _lifted(self, b: Builder, x: object) -> object:
        return self.lift(b, x) if isinstance(x, Value) else x


def rewrite(
    graph: Graph,
    rules: RuleSet,
    limit: int = 8,
    fired: Callable[[str, Node], None] | None = None,
) -> Graph:
    """Return the graph with rules applied until none fits any more.

    Args:
        graph: What to rewrite. Nodes that nothing reads any more stay; removing them is a pass of its own.
        rules: The table.
        limit: Sweeps over the graph at most. One sweep sees the results of earlier ones of its own, so few are needed.
        fired: Told the name of each rule applied, and the node.

    Raises:
        VerifyError: A rule gives another type than it replaces.
    """

    def change(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        found = rules.apply(b, node, operands, reads)
        if found is None:
            return None
        applied, value = found
        if value.type != node.results[0].type:
            raise VerifyError(
                f"rule {applied.name} replaces {node.results[0].type} by {value.type}",
                where=str(node.loc),
            )
        if fired is not None:
            fired(applied.name, node)
        return (value,)

    for _ in range(limit):
        reads = _count_reads(graph)
        before, graph = graph, rebuild(graph, change)
        if graph is before:
            break
    return graph


def _count_reads(graph: Graph) -> Counter[Value]:
    reads = Counter(v for node in graph.nodes for v in node.operands)
    reads.update(graph.results)
    return reads
