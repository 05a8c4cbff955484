"""The operations of `ir.scalar` on numpy arrays, one array entry per lane.

Functions of floats are computed in f64 and rounded once, so that the result is the best one of its type. Arithmetic of f16 and
bf16 is computed in f32 and rounded after every operation. Nothing here is shared with code generation.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir.dtype import DType, bool_
from tapeout.support.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.op import Array


def apply(name: str, xs: tuple[Array, ...], dtype: DType) -> Array:
    """Return operation `name` of `SCALAR_OPS` on arrays of one shape; `dtype` is the type of the operands (of the last one)."""
    if name in _FUNCTIONS:
        wide = [x.astype(np.float64) for x in xs]
        return round_to(np.asarray(_FUNCTIONS[name](*wide)), dtype)
    if name in _FREE:
        return np.asarray(_FREE[name](*xs))
    if name not in _ARITHMETIC:
        raise VerifyError(f"no scalar operation is called {name!r}")
    if dtype.is_float and dtype.bits == 16:
        narrow = _ARITHMETIC[name](*(x.astype(np.float32) for x in xs))
        return narrow if narrow.dtype == np.bool_ else round_to(narrow, dtype)
    return np.asarray(_ARITHMETIC[name](*xs))


def cast(x: Array, dtype: DType) -> Array:
    """Return `x` converted: float to integer truncates (and stays in range, NaN gives 0), to bool tests for non-zero."""
    if dtype == bool_:
        return np.asarray(x != 0)
    if dtype.is_float:
        return round_to(x, dtype)
    if np.issubdtype(x.dtype, np.integer) or x.dtype == np.bool_:
        return x.astype(dtype.numpy)
    return _truncate(x.astype(np.float64), dtype)


def round_to(x: Array, dtype: DType) -> Array:
    """Return numbers rounded once, to nearest even, to a float type."""
    if dtype.name == "bf16" and x.dtype == np.float64:
        return _odd_f32(x, x.astype(np.float32).astype(np.float64)).astype(dtype.numpy)
    return x.astype(dtype.numpy)


def bitcast(x: Array, dtype: DType) -> Array:
    """Return the same bits as another type of the same width."""
    return np.ascontiguousarray(x).view(dtype.numpy)


def tree(combine: str, x: Array, dtype: DType) -> Array:
    """Combine along axis 0 as a fixed tree: entry i with entry i + n/2, then halves again; n is a power of two."""
    n = x.shape[0]
    if n < 1 or n & (n - 1):
        raise VerifyError(f"{n} values cannot be combined as a tree of halves")
    name = COMBINE[combine]
    while n > 1:
        n //= 2
        x = apply(name, (x[:n], x[n : 2 * n]), dtype)
    return np.asarray(x[0])


COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


def _truncate(x: Array, dtype: DType) -> Array:
    lo, hi = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
    whole = np.trunc(np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf))
    exact = [lo if v <= lo else hi if v >= hi else int(v) for v in whole.ravel().tolist()]
    return np.array(exact, dtype.numpy).reshape(x.shape)


def _odd_f32(exact: Array, rounded: Array) -> Array:
    """Return f32 values rounded to odd, so that rounding them again to fewer bits rounds `exact` once."""
    near = rounded.astype(np.float32)
    inexact = np.isfinite(exact) & np.isfinite(near) & (rounded != exact)
    toward = np.where(exact > rounded, np.inf, -np.inf).astype(np.float32)
    even = (near.view(np.uint32) & 1) == 0
    return np.where(inexact & even, np.nextafter(near, toward), near)


def _div(x: Array, y: Array) -> Array:
    if np.issubdtype(x.dtype, np.floating):
        return np.divide(x, y)
    safe = np.where(y == 0, np.ones_like(y), y)
    magnitude = (x - _rem(x, safe)) // safe
    return np.where(y == 0, np.zeros_like(x), magnitude)


def _rem(x: Array, y: Array) -> Array:
    if np.issubdtype(x.dtype, np.floating):
        return np.fmod(x, y)
    zero = (y == 0) | (y == -1) if np.issubdtype(y.dtype, np.signedinteger) else y == 0
    safe = np.where(zero, np.ones_like(y), y)
    return np.where(zero, np.zeros_like(x), np.fmod(x, safe))


def _fma(x: Array, y: Array, z: Array) -> Array:
    if x.dtype == np.float32 and x.size == 1:
        return np.array([_fma32(x.item(), y.item(), z.item())], np.float64).astype(np.float32)
    if x.dtype == np.float32:
        product = x.astype(np.float64) * y
        return _sum_to_f32(product, z.astype(np.float64))
    flat = [
        _fma64(a, b, c) for a, b, c in zip(*(v.ravel().tolist() for v in (x, y, z)), strict=True)
    ]
    return np.array(flat, np.float64).reshape(x.shape)


def _dot2(a: Array, b: Array, total: Array) -> Array:
    """Add two products of bf16, the upper halves first; subnormal numbers count as zero, before and after each sum."""
    for shift in (16, 0):
        x, y = (_flushed(((v >> shift) << 16).astype(np.uint32).view(np.float32)) for v in (a, b))
        total = _flushed(_fma(x, y, _flushed(total)))
    return total


def _flushed(x: Array) -> Array:
    tiny = np.abs(x) < np.finfo(np.float32).tiny
    return np.where(tiny, np.copysign(np.float32(0), x), x)


def _sum_to_f32(a: Array, b: Array) -> Array:
    """Return a + b of f64 values rounded once to f32 (the f64 sum is rounded to odd on the way)."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    fix = np.isfinite(total) & (error != 0) & ((total.view(np.uint64) & 1) == 0)
    toward = np.where(error > 0, np.inf, -np.inf)
    return np.where(fix, np.nextafter(total, toward), total).astype(np.float32)


