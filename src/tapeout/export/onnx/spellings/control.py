"""Loops and branches: ONNX's Scan and If. What a region reads from around it, it reads by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.export.onnx.table import spell, spells
from tapeout.export.onnx.writer import value_info
from tapeout.ops.control import Cond, Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from tapeout.export.onnx.writer import Writer
    from tapeout.ir.graph import Graph, Node, Value


@spells("scan")
def scan(w: Writer, node: Node, *operands: str) -> tuple[str, ...]:
    """Scan gives the last carries only, so that each next carry is stacked as well, and put behind the initial one."""
    op = node.op
    assert isinstance(op, Scan)
    n, stop = op.carries, op.carries + op.xs
    starts = [w.emit("Unsqueeze", x, w.ints([0])) for x in operands[:n]]
    if not op.length:
        first = [operands[i] if i in op.finals else start for i, start in enumerate(starts)]
        return (*first, *(_empty(w, r) for r in node.results[n:]))
    given = [w.fresh("v") for _ in op.body.inputs[:stop]]
    names = dict(zip(op.body.inputs, [*given, *operands[stop:]], strict=True))
    inputs = [value_info(x, v.type) for x, v in zip(given, op.body.inputs, strict=False)]
    stacked = list(operands[n:stop])
    if not stacked:
        # Scan knows how often to run from a stacked input alone.
        stacked = [w.tensor(np.zeros(int(w.static(op.length)), np.bool_))]
        inputs.append(_flag(w.fresh("v")))
    outputs = [v for _, v in op.body.outputs]
    # Every carry goes out twice: to the next step, and to its history.
    body = _region(w, op.body, names, [*outputs[:n], *outputs], inputs)
    back = int(op.reverse)
    made = w.emit_all(
        n + len(outputs),
        "Scan",
        *operands[:n],
        *stacked,
        body=body,
        num_scan_inputs=len(stacked),
        scan_input_directions=[back] * len(stacked),
        scan_output_directions=[back] * len(outputs),
    )
    stacks = made[n:]
    histories = [
        made[i] if i in op.finals else _history(w, starts[i], stacks[i], back=op.reverse)
        for i in range(n)
    ]
    return (*histories, *stacks[n:])


def _history(w: Writer, start: str, stack: str, *, back: bool) -> str:
    return w.emit("Concat", *((stack, start) if back else (start, stack)), axis=0)


@spells("cond")
def cond(w: Writer, node: Node, predicate: str, *operands: str) -> tuple[str, ...]:
    op = node.op
    assert isinstance(op, Cond)
    sides = []
    for body in (op.then, op.otherwise):
        names = dict(zip(body.inputs, operands, strict=True))
        sides.append(_region(w, body, names, [v for _, v in body.outputs], ()))
    count = len(node.results)
    return tuple(w.emit_all(count, "If", predicate, then_branch=sides[0], else_branch=sides[1]))


def _region(
    w: Writer,
    body: Graph,
    names: dict[Value, str],
    outputs: Sequence[Value],
    inputs: Sequence[onnx.ValueInfoProto],
) -> onnx.GraphProto:
    """Return a region as an ONNX graph.

    Args:
        w: Writes the graph around it; constants go there.
        body: The region.
        names: What stands for its inputs.
        outputs: What it gives, in order; a value may stand there twice.
        inputs: The declared inputs.
    """
    from onnx import helper

    read = {*body.results, *(v for n in body.nodes for v in n.operands)}
    with w.inside() as nodes:
        for node in body.nodes:
            w.label = node.loc.name or node.op.name
            made = spell(w, node, [names[v] for v in node.operands], read)
            names.update(zip(node.results, made, strict=False))
        given = [w.emit("Identity", names[v]) for v in outputs]
    results = [value_info(x, v.type) for x, v in zip(given, outputs, strict=True)]
    return helper.make_graph(nodes, body.name, list(inputs), results)


def _flag(name: str) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, 9, [])


def _empty(w: Writer, value: Value) -> str:
    return w.tensor(np.zeros([int(n) for n in value.type.shape], value.type.dtype.numpy))
