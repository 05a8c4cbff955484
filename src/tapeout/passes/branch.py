"""One branch made simpler; see `passes.loops`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.build import Builder
from tapeout.ops.control import OTHERWISE, THEN, Cond
from tapeout.ops.sym import constant
from tapeout.passes.constants import splat_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Graph, Value


def simpler_branch(
    b: Builder, op: Cond, operands: tuple[Value, ...], used: Sequence[bool]
) -> tuple[Value, ...] | None:
    """Return the results of a simpler branch, None if there is none.

    Args:
        b: Where to append.
        op: The branch.
        operands: The predicate, and what both sides take.
        used: Which results are read.
    """
    known = splat_of(operands[0])
    if known is not None:
        return inlined(b, op.then if known else op.otherwise, operands[1:])
    if not any(used):
        return None  # nothing reads the node; `dce` removes it
    needed = [
        a or c for a, c in zip(*(_needed(g, used) for g in (op.then, op.otherwise)), strict=True)
    ]
    if all(used) and all(needed):
        return None
    sides = [
        _cut(g, name, used, needed) for g, name in ((op.then, THEN), (op.otherwise, OTHERWISE))
    ]
    kept = [v for v, n in zip(operands[1:], needed, strict=True) if n]
    made = iter(b.emit(Cond(*sides), operands[0], *kept))
    return tuple(
        next(made) if u else _unread(b, v) for u, (_, v) in zip(used, op.then.outputs, strict=True)
    )


def inlined(b: Builder, body: Graph, operands: Sequence[Value]) -> tuple[Value, ...]:
    """Append the nodes of a region and return its outputs."""
    made = dict(zip(body.inputs, operands, strict=True))
    for node in body.nodes:
        results = b.emit(node.op, *(made[v] for v in node.operands), loc=node.loc)
        made.update(zip(node.results, results, strict=True))
    return tuple(made[v] for _, v in body.outputs)


def _unread(b: Builder, like: Value) -> Value:
    """Return a value that takes the place of a result that nothing reads."""
    return constant(b, 0, like.type.dtype).broadcast_to(like.type.shape).value


def reached(body: Graph, wanted: Sequence[Value]) -> set[Value]:
    """Return everything in a region that some of its values depend on, themselves included."""
    needed = set(wanted)
    for node in reversed(body.nodes):
        if not needed.isdisjoint(node.results):
            needed.update(node.operands)
    return needed


def _needed(body: Graph, used: Sequence[bool]) -> list[bool]:
    found = reached(body, [v for u, (_, v) in zip(used, body.outputs, strict=True) if u])
    return [v in found for v in body.inputs]


def _cut(body: Graph, name: str, used: Sequence[bool], needed: Sequence[bool]) -> Graph:
    outputs = [(n, v) for u, (n, v) in zip(used, body.outputs, strict=True) if u]
    found = reached(body, [v for _, v in outputs])
    b = Builder(name)
    for v, n in zip(body.inputs, needed, strict=True):
        if n:
            b.adopt_input(v)
    for node in body.nodes:
        if not found.isdisjoint(node.results):
            b.keep(node)
    for word, v in outputs:
        b.set_output(word, v)
    return b.graph()
