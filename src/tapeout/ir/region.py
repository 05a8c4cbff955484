"""Regions: graphs inside nodes, such as the body of a loop. They get all they use as explicit operands.

An operation names the attributes that hold its regions (`Op.regions`). A region has inputs, nodes and outputs, no variables,
updates or checks, and is called like its attribute.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

from tapeout.ir.graph import Graph
from tapeout.ir.op import Op
from tapeout.ir.rewrite import rebuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Node, Value


def bodies(op: Op) -> tuple[Graph, ...]:
    """Return the regions of an operation, in order; most have none."""
    return tuple(getattr(op, name) for name in op.regions)


def with_bodies(op: Op, change: Callable[[Graph], Graph]) -> Op:
    """Return the operation with its regions changed, the same object if none was."""
    changed = {}
    for name in op.regions:
        old: Graph = getattr(op, name)
        new = change(old)
        if new is not old:
            changed[name] = new
    return dataclasses.replace(op, **changed) if changed else op


def in_regions(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """Return the graph with a change applied to the regions of its nodes, the same object if none was changed.

    `change` keeps the inputs' and outputs' types; it is applied to regions inside of regions only if it does so itself.
    """
    if not any(n.op.regions for n in graph.nodes):
        return graph

    def changed(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if not node.op.regions:
            return None
        op = with_bodies(node.op, change)
        return None if op is node.op else b.emit(op, *operands)

    return rebuild(graph, changed)


def nested(graph: Graph) -> Iterator[Graph]:
    """Return a graph and all regions inside of it, outer ones first."""
    pending = [graph]
    while pending:
        g = pending.pop()
        yield g
        pending += [body for n in reversed(g.nodes) for body in reversed(bodies(n.op))]


def digest(body: Graph) -> str:
    """Return a hash of what a region computes: equal for regions that differ in provenance only."""
    known = body.__dict__.get("_digest")
    if known is None:
        from tapeout.ir.text import print_region

        text = "\n".join(print_region(body, places=False))
        known = hashlib.sha256(text.encode()).hexdigest()[:32]
        body.__dict__["_digest"] = known  # a graph never changes
    assert isinstance(known, str)
    return known
