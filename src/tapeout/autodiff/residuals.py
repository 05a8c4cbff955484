"""What a scan keeps for its derivative: forward values of the body that the backward body reads become stacked results.

Values that follow from kept ones by movement or cheap arithmetic are computed anew; carries, stacked operands and results are there
anyway.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.autodiff.step import derive
from tapeout.ir.build import rebuilder
from tapeout.ir.graph import Check
from tapeout.ir.region import with_bodies
from tapeout.ops import elementwise as ew
from tapeout.ops import movement as mv
from tapeout.ops.control import Scan
from tapeout.support.errors import NotDifferentiable

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.op import Op

_CHEAP = (
    *(ew.Add, ew.Sub, ew.Mul, ew.Neg, ew.Abs, ew.Max, ew.Min, ew.Select, ew.Cast, ew.Not, ew.And, ew.Or),
    *(ew.Equal, ew.NotEqual, ew.Less, ew.LessEqual, ew.Greater, ew.GreaterEqual, ew.Sign),
    *(mv.Constant, mv.Iota, mv.Broadcast, mv.Reshape, mv.Transpose, mv.Slice, mv.Pad, mv.Reverse),
)  # fmt: skip


def residuals(graph: Graph) -> Graph:
    """Return the graph with scans that also stack what their derivatives read, those inside of regions included."""
    if not any(n.op.regions for n in graph.nodes):
        return graph
    b = rebuilder(graph)
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        operands = tuple(new.get(v, v) for v in node.operands)
        op = _with_residuals(node.op) if node.op.regions else node.op
        if op is node.op and operands == node.operands:
            b.keep(node)
            continue
        results = b.emit(op, *operands, loc=node.loc)
        new.update(zip(node.results, results, strict=False))  # what is new comes last
    if not new:
        return graph
    return replace(
        b.graph(graph.dims),
        outputs=tuple((n, new.get(v, v)) for n, v in graph.outputs),
        updates=tuple((n, new.get(v, v)) for n, v in graph.updates),
        checks=tuple(Check(new.get(c.bad, c.bad), c.message) for c in graph.checks),
        origin=graph.origin,
    )


def _with_residuals(op: Op) -> Op:
    op = with_bodies(op, residuals)
    if not isinstance(op, Scan):
        return op
    body = op.body
    kept = _kept(body)
    if not kept:
        return op
    taken = dict(body.outputs)
    names = (f"r{i}" for i in range(len(taken) + len(kept)) if f"r{i}" not in taken)
    outputs = (*body.outputs, *zip(names, kept, strict=False))
    return dataclasses.replace(op, body=replace(body, outputs=outputs))


def _kept(body: Graph) -> list[Value]:
    """Return the values of a body that its backward pass reads and that are worth keeping."""
    live = [v.type.dtype.is_float for v in body.inputs]
    seeded = [i for i, (_, v) in enumerate(body.outputs) if v.type.dtype.is_float]
    try:
        derived = derive(body, live, seeded)
    except NotDifferentiable:
        return []  # whoever asks for the gradient is told; others need nothing kept
    needed = {x.value for x in derived.found.values() if x is not None}
    for node in reversed(derived.builder.nodes[derived.forward :]):
        if not needed.isdisjoint(node.results):
            needed.update(node.operands)
    free = {*body.inputs, *(v for _, v in body.outputs)}
    kept: list[Value] = []
    for node in body.nodes:
        if _is_cheap(node) and free.issuperset(node.operands):
            free.update(node.results)
            continue
        for value in node.results:
            if value in needed and value not in free:
                kept.append(value)
                free.add(value)
    return kept


def _is_cheap(node: Node) -> bool:
    return isinstance(node.op, _CHEAP)
