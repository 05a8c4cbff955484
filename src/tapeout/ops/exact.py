"""How references compute: floats in f64, rounded once at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tapeout.ir.op import Array


def wide(x: Array) -> Array:
    """Return floats as f64; integers and bools as they are."""
    return x if x.dtype.kind in "iub" else x.astype(np.float64)


def rounded(x: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array in another type, rounded once.

    numpy turns f64 into bf16 by way of f32, which rounds twice. An f32 that is rounded to odd first
    keeps what the second rounding needs to know.
    """
    if x.dtype != np.float64 or dtype.name != "bfloat16":
        return x.astype(dtype)
    near = x.astype(np.float32)
    inexact = np.isfinite(near) & (near != x)
    even = near.view(np.uint32) % 2 == 0
    towards = np.where(x > near, np.float32(np.inf), np.float32(-np.inf))
    return np.where(inexact & even, np.nextafter(near, towards), near).astype(dtype)
