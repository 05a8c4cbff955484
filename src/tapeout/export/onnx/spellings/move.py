"""Moving data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tapeout.export.onnx.scalars import counting
from tapeout.export.onnx.table import spells
from tapeout.ir.dtype import DType, i32, i64
from tapeout.ops import movement as mv

if TYPE_CHECKING:
    from tapeout.export.onnx.writer import Writer
    from tapeout.ir.graph import Node
    from tapeout.ir.op import Array

_LARGE = 64
"""Constants with more elements that are all alike are written as one, repeated."""


@spells("constant")
def constant(w: Writer, node: Node) -> str:
    op = node.op
    assert isinstance(op, mv.Constant)
    if op.tensor.splat is None or op.tensor.array.size <= _LARGE:
        return w.tensor(op.tensor.array)
    one = w.tensor(op.tensor.array.reshape(-1)[:1].reshape(()))
    return w.emit("Expand", one, w.ints(op.tensor.shape))


@spells("iota")
def iota(w: Writer, node: Node) -> str:
    op = node.op
    assert isinstance(op, mv.Iota)
    line = counting(w, op.shape[op.axis])
    if op.dtype != i64:
        line = w.cast(line, op.dtype)
    place = [-1 if i == op.axis else 1 for i in range(len(op.shape))]
    return w.emit("Expand", w.emit("Reshape", line, w.ints(place)), w.ints(op.shape))


@spells("reshape")
def reshape(w: Writer, node: Node, x: str) -> str:
    return w.reshape(x, node.results[0].type.shape)


@spells("transpose")
def transpose(w: Writer, node: Node, x: str) -> str:
    assert isinstance(node.op, mv.Transpose)
    return w.transpose(x, node.op.perm)


@spells("broadcast")
def broadcast(w: Writer, node: Node, x: str) -> str:
    op, shape = node.op, node.operands[0].type.shape
    assert isinstance(op, mv.Broadcast)
    # Expand aligns the last dimensions by itself.
    if list(op.axes) != list(range(len(op.shape) - len(shape), len(op.shape))):
        place = [1] * len(op.shape)
        for n, axis in zip(shape, op.axes, strict=True):
            place[axis] = n
        x = w.reshape(x, place)
    return w.emit("Expand", x, w.ints(op.shape))


@spells("slice")
def slice_(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, mv.Slice)
    if not op.starts:
        return x
    axes = range(len(op.starts))
    return w.emit("Slice", x, *(w.ints(n) for n in (op.starts, op.limits, axes, op.strides)))


@spells("reverse")
def reverse(w: Writer, node: Node, x: str) -> str:
    assert isinstance(node.op, mv.Reverse)
    n = len(node.op.axes)
    if not n:
        return x
    # From the last element down to before the first.
    parts = ([-1] * n, [-(1 << 62)] * n, node.op.axes, [-1] * n)
    return w.emit("Slice", x, *(w.ints(p) for p in parts))


@spells("concat")
def concat(w: Writer, node: Node, *xs: str) -> str:
    assert isinstance(node.op, mv.Concat)
    return w.emit("Concat", *xs, axis=int(node.op.axis))


@spells("pad")
def pad(w: Writer, node: Node, x: str) -> str:
    op, type_ = node.op, node.operands[0].type
    assert isinstance(op, mv.Pad)
    shape = list(type_.shape)
    for axis, k in enumerate(op.interior):
        if k and shape[axis] > 1:
            x = _between(w, x, shape, axis, k, op.value, type_.dtype)
            shape[axis] += (shape[axis] - 1) * k
    for axis, (lo, hi) in enumerate(zip(op.low, op.high, strict=True)):
        if lo < 0 or hi < 0:
            x = w.narrow(x, axis, max(-lo, 0), shape[axis] - max(-hi, 0))
    low, high = ([max(n, 0) for n in side] for side in (op.low, op.high))
    return padded(w, x, low, high, op.value, type_.dtype) if any(low) or any(high) else x


def padded(
    w: Writer, x: str, low: Sequence[int], high: Sequence[int], value: float, dtype: DType
) -> str:
    """Return a value with another around it."""
    if dtype.name in ("i16", "u16"):  # runtimes are known to lack these
        wide = w.emit("Pad", w.cast(x, i32), w.ints([*low, *high]), w.scalar(value, i32))
        return w.cast(wide, dtype)
    return w.emit("Pad", x, w.ints([*low, *high]), w.scalar(value, dtype))


def _between(
    w: Writer, x: str, shape: Sequence[int], axis: int, k: int, value: float, dtype: DType
) -> str:
    """Put `k` times `value` between neighbours along an axis."""
    n = w.static(shape[axis])
    places = np.full((n - 1) * (k + 1) + 1, n, np.int64)
    places[:: k + 1] = np.arange(n)
    return gathered(w, x, shape, axis, places, value, dtype)


def gathered(
    w: Writer,
    x: str,
    shape: Sequence[int],
    axis: int,
    places: Array,
    value: float,
    dtype: DType,
) -> str:
    """Return elements at known places along an axis; the place after the last one holds `value`."""
    none, one = [0] * len(shape), [int(i == axis) for i in range(len(shape))]
    longer = padded(w, x, none, one, value, dtype)
    return w.emit("Gather", longer, w.tensor(places), axis=int(axis))


@spells("windows")
def windows(w: Writer, node: Node, x: str) -> str:
    op, type_ = node.op, node.operands[0].type
    assert isinstance(op, mv.Windows)
    counts = op.counted(type_.shape)
    order = list(range(len(type_.shape)))  # where each dimension stands in the growing result
    for i, axis in sorted(enumerate(op.axes), key=lambda p: -p[1]):
        n = w.static(type_.shape[axis])
        places = np.arange(w.static(counts[axis]))[:, None] * op.strides[i] - op.low[i]
        places = places + np.arange(op.sizes[i]) * op.dilations[i]
        places = np.where((places < 0) | (places >= n), n, places)
        shape = [1] * len(order)
        x = gathered(w, x, shape, order.index(axis), places.astype(np.int64), op.value, type_.dtype)
        order.insert(order.index(axis) + 1, type_.rank + i)
    return w.transpose(x, [order.index(d) for d in range(len(order))])


@spells("fold")
def fold(w: Writer, node: Node, y: str) -> str:
    op = node.op
    assert isinstance(op, mv.Fold)
    rank = len(op.shape)
    order = list(range(rank + len(op.axes)))
    for i, axis in enumerate(op.axes):
        y, order = _folded(w, y, node, order, i, axis)
    return w.transpose(y, [order.index(d) for d in range(rank)])


def _folded(
    w: Writer, y: str, node: Node, order: list[int], i: int, axis: int
) -> tuple[str, list[int]]:
    """Add the windows of one axis back where they came from."""
    op = node.op
    assert isinstance(op, mv.Fold)
    sizes = dict(enumerate(node.operands[0].type.shape))
    count, size = w.static(sizes[axis]), op.sizes[i]
    rest = [d for d in order if d not in (axis, len(op.shape) + i)]
    moved = [*rest, axis, len(op.shape) + i]
    y = w.transpose(y, [order.index(d) for d in moved])
    extents = [_extent(op, sizes, d, op.axes[:i]) for d in rest]
    y = w.reshape(y, [*extents, count * size])
    n = w.static(op.shape[axis])
    # Element p came from window o by tap k when p + low = o * stride + k * dilation.
    taps = np.arange(size)
    at = np.arange(n)[:, None] + op.low[i] - taps * op.dilations[i]
    o = at // op.strides[i]
    inside = (at % op.strides[i] == 0) & (o >= 0) & (o < count)
    places = np.where(inside, o * size + taps, count * size).astype(np.int64)
    dtype = node.operands[0].type.dtype
    y = gathered(w, y, [*extents, count * size], len(rest), places, 0.0, dtype)
    return w.emit("ReduceSum", y, w.ints([len(rest) + 1]), keepdims=0), [*rest, axis]


def _extent(op: mv.Fold, sizes: dict[int, int], d: int, done: Sequence[int]) -> int:
    """Return the size of a dimension: of the result once its windows are added back."""
    return op.shape[d] if d in done else sizes[d]
