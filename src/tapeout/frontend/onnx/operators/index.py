"""Operators that choose elements by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import i64
from tapeout.ops.composite import index as ix
from tapeout.ops.composite import order

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym


@op("Gather", since=1)
def gather(call: Call, data: Sym, indices: Sym) -> Sym:
    return call.settled(data.take(indices, call.axis(call.integer("axis", 0), data.rank)))


@op("GatherElements", since=11)
def gather_elements(call: Call, data: Sym, indices: Sym) -> Sym:
    return data.take_along(indices, call.axis(call.integer("axis", 0), data.rank))


@op("GatherND", since=11)
def gather_nd(call: Call, data: Sym, indices: Sym) -> Sym:
    batch = call.integer("batch_dims", 0)
    call.require(0 <= batch < min(data.rank, indices.rank), f"batch_dims is {batch}")
    return ix.gather_nd(data, indices, batch)


# How ONNX and the graph call what becomes of several updates of one place.
_REDUCTIONS = {"none": "set", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _reduction(call: Call, words: tuple[str, ...]) -> str:
    return _REDUCTIONS[call.choice("reduction", words, "none")]


@op("Scatter", "ScatterElements", since=9)
def scatter_elements_plain(call: Call, data: Sym, indices: Sym, updates: Sym) -> Sym:
    axis = call.axis(call.integer("axis", 0), data.rank)
    return ix.scatter_along(data, indices, updates, axis)


@op("ScatterElements", since=16)
def scatter_elements(call: Call, data: Sym, indices: Sym, updates: Sym) -> Sym:
    axis = call.axis(call.integer("axis", 0), data.rank)
    how = _reduction(call, tuple(_REDUCTIONS) if call.opset >= 18 else ("none", "add", "mul"))
    return ix.scatter_along(data, indices, updates, axis, how)


@op("ScatterND", since=11)
def scatter_nd(call: Call, data: Sym, indices: Sym, updates: Sym) -> Sym:
    words = tuple(_REDUCTIONS) if call.opset >= 18 else ("none", "add", "mul")
    how = _reduction(call, words) if call.opset >= 16 else "set"
    return ix.scatter_nd(data, indices, updates, how)


@op("OneHot", since=9, note="depth: known at import")
def one_hot(call: Call, indices: Sym, depth: Sym, values: Sym) -> Sym:
    size = int(call.scalar(depth, "the depth"))
    call.require(size > 0, f"the depth is {size}")
    call.require(values.shape == (2,), f"values must be [off, on], they are {values.type}")
    axis = call.axis(call.integer("axis", -1), indices.rank + 1)
    at = indices.cast(i64).expand_dims([axis])
    at = (at < 0).where(at + size, at)
    shape = [*indices.shape[:axis], size, *indices.shape[axis:]]
    off, on = (values.slice([i], [i + 1]).reshape([]) for i in (0, 1))
    return (call.iota(shape, axis) == at).where(on, off)


@op("Trilu", since=14)
def triangle(call: Call, x: Sym, k: Sym | None = None) -> Sym:
    upper = call.flag("upper", default=True)
    call.require(x.rank >= 2, f"a matrix is expected, got {x.type}")
    rows, columns = call.iota(x.shape, x.rank - 2), call.iota(x.shape, x.rank - 1)
    edge = rows if k is None else rows + k.cast(i64).reshape([])
    keep = columns >= edge if upper else columns <= edge
    return keep.where(x, x.zeros_like())


@op("TopK", since=1)
def top_k_attribute(call: Call, x: Sym) -> tuple[Sym, Sym]:
    return _top_k(call, x, call.integer("k"), largest=True)


@op("TopK", since=10, note="k: known at import")
def top_k_operand(call: Call, x: Sym, k: Sym) -> tuple[Sym, Sym]:
    return _top_k(call, x, int(call.scalar(k, "k")), largest=True)


@op("TopK", since=11, note="k: known at import")
def top_k(call: Call, x: Sym, k: Sym) -> tuple[Sym, Sym]:
    call.skip("sorted")  # in order is one of the orders that are allowed without it
    largest = call.flag("largest", default=True)
    return _top_k(call, x, int(call.scalar(k, "k")), largest=largest)


def _top_k(call: Call, x: Sym, k: int, *, largest: bool) -> tuple[Sym, Sym]:
    axis = call.axis(call.integer("axis", -1), x.rank)
    call.require(0 <= k <= x.shape[axis], f"k is {k}, axis {axis} of {x.type} is shorter")
    return order.top_k(x, k, axis, largest=largest)
