"""Preconditions inside of loops and branches become checks of the graph: each region gives its bools as further results."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.ir.build import Builder, rebuilder
from tapeout.ir.dtype import bool_
from tapeout.ir.graph import Check, Graph
from tapeout.ops.control import Cond, Scan
from tapeout.ops.sym import Sym, constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Node, Value

Found = list[tuple[Sym, str]]
"""Bool scalars that are true when the data break a rule, and what to tell the user."""


def with_region_checks(graph: Graph) -> Graph:
    """Return the graph with a check per precondition inside of its regions; those of its own nodes are left to the caller."""
    if not any(isinstance(n.op, Scan | Cond) for n in graph.nodes):
        return graph
    b = rebuilder(graph)
    new: dict[Value, Value] = {}
    found = _copied(b, graph.nodes, new)
    if not found:
        return graph
    return replace(
        b.graph(graph.dims),
        outputs=tuple((n, new.get(v, v)) for n, v in graph.outputs),
        updates=tuple((n, new.get(v, v)) for n, v in graph.updates),
        checks=(
            *(Check(new.get(c.bad, c.bad), c.message) for c in graph.checks),
            *(Check(bad.value, message) for bad, message in found),
        ),
        origin=graph.origin,
    )


def _copied(b: Builder, nodes: Sequence[Node], new: dict[Value, Value]) -> Found:
    """Append nodes, those with regions extended; return what their regions found."""
    found: Found = []
    for node in nodes:
        operands = tuple(new.get(v, v) for v in node.operands)
        more: list[str] = []
        op = node.op
        if isinstance(op, Scan):
            op, more = _scan(op)
        elif isinstance(op, Cond):
            op, more = _cond(op)
        if op is node.op and operands == node.operands:
            b.keep(node)
            continue
        results = b.emit(op, *operands, loc=node.loc)
        new.update(zip(node.results, results, strict=False))  # what is new comes last
        with b.at(node.loc.as_role("check")):
            flags = [Sym(b, r) for r in results[len(node.results) :]]
            found += [(f.any() if f.rank else f, m) for f, m in zip(flags, more, strict=True)]
    return found


def _scan(op: Scan) -> tuple[Scan, list[str]]:
    b, outputs, found = _region(op.body)
    if not found:
        return op, []
    flags = [(f"bad{i}", bad) for i, (bad, _) in enumerate(found)]
    return dataclasses.replace(op, body=_closed(b, outputs, flags)), [m for _, m in found]


def _cond(op: Cond) -> tuple[Cond, list[str]]:
    sides = [_region(op.then), _region(op.otherwise)]
    messages = [m for _, _, found in sides for _, m in found]
    if not messages:
        return op, []
    bodies = []
    for n, (b, outputs, found) in enumerate(sides):
        fine = constant(b, False, bool_)
        other = [fine] * len(sides[1 - n][2])
        own = [bad for bad, _ in found]
        flags = [*own, *other] if n == 0 else [*other, *own]
        bodies.append(_closed(b, outputs, [(f"bad{i}", x) for i, x in enumerate(flags)]))
    return Cond(*bodies), messages


def _region(body: Graph) -> tuple[Builder, list[tuple[str, Value]], Found]:
    """Return a copy of a region under construction, its outputs there, and the preconditions inside."""
    b = rebuilder(body)
    new: dict[Value, Value] = {}
    found = _copied(b, body.nodes, new)
    for node in tuple(b.nodes):
        with b.at(node.loc.as_role("check")):
            rule = node.op.precondition(tuple(Sym(b, v) for v in node.operands))
        if rule is not None:
            place = f"{node.loc}: " if node.loc else ""
            found.append((rule[0], place + rule[1]))
    return b, [(n, new.get(v, v)) for n, v in body.outputs], found


def _closed(b: Builder, outputs: list[tuple[str, Value]], flags: list[tuple[str, Sym]]) -> Graph:
    for name, value in outputs:
        b.set_output(name, value)
    for name, flag in flags:
        b.set_output(name, flag.value)
    return b.graph()
