"""Comparisons, logic, bits, choice and conversion."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import bool_
from tapeout.ops.elementwise import IsInf

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym


@op("Equal", since=7)
def equal(call: Call, a: Sym, b: Sym) -> Sym:
    return a == b


@op("Greater", since=7)
def greater(call: Call, a: Sym, b: Sym) -> Sym:
    return a > b


@op("GreaterOrEqual", since=12)
def greater_or_equal(call: Call, a: Sym, b: Sym) -> Sym:
    return a >= b


@op("Less", since=7)
def less(call: Call, a: Sym, b: Sym) -> Sym:
    return a < b


@op("LessOrEqual", since=12)
def less_or_equal(call: Call, a: Sym, b: Sym) -> Sym:
    return a <= b


@op("And", since=7)
@op("BitwiseAnd", since=18)
def and_(call: Call, a: Sym, b: Sym) -> Sym:
    return a & b


@op("Or", since=7)
@op("BitwiseOr", since=18)
def or_(call: Call, a: Sym, b: Sym) -> Sym:
    return a | b


@op("Xor", since=7)
@op("BitwiseXor", since=18)
def xor(call: Call, a: Sym, b: Sym) -> Sym:
    return a ^ b


@op("Not", since=1)
@op("BitwiseNot", since=18)
def not_(call: Call, x: Sym) -> Sym:
    return ~x


@op("BitShift", since=11)
def bit_shift(call: Call, x: Sym, by: Sym) -> Sym:
    direction = call.choice("direction", ("LEFT", "RIGHT"), "")
    return x << by if direction == "LEFT" else x >> by


@op("Where", since=9)
def where(call: Call, condition: Sym, x: Sym, y: Sym) -> Sym:
    return condition.where(x, y)


@op("IsNaN", since=9)
def is_nan(call: Call, x: Sym) -> Sym:
    return x.is_nan()


@op("IsInf", since=10)
def is_infinite(call: Call, x: Sym) -> Sym:
    negative = call.flag("detect_negative", default=True)
    positive = call.flag("detect_positive", default=True)
    if negative and positive:
        return x.unary(IsInf())
    if negative or positive:
        return x == (math.inf if positive else -math.inf)
    return x.zeros_like().cast(bool_)


@op("Cast", since=6)
def cast(call: Call, x: Sym) -> Sym:
    # Both speak of 8-bit floats only.
    call.skip("saturate", "round_mode")
    return x.cast(call.dtype("to"))


@op("CastLike", since=15)
def cast_like(call: Call, x: Sym, like: Sym) -> Sym:
    call.skip("saturate", "round_mode")
    return x.cast(like.dtype)


@op("BitCast", since=26)
def bit_cast(call: Call, x: Sym) -> Sym:
    to = call.dtype("to")
    call.require(to.bits == x.dtype.bits, f"{x.dtype} and {to} have different widths")
    return x.bitcast(to)
