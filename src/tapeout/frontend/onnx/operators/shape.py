"""Operators that move data: shapes, slices, joins, repetition, padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.registry import op
from tapeout.ir.type import Dim
from tapeout.ops.sym import broadcast_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.frontend.onnx.call import Call
    from tapeout.frontend.onnx.listed import Held
    from tapeout.ops.sym import Sym

_INT64_MAX = (1 << 63) - 1


@op("Identity", since=1, holds=True)
def identity(call: Call, x: Sym | Held) -> Sym | Held:
    return x


@op("Reshape", since=5, note="shape: known at import")
def reshape(call: Call, x: Sym, shape: Sym) -> Sym:
    wanted = list(call.numbers(shape, "the shape"))
    keep_zero = call.flag("allowzero")
    for i, n in enumerate(wanted):
        call.require(n >= -1, f"size {i} of the shape is {n}")
        if n == 0 and not keep_zero:
            call.require(
                i < x.rank, f"size {i} of the shape is 0, but the operand has rank {x.rank}"
            )
            wanted[i] = x.shape[i]
    call.require(sum(n == -1 for n in wanted) <= 1, f"shape {wanted} has more than one -1")
    return x.reshape(wanted)


@op("Flatten", since=1)
def flatten(call: Call, x: Sym) -> Sym:
    axis = call.integer("axis", 1)
    call.require(-x.rank <= axis <= x.rank, f"axis {axis} is out of range for rank {x.rank}")
    axis += x.rank if axis < 0 else 0
    return x.reshape([_product(x.shape[:axis]), _product(x.shape[axis:])])


@op("Transpose", since=1)
def transpose(call: Call, x: Sym) -> Sym:
    perm = call.integers("perm")
    if perm is None:
        return x.transpose()
    call.require(
        sorted(perm) == list(range(x.rank)), f"perm {list(perm)} does not fit rank {x.rank}"
    )
    return x.transpose(perm)


@op("Squeeze", since=1)
def squeeze_attribute(call: Call, x: Sym) -> Sym:
    return _squeeze(call, x, call.integers("axes"))


@op("Squeeze", since=13, note="axes: known at import")
def squeeze(call: Call, x: Sym, axes: Sym | None = None) -> Sym:
    return _squeeze(call, x, None if axes is None else call.numbers(axes, "the axes"))


def _squeeze(call: Call, x: Sym, axes: Sequence[int] | None) -> Sym:
    if axes is None:
        return x.squeeze([i for i, n in enumerate(x.shape) if n == 1])
    at = call.axes(axes, x.rank)
    for a in at:
        call.require(x.shape[a] == 1, f"axis {a} has size {x.shape[a]}, not 1")
    return x.squeeze(at)


@op("Unsqueeze", since=1)
def unsqueeze_attribute(call: Call, x: Sym) -> Sym:
    return _unsqueeze(call, x, call.integers("axes") or ())


@op("Unsqueeze", since=13, note="axes: known at import")
def unsqueeze(call: Call, x: Sym, axes: Sym) -> Sym:
    return _unsqueeze(call, x, call.numbers(axes, "the axes"))


def _unsqueeze(call: Call, x: Sym, axes: Sequence[int]) -> Sym:
    return x.expand_dims(call.axes(axes, x.rank + len(axes)))


@op("Shape", since=1)
def shape(call: Call, x: Sym) -> Sym:
    start, end = call.integer("start", 0), call.integer("end", x.rank)
    return call.shape_value(x.shape[slice(start, end)])


@op("Size", since=1)
def size(call: Call, x: Sym) -> Sym:
    return call.shape_value([_product(x.shape)]).reshape([])


@op("Expand", since=8, note="shape: known at import")
def expand(call: Call, x: Sym, shape: Sym) -> Sym:
    wanted = call.numbers(shape, "the shape")
    call.require(all(n >= 0 for n in wanted), f"shape {list(wanted)} has a negative size")
    return x.broadcast_to(broadcast_shapes(x.shape, tuple(wanted)))


@op("Tile", since=6, note="repeats: known at import")
def tile(call: Call, x: Sym, repeats: Sym) -> Sym:
    times = call.numbers(repeats, "the repeats")
    call.require(len(times) == x.rank, f"{len(times)} repeats for rank {x.rank}")
    call.require(all(n >= 0 for n in times), f"repeats {list(times)} hold a negative number")
    interleaved = [n for pair in zip(times, x.shape, strict=True) for n in pair]
    y = x.broadcast(interleaved, range(1, 2 * x.rank, 2))
    return y.reshape([n * t for n, t in zip(x.shape, times, strict=True)])


@op("Concat", since=4)
def concat(call: Call, *xs: Sym) -> Sym:
    call.require(bool(xs), "has no operands")
    axis = call.axis(call.integer("axis"), xs[0].rank)
    return xs[0] if len(xs) == 1 else xs[0].concat(xs[1:], axis)


@op("Split", since=2)
def split_attribute(call: Call, x: Sym) -> tuple[Sym, ...]:
    return _split(call, x, call.integers("split"), len(call.outputs))


@op("Split", since=13, note="split: known at import")
def split_operand(call: Call, x: Sym, split: Sym | None = None) -> tuple[Sym, ...]:
    sizes = None if split is None else call.numbers(split, "the sizes of the parts")
    return _split(call, x, sizes, len(call.outputs))


@op("Split", since=18, note="split: known at import")
def split(call: Call, x: Sym, split: Sym | None = None) -> tuple[Sym, ...]:
    sizes = None if split is None else call.numbers(split, "the sizes of the parts")
    call.require((sizes is None) == call.has("num_outputs"), "needs either sizes or num_outputs")
    return _split(call, x, sizes, call.integer("num_outputs", len(call.outputs)))


def _split(call: Call, x: Sym, sizes: Sequence[int] | None, parts: int) -> tuple[Sym, ...]:
    axis = call.axis(call.integer("axis", 0), x.rank)
    total = x.shape[axis]
    call.require(parts == len(call.outputs), f"{parts} parts are asked, {len(call.outputs)} named")
    if sizes is None:
        each = -(-int(total) // parts)
        sizes = [min(each, int(total) - i * each) for i in range(parts)]
        call.require(min(sizes) >= 0, f"size {total} cannot be cut into {parts} parts")
    call.require(len(sizes) == parts, f"{len(sizes)} sizes are given for {parts} results")
    fits = sum(sizes) == total and all(n >= 0 for n in sizes)
    call.require(fits, f"parts of sizes {list(map(int, sizes))} do not make up {total}")
    pieces, start = [], 0
    for n in sizes:
        pieces.append(cut(x, axis, start, start + n))
        start += n
    return tuple(pieces)


def cut(x: Sym, axis: int, start: int, limit: int, step: int = 1) -> Sym:
    """Return `x[start:limit:step]` along one axis."""
    starts, limits, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    starts[axis], limits[axis], steps[axis] = start, limit, step
    if start == 0 and limit == x.shape[axis] and step == 1:
        return x
    return x.slice(starts, limits, steps)


@op("Slice", since=1)
def slice_attribute(call: Call, x: Sym) -> Sym:
    starts, ends = call.integers("starts"), call.integers("ends")
    axes = call.integers("axes")
    if starts is None or ends is None:
        call.fail("attributes 'starts' and 'ends' must be there")
    return _slice(call, x, starts, ends, axes, None)


@op("Slice", since=10, note="starts, ends, axes, steps: known at import")
def slice_(
    call: Call, x: Sym, starts: Sym, ends: Sym, axes: Sym | None = None, steps: Sym | None = None
) -> Sym:
    return _slice(
        call,
        x,
        call.numbers(starts, "the starts"),
        call.numbers(ends, "the ends"),
        None if axes is None else call.numbers(axes, "the axes"),
        None if steps is None else call.numbers(steps, "the steps"),
    )


def _slice(
    call: Call,
    x: Sym,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Sym:
    at = list(axes) if axes is not None else list(range(len(starts)))
    by = list(steps) if steps is not None else [1] * len(starts)
    same = len(starts) == len(ends) == len(at) == len(by)
    call.require(same, f"{len(starts)} starts, {len(ends)} ends, {len(at)} axes, {len(by)} steps")
    call.axes(at, x.rank)
    for axis, start, end, step in zip(at, starts, ends, by, strict=True):
        call.require(step != 0, "a step is 0")
        x = _slice_axis(x, axis % x.rank, start, end, step)
    return x


def _slice_axis(x: Sym, axis: int, start: int, end: int, step: int) -> Sym:
    n = x.shape[axis]
    if step > 0:
        low, high = _clamped(start, n, n), _clamped(end, n, n)
        return cut(x, axis, low, max(low, high), min(step, max(int(n), 1)))
    # Downwards: the same elements upwards, turned round.
    first, last = _clamped(start, n, n - 1), _clamped(end, n, n - 1, -1)
    count = max(0, -(-(first - last) // -step))
    low = first + (count - 1) * step if count else 0
    return cut(x, axis, low, first + 1 if count else 0, -step if count > 1 else 1).reverse([axis])


def _clamped(index: int, size: int, high: int, low: int = 0) -> int:
    """Return an index from the front between two bounds; the end of a named dimension keeps its name."""
    if index >= high:
        return high
    if index < 0:
        index = size + index if index > -_INT64_MAX else low
    return max(low, index)


@op("Pad", since=2)
def pad_attribute(call: Call, x: Sym) -> Sym:
    mode = call.choice("mode", ("constant", "reflect", "edge"), "constant")
    pads = call.integers("pads")
    if pads is None:
        call.fail("attribute 'pads' is missing")
    return _pad(call, x, pads, call.real("value", 0.0), mode, range(x.rank))


@op("Pad", since=11, note="pads, constant_value, axes: known at import")
def pad(
    call: Call, x: Sym, pads: Sym, constant_value: Sym | None = None, axes: Sym | None = None
) -> Sym:
    # "wrap" is of opset 19; PyTorch writes it at 18.
    modes = ("constant", "reflect", "edge", *(("wrap",) if call.opset >= 18 else ()))
    mode = call.choice("mode", modes, "constant")
    value = (
        0.0 if constant_value is None else call.scalar(constant_value, "the value of the padding")
    )
    at = (
        range(x.rank)
        if axes is None
        else [call.axis(a, x.rank) for a in call.numbers(axes, "the axes")]
    )
    return _pad(call, x, call.numbers(pads, "the pads"), float(value), mode, at)


def _pad(
    call: Call, x: Sym, pads: Sequence[int], value: float, mode: str, axes: Sequence[int]
) -> Sym:
    call.require(len(pads) == 2 * len(axes), f"{len(pads)} pads for {len(axes)} axes")
    low, high = [0] * x.rank, [0] * x.rank
    for i, a in enumerate(axes):
        low[a], high[a] = pads[i], pads[i + len(axes)]
    for i in range(x.rank):
        fits = x.shape[i] + low[i] + high[i] >= 0
        call.require(fits, f"axis {i} of size {x.shape[i]} is cropped by {low[i]} and {high[i]}")
    if mode == "constant":
        return x.pad(low, high, value) if any(low) or any(high) else x
    for axis in range(x.rank):
        if low[axis] or high[axis]:
            x = _pad_axis(call, x, axis, low[axis], high[axis], mode)
    return x


def _pad_axis(call: Call, x: Sym, axis: int, low: int, high: int, mode: str) -> Sym:
    """Pad along one axis with elements of the operand, whose places are known."""
    n = int(x.shape[axis])
    call.require(n > 0, f"axis {axis} is empty, there is nothing to pad with")
    length = n + low + high
    call.require(length <= 1 << 24, f"axis {axis} would have size {length}")
    places = np.arange(-low, n + high)
    if mode == "edge":
        places = places.clip(0, n - 1)
    elif mode == "wrap":
        places %= n
    else:
        period = max(2 * (n - 1), 1)
        places = np.abs((places + n - 1) % period - (n - 1)) if n > 1 else places * 0
    return x.take(call.constant(places.astype(np.int64)), axis)


@op("DepthToSpace", since=1)
def depth_to_space(call: Call, x: Sym) -> Sym:
    mode = call.choice("mode", ("DCR", "CRD"), "DCR") if call.opset >= 11 else "DCR"
    b = call.integer("blocksize")
    call.require(
        x.rank == 4 and b > 0 and x.shape[1] % (b * b) == 0, f"{x.type} has no blocks of {b}"
    )
    n, c, h, w = x.shape
    depth = c // (b * b)
    if mode == "DCR":
        y = x.reshape([n, b, b, depth, h, w]).transpose([0, 3, 4, 1, 5, 2])
    else:
        y = x.reshape([n, depth, b, b, h, w]).transpose([0, 1, 4, 2, 5, 3])
    return y.reshape([n, depth, h * b, w * b])


@op("SpaceToDepth", since=1)
def space_to_depth(call: Call, x: Sym) -> Sym:
    mode = call.choice("mode", ("DCR", "CRD"), "DCR") if call.opset >= 28 else "DCR"
    b = call.integer("blocksize")
    fits = x.rank == 4 and b > 0 and x.shape[2] % b == 0 and x.shape[3] % b == 0
    call.require(fits, f"{x.type} has no blocks of {b}")
    n, c, h, w = x.shape
    order = [0, 3, 5, 1, 2, 4] if mode == "DCR" else [0, 1, 3, 5, 2, 4]
    y = x.reshape([n, c, h // b, b, w // b, b]).transpose(order)
    return y.reshape([n, c * b * b, h // b, w // b])


def _product(sizes: Sequence[int]) -> int:
    """Return the product of sizes; named dimensions among them keep their name."""
    total = 1
    for n in sizes:
        total = n if total == 1 and isinstance(n, Dim) else total * n
    return total
