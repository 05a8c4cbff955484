"""Operators that put elements elsewhere: sequences turned round, blocks put together, caches written, parts that are chosen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import f32, i64
from tapeout.ops import movement as mv
from tapeout.ops.composite.index import scatter_along

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.frontend.onnx.call import Call
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym


@op("ReverseSequence", since=10)
def reverse_sequence(call: Call, x: Sym, lengths: Sym) -> Sym:
    batch, time = call.integer("batch_axis", 1), call.integer("time_axis", 0)
    call.require({batch, time} == {0, 1} and x.rank >= 2, f"axes {batch} and {time} of {x.type}")
    rows, steps = x.shape[batch], x.shape[time]
    fits = lengths.shape == (rows,) and lengths.dtype.is_integer
    call.require(fits, f"the lengths are {lengths.type}, the operand {x.type}")
    shape = x.shape[:2]
    at = call.iota(shape, time)
    length = lengths.cast(i64).broadcast(shape, [batch])
    turned = (at < length).where(length - 1 - at, at)
    row = call.iota(shape, batch)
    number = turned * int(rows) + row if time == 0 else row * int(steps) + turned
    flat = x.reshape([int(shape[0]) * int(shape[1]), *x.shape[2:]])
    return flat.take(number, 0)


@op("CenterCropPad", since=18, note="shape: known at import")
def center_crop_pad(call: Call, x: Sym, shape: Sym) -> Sym:
    given = call.integers("axes")
    axes = list(range(x.rank)) if given is None else [call.axis(a, x.rank) for a in given]
    sizes = call.numbers(shape, "the shape")
    fits = len(sizes) == len(axes) == len(set(axes)) and all(n >= 0 for n in sizes)
    call.require(fits, f"sizes {list(map(int, sizes))} for axes {axes}")
    low, high = [0] * x.rank, [0] * x.rank
    for a, n in zip(axes, sizes, strict=True):
        more = int(n) - int(x.shape[a])
        low[a] = more // 2 if more > 0 else -(-more // 2)
        high[a] = more - low[a]
    return x.pad(low, high) if any(low) or any(high) else x


@op("TensorScatter", since=24)
def tensor_scatter(call: Call, cache: Sym, update: Sym, write: Sym | None = None) -> Sym:
    axis = call.axis(call.integer("axis", -2), cache.rank)
    circular = call.choice("mode", ("linear", "circular"), "linear") == "circular"
    off_axis = all(
        m == n for d, (m, n) in enumerate(zip(update.shape, cache.shape, strict=False)) if d != axis
    )
    fits = axis > 0 and update.rank == cache.rank and off_axis
    call.require(fits, f"the update {update.type} does not fit {cache.type} along axis {axis}")
    at = call.iota(update.shape, axis)
    if write is not None:
        call.require(write.shape == cache.shape[:1], f"the write indices are {write.type}")
        at = at + write.cast(i64).broadcast(update.shape, [0])
    if circular:
        at = at.floor_mod(int(cache.shape[axis]))
    return scatter_along(cache, at, update, axis)


@op("Col2Im", since=18, note="image_shape, block_shape: known at import")
def column_to_image(call: Call, x: Sym, image_shape: Sym, block_shape: Sym) -> Sym:
    image = tuple(map(int, call.numbers(image_shape, "the shape of the image")))
    block = tuple(map(int, call.numbers(block_shape, "the shape of a block")))
    n = len(image)
    strides, dilations = (_per_axis(call, name, (1,) * n, 1) for name in ("strides", "dilations"))
    pads = _per_axis(call, "pads", (0,) * (2 * n), 0)
    call.require(len(block) == n > 0 and min(*block, *image) > 0, f"blocks {block} of {image}")
    each = math.prod(block)
    call.require(x.rank == 3 and x.shape[1] % each == 0, f"{x.type} has no blocks of {list(block)}")
    axes = tuple(range(2, 2 + n))
    windows = mv.Windows(axes, block, strides, dilations, pads[:n], pads[n:])
    shape = (x.shape[0], x.shape[1] // each, *image)
    counted = windows.counted(shape)
    counts = counted[2 : 2 + n]
    call.require(
        math.prod(counts) == x.shape[2], f"{x.type} does not hold the {math.prod(counts)} blocks"
    )
    parts = x.reshape([*shape[:2], *block, *counts])
    order = [0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n)]
    return mv.fold(parts.transpose(order), windows, shape)


def _per_axis(call: Call, name: str, default: tuple[int, ...], least: int) -> tuple[int, ...]:
    found = call.integers(name)
    if found is None:
        return default
    fits = len(found) == len(default) and all(least <= n < 1 << 31 for n in found)
    call.require(fits, f"attribute {name!r} is {list(found)} for {len(default)} numbers")
    return found


@op("Compress", since=9, note="condition: known at import")
def compress(call: Call, x: Sym, condition: Sym) -> Sym:
    chosen = np.flatnonzero(call.value(condition, "the condition"))
    flat = not call.has("axis")
    axis = call.axis(call.integer("axis", 0), max(x.rank, 1))
    x = x.reshape([x.type.size]) if flat else x
    axis = 0 if flat else axis
    call.require(
        not chosen.size or chosen[-1] < x.shape[axis],
        f"the condition is longer than axis {axis} of {x.type}",
    )
    return x.take(call.constant(chosen.astype(np.int64)), axis)


@op("NonZero", since=9, note="the operand: known at import")
def non_zero(call: Call, x: Sym) -> Sym:
    # Of a scalar there is no axis to count along: one place, of rank 1, as numpy once had it.
    found = np.nonzero(np.atleast_1d(call.value(x, "what is not zero")))
    return call.constant(np.array(found[: max(x.rank, 1)], np.int64))


@op("Unique", since=11, note="the operand: known at import")
def unique(call: Call, x: Sym) -> tuple[Sym, Sym, Sym, Sym]:
    array = call.value(x, "the operand of Unique")
    axis = call.axis(call.integer("axis"), x.rank) if call.has("axis") else None
    found = np.unique(array, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    values, first, inverse, counts = found[0], found[1], found[2].ravel(), found[3]
    if not call.flag("sorted", default=True):
        values, first, inverse, counts = _by_first(values, first, inverse, counts, axis or 0)
    at, back, count = (call.constant(a.astype(np.int64)) for a in (first, inverse, counts))
    return call.constant(values), at, back, count


def _by_first(
    values: Array, first: Array, inverse: Array, counts: Array, axis: int
) -> tuple[Array, Array, Array, Array]:
    """Return what is unique in the order in which it is met."""
    order = np.argsort(first, kind="stable")
    place = np.argsort(order, kind="stable")
    return np.take(values, order, axis), first[order], place[inverse], counts[order]


def windows_of(call: Call, size: Sym, terms: Sequence[float]) -> Sym:
    """Return a sum of cosines over one period, as windows of signals are."""
    n = int(call.scalar(size, "the size"))
    call.require(0 <= n <= 1 << 24, f"the size is {n}")
    periodic = call.flag("periodic", default=True)
    angle = 2 * np.pi * np.arange(n) / max(n if periodic else n - 1, 1)
    made = sum(c * np.cos(k * angle) for k, c in enumerate(terms))
    return call.constant(np.asarray(made, np.float64)).cast(call.dtype("output_datatype", f32))


@op("HannWindow", since=17, note="size: known at import")
def hann_window(call: Call, size: Sym) -> Sym:
    return windows_of(call, size, (0.5, -0.5))


@op("HammingWindow", since=17, note="size: known at import")
def hamming_window(call: Call, size: Sym) -> Sym:
    return windows_of(call, size, (25 / 46, -21 / 46))


@op("BlackmanWindow", since=17, note="size: known at import")
def blackman_window(call: Call, size: Sym) -> Sym:
    return windows_of(call, size, (0.42, -0.5, 0.08))
