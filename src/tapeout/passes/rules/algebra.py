"""Elementwise algebra. Every rule gives the same bits for every number, infinities and signed zeros included.

What is left out, and why: `x + 0.0` (it turns -0.0 into 0.0), `x * 0.0` and `x - x` of floats (NaN and infinity),
`(x * a) * b` (two roundings), `not (x < y)` of floats (NaN), `x == x` (NaN).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.ir.rewrite import match, rule
from tapeout.ops import elementwise as ew
from tapeout.passes.constants import splat_of
from tapeout.passes.rules.patterns import (
    FALSE,
    INT_ZERO,
    MINUS_ONE,
    MINUS_ZERO,
    ONE,
    POWER_OF_TWO,
    TRUE,
    TWO,
    ZERO,
    P,
    Q,
    X,
    Y,
    Z,
    number,
)

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType
    from tapeout.ops.sym import Sym

add, sub = match(ew.Add, swaps=True), match(ew.Sub)
mul, div = match(ew.Mul, swaps=True), match(ew.Div)
neg, power = match(ew.Neg), match(ew.Pow)
maximum, minimum = match(ew.Max, swaps=True), match(ew.Min, swaps=True)
both, either, differ = (
    match(ew.And, swaps=True),
    match(ew.Or, swaps=True),
    match(ew.Xor, swaps=True),
)
negate, select, cast, bitcast = match(ew.Not), match(ew.Select), match(ew.Cast), match(ew.Bitcast)
equal, not_equal = match(ew.Equal), match(ew.NotEqual)
absolute, relu, clip = match(ew.Abs), match(ew.Relu), match(ew.Clip)
floor, ceil, rounded = match(ew.Floor), match(ew.Ceil), match(ew.Round)


def _reciprocal(x: Sym, c: Sym) -> Sym | None:
    number = splat_of(c.value)
    return None if number is None else x * x.like(1.0 / number)


def embeds(narrow: DType, wide: DType) -> bool:
    """Return whether every number of one type is a number of the other."""
    if narrow == wide or narrow.kind == "b":
        return True
    if wide.kind == "b":
        return False
    mantissa = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}
    if narrow.is_float:
        return wide.is_float and wide.bits > narrow.bits
    if wide.is_float:
        # f16 ends at 65504: its 11 bits of mantissa bound what fits anyway.
        return narrow.bits - (narrow.kind == "i") <= mantissa[wide.name]
    if narrow.kind == wide.kind:
        return wide.bits > narrow.bits
    return wide.kind == "i" and wide.bits > narrow.bits


def _cast_twice(x: Sym, p: DType, q: DType) -> Sym | None:
    """`x` as `p`, then as `q`: once is enough if `p` holds every number of `x`."""
    if not embeds(x.dtype, p):
        return None
    # An integer that goes to a narrower one wraps, but saturates on the way through a float.
    if x.dtype.is_integer and p.is_float and q.is_integer:
        return None
    return x.cast(q)


def _open(x: Sym, p: float, q: float) -> Sym | None:
    return x if x.dtype.is_float and p == -math.inf and q == math.inf else None


ALGEBRA = (
    # Neutral elements.
    rule("mul-one", mul(X, ONE), lambda x: x),
    rule("div-one", div(X, ONE), lambda x: x),
    rule("add-minus-zero", add(X, MINUS_ZERO), lambda x: x),
    rule("add-zero-integer", add(X, INT_ZERO), lambda x: x),
    rule("sub-zero", sub(X, ZERO), lambda x: x),
    rule("pow-one", power(X, ONE), lambda x: x),
    rule("pow-zero", power(X, ZERO), lambda x: x.like(1)),
    rule("pow-two", power(X, TWO), lambda x: x * x),
    rule("max-least", maximum(X, number(-math.inf, "f")), lambda x: x),
    rule("min-greatest", minimum(X, number(math.inf, "f")), lambda x: x),
    rule("clip-open", clip(X, low=P, high=Q), _open),
    # Signs.
    rule("neg-twice", neg(neg(X)), lambda x: x),
    rule("mul-minus-one", mul(X, MINUS_ONE), lambda x: -x),
    rule("mul-neg-neg", mul(neg(X), neg(Y)), lambda x, y: x * y),
    rule("div-neg-neg", div(neg(X), neg(Y)), lambda x, y: x / y if x.dtype.is_float else None),
    rule("add-neg", add(X, neg(Y)), lambda x, y: x - y),
    rule("sub-neg", sub(X, neg(Y)), lambda x, y: x + y),
    rule("sub-from-minus-zero", sub(MINUS_ZERO, X), lambda x: -x),
    rule("abs-neg", absolute(neg(X)), lambda x: x.abs() if x.dtype.is_float else None),
    # Both sides are the rounded quotient: a power of two only moves the exponent.
    rule("div-power-of-two", div(X, POWER_OF_TWO), _reciprocal),
    # Integers.
    rule("mul-zero-integer", mul(X, INT_ZERO), lambda x: x.zeros_like()),
    rule("sub-self-integer", sub(X, X), lambda x: x.zeros_like() if x.dtype.is_integer else None),
    # Twice is once.
    rule("max-self", maximum(X, X), lambda x: x),
    rule("min-self", minimum(X, X), lambda x: x),
    rule("abs-abs", absolute(absolute(X)), lambda x: x.abs()),
    rule("relu-relu", relu(relu(X)), lambda x: x.relu()),
    rule("floor-floor", floor(floor(X)), lambda x: x.floor()),
    rule("ceil-ceil", ceil(ceil(X)), lambda x: x.unary(ew.Ceil())),
    rule("round-round", rounded(rounded(X)), lambda x: x.unary(ew.Round())),
    # Bools.
    rule("and-self", both(X, X), lambda x: x),
    rule("or-self", either(X, X), lambda x: x),
    rule("and-true", both(X, TRUE), lambda x: x),
    rule("and-false", both(X, FALSE), lambda x: x.like(False)),
    rule("or-false", either(X, FALSE), lambda x: x),
    rule("or-true", either(X, TRUE), lambda x: x.like(True)),
    rule("xor-false", differ(X, FALSE), lambda x: x),
    rule("xor-true", differ(X, TRUE), lambda x: ~x),
    rule("not-twice", negate(negate(X)), lambda x: x),
    rule("not-equal", negate(equal(X, Y)), lambda x, y: x != y),
    rule("not-not-equal", negate(not_equal(X, Y)), lambda x, y: x == y),
    # Choices.
    rule("select-true", select(TRUE, X, Y), lambda x: x),
    rule("select-false", select(FALSE, X, Y), lambda y: y),
    rule("select-same", select(Z, X, X), lambda x: x),
    rule("select-not", select(negate(Z), X, Y), lambda z, x, y: z.where(y, x)),
    # Conversions.
    rule("cast-same", cast(X, dtype=P), lambda x, p: x if x.dtype == p else None),
    rule("cast-twice", cast(cast(X, dtype=P), dtype=Q), _cast_twice),
    rule("bitcast-same", bitcast(X, dtype=P), lambda x, p: x if x.dtype == p else None),
    rule("bitcast-twice", bitcast(bitcast(X), dtype=P), lambda x, p: x.bitcast(p)),
)
"""Tried from top to bottom at each operation."""
