"""Exponentials, logarithms, roots and the error function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.op import register
from tapeout.ops.elementwise.base import Map1

if TYPE_CHECKING:
    from tapeout.ir.op import Array, T
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym


class Function(Map1):
    """A function of a float that the scalar language has by the same name."""

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply(self.name, *xs)


@register
class Exp(Function):
    """`e**x`."""

    name = "exp"

    def formula(self, *xs: Array) -> Array:
        return np.exp(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * y


@register
class Expm1(Function):
    """`exp(x) - 1`, precise near 0."""

    name = "expm1"

    def formula(self, *xs: Array) -> Array:
        return np.expm1(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * x.exp()


@register
class Log(Function):
    """The natural logarithm; the gradient at 0 is infinite unless its cotangent is 0."""

    name = "log"

    def formula(self, *xs: Array) -> Array:
        return np.log(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return _unless_masked(dy, x, dy / x)


@register
class Log1p(Function):
    """`log(1 + x)`, precise near 0."""

    name = "log1p"

    def formula(self, *xs: Array) -> Array:
        return np.log1p(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy / (x + 1)


@register
class Sqrt(Function):
    """The square root; the gradient at 0 is infinite unless its cotangent is 0."""

    name = "sqrt"

    def formula(self, *xs: Array) -> Array:
        return np.sqrt(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return _unless_masked(dy, y, dy / (y * 2))


@register
class Rsqrt(Function):
    """`1 / sqrt(x)`; the gradient at 0 is infinite unless its cotangent is 0."""

    name = "rsqrt"

    def formula(self, *xs: Array) -> Array:
        return 1 / np.sqrt(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return _unless_masked(dy, x, dy * (y * y * y * -0.5))


def _unless_masked(dy: Sym, pole: Sym, cotangent: Sym) -> Sym:
    """Return 0 where `pole` and the cotangent of the result are 0, so that a mask such as `where(x > 0, sqrt(x), 0)` holds."""
    return ((pole == 0) & (dy == 0)).where(0, cotangent)


@register
class Erf(Function):
    """The error function."""

    name = "erf"

    def formula(self, *xs: Array) -> Array:
        return erf(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * ((-x.square()).exp() * (2 / math.sqrt(math.pi)))


_ERF = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """Return the error function of an array of f64."""
    return np.asarray(_ERF(x), np.float64)


def logistic(x: Array) -> Array:
    """Return `1 / (1 + exp(-x))` of an array of f64, precise on both sides."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, 1) / (1 + small))


def softplus(x: Array) -> Array:
    """Return `log(1 + exp(x))` of an array of f64, precise on both sides."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


@register
class Sigmoid(Function):
    """`1 / (1 + exp(-x))`."""

    name = "sigmoid"

    def formula(self, *xs: Array) -> Array:
        return logistic(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * (y * (1 - y))
