"""Sine, cosine and tangent. The argument is reduced exactly: nothing is lost near multiples of pi/2, nor far from 0."""

from __future__ import annotations

import math
from itertools import pairwise

from tapeout.ir.dtype import f32, f64, i64, u64
from tapeout.kernel import coefficients as table
from tapeout.kernel.formula import F32, F64, Formulas, X, horner, where

_SIN = {F32: table.SIN_F32, F64: table.SIN_F64}
_COS = {F32: table.COS_F32, F64: table.COS_F64}
# pi/2 in parts of 33 bits, whose products with a quotient below 2**20 are exact, and a rest.
_PI_2 = tuple(
    float.fromhex(h)
    for h in (
        "0x1.921fb544p+0",
        "0x1.0b4611a6p-34",
        "0x1.3198a2ep-69",
        "0x1.b839a252049c1p-104",
    )
)
_PI_2_HIGH = float.fromhex("0x1.921fb54442d18p+0")
_PI_2_LOW = float.fromhex("0x1.1a62633145c07p-54")
_LARGE = 2.0**20
# Two words of zeros, then 2/pi in words of 32 bits.
_TWO_OVER_PI = (
    0, 0,
    0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB, 0xDEBBC561,
    0xB7246E3A, 0x424DD2E0, 0x06492EEA, 0x09D1921C, 0xFE1DEB1C, 0xB129A73E, 0xE88235F5, 0x2EBB4484,
    0xE99C7026, 0xB45F7E41, 0x3991D639, 0x835339F4, 0x9C845F8B, 0xBDF9283B, 0x1FF897FF, 0xDE05980F,
    0xEF2F118B, 0x5A0A6D1F, 0x6D367ECF, 0x27CB09B7, 0x4F463F66, 0x9E5FEA2D, 0x7527BAC7, 0xEBE5F17B,
    0x3D0739F7, 0x8A5292EA, 0x6BFB5FB1, 0x1F8D5D08, 0x56033046,
)  # fmt: skip
_WINDOW = 7
_WORD = 0xFFFF_FFFF


def sin(m: Formulas, x: X) -> X:
    """The sine; NaN at infinity."""
    q, s, c = _both(m, abs(x))
    size = where((q & 1).differs(0), c, s)
    return m.with_sign(size, m.sign(x) ^ _flip(m, q))


def cos(m: Formulas, x: X) -> X:
    """The cosine; NaN at infinity."""
    q, s, c = _both(m, abs(x))
    return m.with_sign(where((q & 1).differs(0), s, c), _flip(m, q + 1))


def tan(m: Formulas, x: X) -> X:
    """The tangent; NaN at infinity."""
    q, s, c = _both(m, abs(x))
    odd = (q & 1).differs(0)
    return m.with_sign(where(odd, -c, s) / where(odd, s, c), m.sign(x))


def _flip(m: Formulas, q: X) -> X:
    """The sign bit where bit 1 of the quadrant is set."""
    return (q & 2) << (m.format.integer.bits - 2)


def _both(m: Formulas, size: X) -> tuple[X, X, X]:
    """Return the quadrant of |x| and the sine and cosine of what is left."""
    q, high, low = _reduce(m, size)
    if m.format is F32:
        q = q.to(m.format.integer)
        first = high.to(f32)
        low = ((high - first.to(f64)) + low).to(f32)
        high = first
    z = high * high
    half = 0.5 * z
    s = high + (high * z).fma(horner(z, _SIN[m.format]), low - low * half)
    one = 1.0 - half
    tail = (z * z).fma(horner(z, _COS[m.format]), -(high * low))
    c = one + (((1.0 - one) - half) + tail)
    return q, s, c