def _fma32(a: float, b: float, c: float) -> float:
    """Return what rounds to the f32 of a * b + c; the same as `_sum_to_f32`, quicker for one number."""
    product = a * b
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    if error == 0 or not math.isfinite(total):
        return total
    odd = int.from_bytes(struct.pack("<d", total), "little") & 1
    return total if odd else math.nextafter(total, math.copysign(math.inf, error))


def _fma64(a: float, b: float, c: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        return float(np.float64(a) * b + c)
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c
    try:
        return exact.numerator / exact.denominator
    except OverflowError:
        return math.copysign(math.inf, exact)


def _shl(x: Array, by: Array) -> Array:
    out = (by < 0) | (by >= x.dtype.itemsize * 8)
    return np.where(out, np.zeros_like(x), np.left_shift(x, np.where(out, np.zeros_like(by), by)))


def _shr(x: Array, by: Array) -> Array:
    bits = x.dtype.itemsize * 8
    out = (by < 0) | (by >= bits)
    if np.issubdtype(x.dtype, np.signedinteger):
        return np.right_shift(x, np.where(out, np.full_like(by, bits - 1), by))
    return np.where(out, np.zeros_like(x), np.right_shift(x, np.where(out, np.zeros_like(by), by)))


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


_erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[np.float64])

_ARITHMETIC: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _div,
    "rem": _rem,
    "neg": np.negative,
    "abs": np.abs,
    "fma": _fma,
    "dot2": _dot2,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shl": _shl,
    "shr": _shr,
}
_FREE: dict[str, Callable[..., Any]] = {"select": np.where}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{n: getattr(np, n) for n in ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan")},
    **{n: getattr(np, n) for n in ("sinh", "cosh", "tanh", "floor", "ceil", "trunc")},
    **{f"a{n}": getattr(np, f"arc{n}") for n in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": _sigmoid,
    "erf": _erf,
    "round": np.rint,
    "pow": np.power,
    "atan2": np.arctan2,
}
