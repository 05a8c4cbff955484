"""Initial values of parameters. Each is a function of shape, dtype and a seeded generator."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array
    from tapeout.ir.type import Shape

Initializer = Callable[["Shape", "DType", np.random.Generator], "Array"]


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the generator of one parameter: it depends on the seed and the name, not on the order of declaration."""
    return np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))


def zeros() -> Initializer:
    """Return zeros."""
    return constant(0.0)


def ones() -> Initializer:
    """Return ones."""
    return constant(1.0)


def constant(value: float) -> Initializer:
    """Return the same number everywhere."""
    return lambda shape, dtype, _: np.full(shape, value, dtype.numpy)


def normal(std: float = 0.02, mean: float = 0.0) -> Initializer:
    """Return normal numbers."""
    return lambda shape, dtype, rng: (rng.standard_normal(shape) * std + mean).astype(dtype.numpy)


def uniform(low: float, high: float) -> Initializer:
    """Return uniform numbers in [low, high)."""
    return lambda shape, dtype, rng: rng.uniform(low, high, shape).astype(dtype.numpy)


def fan_in_uniform(fan_in: int) -> Initializer:
    """Return uniform numbers in ±1/sqrt(fan_in), PyTorch's default for linear and convolution."""
    bound = 1.0 / math.sqrt(max(fan_in, 1))
    return uniform(-bound, bound)