def _reduce(m: Formulas, size: X) -> tuple[X, X, X]:
    """Return q and r, in two parts, with `|x| = q * pi/2 + r` up to multiples of 2 pi; all in f64."""
    wide = m.to(F64)
    a = wide.name(size.to(f64))
    # Large arguments are computed apart; a 1 in their place keeps the rounding in its range.
    large = a >= _LARGE
    usual = _reduce_usual(wide, where(large, 1.0, a))
    finite = a < math.inf
    q, high, low = wide.rarely(large, usual, lambda: _reduce_large(wide, a))
    return q, where(finite, high, math.nan * a), low


def _reduce_usual(m: Formulas, a: X) -> tuple[X, X, X]:
    """Subtract q * pi/2 part by part, keeping what each subtraction loses."""
    n, q = m.round(a * (2 / math.pi))
    r = a - n * _PI_2[0]
    r, lost = m.two_sum(r, -(n * _PI_2[1]))
    r, lost2 = m.two_sum(r, -(n * _PI_2[2]))
    rest = (lost + lost2) - n * _PI_2[3]
    high = r + rest
    return q, high, (r - high) + rest


def _reduce_large(m: Formulas, a: X) -> tuple[X, X, X]:
    """Multiply the mantissa by the bits of 2/pi that matter (Payne and Hanek): those worth less than 4 in the product."""
    bits = a.bits(i64)
    exponent = ((bits >> 52) & 0x7FF) - 1075
    mantissa = ((bits & (1 << 52) - 1) | 1 << 52).bits(u64)
    product = _times(mantissa, _window((exponent + 62).bits(u64)))
    q = (product[0] >> 30).bits(i64)
    first = (((product[0] << 32) | product[1]) << 2) | (product[2] >> 30)
    second = (product[2] << 34) | (product[3] << 2) | (product[4] >> 30)
    # From half a quadrant on, count down from the next one.
    down = first.bits(i64) >> 63
    fraction = [first ^ down.bits(u64), second ^ down.bits(u64)]
    d = [_whole(w) for f in fraction for w in (f >> 32, f & _WORD)]
    d = [x * 2.0 ** (-32 * (n + 1)) for n, x in enumerate(d)]
    rest = d[1] + (d[2] + d[3])
    high = d[0] + rest
    low = ((d[0] - high) + rest) + ((d[1] - rest) + d[2])
    r, lost = m.two_product(high, a.like(_PI_2_HIGH))
    r_low = lost + (high * _PI_2_LOW + low * _PI_2_HIGH)
    total = r + r_low
    sign = down & F64.bits(-0.0)
    return q - down, m.with_sign(total, sign), m.with_sign((r - total) + r_low, sign)


def _whole(x: X) -> X:
    """A number below 2**32 as a float."""
    return (x | F64.bits(2.0**52)).bits(f64) - 2.0**52


def _window(start: X) -> list[X]:
    """Return 192 bits of 2/pi from bit `start` on, as six words, by halving the table bit by bit of the word number."""
    number, shift = start >> 5, start & 31
    words: list[X] = [start.like(w) for w in _TWO_OVER_PI]
    for bit in range(5, -1, -1):
        step = 1 << bit
        taken = (number & step).differs(0)
        zero = start.like(0)
        after = [*words[step:], *[zero] * step]
        kept = min(len(words), _WINDOW + step - 1)
        words = [where(taken, after[i], words[i]) for i in range(kept)]
    back = 32 - shift
    return [(((a << 32) | b) >> back) & _WORD for a, b in pairwise(words)]


def _times(mantissa: X, words: list[X]) -> list[X]:
    """Return the product, less whole multiples of 2**192, as six words."""
    ml, mh = mantissa & _WORD, mantissa >> 32
    low = [ml * w for w in words]
    high = [mh * w for w in words]
    out: list[X] = []
    carry = mantissa.like(0)
    for p in range(5, -1, -1):
        total = carry + (low[p] & _WORD)
        if p < 5:
            total = total + (low[p + 1] >> 32) + (high[p + 1] & _WORD)
        if p < 4:
            total = total + (high[p + 2] >> 32)
        out.append(total & _WORD)
        carry = total >> 32
    return out[::-1]
