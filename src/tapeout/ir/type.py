"""Types of values, and dimensions that remember their name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from tapeout.support.errors import UnboundDimension

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.ir.dtype import DType

Shape = tuple[int, ...]


class Dim(int):
    """A number that remembers how it follows from named dimensions.

    A graph that is recorded with `N` unbound sees the preview number; `resolve` computes the number for
    another binding. Only `+ - * //` keep the memory, which is all that shape rules do.

    >>> n = Dim.named("N", 2)
    >>> (n * 784).resolve({"N": 64})
    50176
    """

    expr: tuple[object, ...]

    def __new__(cls, value: int, expr: tuple[object, ...]) -> Self:
        """Return `value` with its derivation `expr`, e.g. `("*", ("N",), 784)`."""
        self = super().__new__(cls, value)
        self.expr = expr
        return self

    @classmethod
    def named(cls, name: str, preview: int) -> Dim:
        """Return the named dimension itself, standing at its preview number."""
        return cls(preview, ("dim", name, preview))

    def resolve(self, dims: Mapping[str, int]) -> int:
        """Return the number for a binding; names that it lacks keep their preview."""
        return _evaluate(self.expr, dims)

    def __str__(self) -> str:
        return int.__repr__(self)

    def __add__(self, other: int) -> Dim:
        return _derive("+", self, other, int(self) + int(other))

    def __radd__(self, other: int) -> Dim:
        return _derive("+", other, self, int(other) + int(self))

    def __sub__(self, other: int) -> Dim:
        return _derive("-", self, other, int(self) - int(other))

    def __rsub__(self, other: int) -> Dim:
        return _derive("-", other, self, int(other) - int(self))

    def __mul__(self, other: int) -> Dim:
        return _derive("*", self, other, int(self) * int(other))

    def __rmul__(self, other: int) -> Dim:
        return _derive("*", other, self, int(other) * int(self))

    def __floordiv__(self, other: int) -> Dim:
        return _derive("//", self, other, int(self) // int(other))

    def __rfloordiv__(self, other: int) -> Dim:
        return _derive("//", other, self, int(other) // int(self))

    def __truediv__(self, other: float) -> NoReturn:
        raise _no_number(self)

    def __rtruediv__(self, other: float) -> NoReturn:
        raise _no_number(self)


def _no_number(dim: Dim) -> UnboundDimension:
    text = f"{spell(dim.expr)} has no number yet, so that it cannot be divided to a fraction"
    return UnboundDimension(text, hint="bind it, divide tensors by it (x / n), or use x.mean()")


def _derive(sign: str, a: int, b: int, value: int) -> Dim:
    return Dim(value, (sign, _operand(a), _operand(b)))


def _operand(x: int) -> object:
    return x.expr if isinstance(x, Dim) else int(x)


def _evaluate(expr: object, dims: Mapping[str, int]) -> int:
    if isinstance(expr, int):
        return expr
    assert isinstance(expr, tuple)
    sign, a, b = expr
    if sign == "dim":
        return dims.get(a, b)
    a, b = _evaluate(a, dims), _evaluate(b, dims)
    if sign == "//":
        return a // b
    return a + b if sign == "+" else a - b if sign == "-" else a * b


def spell(expr: object) -> str:
    """Return a derivation of a dimension as a formula, such as `N*784`."""
    if not isinstance(expr, tuple):
        return str(expr)
    sign, a, b = expr
    if sign == "dim":
        return str(a)
    left, right = spell(a), spell(b)
    if sign in ("*", "//"):
        left, right = (f"({x})" if "+" in x or "-" in x else x for x in (left, right))
    return f"{left}{sign}{right}"


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape; every shape is made of numbers."""

    dtype: DType
    shape: Shape = ()

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of a dense buffer."""
        return self.size * self.dtype.bytes

    @property
    def text(self) -> str:
        """Spelled for people: `f32[N,784]`, formulas of named dimensions included."""
        return f"{self.dtype.name}[{','.join(self.sizes)}]"

    @property
    def sizes(self) -> list[str]:
        """The sizes spelled for people, named dimensions by name."""
        return [spell(d.expr) if isinstance(d, Dim) else str(d) for d in self.shape]

    def with_shape(self, shape: Shape) -> TensorType:
        """Return the same element type in another shape."""
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        """Return the same shape of another element type."""
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(str(int(d)) for d in self.shape)}]"
