"""Functions of floats as formulas of basic operations, for f32 and f64 alike.

Each handles all of its format: denormals, infinities, NaN, and the sign of zero. `kernel.math` states and tests how far each
is from the true value. The polynomials are fitted by tools/minimax.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.ir.dtype import f32
from tapeout.kernel import coefficients as table
from tapeout.kernel.formula import F32, F64, Format, Formulas, X, horner, where
from tapeout.kernel.trigonometry import cos, sin, tan

if TYPE_CHECKING:
    from collections.abc import Callable

INF = math.inf
# ln 2 in two parts; the first has so few digits that its product with an exponent is exact.
_LN2 = {
    F32: (float.fromhex("0x1.62e4p-1"), float.fromhex("0x1.7f7d1cp-20")),
    F64: (float.fromhex("0x1.62e42fefa38p-1"), float.fromhex("0x1.ef35793c7673p-45")),
}
_EXP = {F32: table.EXP_F32, F64: table.EXP_F64}
_LOG = {F32: table.LOG_F32, F64: table.LOG_F64}
_TANH = {F32: table.TANH_F32, F64: table.TANH_F64}
_ERF = {F32: table.ERF_F32, F64: table.ERF_F64}
_LOG_ERFC = {F32: table.LOG_ERFC_F32, F64: table.LOG_ERFC_F64}
_ASIN = {F32: table.ASIN_F32, F64: table.ASIN_F64}
_ATAN = {F32: table.ATAN_F32, F64: table.ATAN_F64}
_PI_2 = {
    F32: (float.fromhex("0x1.921fb6p+0"), float.fromhex("-0x1.777a5cp-25")),
    F64: (float.fromhex("0x1.921fb54442d18p+0"), float.fromhex("0x1.1a62633145c07p-54")),
}
# exp overflows above the second and is 0 below the first.
_EXP_RANGE = {F32: (-104.0, 89.0), F64: (-746.0, 710.0)}
# Below it exp(x) - 1 rounds to -1; above it adding or subtracting 1 changes nothing.
_ONE_IS_NOTHING = {F32: 18.0, F64: 40.0}


# --- exponentials --------------------------------------------------------------------------------


def _exp_reduce(m: Formulas, x: X) -> tuple[X, X, X]:
    """Return r, t and k with `exp(x) = (1 + r + t) * 2**k`; |r| <= ln(2)/2, and t of the order of r * r."""
    high, low = _LN2[m.format]
    n, k = m.round(x * (1 / math.log(2)))
    r = n.fma(-low, n.fma(-high, x))
    return r, r * r * horner(r, _EXP[m.format]), k


def _one_and(r: X, t: X) -> X:
    """Return `1 + r + t` with what the sum 1 + r loses, so that little more than the last rounding is left."""
    total = 1.0 + r
    return total + ((r - (total - 1.0)) + t)


def _clamp(x: X, low: float, high: float) -> X:
    """Limit x; NaN stays."""
    return x.apply("max", low).apply("min", high)


def exp(m: Formulas, x: X) -> X:
    """`e**x`. What is 0 is not computed: results that vanish cost a processor many cycles, and masks make many of them."""
    low, high = _EXP_RANGE[m.format]
    gone = x < low
    r, t, k = _exp_reduce(m, where(gone, 0.0, x).apply("min", high))
    return where(gone, 0.0, m.scale(_one_and(r, t), k))


def _exp_bounded(m: Formulas, x: X) -> X:
    """`e**x` where the result is a normal number."""
    r, t, k = _exp_reduce(m, x)
    return (1.0 + (r + t)) * m.power_of_two(k)


def expm1(m: Formulas, x: X) -> X:
    """`e**x - 1` as `(r + t + (1 - 2**-k)) * 2**k`, where 1 - 2**-k is exact."""
    r, t, k = _exp_reduce(m, _clamp(x, -_ONE_IS_NOTHING[m.format], _EXP_RANGE[m.format][1]))
    rest = 1.0 - m.power_of_two(-k.apply("min", 100))
    return where(x.equals(0.0), x, m.scale((r + t) + rest, k))


def sigmoid(m: Formulas, x: X) -> X:
    """`1 / (1 + e**-x)`, from the power that cannot overflow; what the sum 1 + e loses is put right at the end."""
    e = exp(m, -abs(x))
    total = 1.0 + e
    lost = e - (total - 1.0)
    y = where(x < 0.0, e, 1.0) / total
    return y - y * (lost * where(x < 0.0, 1.0 - y, y))


def tanh(m: Formulas, x: X) -> X:
    """A polynomial up to 0.625; `1 - 2 / (e**2x + 1)` beyond."""
    size = abs(x)
    twice = _clamp(size + size, 0.0, 2 * _ONE_IS_NOTHING[m.format])
    large = 1.0 - 2.0 / (_exp_bounded(m, twice) + 1.0)
    z = size * size
    small = (size * z).fma(horner(z, _TANH[m.format]), size)
    return m.with_sign(where(size < 0.625, small, large), m.sign(x))


def _half_exp(m: Formulas, size: X) -> X:
    """`e**x / 2` for x >= 0, which overflows only where cosh does."""
    r, t, k = _exp_reduce(m, _clamp(size, 0.0, _EXP_RANGE[m.format][1] + 1.0))
    return m.scale(_one_and(r, t), k - 1)


def sinh(m: Formulas, x: X) -> X:
    """`(t + t / (t + 1)) / 2` with t = e**|x| - 1; half of e**|x| where the rest is nothing."""
    size = abs(x)
    limit = _ONE_IS_NOTHING[m.format]
    t = expm1(m, _clamp(size, 0.0, limit))
    near = (t + t / (t + 1.0)) * 0.5
    return m.with_sign(where(size < limit, near, _half_exp(m, size)), m.sign(x))


def cosh(m: Formulas, x: X) -> X:
    """`h + 1 / (4 * h)` with h = e**|x| / 2."""
    h = _half_exp(m, abs(x))
    return h + 0.25 / h


# --- logarithms ----------------------------------------------------------------------------------


def _log_parts(m: Formulas, x: X) -> tuple[X, X]:
    """Return f and k with `x = (1 + f) * 2**k`, 1 + f between sqrt(1/2) and sqrt(2); x positive, finite, normal."""
    form = m.format
    bits = x.bits(form.integer)
    k = (bits - form.bits(math.sqrt(0.5))) >> form.digits
    return (bits - (k << form.digits)).bits(form.dtype) - 1.0, k


def _log_sum(m: Formulas, f: X, k: X) -> X:
    """`log(1 + f) + k * ln 2`: with s = f / (2 + f), log(1 + f) = f - f*f/2 + s * (f*f/2 + z*p(z))."""
    high, low = _LN2[m.format]
    n = m.small_float(k)
    s = f / (2.0 + f)
    z = s * s
    half = 0.5 * f * f
    tail = s * (half + z * horner(z, _LOG[m.format])) + n * low
    return n * high - ((half - tail) - f)


def log(m: Formulas, x: X) -> X:
    """The natural logarithm: -inf at 0, NaN below."""
    form = m.format
    tiny = x < form.least
    up = float(form.digits + 2)
    f, k = _log_parts(m, where(tiny, x * 2.0**up, x))
    y = _log_sum(m, f, where(tiny, k - int(up), k))
    y = where(x < INF, y, x)
    return where(x > 0.0, y, where(x.equals(0.0), -INF, math.nan * abs(x)))


def log1p(m: Formulas, x: X) -> X:
    """`log(1 + x)`: what the sum 1 + x loses goes into the reduced argument."""
    u, lost = m.two_sum(x.like(1.0), x)
    f, k = _log_parts(m, u)
    f = where(k.equals(0), x, f + lost * m.power_of_two(-k.apply("min", 100)))
    y = where(x < INF, _log_sum(m, f, k), x)
    y = where(x > -1.0, y, where(x.equals(-1.0), -INF, math.nan * abs(x)))
    return where(x.equals(0.0), x, y)


def asinh(m: Formulas, x: X) -> X:
    """`log1p(|x| + x*x / (1 + sqrt(1 + x*x)))`; `log|x| + ln 2` where squares would overflow."""
    size = abs(x)
    limit = 2.0 ** (m.format.digits // 2 + 3)
    a = _clamp(size, 0.0, limit)
    square = a * a
    near = log1p(m, a + square / (1.0 + (1.0 + square).apply("sqrt")))
    return m.with_sign(where(size < limit, near, _log_twice(m, size)), m.sign(x))


def acosh(m: Formulas, x: X) -> X:
    """`log1p(t + sqrt(2*t + t*t))` with t = x - 1; NaN below 1."""
    limit = 2.0 ** (m.format.digits // 2 + 3)
    t = x.apply("min", limit) - 1.0
    near = log1p(m, t + (t * (t + 2.0)).apply("sqrt"))
    return where(x >= 1.0, where(x < limit, near, _log_twice(m, x)), math.nan * abs(x))


def _log_twice(m: Formulas, x: X) -> X:
    """`log(2 * x)` for a large x."""
    f, k = _log_parts(m, x.apply("max", 2.0))
    return where(x < INF, _log_sum(m, f, k + 1), x)


def atanh(m: Formulas, x: X) -> X:
    """`log1p(2*x / (1 - x)) / 2`."""
    size = abs(x)
    twice = size + size
    near = twice + twice * size / (1.0 - size)
    far = twice / (1.0 - size)
    return m.with_sign(log1p(m, where(size < 0.5, near, far)) * 0.5, m.sign(x))


# --- error function ------------------------------------------------------------------------------


def erf(m: Formulas, x: X) -> X:
    """A polynomial up to 1; `1 - exp(p(x))` beyond."""
    size = abs(x)
    a = size.apply("min", 4.0 if m.format is F32 else 6.0)
    z = a * a
    small = size.fma(horner(z, _ERF[m.format]), size)
    large = 1.0 - _exp_bounded(m, horner(a.apply("max", 1.0), _LOG_ERFC[m.format]))
    return m.with_sign(where(size < 1.0, small, large), m.sign(x))


# --- roots and powers ----------------------------------------------------------------------------


def rsqrt(m: Formulas, x: X) -> X:
    """`1 / sqrt(x)`."""
    return 1.0 / x.apply("sqrt")


def power(m: Formulas, x: X, y: X) -> X:
    """`x ** y` with the special cases of C."""
    if m.format is F32:
        # Through f64, where the error of the logarithm times y stays far below half an ulp.
        wide = m.to(F64)
        size = exp(wide, y.to(F64.dtype) * log(wide, abs(x).to(F64.dtype))).to(f32)
    else:
        size = _power_f64(m, abs(x), y)
    whole = y.apply("trunc").equals(y)
    half = y * 0.5
    odd = whole & half.apply("trunc").differs(half)
    out = where(odd, m.with_sign(size, m.sign(x)), size)
    out = where((x < 0.0) & ~whole & (x > -INF), math.nan * abs(x), out)
    one = y.equals(0.0) | x.equals(1.0) | (x.equals(-1.0) & abs(y).equals(INF))
    return where(one, 1.0, out)


def _power_f64(m: Formulas, x: X, y: X) -> X:
    """`exp(y * log(x))`, x >= 0, with the logarithm and its product with y in two f64 each."""
    high, low = _log_long(m, x)
    p, lost = m.two_product(y, high)
    rest = lost + y * low
    rest = where(abs(p) < 1000.0, rest, 0.0)
    # exp(p + rest) as 1 + r + t, where the sum 1 + r keeps what it loses.
    ln2, ln2_low = _LN2[F64]
    p = _clamp(p, *_EXP_RANGE[F64])
    n, k = m.round(p * (1 / math.log(2)))
    r, r_low = m.two_sum(n.fma(-ln2, p), rest - n * ln2_low)
    t = (r * r).fma(horner(r, _EXP[F64]), r_low + r_low * r)
    return m.scale(_one_and(r, t), k)


def _log_long(m: Formulas, x: X) -> tuple[X, X]:
    """The logarithm as a sum of two f64, to some 2**-68 of itself; both infinite or NaN as the logarithm is."""
    form = m.format
    tiny = x < form.least
    f, k = _log_parts(m, where(tiny, x * 2.0**54, x))
    n = m.small_float(where(tiny, k - 54, k))
    # s = f / (2 + f) in two parts.
    d, d_low = m.two_sum(x.like(2.0), f)
    s = f / d
    back, lost = m.two_product(s, d)
    s_low = ((f - back) - lost - s * d_low) / d
    z, z_low = m.two_product(s, s)
    z_low = z_low + 2.0 * s * s_low
    # p = z * (2/3 + z * tail), of which 2/3 * z needs its low part.
    third, third_low = float.fromhex("0x1.5555555555555p-1"), float.fromhex("0x1.5555555555555p-55")
    q, q_low = m.two_product(z, x.like(third))
    q_low = q_low + z * third_low + z_low * third
    tail = z * z * horner(z, table.LOG_LONG_F64)
    p, p_low = m.two_sum(q, tail)
    p_low = p_low + q_low
    t, t_low = m.two_product(s, p)
    t_low = t_low + s * p_low + s_low * p
    # n * ln 2 + 2 * s + s * p
    ln2, ln2_low = _LN2[F64]
    a, a_low = m.two_sum(n * ln2, 2.0 * s)
    b, b_low = m.two_sum(a, t)
    low = (a_low + b_low) + (t_low + 2.0 * s_low + n * ln2_low)
    total = b + low
    rest = (b - total) + low
    plain = where(x.equals(0.0), -INF, x)
    regular = (x > 0.0) & (x < INF)
    return where(regular, total, plain), where(regular, rest, 0.0)


# --- inverse trigonometry ------------------------------------------------------------------------


def _asin_parts(m: Formulas, size: X) -> tuple[X, X, X]:
    """Return whether |x| > 1/2, and s + t = asin(|x|), or else asin(sqrt((1 - |x|) / 2))."""
    big = size > 0.5
    z = where(big, (1.0 - size) * 0.5, size * size)
    s = where(big, z.apply("sqrt"), size)
    return big, s, s * z * horner(z, _ASIN[m.format])


def asin(m: Formulas, x: X) -> X:
    """The inverse of the sine: from that of sqrt((1 - |x|) / 2) where |x| > 1/2; NaN beyond 1."""
    high, low = _PI_2[m.format]
    big, s, t = _asin_parts(m, abs(x))
    return m.with_sign(where(big, (high - (s + s)) - ((t + t) - low), s + t), m.sign(x))


def acos(m: Formulas, x: X) -> X:
    """The inverse of the cosine: twice the arcsine of sqrt((1 - |x|) / 2), or its mirror image, where |x| > 1/2."""
    high, low = _PI_2[m.format]
    big, s, t = _asin_parts(m, abs(x))
    twice = (s + t) + (s + t)
    mirrored = 2 * high - (twice - 2 * low)
    middle = high - (m.with_sign(s + t, m.sign(x)) - low)
    return where(big, where(x < 0.0, mirrored, twice), middle)


def atan(m: Formulas, x: X) -> X:
    """The inverse of the tangent."""
    return m.with_sign(_atan_of_size(m, abs(x)), m.sign(x))


def _atan_of_size(m: Formulas, size: X) -> X:
    """`atan(t)` beside pi/4 with t = (x - 1) / (x + 1), or beside pi/2 with t = -1 / x."""
    high, low = _PI_2[m.format]
    far, middle = size > 1 + math.sqrt(2), size > math.sqrt(2) - 1
    top = where(far, -1.0, where(middle, size - 1.0, size))
    bottom = where(far, size, where(middle, size + 1.0, 1.0))
    base = where(far, high, where(middle, size.like(high / 2), 0.0))
    base_low = where(far, low, where(middle, size.like(low / 2), 0.0))
    t = top / bottom
    z = t * t
    return base + (t + (t * z).fma(horner(z, _ATAN[m.format]), base_low))


def atan2(m: Formulas, y: X, x: X) -> X:
    """The angle of the point (x, y), from -pi to pi."""
    high, low = _PI_2[m.format]
    a, b = abs(x), abs(y)
    small, large = a.apply("min", b), a.apply("max", b)
    quotient = where(small.equals(INF), 1.0, where(large.equals(0.0), 0.0, small / large))
    r = _atan_of_size(m, quotient)
    r = where(b > a, high - (r - low), r)
    left = m.sign(x).differs(0)
    r = where(left, 2 * high - (r - 2 * low), r)
    return m.with_sign(r, m.sign(y))


FUNCTIONS: dict[str, Callable[..., X]] = {
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "rsqrt": rsqrt,
    "pow": power,
    "sin": sin,
    "cos": cos,
    "tan": tan,
    "asin": asin,
    "acos": acos,
    "atan": atan,
    "atan2": atan2,
    "sinh": sinh,
    "cosh": cosh,
    "asinh": asinh,
    "acosh": acosh,
    "atanh": atanh,
}
"""Formula by name of the operation in `SCALAR_OPS`."""

FORMATS: dict[str, Format] = {"f32": F32, "f64": F64}
