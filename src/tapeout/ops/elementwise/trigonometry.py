"""Circular and hyperbolic functions and their inverses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.op import register
from tapeout.ops.elementwise.functions import Function

if TYPE_CHECKING:
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym


@register
class Sin(Function):
    """The sine."""

    name = "sin"

    def formula(self, *xs: Array) -> Array:
        return np.sin(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * x.cos()


@register
class Cos(Function):
    """The cosine."""

    name = "cos"

    def formula(self, *xs: Array) -> Array:
        return np.cos(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return -(dy * x.sin())


@register
class Tan(Function):
    """The tangent."""

    name = "tan"

    def formula(self, *xs: Array) -> Array:
        return np.tan(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * (y * y + 1)


@register
class Asin(Function):
    """The arc sine; the gradient at -1 and 1 is infinite."""

    name = "asin"

    def formula(self, *xs: Array) -> Array:
        return np.arcsin(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * ((1 - x) * (x + 1)).rsqrt()


@register
class Acos(Function):
    """The arc cosine; the gradient at -1 and 1 is infinite."""

    name = "acos"

    def formula(self, *xs: Array) -> Array:
        return np.arccos(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return -(dy * ((1 - x) * (x + 1)).rsqrt())


@register
class Atan(Function):
    """The arc tangent."""

    name = "atan"

    def formula(self, *xs: Array) -> Array:
        return np.arctan(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy / (x * x + 1)


@register
class Sinh(Function):
    """The hyperbolic sine."""

    name = "sinh"

    def formula(self, *xs: Array) -> Array:
        return np.sinh(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * x.cosh()


@register
class Cosh(Function):
    """The hyperbolic cosine."""

    name = "cosh"

    def formula(self, *xs: Array) -> Array:
        return np.cosh(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * x.sinh()


@register
class Tanh(Function):
    """The hyperbolic tangent."""

    name = "tanh"

    def formula(self, *xs: Array) -> Array:
        return np.tanh(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * (1 - y * y)


@register
class Asinh(Function):
    """The inverse of the hyperbolic sine."""

    name = "asinh"

    def formula(self, *xs: Array) -> Array:
        return np.arcsinh(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * (x * x + 1).rsqrt()


@register
class Acosh(Function):
    """The inverse of the hyperbolic cosine; the gradient at 1 is infinite."""

    name = "acosh"

    def formula(self, *xs: Array) -> Array:
        return np.arccosh(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        # The product of two roots is NaN below 1, where the product under one root would not be.
        return dy * ((x - 1).rsqrt() * (x + 1).rsqrt())


@register
class Atanh(Function):
    """The inverse of the hyperbolic tangent; the gradient at -1 and 1 is infinite."""

    name = "atanh"

    def formula(self, *xs: Array) -> Array:
        return np.arctanh(*xs)

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy / ((1 - x) * (x + 1))
