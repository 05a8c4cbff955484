"""Arithmetic of two operands, and what is close to it: negation, absolute value, sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.op import register
from tapeout.ops.elementwise.base import Map1, Map2, smallest_normal
from tapeout.ops.elementwise.rounding import Round

if TYPE_CHECKING:
    from tapeout.ir.op import Array, T
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym


@register
class Neg(Map1):
    """`-x`; unsigned integers wrap."""

    name = "neg"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return s.sub(s.like(0, x), x) if s.dtype(x).kind == "u" else s.neg(x)

    def formula(self, *xs: Array) -> Array:
        return np.negative(xs[0])

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return -dy


@register
class Abs(Map1):
    """`|x|`; the gradient at 0 is 0."""

    name = "abs"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        return x if s.dtype(x).kind == "u" else s.abs(x)

    def formula(self, *xs: Array) -> Array:
        return np.abs(xs[0])

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return dy * x.sign()


@register
class Sign(Map1):
    """-1, 0 or 1; NaN stays. The gradient is 0."""

    name = "sign"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        (x,) = xs
        zero = s.like(0, x)
        low = x if s.dtype(x).kind == "u" else s.select(s.compare("lt", x, zero), s.like(-1, x), x)
        return s.select(s.compare("gt", x, zero), s.like(1, x), low)

    def formula(self, *xs: Array) -> Array:
        return np.sign(xs[0])

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        return None


@register
class Add(Map2):
    """`a + b`; integers wrap."""

    name = "add"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.add(*xs)

    def formula(self, *xs: Array) -> Array:
        return np.add(*xs)

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        return dy, dy


@register
class Sub(Map2):
    """`a - b`; integers wrap."""

    name = "sub"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.sub(*xs)

    def formula(self, *xs: Array) -> Array:
        return np.subtract(*xs)

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        return dy, -dy


@register
class Mul(Map2):
    """`a * b`; integers wrap."""

    name = "mul"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.mul(*xs)

    def formula(self, *xs: Array) -> Array:
        return np.multiply(*xs)

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        return dy * b, dy * a


@register
class Div(Map2):
    """`a / b`; integers truncate, and give 0 for a divisor of 0."""

    name = "div"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.div(*xs)

    def formula(self, *xs: Array) -> Array:
        a, b = xs
        if a.dtype.kind == "f":
            return np.divide(a, b)
        # floor_divide rounds down; one more where the signs differ and something is left over.
        up = (np.mod(a, b) != 0) & ((a < 0) != (b < 0))
        return np.where(b == 0, 0, np.floor_divide(a, b) + up.astype(a.dtype))

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        da = dy / b
        return da, -(da * y)


@register
class Rem(Map2):
    """The remainder with the sign of the dividend (C's fmod); integers give 0 for a divisor of 0."""

    name = "rem"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("rem", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.fmod(*xs)

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        return dy, -(dy * _whole(a, b, y))


@register
class Mod(Map2):
    """The remainder with the sign of the divisor; integers give 0 for a divisor of 0."""

    name = "mod"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        a, b = xs
        r, zero = s.apply("rem", a, b), s.like(0, a)
        if s.dtype(a).kind == "u":
            return r
        crossed = s.compare("ne", s.compare("lt", r, zero), s.compare("lt", b, zero))
        moved = s.apply("and", s.compare("ne", r, zero), crossed)
        return s.select(moved, s.add(r, b), r)

    def formula(self, *xs: Array) -> Array:
        return np.mod(*xs)

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        return dy, -(dy * _whole(a, b, y))


def _whole(a: Sym, b: Sym, rest: Sym) -> Sym:
    """Return how often `b` was taken out of `a`, a whole number."""
    return ((a - rest) / b).unary(Round())


@register
class Max(Map2):
    """The greater of two, NaN if either is; a tie shares the gradient equally."""

    name = "max"
    kinds = "fiub"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.max(*xs)

    def formula(self, *xs: Array) -> Array:
        return np.maximum(*xs)

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        shared = (a == b).where(dy * 0.5, dy)
        return (a < b).where(0, shared), (b < a).where(0, shared)


@register
class Min(Map2):
    """The lesser of two, NaN if either is; a tie shares the gradient equally."""

    name = "min"
    kinds = "fiub"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.min(*xs)

    def formula(self, *xs: Array) -> Array:
        return np.minimum(*xs)

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        shared = (a == b).where(dy * 0.5, dy)
        return (a > b).where(0, shared), (b > a).where(0, shared)


@register
class Pow(Map2):
    """`a ** b`. Integers wrap; an integer to a negative power is truncated (0 for a base of 0)."""

    name = "pow"
    kinds = "fiu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        a, b = xs
        return s.apply("pow", a, b) if s.dtype(a).is_float else _integer_power(s, a, b)

    def formula(self, *xs: Array) -> Array:
        a, b = xs
        if a.dtype.kind == "f":
            return np.power(a, b)
        whole = np.power(a, np.maximum(b, 0))
        odd = np.where(b % 2 == 0, 1, a)
        return np.where(b >= 0, whole, np.where(abs(a) == 1, odd, 0))

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        # 0 * a**-1 must be 0 at a = 0, in derivatives of this formula too: the exponent is moved.
        singular = (b == 0) & (a.abs() < smallest_normal(a.dtype))
        da = dy * (b * a ** (singular.where(1, b) - 1))
        # y * log(a) tends to 0 with a when b >= 0.
        vanishing = (a == 0) & (b >= 0)
        return da, dy * (y * vanishing.where(1, a).log())


def _integer_power(s: ScalarOps[T], base: T, exponent: T) -> T:
    """Return the power by repeated squaring over all bits of the exponent."""
    dtype = s.dtype(base)
    zero, one = s.like(0, base), s.like(1, base)
    result, square = one, base
    for bit in range(dtype.bits - (dtype.kind == "i")):
        taken = s.apply("and", s.apply("shr", exponent, s.like(bit, base)), one)
        result = s.select(s.compare("ne", taken, zero), s.mul(result, square), result)
        square = s.mul(square, square)
    if dtype.kind == "u":
        return result
    even = s.compare("eq", s.apply("and", exponent, one), zero)
    unit = s.compare("eq", s.abs(base), one)
    inverse = s.select(unit, s.select(even, one, base), zero)
    return s.select(s.compare("lt", exponent, zero), inverse, result)


@register
class Atan2(Map2):
    """The angle of the point (b, a); the gradient at the origin is 0."""

    name = "atan2"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("atan2", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.arctan2(*xs)

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        square = a * a + b * b
        scaled = dy / (square == 0).where(1, square)
        return scaled * b, -(scaled * a)
