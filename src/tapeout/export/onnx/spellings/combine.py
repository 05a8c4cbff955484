"""Combining elements along axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.export.onnx.table import spells
from tapeout.export.onnx.writer import ELEMENT_TYPES
from tapeout.ir.dtype import DType, bf16, bool_, f32, i32, i64
from tapeout.ops.running import CumSum, Recurrence

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from tapeout.export.onnx.writer import Writer
    from tapeout.ir.graph import Node


def _reduced(w: Writer, node: Node, op_type: str, x: str, through: DType | None) -> str:
    """Return the reduction, computed in another type where runtimes lack this one."""
    if not node.op.axes:  # type: ignore[attr-defined]
        return x  # to ONNX, no axes are all axes
    axes = w.ints(node.op.axes)  # type: ignore[attr-defined]
    if through is None:
        return w.emit(op_type, x, axes, keepdims=0)
    made = w.emit(op_type, w.cast(x, through), axes, keepdims=0)
    return w.cast(made, node.results[0].type.dtype)


def _wrapping(dtype: DType) -> DType | None:
    """Sums and products of integers are right in the low bits of i64."""
    return None if dtype.is_float or dtype in (i32, i64) else i64


def _ordered(dtype: DType) -> DType | None:
    return {"i16": i32, "u16": i32, "u32": i64}.get(dtype.name)


@spells("reduce_sum")
def reduce_sum(w: Writer, node: Node, x: str) -> str:
    return _reduced(w, node, "ReduceSum", x, _wrapping(node.operands[0].type.dtype))


@spells("reduce_prod")
def reduce_prod(w: Writer, node: Node, x: str) -> str:
    return _reduced(w, node, "ReduceProd", x, _wrapping(node.operands[0].type.dtype))


@spells("reduce_max")
def reduce_max(w: Writer, node: Node, x: str) -> str:
    return _reduced(w, node, "ReduceMax", x, _ordered(node.operands[0].type.dtype))


@spells("reduce_min")
def reduce_min(w: Writer, node: Node, x: str) -> str:
    return _reduced(w, node, "ReduceMin", x, _ordered(node.operands[0].type.dtype))


@spells("reduce_any")
def reduce_any(w: Writer, node: Node, x: str) -> str:
    # The sum, and not the maximum, is also right over no elements.
    return _counted(w, node, x)


@spells("reduce_all")
def reduce_all(w: Writer, node: Node, x: str) -> str:
    return w.emit("Not", _counted(w, node, w.emit("Not", x)))


def _counted(w: Writer, node: Node, x: str) -> str:
    """Return whether any is true: the number of those that are, as a bool."""
    if not node.op.axes:  # type: ignore[attr-defined]
        return x
    axes = w.ints(node.op.axes)  # type: ignore[attr-defined]
    return w.cast(w.emit("ReduceSum", w.cast(x, i64), axes, keepdims=0), bool_)


@spells("argmax")
def argmax(w: Writer, node: Node, x: str) -> str:
    return _place(w, node, "ArgMax", x)


@spells("argmin")
def argmin(w: Writer, node: Node, x: str) -> str:
    return _place(w, node, "ArgMin", x)


def _place(w: Writer, node: Node, op_type: str, x: str) -> str:
    """Return the number of the first extreme; a NaN counts as one, which ONNX leaves open."""
    type_ = node.operands[0].type
    axes = node.op.axes  # type: ignore[attr-defined]
    kept = [d for d in range(type_.rank) if d not in axes]
    if type_.dtype.name in ("i16", "u16", "u32", "bool"):
        x = w.cast(x, i64)
    x = w.transpose(x, [*kept, *axes])
    x = w.reshape(x, [*(type_.shape[d] for d in kept), math.prod(type_.shape[a] for a in axes)])
    found = w.emit(op_type, x, axis=len(kept), keepdims=0)
    if type_.dtype.is_float:
        nan = w.cast(w.emit("IsNaN", x), i32)
        first = w.emit("ArgMax", nan, axis=len(kept), keepdims=0)
        some = w.cast(w.emit("ReduceMax", nan, w.ints([len(kept)]), keepdims=0), bool_)
        found = w.emit("Where", some, first, found)
    return w.cast(found, i32)


@spells("recurrence")
def recurrence(w: Writer, node: Node, a: str, b: str) -> str:
    """A Scan whose body is one step."""
    op, type_ = node.op, node.results[0].type
    assert isinstance(op, Recurrence)
    dtype = f32 if type_.dtype == bf16 else type_.dtype  # runtimes lack products of bf16
    a, b = (x if dtype == type_.dtype else w.cast(x, dtype) for x in (a, b))
    axis, turned = [int(op.axis)], int(op.reverse)
    start = w.emit("Expand", w.scalar(0, dtype), w.ints(_without(type_.shape, op.axis)))
    ends = w.fresh("v")
    made = w.emit(
        "Scan",
        start,
        a,
        b,
        body=_one_step(ELEMENT_TYPES[dtype]),
        num_scan_inputs=2,
        scan_input_axes=axis * 2,
        scan_input_directions=[turned] * 2,
        scan_output_axes=axis,
        scan_output_directions=[turned],
    )
    w.nodes[-1].output[:] = [ends, made]
    return made if dtype == type_.dtype else w.cast(made, type_.dtype)


def _without(shape: Sequence[int], axis: int) -> list[int]:
    return [n for d, n in enumerate(shape) if d != axis]


def _one_step(element: int) -> onnx.GraphProto:
    from onnx import helper

    nodes = [
        helper.make_node("Mul", ["a", "before"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["after"]),
        helper.make_node("Identity", ["after"], ["shown"]),
    ]
    read, made = (
        [helper.make_tensor_value_info(n, element, None) for n in names]
        for names in (("before", "a", "b"), ("after", "shown"))
    )
    return helper.make_graph(nodes, "step", read, made)


@spells("cumsum")
def cumsum(w: Writer, node: Node, x: str) -> str:
    op, dtype = node.op, node.operands[0].type.dtype
    assert isinstance(op, CumSum)
    through = _wrapping(dtype)
    axis = w.scalar(op.axis, i64)
    flags = {"exclusive": int(op.exclusive), "reverse": int(op.reverse)}
    made = w.emit("CumSum", w.cast(x, through) if through else x, axis, **flags)
    return w.cast(made, dtype) if through else made
