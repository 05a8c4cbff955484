"""Activations made of straight pieces.

The gradient at a corner is that of the side where it is 0 (or the slope of the negative side), except for `Clip`, whose bounds
count as inside.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import from_numpy
from tapeout.ir.op import register
from tapeout.ops.elementwise.base import Map1, Map2

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array, T
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym


@register
class Relu(Map1):
    """`max(x, 0)`, NaN passed on; the gradient at 0 is 0."""

    name = "relu"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.max(x, s.like(0, x))

    def formula(self, *xs: Array) -> Array:
        return np.maximum(xs[0], 0)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        # The result says the same as the operand, which then need not be kept.
        return (y > 0).where(dy, 0)


@register
class LeakyRelu(Map1):
    """`x` above 0, `alpha * x` elsewhere; the gradient at 0 is `alpha`."""

    name = "leaky_relu"
    alpha: float = 0.01

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.select(s.compare("gt", x, s.like(0, x)), x, s.mul(x, s.like(self.alpha, x)))

    def formula(self, *xs: Array) -> Array:
        (x,) = xs
        return np.where(x > 0, x, x * self.alpha)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return (x > 0).where(dy, dy * self.alpha)


@register
class Prelu(Map2):
    """`x` above 0, `slope * x` elsewhere; the gradient at 0 is the slope."""

    name = "prelu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        x, slope = xs
        return s.select(s.compare("gt", x, s.like(0, x)), x, s.mul(x, slope))

    def formula(self, *xs: Array) -> Array:
        x, slope = xs
        return np.where(x > 0, x, x * slope)

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        above = a > 0
        return above.where(dy, dy * b), above.where(0, dy * a)


@register
class ThresholdedRelu(Map1):
    """`x` above `alpha`, 0 elsewhere; the gradient at `alpha` is 0."""

    name = "thresholded_relu"
    alpha: float = 1.0

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.select(s.compare("gt", x, s.like(self.alpha, x)), x, s.like(0, x))

    def formula(self, *xs: Array) -> Array:
        (x,) = xs
        return np.where(x > self.alpha, x, 0)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return (x > self.alpha).where(dy, 0)


@register
class Shrink(Map1):
    """`x` moved towards 0 by `bias` where `|x| > lambd`, 0 elsewhere; the gradient at the threshold is 0."""

    name = "shrink"
    bias: float = 0.0
    lambd: float = 0.5

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        bias = s.like(self.bias, x)
        below = s.select(s.compare("lt", x, s.like(-self.lambd, x)), s.add(x, bias), s.like(0, x))
        return s.select(s.compare("gt", x, s.like(self.lambd, x)), s.sub(x, bias), below)

    def formula(self, *xs: Array) -> Array:
        (x,) = xs
        below = np.where(x < -self.lambd, x + self.bias, 0)
        return np.where(x > self.lambd, x - self.bias, below)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return ((x < -self.lambd) | (x > self.lambd)).where(dy, 0)


@register
class HardSigmoid(Map1):
    """`alpha * x + beta` kept in 0..1; the gradient at the bounds is 0."""

    name = "hard_sigmoid"
    alpha: float = 0.2
    beta: float = 0.5

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        line = s.add(s.mul(x, s.like(self.alpha, x)), s.like(self.beta, x))
        return s.min(s.max(line, s.like(0, x)), s.like(1, x))

    def formula(self, *xs: Array) -> Array:
        return np.clip(xs[0] * self.alpha + self.beta, 0, 1)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return ((y > 0) & (y < 1)).where(dy * self.alpha, 0)


@register
class HardSwish(Map1):
    """`x * hard_sigmoid(x)` with a slope of 1/6; the gradient is 0 at -3 and 1 at 3."""

    name = "hard_swish"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        line = s.add(s.mul(x, s.like(1 / 6, x)), s.like(0.5, x))
        return s.mul(x, s.min(s.max(line, s.like(0, x)), s.like(1, x)))

    def formula(self, *xs: Array) -> Array:
        (x,) = xs
        return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        middle = (x < 3).where(dy * (x * (1 / 3) + 0.5), dy)
        return (x > -3).where(middle, 0)


@register
class HardTanh(Map1):
    """`x` kept in -1..1; the gradient at the bounds is 0."""

    name = "hard_tanh"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.min(s.max(x, s.like(-1, x)), s.like(1, x))

    def formula(self, *xs: Array) -> Array:
        return np.clip(xs[0], -1, 1)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return ((y > -1) & (y < 1)).where(dy, 0)


@register
class Relu6(Map1):
    """`x` kept in 0..6; the gradient at the bounds is 0."""

    name = "relu6"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.min(s.max(x, s.like(0, x)), s.like(6, x))

    def formula(self, *xs: Array) -> Array:
        return np.clip(xs[0], 0, 6)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return ((y > 0) & (y < 6)).where(dy, 0)


@register
class Clip(Map1):
    """`min(max(x, low), high)`; the gradient on a bound is 1, and 0 everywhere if `low > high`."""

    name = "clip"
    kinds = "fiu"
    low: float = -math.inf
    high: float = math.inf

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        low, high = self._bounds(s.dtype(x))
        y = x if low is None else s.max(x, s.like(low, x))
        return y if high is None else s.min(y, s.like(high, x))

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        low, high = self._bounds(from_numpy(x.dtype))
        y = x if low is None else np.maximum(x, np.array(low, x.dtype))
        return np.asarray(y if high is None else np.minimum(y, np.array(high, x.dtype)))

    def _bounds(self, dtype: DType) -> tuple[float | None, float | None]:
        """Return the bounds as numbers of the type; None where the type itself is as tight."""
        if dtype.is_float:
            open_low, open_high = self.low == -math.inf, self.high == math.inf
            return None if open_low else self.low, None if open_high else self.high
        least, most = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
        low = None if self.low <= least else most if self.low >= most else math.ceil(self.low)
        high = None if self.high >= most else least if self.high <= least else math.floor(self.high)
        return low, high

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return ((x >= self.low) & (x <= self.high)).where(dy, 0)
