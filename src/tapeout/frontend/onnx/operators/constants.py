"""Operators that make values from nothing but attributes and known numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import f32, i64

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym


@op("Constant", since=1)
def constant(call: Call) -> Sym:
    stated = [
        a
        for a in ("value", "value_float", "value_floats", "value_int", "value_ints")
        if call.has(a)
    ]
    if len(stated) != 1:
        call.fail(f"must have one value, it has {', '.join(stated) or 'none that is supported'}")
    if stated[0] == "value":
        tensor = call.tensor("value")
        assert tensor is not None
        return call.constant(tensor)
    if stated[0] == "value_float":
        return call.constant(call.real("value_float"), f32)
    if stated[0] == "value_floats":
        return call.constant(np.array(call.reals("value_floats"), np.float32))
    if stated[0] == "value_int":
        return call.constant(call.integer("value_int"), i64)
    return call.constant(np.array(call.integers("value_ints"), np.int64))


@op("ConstantOfShape", since=9, note="shape: known at import")
def constant_of_shape(call: Call, shape: Sym) -> Sym:
    sizes = call.numbers(shape, "the shape")
    call.require(all(n >= 0 for n in sizes), f"shape {list(sizes)} has a negative size")
    value = call.tensor("value")
    if value is None:
        value = np.zeros(1, np.float32)
    call.require(value.size == 1, f"the value must have one element, it has {value.size}")
    return call.constant(value.reshape(())).broadcast_to(sizes)


@op("Range", since=11, note="all operands: known at import")
def range_(call: Call, start: Sym, limit: Sym, delta: Sym) -> Sym:
    call.skip("stash_type")
    first, end, step = (
        call.scalar(x, what)
        for x, what in ((start, "the start"), (limit, "the limit"), (delta, "the step"))
    )
    call.require(step != 0, "the step is 0")
    numbers = (first, end, step)
    call.require(all(math.isfinite(n) for n in numbers), f"start, limit and step are {numbers}")
    if start.dtype.is_float:
        count = max(0, math.ceil((end - first) / step))
    else:
        count = max(0, -(-(int(end) - int(first)) // int(step)))
    call.require(count < 1 << 31, f"it would have {count} elements")
    if not start.dtype.is_float:
        return (
            call.iota([count], 0, i64) * int(step) + int(first)
            if start.dtype == i64
            else ((call.iota([count], 0, i64) * int(step) + int(first)).cast(start.dtype))
        )
    return (call.iota([count], 0, i64).cast(start.dtype) * step) + first


@op("EyeLike", since=9)
def eye_like(call: Call, x: Sym) -> Sym:
    call.require(x.rank == 2, f"a matrix is expected, got {x.type}")
    k = call.integer("k", 0)
    dtype = call.dtype("dtype", x.dtype)
    return (call.iota(x.shape, 1) == call.iota(x.shape, 0) + k).cast(dtype)
