"""Numbers of 8 and 16 bits that stand for floats. The way to them has no gradient; the way back is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.operators.nn import conv
from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import f32, f64, i32, u8
from tapeout.ops import elementwise as ew
from tapeout.ops.composite.resample import repeat

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ir.dtype import DType
    from tapeout.ops.sym import Sym


def _spread(call: Call, table: Sym, x: Sym) -> Sym:
    """Return scales or zero points in the shape of `x`: one for all, one for each place of an axis, or one for each block."""
    if table.rank == 0 or (table.rank == 1 and table.type.size == 1 and x.rank != 1):
        return table.reshape([]).broadcast(x.shape, ())
    axis = call.axis(call.integer("axis", 1), x.rank)
    if table.rank == 1 and not call.integer("block_size", 0):
        call.require(
            table.shape[0] == x.shape[axis], f"{table.type} does not fit axis {axis} of {x.type}"
        )
        return table.broadcast(x.shape, [axis])
    block = call.integer("block_size", 0)
    count = -(-int(x.shape[axis]) // block) if block > 0 else 0
    wanted = [count if d == axis else n for d, n in enumerate(x.shape)]
    fits = list(table.shape) == wanted
    call.require(fits, f"{table.type} does not fit blocks of {block} along axis {axis} of {x.type}")
    whole = repeat(table, {axis: block})
    limits = [min(int(n), int(m)) for n, m in zip(x.shape, whole.shape, strict=True)]
    return whole.slice([0] * x.rank, limits)


@op("QuantizeLinear", since=10)
def quantize(call: Call, x: Sym, scale: Sym, zero_point: Sym | None = None) -> Sym:
    call.skip("axis", "block_size", "saturate")
    stated = call.integer("output_dtype", 0)
    dtype = zero_point.dtype if zero_point is not None else u8
    if stated:
        dtype = call.dtype("output_dtype")
        same = zero_point is None or zero_point.dtype == dtype
        call.require(same, f"output_dtype is {dtype}, the zero point has another type")
    precision = call.dtype("precision") if call.integer("precision", 0) else scale.dtype
    if not precision.is_float:
        precision = f32
    ratio = x.cast(precision) / _spread(call, scale.cast(precision), x)
    zero = None if zero_point is None else _spread(call, zero_point, x)
    return _rounded(ratio, zero, dtype)


def _rounded(ratio: Sym, zero: Sym | None, dtype: DType) -> Sym:
    wide = f64 if ratio.dtype == f64 else f32
    whole = ratio.cast(wide).unary(ew.Round())
    if zero is not None:
        whole = whole + zero.cast(wide)
    limits = np.iinfo(dtype.numpy)
    return whole.clip(float(limits.min), float(limits.max)).cast(dtype)


@op("DequantizeLinear", since=10)
def dequantize(call: Call, x: Sym, scale: Sym, zero_point: Sym | None = None) -> Sym:
    call.skip("axis", "block_size")
    dtype = call.dtype("output_dtype") if call.integer("output_dtype", 0) else scale.dtype
    whole = x.cast(i32)
    if zero_point is not None:
        whole = whole - _spread(call, zero_point.cast(i32), x)
    return whole.cast(dtype) * _spread(call, scale.cast(dtype), x)


@op("DynamicQuantizeLinear", since=11)
def dynamic_quantize(call: Call, x: Sym) -> tuple[Sym, Sym, Sym]:
    most, least = x.max().maximum(0.0), x.min().minimum(0.0)
    span = most - least
    scale = (span == 0).where(1.0, span) / 255.0
    zero = (0.0 - least / scale).clip(0.0, 255.0).unary(ew.Round())
    y = _rounded(x / scale.broadcast(x.shape, ()), zero.broadcast(x.shape, ()), u8)
    return y, scale, zero.cast(u8)


@op("MatMulInteger", since=10)
def matmul_integer(
    call: Call, a: Sym, b: Sym, a_zero: Sym | None = None, b_zero: Sym | None = None
) -> Sym:
    return _centred(a, a_zero, rows=True).matmul(_centred(b, b_zero, rows=False))


def _centred(x: Sym, zero: Sym | None, *, rows: bool) -> Sym:
    """Return whole numbers about 0; a list of zero points has one for each row of the left, or column of the right."""
    whole = x.cast(i32)
    if zero is None:
        return whole
    zero = zero.cast(i32)
    if zero.rank == 1 and zero.type.size > 1 and rows:
        zero = zero.expand_dims([1])
    return whole - (zero.reshape([]) if zero.type.size == 1 else zero)


@op("QLinearMatMul", since=10)
def quantized_matmul(
    call: Call,
    a: Sym,
    a_scale: Sym,
    a_zero: Sym,
    b: Sym,
    b_scale: Sym,
    b_zero: Sym,
    y_scale: Sym,
    y_zero: Sym,
) -> Sym:
    whole = _centred(a, a_zero, rows=True).matmul(_centred(b, b_zero, rows=False))
    left = a_scale.cast(f32)
    if left.rank == 1 and left.type.size > 1:
        left = left.expand_dims([1])
    factor = left * b_scale.cast(f32) / y_scale.cast(f32)
    if factor.type.size == 1:
        factor = factor.reshape([])
    ratio = whole.cast(f32) * factor
    return _rounded(ratio, y_zero.reshape([]).broadcast(ratio.shape, ()), y_zero.dtype)


@op("ConvInteger", since=10, note="1 to 3 spatial dimensions")
def conv_integer(
    call: Call, x: Sym, w: Sym, x_zero: Sym | None = None, w_zero: Sym | None = None
) -> Sym:
    return conv(call, _whole(x, x_zero), _whole(w, w_zero))


def _whole(x: Sym, zero: Sym | None) -> Sym:
    """Return whole numbers about 0, of images or of weights; a list of zero points has one for each output channel."""
    whole = x.cast(i32)
    if zero is None:
        return whole
    zero = zero.cast(i32)
    each = zero.rank == 1 and zero.type.size > 1
    return whole - (zero.broadcast(x.shape, [0]) if each else zero.reshape([]))


@op("QLinearConv", since=10, note="1 to 3 spatial dimensions")
def quantized_conv(
    call: Call,
    x: Sym,
    x_scale: Sym,
    x_zero: Sym,
    w: Sym,
    w_scale: Sym,
    w_zero: Sym,
    y_scale: Sym,
    y_zero: Sym,
    b: Sym | None = None,
) -> Sym:
    total = conv(call, _whole(x, x_zero), _whole(w, w_zero), b)
    factor = x_scale.cast(f32).reshape([]) * w_scale.cast(f32) / y_scale.cast(f32).reshape([])
    each = factor.rank == 1 and factor.type.size > 1
    factor = (
        factor.broadcast(total.shape, [1])
        if each
        else factor.reshape([]).broadcast(total.shape, ())
    )
    ratio = total.cast(f32) * factor
    return _rounded(ratio, y_zero.reshape([]).broadcast(ratio.shape, ()), y_zero.dtype)
