"""Pooling: windows that slide, and what is made of each."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.operators.nn import Sliding, sliding
from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import i64
from tapeout.ops.composite.index import scatter_rows
from tapeout.ops.composite.pool import MaxPool
from tapeout.ops.composite.pool import global_max_pool as greatest_of_all

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym


def _summed(x: Sym, s: Sliding) -> Sym:
    """Return the sum of each window over the spatial dimensions."""
    axes = range(2, 2 + len(s.kernel))
    w = x.windows(axes, s.kernel, s.strides, s.dilations, s.low, s.reach)
    return w.sum(range(x.rank, w.rank))


def _sliding(call: Call, x: Sym) -> Sliding:
    kernel = call.integers("kernel_shape")
    if kernel is None:
        call.fail("attribute 'kernel_shape' is missing")
    call.require(x.rank >= 3, f"a batch of images is expected, got {x.type}")
    fits = len(kernel) == x.rank - 2 and all(0 < k < 1 << 31 for k in kernel)
    call.require(fits, f"kernel_shape {list(kernel)} does not fit {x.type}")
    return sliding(call, x.shape[2:], kernel)


@op("MaxPool", since=1)
def max_pool(call: Call, x: Sym) -> tuple[Sym, Sym | None]:
    s = _sliding(call, x)
    columns = call.flag("storage_order")
    made = MaxPool(
        kernel=s.kernel, strides=s.strides, low=s.low, high=s.reach, dilations=s.dilations
    )
    greatest, number = x.emit_all(made, x)
    if len(call.outputs) < 2 or not call.outputs[1]:
        return greatest, None
    return greatest, _places(call, x, number.cast(i64), s, columns)


def _places(call: Call, x: Sym, number: Sym, s: Sliding, columns: bool) -> Sym:
    """Return where the greatest elements stand in the whole operand, from their number in the window."""
    spatial = range(2, x.rank)
    sizes = dict(zip(spatial, map(int, x.shape[2:]), strict=True))
    within = {}
    for axis in reversed(spatial):
        k = s.kernel[axis - 2]
        within[axis], number = number.floor_mod(k), number / k
    place = call.iota(number.shape, 0) * int(x.shape[1]) + call.iota(number.shape, 1)
    image = None
    for axis in reversed(spatial) if columns else spatial:
        i = axis - 2
        at = call.iota(number.shape, axis) * s.strides[i] + within[axis] * s.dilations[i] - s.low[i]
        image = at if image is None else image * sizes[axis] + at
    assert image is not None
    return place * math.prod(sizes.values()) + image


@op("GlobalMaxPool", since=1)
def global_max_pool(call: Call, x: Sym) -> Sym:
    call.require(x.rank >= 3, f"a batch of images is expected, got {x.type}")
    return greatest_of_all(x)


@op("AveragePool", since=1)
def average_pool(call: Call, x: Sym) -> Sym:
    s = _sliding(call, x)
    whole = call.flag("count_include_pad")
    total = _summed(x, s)
    counts = [_taps(call, s, axis, int(n), whole) for axis, n in enumerate(x.shape[2:])]
    if all((c == c[0]).all() for c in counts):
        return total / math.prod(int(c[0]) for c in counts)
    call.require(math.prod(c.size for c in counts) <= 1 << 24, f"{total.type} is too large")
    table = functools.reduce(np.multiply.outer, counts)
    return total / call.constant(table.astype(x.dtype.numpy))


def _taps(call: Call, s: Sliding, axis: int, size: int, whole: bool) -> Array:
    """Return how many elements each window along an axis counts: those of the operand, or with padding."""
    stride, step = s.strides[axis], s.dilations[axis]
    span = (s.kernel[axis] - 1) * step + 1
    count = (size + s.low[axis] + s.high[axis] + s.extra[axis] - span) // stride + 1
    call.require(count <= 1 << 24, f"{count} windows along an axis are too many")
    starts = np.arange(count) * stride - s.low[axis]
    first, end = (-s.low[axis], size + s.high[axis]) if whole else (0, size)
    # Tap k stands at starts + k * step; count those with first <= place < end.
    below = np.maximum(-((starts - first) // step), 0)
    above = np.minimum(-((starts - end) // step), s.kernel[axis])
    return np.asarray(np.maximum(above - below, 1))


@op("GlobalAveragePool", since=1)
def global_average_pool(call: Call, x: Sym) -> Sym:
    call.require(x.rank >= 3, f"a batch of images is expected, got {x.type}")
    return x.mean(range(2, x.rank), keepdims=True)


@op("LpPool", since=2)
def lp_pool(call: Call, x: Sym) -> Sym:
    p = _power(call)
    return _root(_summed(x.abs() ** p, _sliding(call, x)), p)


@op("GlobalLpPool", since=2)
def global_lp_pool(call: Call, x: Sym) -> Sym:
    call.require(x.rank >= 3, f"a batch of images is expected, got {x.type}")
    p = _power(call)
    return _root((x.abs() ** p).sum(range(2, x.rank), keepdims=True), p)


def _power(call: Call) -> int:
    p = call.integer("p", 2)
    call.require(p > 0, f"p is {p}")
    return p


def _root(total: Sym, p: int) -> Sym:
    """Return the p-th root; its gradient at 0 is 0."""
    if p == 1:
        return total
    zero = total == 0
    inside = zero.where(total.like(1), total)
    return zero.where(0, inside.sqrt() if p == 2 else inside ** (1.0 / p))


@op("MaxUnpool", since=9, note="output_shape: known at import")
def max_unpool(call: Call, x: Sym, places: Sym, output_shape: Sym | None = None) -> Sym:
    call.require(x.rank >= 3, f"a batch of images is expected, got {x.type}")
    call.require(places.shape == x.shape, f"the places are {places.type}, the operand {x.type}")
    n = x.rank - 2
    kernel = _listed(call, "kernel_shape", None, n)
    strides = _listed(call, "strides", (1,) * n, n)
    pads = _listed(call, "pads", (0,) * (2 * n), 2 * n)
    inferred = [
        (int(m) - 1) * strides[i] + kernel[i] - pads[i] - pads[n + i]
        for i, m in enumerate(x.shape[2:])
    ]
    whole = [*x.shape[:2], *inferred]
    call.require(min(inferred) > 0, f"the result would have the sizes {inferred}")
    empty = x.constant(0, x.dtype).broadcast([math.prod(map(int, whole))], ())
    at, values = (v.reshape([x.type.size]) for v in (places, x))
    y = scatter_rows(empty, at, values, 0).reshape(whole)
    if output_shape is None:
        return y
    wanted = call.numbers(output_shape, "the shape of the result")
    fits = len(wanted) == x.rank and all(m >= k for m, k in zip(wanted, whole, strict=True))
    call.require(
        fits,
        f"output_shape is {list(map(int, wanted))}, at least {list(map(int, whole))} is expected",
    )
    return y.pad([0] * x.rank, [int(m) - int(k) for m, k in zip(wanted, whole, strict=True)])


def _listed(call: Call, name: str, default: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    found = call.integers(name) or default
    if found is None:
        call.fail(f"attribute {name!r} is missing")
    call.require(len(found) == count, f"attribute {name!r} is {list(found)}, {count} are expected")
    return found
