"""The backward computation of one region, and cutting a new region out of what was computed there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapeout.autodiff.reverse import backward, depending_on
from tapeout.ir.build import Builder, rebuilder
from tapeout.ops.sym import Sym

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tapeout.ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class Derived:
    """A region's forward and backward computation side by side.

    Attributes:
        builder: Holds the nodes of the region, then those of its backward pass.
        forward: How many nodes are the region's own.
        seeds: Inputs that stand for the cotangents of outputs, by number of the output.
        found: Cotangents of the region's inputs; None: zero.
    """

    builder: Builder
    forward: int
    seeds: dict[int, Value]
    found: dict[Value, Sym | None]


def derive(body: Graph, live: Sequence[bool], seeded: Iterable[int]) -> Derived:
    """Return the backward pass of a region without variables.

    Args:
        body: The region; composites in it have a gradient rule.
        live: For each input, whether its cotangent is asked for.
        seeded: Numbers of the outputs that have a cotangent.
    """
    b = rebuilder(body)
    for node in body.nodes:
        b.keep(node)
    seeds: dict[int, Value] = {}
    total: dict[Value, Sym] = {}
    for i in seeded:
        value = body.outputs[i][1]
        seeds[i] = b.add_input(f"\0d{i}", value.type)
        part = Sym(b, seeds[i])
        total[value] = total[value] + part if value in total else part
    count = len(body.nodes)
    wanted = [v for v, asked in zip(body.inputs, live, strict=True) if asked]
    found = backward(b, tuple(b.nodes[:count]), total, wanted)
    return Derived(b, count, seeds, found)


def live_inputs(body: Graph, carries: int, live: Sequence[bool]) -> list[bool]:
    """Return which float inputs depend, at some step, on those that are live at the start."""
    now = [a and v.type.dtype.is_float for a, v in zip(live, body.inputs, strict=True)]
    for _ in range(carries + 1):
        active = depending_on(body.nodes, [v for v, a in zip(body.inputs, now, strict=True) if a])
        after = [body.outputs[i][1] in active for i in range(carries)]
        grown = [a or (i < carries and after[i]) for i, a in enumerate(now)]
        if grown == now:
            break
        now = grown
    return now


Source = tuple[str, "Callable[[], Sym]"]
"""Where a new region gets a value from: `slice` of a stacked operand or `rest`, and the operand of the graph around."""


@dataclass
class Cutter:
    """A new region made of nodes of another, up to values that are given from outside.

    Attributes:
        nodes: The nodes to take from, in order.
        sources: Values that are given.
        region: The builder of the new region.
        made: New values by old ones.
        slices: The stacked operands that are read, with the inputs that stand for their slices.
        rest: The other operands that are read, with their inputs.
    """

    nodes: Sequence[Node]
    sources: dict[Value, Source]
    region: Builder
    made: dict[Value, Value] = field(default_factory=dict)
    slices: list[tuple[Sym, Value]] = field(default_factory=list)
    rest: list[tuple[Sym, Value]] = field(default_factory=list)

    def given(self, value: Value) -> None:
        """Make the input for a value that comes from outside."""
        kind, operand = self.sources[value]
        into = self.slices if kind == "slice" else self.rest
        made = self.region.add_input(f"{'x' if kind == 'slice' else 'k'}{len(into)}", value.type)
        into.append((operand(), made))
        self.made[value] = made

    def cut(self, wanted: Sequence[Value]) -> list[Value]:
        """Append what is needed for some values to the region, and return them there."""
        needed: dict[Value, None] = dict.fromkeys(wanted)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(r in needed and self._is_open(r) for r in node.results):
                kept.append(node)
                needed.update(dict.fromkeys(node.operands))
        for value in needed:
            if value in self.sources and value not in self.made:
                self.given(value)
        for node in reversed(kept):
            operands = [self.made[v] for v in node.operands]
            results = self.region.emit(node.op, *operands, loc=node.loc)
            for old, new in zip(node.results, results, strict=True):
                self.made.setdefault(old, new)
        return [self.made[v] for v in wanted]

    def _is_open(self, value: Value) -> bool:
        return value not in self.sources and value not in self.made
