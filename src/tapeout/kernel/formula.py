"""Formulas over expressions of level L, written with operators.

`X` wraps an expression; `x * x + 1.0` makes `Apply` nodes; plain numbers take the type and lanes of the other operand. What a
formula also needs, the format of its floats and a way to compute a rare case apart, comes from `Formulas`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.ir.dtype import DType, bool_, f32, f64, i32, i64
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.kernel import loops

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapeout.kernel.target import Target

Number = float | int


class X:
    """A scalar or vector in a formula."""

    __slots__ = ("e",)

    def __init__(self, e: loops.Expr) -> None:
        """Wrap an expression."""
        self.e = e

    def like(self, value: X | Number) -> X:
        """Return a number of this type, in every lane; an `X` as it is."""
        if isinstance(value, X):
            return value
        typed = float(value) if self.e.dtype.is_float else int(value)
        return X(loops.Const(self.e.dtype, self.e.lanes, typed))

    def apply(self, op: str, *others: X | Number) -> X:
        """Return an operation of `SCALAR_OPS` whose first operand this is."""
        args = (self.e, *(self.like(o).e for o in others))
        dtype = bool_ if SCALAR_OPS[op].result == "bool" else args[-1].dtype
        return X(loops.Apply(dtype, self.e.lanes, op, args))

    def bits(self, dtype: DType) -> X:
        """Return the same bits as another type."""
        return X(loops.Bitcast(dtype, self.e.lanes, self.e))

    def to(self, dtype: DType) -> X:
        """Return the value converted."""
        return self if self.e.dtype == dtype else X(loops.Cast(dtype, self.e.lanes, self.e))

    def fma(self, factor: X | Number, addend: X | Number) -> X:
        """Return `self * factor + addend`, with one rounding where the machine can."""
        return self.apply("fma", factor, addend)

    def __add__(self, o: X | Number) -> X:
        return self.apply("add", o)

    def __radd__(self, o: Number) -> X:
        return self.like(o).apply("add", self)

    def __sub__(self, o: X | Number) -> X:
        return self.apply("sub", o)

    def __rsub__(self, o: Number) -> X:
        return self.like(o).apply("sub", self)

    def __mul__(self, o: X | Number) -> X:
        return self.apply("mul", o)

    def __rmul__(self, o: Number) -> X:
        return self.like(o).apply("mul", self)

    def __truediv__(self, o: X | Number) -> X:
        return self.apply("div", o)

    def __rtruediv__(self, o: Number) -> X:
        return self.like(o).apply("div", self)

    def __neg__(self) -> X:
        return self.apply("neg")

    def __abs__(self) -> X:
        return self.apply("abs")

    def __and__(self, o: X | int) -> X:
        return self.apply("and", o)

    def __or__(self, o: X | int) -> X:
        return self.apply("or", o)

    def __xor__(self, o: X | int) -> X:
        return self.apply("xor", o)

    def __lshift__(self, o: X | int) -> X:
        return self.apply("shl", o)

    def __rshift__(self, o: X | int) -> X:
        return self.apply("shr", o)

    def __invert__(self) -> X:
        return self.apply("not")

    def __lt__(self, o: X | Number) -> X:
        return self.apply("lt", o)

    def __le__(self, o: X | Number) -> X:
        return self.apply("le", o)

    def __gt__(self, o: X | Number) -> X:
        return self.apply("gt", o)

    def __ge__(self, o: X | Number) -> X:
        return self.apply("ge", o)

    def equals(self, o: X | Number) -> X:
        """Return whether both are equal."""
        return self.apply("eq", o)

    def differs(self, o: X | Number) -> X:
        """Return whether both are not equal."""
        return self.apply("ne", o)


def where(condition: X, if_true: X | Number, if_false: X | Number) -> X:
    """Return one of two, lane by lane; at least one of them is an `X`."""
    typed = if_true if isinstance(if_true, X) else if_false
    assert isinstance(typed, X)
    return condition.apply("select", typed.like(if_true), typed.like(if_false))


def horner(x: X, coefficients: Sequence[float]) -> X:
    """Return the polynomial whose coefficients are given, lowest power first."""
    *rest, last = coefficients
    total = x.like(last)
    for c in reversed(rest):
        total = total.fma(x, c)
    return total


@dataclass(frozen=True)
class Format:
    """A float format as formulas see it.

    Attributes:
        dtype: The type.
        integer: The signed integer of the same width.
        digits: Bits of the mantissa that are stored.
        bias: Added to the exponent in the stored form.
    """

    dtype: DType
    integer: DType
    digits: int
    bias: int

    @property
    def magic(self) -> float:
        """A number whose last mantissa bit is worth 1: adding it rounds to an integer."""
        return 1.5 * 2.0**self.digits

    @property
    def least(self) -> float:
        """The least normal number."""
        return 2.0 ** (1 - self.bias)

    def bits(self, value: float) -> int:
        """Return the stored form of a number of the format, as a signed integer."""
        form, word = ("<f", "<i") if self.dtype == f32 else ("<d", "<q")
        return int(struct.unpack(word, struct.pack(form, value))[0])


F32 = Format(f32, i32, 23, 127)
F64 = Format(f64, i64, 52, 1023)


class Formulas:
    """What formulas need besides operators: the format of their floats, and statements for rare cases.

    Args:
        format: The float format.
        target: Says whether `fma` has one rounding.
        before: Statements that must run before the formula's own; grows.
        fresh: Makes unique names.
    """

    def __init__(
        self,
        format: Format,
        target: Target,
        before: list[loops.Stmt],
        fresh: Callable[[], str],
    ) -> None:
        """Write formulas of one format."""
        self.format = format
        self.target = target
        self._before = before
        self._fresh = fresh

    def to(self, format: Format) -> Formulas:
        """Return the same in another format."""
        return Formulas(format, self.target, self._before, self._fresh)

    # --- parts of floats -------------------------------------------------------------------------

    def power_of_two(self, k: X) -> X:
        """Return `2**k` for an integer k in the range of normal numbers."""
        f = self.format
        return ((k + f.bias) << f.digits).bits(f.dtype)

    def round(self, x: X) -> tuple[X, X]:
        """Return x rounded to an integer, half to even, as a float and as an integer; |x| < 2**(digits-2)."""
        f = self.format
        shifted = x + f.magic
        return shifted - f.magic, shifted.bits(f.integer) - f.bits(f.magic)

    def small_float(self, k: X) -> X:
        """Return an integer below 2**(digits-2) as a float: an addition, where a conversion of i64 has no instruction."""
        f = self.format
        return (k + f.bits(f.magic)).bits(f.dtype) - f.magic

    def scale(self, x: X, k: X) -> X:
        """Return `x * 2**k` rounded once, also where the result overflows or is denormal."""
        half = k >> 1
        return x * self.power_of_two(half) * self.power_of_two(k - half)

    def sign(self, x: X) -> X:
        """Return the sign bit of x in its place, as an integer."""
        return x.bits(self.format.integer) & self.format.bits(-0.0)

    def with_sign(self, size: X, sign: X) -> X:
        """Return a float with its sign flipped where the sign bit is set."""
        return (size.bits(self.format.integer) ^ sign).bits(self.format.dtype)

    # --- exact sums and products -----------------------------------------------------------------

    def two_sum(self, a: X, b: X) -> tuple[X, X]:
        """Return `a + b` and its rounding error."""
        total = a + b
        part = total - a
        return total, (a - (total - part)) + (b - part)

    def two_product(self, a: X, b: X) -> tuple[X, X]:
        """Return `a * b` and its rounding error."""
        product = a * b
        if self.target.fma:
            return product, a.fma(b, -product)
        (ah, al), (bh, bl) = self._halves(a), self._halves(b)
        return product, (((ah * bh - product) + ah * bl) + al * bh) + al * bl

    def _halves(self, a: X) -> tuple[X, X]:
        wide = a * (2.0 ** (self.format.digits // 2 + 1) + 1.0)
        high = wide - (wide - a)
        return high, a - high

    # --- rare cases ------------------------------------------------------------------------------

    def name(self, x: X) -> X:
        """Return x computed once, before the statement."""
        var = loops.Var(x.e.dtype, x.e.lanes, self._fresh())
        self._before.append(loops.Let(var, x.e))
        return X(var)

    def rarely(
        self, condition: X, usual: Sequence[X], rare: Callable[[], Sequence[X]]
    ) -> tuple[X, ...]:
        """Return `rare` in the lanes where the condition holds, computed only if there is one; else `usual`."""
        zero = loops.Const(i64, 1, 0)
        made = [loops.Alloc(self._fresh(), u.e.dtype, u.e.lanes, 1, "register") for u in usual]
        stores = [loops.Store(a.name, zero, u.e) for a, u in zip(made, usual, strict=True)]
        loads = [X(loops.Load(a.dtype, a.lanes, a.name, zero)) for a in made]
        condition = self.name(condition)
        chosen = [where(condition, r, u) for r, u in zip(rare(), loads, strict=True)]
        block = tuple(loops.Store(a.name, zero, c.e) for a, c in zip(made, chosen, strict=True))
        test = condition.e if condition.e.lanes == 1 else loops.Lanes(bool_, 1, "any", condition.e)
        self._before += [*made, *stores, loops.If(test, block)]
        return tuple(loads)
