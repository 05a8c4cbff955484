"""Smooth activations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.op import register
from tapeout.ops.elementwise.base import Map1
from tapeout.ops.elementwise.functions import erf, logistic, softplus
from tapeout.support.errors import OptionError

if TYPE_CHECKING:
    from tapeout.ir.op import Array, T
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym

_SELU_ALPHA = 1.67326319217681884765625
_SELU_GAMMA = 1.05070102214813232421875


class _ExponentialUnit(Map1):
    """`scale * x` above 0, `scale * alpha * (exp(x / width) - 1)` elsewhere."""

    def _numbers(self) -> tuple[float, float, float]:
        """Return scale, alpha, width."""
        raise NotImplementedError(self.name)

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        scale, alpha, width = self._numbers()
        inner = x if width == 1 else s.div(x, s.like(width, x))
        below = s.mul(s.expm1(inner), s.like(scale * alpha, x))
        above = x if scale == 1 else s.mul(x, s.like(scale, x))
        return s.select(s.compare("gt", x, s.like(0, x)), above, below)

    def formula(self, *xs: Array) -> Array:
        (x,) = xs
        scale, alpha, width = self._numbers()
        return np.where(x > 0, x * scale, np.expm1(x / width) * (scale * alpha))

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        scale, alpha, width = self._numbers()
        above = x > 0
        # exp of the unused branch must not overflow: 0 * inf would leak out of derivatives of this.
        below = (above.where(0, x) * (1 / width)).exp() * (scale * alpha / width)
        return above.where(dy * scale, dy * below)


@register
class Elu(_ExponentialUnit):
    """`x` above 0, `alpha * (exp(x) - 1)` elsewhere; the gradient at 0 is `alpha`."""

    name = "elu"
    alpha: float = 1.0

    def _numbers(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, 1.0


@register
class Selu(_ExponentialUnit):
    """`gamma * x` above 0, `gamma * alpha * (exp(x) - 1)` elsewhere; the gradient at 0 is `gamma * alpha`."""

    name = "selu"
    alpha: float = _SELU_ALPHA
    gamma: float = _SELU_GAMMA

    def _numbers(self) -> tuple[float, float, float]:
        return self.gamma, self.alpha, 1.0


@register
class Celu(_ExponentialUnit):
    """`x` above 0, `alpha * (exp(x / alpha) - 1)` elsewhere; the gradient at 0 is 1."""

    name = "celu"
    alpha: float = 1.0

    def _numbers(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, self.alpha


@register
class Gelu(Map1):
    """`x * Phi(x)` with the distribution function of the normal law, or its approximation by tanh."""

    name = "gelu"
    approximate: str = "none"

    def __post_init__(self) -> None:
        """Check the attribute."""
        if self.approximate not in ("none", "tanh"):
            raise OptionError(
                f"gelu: approximate is {self.approximate!r}, expected 'none' or 'tanh'"
            )

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        half, one = s.like(0.5, x), s.like(1, x)
        if self.approximate == "none":
            return s.mul(s.mul(x, half), s.add(s.erf(s.mul(x, s.like(math.sqrt(0.5), x))), one))
        cubic = s.add(x, s.mul(s.like(0.044715, x), s.mul(x, s.mul(x, x))))
        return s.mul(s.mul(x, half), s.add(s.tanh(s.mul(cubic, s.like(_ROOT, x))), one))

    def formula(self, *xs: Array) -> Array:
        (x,) = xs
        if self.approximate == "none":
            return np.asarray(0.5 * x * (1 + erf(x * math.sqrt(0.5))))
        t = np.tanh(_ROOT * (x + 0.044715 * x * x * x))
        return np.asarray(0.5 * x * (1 + t))

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        if self.approximate == "none":
            area = (x * math.sqrt(0.5)).erf() * 0.5 + 0.5
            density = (x.square() * -0.5).exp() * (1 / math.sqrt(2 * math.pi))
            return dy * (area + x * density)
        square = x.square()
        # Spelled as the result is, so that one kernel computes the tangent once for both.
        t = ((x + 0.044715 * (x * square)) * _ROOT).tanh()
        slope = (square * (3 * 0.044715) + 1) * _ROOT
        return dy * ((t + 1) * 0.5 + x * 0.5 * ((1 - t * t) * slope))


_ROOT = math.sqrt(2 / math.pi)


@register
class Silu(Map1):
    """`x * sigmoid(x)`."""

    name = "silu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.mul(x, s.sigmoid(x))

    def formula(self, *xs: Array) -> Array:
        (x,) = xs
        return x * logistic(x)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        p = x.sigmoid()
        return dy * (p * (x * (1 - p) + 1))


@register
class Softplus(Map1):
    """`log(1 + exp(x))`."""

    name = "softplus"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return _softplus(s, xs[0])

    def formula(self, *xs: Array) -> Array:
        return softplus(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * x.sigmoid()


def _softplus(s: ScalarOps[T], x: T) -> T:
    return s.add(s.max(x, s.like(0, x)), s.log1p(s.exp(s.neg(s.abs(x)))))


@register
class LogSigmoid(Map1):
    """`log(sigmoid(x))`."""

    name = "log_sigmoid"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.sub(s.min(x, s.like(0, x)), s.log1p(s.exp(s.neg(s.abs(x)))))

    def formula(self, *xs: Array) -> Array:
        return -softplus(-xs[0])

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * (-x).sigmoid()


@register
class Mish(Map1):
    """`x * tanh(softplus(x))`."""

    name = "mish"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.mul(x, s.tanh(_softplus(s, x)))

    def formula(self, *xs: Array) -> Array:
        (x,) = xs
        return np.asarray(x * np.tanh(softplus(x)))

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        t = x.unary(Softplus()).tanh()
        return dy * (t + x * ((1 - t * t) * x.sigmoid()))


@register
class Softsign(Map1):
    """`x / (1 + |x|)`."""

    name = "softsign"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.div(x, s.add(s.abs(x), s.like(1, x)))

    def formula(self, *xs: Array) -> Array:
        (x,) = xs
        return np.asarray(x / (1 + np.abs(x)))

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy / (x.abs() + 1).square()
