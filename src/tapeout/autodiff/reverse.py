"""Reverse mode: cotangents flow from results to what they depend on.

One accumulated cotangent per value; zero is the absence of a cotangent and is never a tensor. Rules are formulas that emit
graph, so the result is a graph like any other and can be differentiated again. Un-broadcasting needs no case here: a
broadcast is a node, and its rule is a sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.op import Composite
from tapeout.ops.sym import Sym
from tapeout.support.errors import NotDifferentiable, VerifyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Node, Value


def backward(
    builder: Builder, nodes: Sequence[Node], seeds: Mapping[Value, Sym], wrt: Iterable[Value]
) -> dict[Value, Sym | None]:
    """Append the backward pass of `nodes` to `builder` and return the cotangents of `wrt` (None: zero).

    Args:
        builder: Holds `nodes` already, in order.
        nodes: The forward computation; composites among them must have a gradient rule (see `expand`).
        seeds: Cotangents of results.
        wrt: Values asked for; only float values can have a cotangent.

    Raises:
        NotDifferentiable: An operation on the way has no gradient; names its place.
    """
    wanted = list(wrt)
    active = depending_on(nodes, wanted)
    cotangents: dict[Value, Sym] = dict(seeds)
    for node in reversed(nodes):
        incoming = tuple(cotangents.get(r) for r in node.results)
        if all(c is None for c in incoming) or not any(v in active for v in node.operands):
            continue
        _pull(builder, node, incoming, active, cotangents)
    return {v: cotangents.get(v) for v in wanted}


def _pull(
    builder: Builder,
    node: Node,
    incoming: tuple[Sym | None, ...],
    active: set[Value],
    cotangents: dict[Value, Sym],
) -> None:
    operands = tuple(Sym(builder, v) for v in node.operands)
    results = tuple(Sym(builder, v) for v in node.results)
    with builder.at(node.loc.as_role("backward")):
        try:
            outgoing = _outgoing(node, incoming, operands, results, active)
        except NotDifferentiable as e:
            raise NotDifferentiable(
                e.message, where=e.where or str(node.loc), hint=e.hint
            ) from None
        for value, cotangent in zip(node.operands, outgoing, strict=True):
            if cotangent is None or value not in active:
                continue
            if cotangent.type != value.type:
                message = f"gradient rule of {node.op.name} gave {cotangent.type} for an operand of type {value.type}"
                raise VerifyError(message, where=str(node.loc))
            known = cotangents.get(value)
            cotangents[value] = cotangent if known is None else known + cotangent


def _outgoing(
    node: Node,
    incoming: tuple[Sym | None, ...],
    operands: tuple[Sym, ...],
    results: tuple[Sym, ...],
    active: set[Value],
) -> tuple[Sym | None, ...]:
    if not node.op.regions or isinstance(node.op, Composite):
        return node.op.pullback(incoming, operands, results)
    from tapeout.autodiff.scan import pull_control  # which derives its regions by this very module

    return pull_control(node.op, incoming, operands, results, [v in active for v in node.operands])


def depending_on(nodes: Sequence[Node], wanted: Sequence[Value]) -> set[Value]:
    """Return the float values that depend on `wanted`, themselves included."""
    active = {v for v in wanted if v.type.dtype.is_float}
    for node in nodes:
        if any(v in active for v in node.operands):
            active.update(r for r in node.results if r.type.dtype.is_float)
    return active
