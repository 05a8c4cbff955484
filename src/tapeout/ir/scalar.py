"""The scalar language: what one element of a result is made of.

An operation states its meaning once against `ScalarOps`; numpy, the kernel IR and text each implement it.
`SCALAR_OPS` is the whole vocabulary. Every operand of an operation has one type, except where `Signature` says else.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from tapeout.ir.affine import Affine
    from tapeout.ir.dtype import DType

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Signature:
    """Number of operands, kinds of element types accepted (`f`, `i`, `u`, `b`), and the kind of result.

    `result` is `same` (the type of the last operand) or `bool`.
    """

    arity: int
    kinds: str
    result: str = "same"


SCALAR_OPS: dict[str, Signature] = {
    # Arithmetic. Integers wrap; integer `div` and `rem` truncate, and by zero give 0. `max` and `min` pass NaN on.
    "add": Signature(2, "fiu"),
    "sub": Signature(2, "fiu"),
    "mul": Signature(2, "fiu"),
    "div": Signature(2, "fiu"),
    "rem": Signature(2, "fiu"),
    "max": Signature(2, "fiub"),
    "min": Signature(2, "fiub"),
    "neg": Signature(1, "fi"),
    "abs": Signature(1, "fi"),
    "fma": Signature(3, "f"),
    # Functions of floats.
    **dict.fromkeys(
        (
            "exp",
            "expm1",
            "log",
            "log1p",
            "sqrt",
            "rsqrt",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
        ),
        Signature(1, "f"),
    ),
    **dict.fromkeys(
        ("sinh", "cosh", "asinh", "acosh", "atanh", "tanh", "sigmoid", "erf"), Signature(1, "f")
    ),
    **dict.fromkeys(("floor", "ceil", "round", "trunc"), Signature(1, "f")),  # round: half to even
    "pow": Signature(2, "f"),
    "atan2": Signature(2, "f"),
    # Comparisons and tests.
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), Signature(2, "fiub", "bool")),
    "isnan": Signature(1, "f", "bool"),
    "isinf": Signature(1, "f", "bool"),
    # Bits and logic. `shr` keeps the sign of signed types. Shifts by the width or more give 0 (or the sign).
    "and": Signature(2, "iub"),
    "or": Signature(2, "iub"),
    "xor": Signature(2, "iub"),
    "not": Signature(1, "iub"),
    "shl": Signature(2, "iu"),
    "shr": Signature(2, "iu"),
    # select(condition: bool, if_true, if_false)
    "select": Signature(3, "fiub"),
}


class ScalarOps(abc.ABC, Generic[T]):
    """The scalar operations over some representation `T` of a scalar (or of many at once)."""

    @abc.abstractmethod
    def const(self, value: float, dtype: DType) -> T:
        """Return a constant of a type."""

    @abc.abstractmethod
    def cast(self, x: T, dtype: DType) -> T:
        """Return `x` converted; float to integer truncates, to bool tests for non-zero."""

    @abc.abstractmethod
    def bitcast(self, x: T, dtype: DType) -> T:
        """Return the same bits as another type of the same width."""

    @abc.abstractmethod
    def index(self, index: Affine) -> T:
        """Return an index expression as an `i64` scalar."""

    @abc.abstractmethod
    def dtype(self, x: T) -> DType:
        """Return the element type of a scalar."""

    @abc.abstractmethod
    def apply(self, name: str, *xs: T) -> T:
        """Return the operation `name` of `SCALAR_OPS` on scalars."""

    def like(self, value: float, x: T) -> T:
        """Return a constant of the type of `x`."""
        return self.const(value, self.dtype(x))

    def add(self, x: T, y: T) -> T:
        """Return `x + y`."""
        return self.apply("add", x, y)

    def sub(self, x: T, y: T) -> T:
        """Return `x - y`."""
        return self.apply("sub", x, y)

    def mul(self, x: T, y: T) -> T:
        """Return `x * y`."""
        return self.apply("mul", x, y)

    def div(self, x: T, y: T) -> T:
        """Return `x / y`."""
        return self.apply("div", x, y)

    def neg(self, x: T) -> T:
        """Return `-x`."""
        return self.apply("neg", x)

    def abs(self, x: T) -> T:
        """Return `|x|`."""
        return self.apply("abs", x)

    def max(self, x: T, y: T) -> T:
        """Return the greater; NaN if either is."""
        return self.apply("max", x, y)

    def min(self, x: T, y: T) -> T:
        """Return the lesser; NaN if either is."""
        return self.apply("min", x, y)

    def exp(self, x: T) -> T:
        """Return `e**x`."""
        return self.apply("exp", x)

    def log(self, x: T) -> T:
        """Return the natural logarithm."""
        return self.apply("log", x)

    def log1p(self, x: T) -> T:
        """Return `log(1 + x)`."""
        return self.apply("log1p", x)

    def expm1(self, x: T) -> T:
        """Return `exp(x) - 1`."""
        return self.apply("expm1", x)

    def sqrt(self, x: T) -> T:
        """Return the square root."""
        return self.apply("sqrt", x)

    def tanh(self, x: T) -> T:
        """Return the hyperbolic tangent."""
        return self.apply("tanh", x)

    def erf(self, x: T) -> T:
        """Return the error function."""
        return self.apply("erf", x)

    def sigmoid(self, x: T) -> T:
        """Return `1 / (1 + exp(-x))`."""
        return self.apply("sigmoid", x)

    def compare(self, sign: str, x: T, y: T) -> T:
        """Return the comparison `eq ne lt le gt ge` as bool."""
        return self.apply(sign, x, y)

    def select(self, condition: T, if_true: T, if_false: T) -> T:
        """Return one of two by a bool."""
        return self.apply("select", condition, if_true, if_false)
