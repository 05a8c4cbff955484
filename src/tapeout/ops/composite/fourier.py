"""Fourier transforms as products with matrices of sines and cosines, long ones in factors of their length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym

Complex = tuple["Sym", "Sym | None"]
"""The real and the imaginary part; None for zeros."""

DIRECT = 64
"""The longest line that is one product; longer ones are transformed by the factors of their length."""


def fourier(re: Sym, im: Sym | None, *, inverse: bool = False) -> tuple[Sym, Sym]:
    """Return the discrete Fourier transform along the last dimension.

    Args:
        re: Real part, [*, n], f32 or f64.
        im: Imaginary part, as `re`; None if it is zero.
        inverse: Whether to go back; the result is then divided by n.

    Returns:
        Real and imaginary part, [*, n].

    Raises:
        ShapeError: There is no dimension, or it is empty.
    """
    if not re.rank or not re.shape[-1] or (im is not None and im.type != re.type):
        raise ShapeError(f"fourier: the real part is {re.type}, the imaginary one must be as it is")
    n = int(re.shape[-1])
    found = _transformed((re, im), 1.0 if inverse else -1.0)
    a, b = found[0], found[1]
    assert b is not None
    return (a * (1 / n), b * (1 / n)) if inverse else (a, b)


def _transformed(x: Complex, sign: float) -> Complex:
    n = int(x[0].shape[-1])
    p = _factor(n)
    if n <= DIRECT or p == 1:
        return _direct(x, n, sign)
    # Place a * q + b of n = p * q goes to place c + p * d: first over a for each b, then over b for each c.
    q, outer = n // p, list(x[0].shape[:-1])
    last = len(outer)
    swap = [*range(last), last + 1, last]
    columns = _each(x, lambda v: v.reshape([*outer, p, q]).transpose(swap))
    inner = _transformed(columns, sign)
    angle = 2 * np.pi * np.outer(np.arange(q), np.arange(p)) / n
    turned = _times(inner, (np.cos(angle), sign * np.sin(angle)))
    rows = _transformed(_each(turned, lambda v: v.transpose(swap)), sign)
    return _each(rows, lambda v: v.transpose(swap).reshape([*outer, n]))


def _factor(n: int) -> int:
    """Return the largest factor not above the root."""
    return next(p for p in range(math.isqrt(n), 0, -1) if n % p == 0)


def _direct(x: Complex, n: int, sign: float) -> Complex:
    angle = 2 * np.pi * (np.outer(np.arange(n), np.arange(n)) % n) / n
    re, im = x
    c, s = (re.constant(t.astype(re.dtype.numpy)) for t in (np.cos(angle), sign * np.sin(angle)))
    if im is None:
        return re @ c, re @ s
    return re @ c - im @ s, re @ s + im @ c


def _times(x: Complex, by: tuple[Array, Array]) -> Complex:
    re, im = x
    assert im is not None
    c, s = (re.constant(t.astype(re.dtype.numpy)) for t in by)
    return re * c - im * s, re * s + im * c


def _each(x: Complex, f: Callable[[Sym], Sym]) -> Complex:
    return f(x[0]), None if x[1] is None else f(x[1])
