"""Normalisation as the operators that ONNX has for it, where nothing reads the statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.export.onnx.table import spells_if
from tapeout.ir.dtype import f32
from tapeout.ops.composite.norm import BatchNormInference, Normalize

if TYPE_CHECKING:
    from collections.abc import Container

    from tapeout.export.onnx.writer import Writer
    from tapeout.ir.graph import Node, Value


def _fits(node: Node, read: Container[Value]) -> bool:
    """Epsilon is stored as f32, so that f64 is better written out."""
    plain = len(node.operands) > 1 and node.operands[0].type.dtype == f32
    unread = not any(r in read for r in node.results[1:])
    return plain and unread and (_is_layer(node) or _is_instance(node))


def _is_layer(node: Node) -> bool:
    """Whether it is over the last dimensions, with a scale of their shape."""
    op, rank = node.op, node.operands[0].type.rank
    assert isinstance(op, Normalize)
    last = tuple(range(rank - len(op.axes), rank))
    return bool(op.axes) and op.axes == op.places == last


def _is_instance(node: Node) -> bool:
    """Whether it is over the spatial dimensions, with a scale and a bias per channel."""
    op, rank = node.op, node.operands[0].type.rank
    assert isinstance(op, Normalize)
    places = op.places == (1,) and op.axes == tuple(range(2, rank)) and rank > 2
    return places and len(node.operands) == 3


@spells_if("normalize", _fits)
def normalize(w: Writer, node: Node, x: str, scale: str, *bias: str) -> str:
    op = node.op
    assert isinstance(op, Normalize)
    if _is_instance(node):
        return w.emit("InstanceNormalization", x, scale, *bias, epsilon=op.epsilon)
    return w.emit("LayerNormalization", x, scale, *bias, axis=op.axes[0], epsilon=op.epsilon)


def _per_channel(node: Node, read: Container[Value]) -> bool:
    return node.operands[1].type.rank == 1 and all(v.type.dtype == f32 for v in node.operands)


@spells_if("batch_norm_inference", _per_channel)
def batch_norm(w: Writer, node: Node, *operands: str) -> str:
    assert isinstance(node.op, BatchNormInference)
    return w.emit("BatchNormalization", *operands, epsilon=node.op.epsilon)
