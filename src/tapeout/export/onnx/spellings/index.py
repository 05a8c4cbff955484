"""Places chosen by data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.export.onnx.table import spells
from tapeout.ir.dtype import i64
from tapeout.ir.op import Scatter
from tapeout.ops import gather, scatter

if TYPE_CHECKING:
    from tapeout.export.onnx.writer import Writer
    from tapeout.ir.graph import Node


def _indices(w: Writer, node: Node, x: str) -> str:
    """Return the indices as i64, the one type that every runtime takes."""
    return x if node.operands[1].type.dtype == i64 else w.cast(x, i64)


@spells("take")
def take(w: Writer, node: Node, x: str, indices: str) -> str:
    assert isinstance(node.op, gather.Take)
    return w.emit("Gather", x, _indices(w, node, indices), axis=int(node.op.axis))


@spells("take_along")
def take_along(w: Writer, node: Node, x: str, indices: str) -> str:
    assert isinstance(node.op, gather.TakeAlong)
    return w.emit("GatherElements", x, _indices(w, node, indices), axis=int(node.op.axis))


@spells("scatter_along")
@spells("scatter_add_along")
def scatter_along(w: Writer, node: Node, x: str, indices: str, updates: str) -> str:
    assert isinstance(node.op, gather.ScatterAddAlong | scatter.ScatterAlong)
    at, how = _indices(w, node, indices), _reduction(node)
    return w.emit("ScatterElements", x, at, updates, axis=int(node.op.axis), reduction=how)


def _reduction(node: Node) -> str:
    assert isinstance(node.op, Scatter)
    return "none" if node.op.combine == "set" else node.op.combine


@spells("scatter")
@spells("scatter_add")
def scatter_rows(w: Writer, node: Node, x: str, indices: str, updates: str) -> str:
    """ScatterND chooses along the first dimension, so the axis goes there and comes back."""
    assert isinstance(node.op, gather.ScatterAdd | scatter.ScatterRows)
    axis, rank = node.op.axis, node.operands[0].type.rank
    at, n = node.operands[1].type, node.operands[1].type.rank
    there = [axis, *(d for d in range(rank) if d != axis)]
    chosen = list(range(axis, axis + n))
    rows = [*chosen, *(d for d in range(rank + n - 1) if d not in chosen)]
    numbers = w.reshape(_indices(w, node, indices), [*at.shape, 1])
    moved, added = w.transpose(x, there), w.transpose(updates, rows)
    made = w.emit("ScatterND", moved, numbers, added, reduction=_reduction(node))
    return w.transpose(made, [there.index(d) for d in range(rank)])
