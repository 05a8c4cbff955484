"""Comparisons, tests, bits and choice. Only the choice has a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import bool_
from tapeout.ir.op import Elementwise, register
from tapeout.ops.elementwise.base import Map1, Map2, Test1, Test2
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.op import Array, T
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ir.type import TensorType
    from tapeout.ops.sym import Sym


@register
class Not(Map1):
    """The opposite of a bool, or every bit of an integer turned."""

    name = "not"
    kinds = "biu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("not", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.invert(*xs)


@register
class IsNan(Test1):
    """Whether an element is NaN."""

    name = "is_nan"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("isnan", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.isnan(*xs)


@register
class IsInf(Test1):
    """Whether an element is infinite, of either sign."""

    name = "is_inf"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("isinf", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.isinf(*xs)


@register
class And(Map2):
    """Both bools, or the common bits of integers."""

    name = "and"
    kinds = "biu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("and", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.bitwise_and(*xs)


@register
class Or(Map2):
    """Either bool, or the bits of either integer."""

    name = "or"
    kinds = "biu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("or", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.bitwise_or(*xs)


@register
class Xor(Map2):
    """Just one bool, or the bits of just one integer."""

    name = "xor"
    kinds = "biu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("xor", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.bitwise_xor(*xs)


@register
class ShiftLeft(Map2):
    """The bits of `a` moved up by `b`; by the width or more gives 0."""

    name = "shift_left"
    kinds = "iu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("shl", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.left_shift(*xs)


@register
class ShiftRight(Map2):
    """The bits of `a` moved down by `b`, the sign kept; by the width or more gives 0 or -1."""

    name = "shift_right"
    kinds = "iu"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.apply("shr", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.right_shift(*xs)


@register
class Equal(Test2):
    """Whether `a` equals `b`."""

    name = "equal"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.compare("eq", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.equal(*xs)


@register
class NotEqual(Test2):
    """Whether `a` differs from `b`; NaN differs from itself."""

    name = "not_equal"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.compare("ne", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.not_equal(*xs)


@register
class Less(Test2):
    """Whether `a < b`."""

    name = "less"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.compare("lt", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.less(*xs)


@register
class LessEqual(Test2):
    """Whether `a <= b`."""

    name = "less_equal"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.compare("le", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.less_equal(*xs)


@register
class Greater(Test2):
    """Whether `a > b`."""

    name = "greater"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.compare("gt", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.greater(*xs)


@register
class GreaterEqual(Test2):
    """Whether `a >= b`."""

    name = "greater_equal"

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.compare("ge", *xs)

    def formula(self, *xs: Array) -> Array:
        return np.greater_equal(*xs)


@register
class Select(Elementwise):
    """Elements of operand 1 where operand 0 (bool) is true, of operand 2 elsewhere."""

    name = "select"
    arity = 3

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of the branches; the condition is a bool of their shape."""
        self._check_arity(types)
        condition, a, b = types
        if a != b:
            raise ShapeError(f"select: the branches are {a} and {b}; both must be equal")
        if condition != a.with_dtype(bool_):
            raise ShapeError(
                f"select: the condition is {condition}, expected {a.with_dtype(bool_)}"
            )
        return (a,)

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        return s.select(*xs)

    def reference(self, *arrays: Array) -> Array:
        return np.where(*arrays)

    def pullback(
        self,
        cotangents: tuple[Sym | None, ...],
        operands: tuple[Sym, ...],
        results: tuple[Sym, ...],
    ) -> tuple[Sym | None, ...]:
        """Return the cotangent where a branch was taken, 0 elsewhere."""
        (dy,), (condition, _, _) = cotangents, operands
        assert dy is not None
        return None, condition.where(dy, 0), condition.where(0, dy)
