"""Conversions between element types, and the arithmetic on bits that f16 and bf16 need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.codegen.text import Value, constant, register_type, vector
from tapeout.ir.dtype import bf16, bool_, f16, f32, f64, i16, i32, i64, u32

if TYPE_CHECKING:
    from tapeout.codegen.text import Function
    from tapeout.ir.dtype import DType
    from tapeout.kernel.target import Target

_MANTISSA = {"f32": 24, "f64": 53}


def cast(f: Function, target: Target, x: Value, dtype: DType) -> Value:
    """Return `x` converted: to integers truncated and saturated (NaN gives 0), to bool a test for non-zero."""
    source = x.dtype
    if source == dtype:
        return x
    if source == i64 and dtype == i32 and x.steps:
        return _ramp_of_i32(f, x)
    if source in (f16, bf16):
        return cast(f, target, widen(f, target, x), dtype)
    if dtype in (f16, bf16):
        exact = source == bool_ or (source.is_integer and source.bits <= 16)
        return narrow(f, target, cast(f, target, x, f32 if exact or source == f32 else f64), dtype)
    if dtype == bool_:
        test = "fcmp une" if source.is_float else "icmp ne"
        zero = constant(0, source, x.lanes)
        return Value(f.pure(f"{test} {x}, {zero.text}"), bool_, x.lanes)
    if source == bool_:
        one, zero = constant(1, dtype, x.lanes), constant(0, dtype, x.lanes)
        return Value(f.pure(f"select {x}, {one}, {zero}"), dtype, x.lanes)
    if source.is_float and dtype.is_float:
        return _convert(f, "fpext" if dtype == f64 else "fptrunc", x, dtype)
    if source.is_float:
        return _float_to_integer(f, x, dtype)
    if dtype.is_float:
        return _convert(f, "sitofp" if source.kind == "i" else "uitofp", x, dtype)
    return _resize(f, x, dtype)


def _ramp_of_i32(f: Function, x: Value) -> Value:
    """Return indices at known distances as i32, counted from the first one in lanes half as wide."""
    start = Value(f.pure(f"trunc i64 {x.start} to i32"), i32)
    first = f.pure(f"insertelement <{x.lanes} x i32> poison, {start}, i64 0")
    spread = (
        f"<{x.lanes} x i32> {first}, <{x.lanes} x i32> poison, <{x.lanes} x i32> zeroinitializer"
    )
    steps = ", ".join(f"i32 {i}" for i in x.steps)
    text = f.pure(f"add <{x.lanes} x i32> {f.pure(f'shufflevector {spread}')}, <{steps}>")
    return Value(text, i32, x.lanes)


def bitcast(f: Function, x: Value, dtype: DType) -> Value:
    """Return the same bits as another type of the same width."""
    if x.dtype == bool_:
        return _resize(f, x, dtype)
    if dtype == bool_:
        zero = constant(0, x.dtype, x.lanes)
        return Value(f.pure(f"icmp ne {x}, {zero.text}"), bool_, x.lanes)
    if register_type(x.dtype) == register_type(dtype):
        return Value(x.text, dtype, x.lanes)
    return _convert(f, "bitcast", x, dtype)


def widen(f: Function, target: Target, x: Value) -> Value:
    """Return an f16 or bf16 as f32, exactly; other values as they are."""
    if x.dtype not in (f16, bf16):
        return x
    if x.dtype == bf16:
        bits = Value(f.pure(f"zext {x} to {register_type(u32, x.lanes)}"), u32, x.lanes)
        return bitcast(f, _bits(f, "shl", bits, 16), f32)
    if has_half(target):
        half = f.pure(f"bitcast {x} to {vector('half', x.lanes)}")
        return Value(
            f.pure(f"fpext {vector('half', x.lanes)} {half} to {register_type(f32, x.lanes)}"),
            f32,
            x.lanes,
        )
    return _half_to_float(f, x)


def narrow(f: Function, target: Target, x: Value, dtype: DType) -> Value:
    """Return an f32 or f64 as f16 or bf16, rounded once, half to even."""
    if x.dtype == f64:
        x = _round_to_odd(f, x)
    if dtype == bf16 and target.pairs:
        # One instruction; it takes subnormal numbers for zero.
        half = f.pure(f"fptrunc {x} to {vector('bfloat', x.lanes)}")
        bits = f.pure(
            f"bitcast {vector('bfloat', x.lanes)} {half} to {register_type(bf16, x.lanes)}"
        )
        return Value(bits, bf16, x.lanes)
    if dtype == bf16:
        return _float_to_bf16(f, x)
    if has_half(target):
        half = f.pure(f"fptrunc {x} to {vector('half', x.lanes)}")
        bits = f.pure(f"bitcast {vector('half', x.lanes)} {half} to {register_type(f16, x.lanes)}")
        return Value(bits, f16, x.lanes)
    return _float_to_half(f, x)


def has_half(target: Target) -> bool:
    """Whether conversions of f16 are instructions (F16C comes with AVX2); else bits do it."""
    return target.name in ("avx2", "avx512", "avx512-bf16")


def _convert(f: Function, name: str, x: Value, dtype: DType) -> Value:
    text = f.pure(f"{name} {x} to {register_type(dtype, x.lanes)}")
    return Value(text, dtype, x.lanes)


def _resize(f: Function, x: Value, dtype: DType) -> Value:
    have, want = (1 if d == bool_ else d.bits for d in (x.dtype, dtype))
    if have == want:
        return Value(x.text, dtype, x.lanes)
    if x.number is not None and have < want:
        return constant(x.number, dtype)
    name = "trunc" if want < have else "sext" if x.dtype.kind == "i" else "zext"
    return _convert(f, name, x, dtype)


def _float_to_integer(f: Function, x: Value, dtype: DType) -> Value:
    """Clamp, then convert: `llvm.fptosi.sat` would go lane by lane."""
    signed = dtype.kind == "i"
    bits = dtype.bits - signed
    digits = _MANTISSA[x.dtype.name]
    exact = bits <= digits
    least = constant(-(2.0**bits) if signed else 0, x.dtype, x.lanes)
    most = constant(2.0**bits - (1 if exact else 2.0 ** (bits - digits)), x.dtype, x.lanes)
    above = f.pure(f"fcmp ogt {x}, {least.text}")
    mask = vector("i1", x.lanes)
    low = Value(f.pure(f"select {mask} {above}, {x}, {least}"), x.dtype, x.lanes)
    below = f.pure(f"fcmp olt {low}, {most.text}")
    clamped = Value(f.pure(f"select {mask} {below}, {low}, {most}"), x.dtype, x.lanes)
    wide = i32 if dtype.bits < 32 else dtype
    out = _resize(f, _convert(f, "fptosi" if wide.kind == "i" else "fptoui", clamped, wide), dtype)
    if not exact:
        top = constant(2**bits - 1, dtype, x.lanes)
        over = f.pure(f"fcmp oge {x}, {constant(2.0**bits, x.dtype, x.lanes).text}")
        out = Value(f.pure(f"select {mask} {over}, {top}, {out}"), dtype, x.lanes)
    is_nan = f.pure(f"fcmp uno {x}, {x.text}")
    zero = constant(0, dtype, x.lanes)
    return Value(f.pure(f"select {mask} {is_nan}, {zero}, {out}"), dtype, x.lanes)


# --- bits of narrow floats ---------------------------------------------------------------------------


def _bits(f: Function, op: str, x: Value, y: Value | int) -> Value:
    other = y if isinstance(y, Value) else constant(y, x.dtype, x.lanes)
    return Value(f.pure(f"{op} {x}, {other.text}"), x.dtype, x.lanes)


def _choose(f: Function, test: str, x: Value, y: int, if_true: Value, if_false: Value) -> Value:
    """`x test y ? if_true : if_false`."""
    holds = f.pure(f"{test} {x}, {constant(y, x.dtype, x.lanes).text}")
    text = f.pure(f"select {vector('i1', x.lanes)} {holds}, {if_true}, {if_false}")
    return Value(text, if_true.dtype, x.lanes)


def _low_half(f: Function, x: Value, dtype: DType) -> Value:
    text = f.pure(f"trunc {x} to {register_type(i16, x.lanes)}")
    return Value(text, dtype, x.lanes)


def _float_to_bf16(f: Function, x: Value) -> Value:
    """Round by adding below the last bit kept; a NaN becomes all ones, which the sum could have made a number."""
    bits = bitcast(f, x, u32)
    odd = _bits(f, "and", _bits(f, "lshr", bits, 16), 1)
    rounded = _bits(f, "add", _bits(f, "add", bits, 0x7FFF), odd)
    is_nan = f.pure(f"fcmp uno {x}, {x.text}")
    ones = f.pure(f"sext {vector('i1', x.lanes)} {is_nan} to {register_type(u32, x.lanes)}")
    out = _bits(f, "or", rounded, Value(ones, u32, x.lanes))
    return _low_half(f, _bits(f, "lshr", out, 16), bf16)


def _half_to_float(f: Function, x: Value) -> Value:
    """Place the bits as those of an f32 and multiply by 2**112, which is exact for denormals too."""
    wide = Value(f.pure(f"zext {x} to {register_type(u32, x.lanes)}"), u32, x.lanes)
    sign = _bits(f, "shl", _bits(f, "and", wide, 0x8000), 16)
    size = _bits(f, "and", wide, 0x7FFF)
    moved = _bits(f, "shl", size, 13)
    scale = constant(2.0**112, f32, x.lanes)
    scaled = Value(f.pure(f"fmul {bitcast(f, moved, f32)}, {scale.text}"), f32, x.lanes)
    special = _bits(f, "or", moved, 0x7F80_0000)
    out = _choose(f, "icmp uge", size, 0x7C00, special, bitcast(f, scaled, u32))
    return bitcast(f, _bits(f, "or", out, sign), f32)


def _float_to_half(f: Function, x: Value) -> Value:
    """Round by adding below the last bit kept; denormals by adding a float that aligns them."""
    bits = bitcast(f, x, u32)
    size = _bits(f, "and", bits, 0x7FFF_FFFF)
    sign = _bits(f, "and", _bits(f, "lshr", bits, 16), 0x8000)
    odd = _bits(f, "and", _bits(f, "lshr", size, 13), 1)
    rounded = _bits(f, "add", _bits(f, "add", size, ((15 - 127) << 23) + 0xFFF & 0xFFFF_FFFF), odd)
    normal = _bits(f, "lshr", rounded, 13)
    magic = constant(0.5, f32, x.lanes)
    aligned = Value(f.pure(f"fadd {bitcast(f, size, f32)}, {magic.text}"), f32, x.lanes)
    denormal = _bits(f, "sub", bitcast(f, aligned, u32), 126 << 23)
    out = _choose(f, "icmp ult", size, 113 << 23, denormal, normal)
    out = _choose(f, "icmp uge", size, 143 << 23, constant(0x7C00, u32, x.lanes), out)
    out = _choose(f, "icmp ugt", size, 0x7F80_0000, constant(0x7E00, u32, x.lanes), out)
    return _low_half(f, _bits(f, "or", out, sign), f16)


def _round_to_odd(f: Function, x: Value) -> Value:
    """Return an f64 as the f32 that rounds to every narrower type as the f64 itself would.

    Truncates, and makes the last bit 1 where anything was lost, so that a second rounding never sees a false tie.
    """
    nearest = _convert(f, "fptrunc", x, f32)
    back = _convert(f, "fpext", nearest, f64)
    mask = vector("i1", x.lanes)
    word = register_type(u32, x.lanes)
    sizes = [f.pure(f"call {v.type} @llvm.fabs.{_suffix(v)}({v})") for v in (back, x)]
    grew = f.pure(f"fcmp ogt {x.type} {sizes[0]}, {sizes[1]}")
    lost = f.pure(f"fcmp une {back}, {x.text}")
    less = Value(f.pure(f"zext {mask} {grew} to {word}"), u32, x.lanes)
    sticky = Value(f.pure(f"zext {mask} {lost} to {word}"), u32, x.lanes)
    return bitcast(f, _bits(f, "or", _bits(f, "sub", bitcast(f, nearest, u32), less), sticky), f32)


def _suffix(x: Value) -> str:
    return "f64" if x.lanes == 1 else f"v{x.lanes}f64"
