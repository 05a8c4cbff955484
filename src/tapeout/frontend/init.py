"""Initial values of parameters. Each is a function of shape, dtype and a seeded generator."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tapeout.support.errors import ShapeError

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


def xavier_uniform(gain: float = 1.0) -> Initializer:
    """Return uniform numbers in ±gain·√(6 / (fan in + fan out)) for a weight [out, in, *kernel] (Glorot)."""
    return _spread(lambda fan_in, fan_out: gain * math.sqrt(6.0 / (fan_in + fan_out)), uniform)


def xavier_normal(gain: float = 1.0) -> Initializer:
    """Return normal numbers of deviation gain·√(2 / (fan in + fan out)) for a weight [out, in, *kernel] (Glorot)."""
    return _spread(lambda fan_in, fan_out: gain * math.sqrt(2.0 / (fan_in + fan_out)), normal)


def kaiming_uniform(gain: float = math.sqrt(2.0)) -> Initializer:
    """Return uniform numbers in ±gain·√(3 / fan in) for a weight [out, in, *kernel] (He); the gain √2 suits ReLU."""
    return _spread(lambda fan_in, _: gain * math.sqrt(3.0 / fan_in), uniform)


def kaiming_normal(gain: float = math.sqrt(2.0)) -> Initializer:
    """Return normal numbers of deviation gain·√(1 / fan in) for a weight [out, in, *kernel] (He); the gain √2 suits ReLU."""
    return _spread(lambda fan_in, _: gain / math.sqrt(fan_in), normal)


def _spread(width: Callable[[int, int], float], law: Callable[..., Initializer]) -> Initializer:
    """Return an initializer whose width follows from the shape of the weight."""

    def made(shape: Shape, dtype: DType, rng: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise ShapeError(f"a weight [out, in, *kernel] is expected, got {list(shape)}")
        window = math.prod(shape[2:])
        size = width(max(shape[1] * window, 1), max(shape[0] * window, 1))
        return (law(-size, size) if law is uniform else law(size))(shape, dtype, rng)

    return made
