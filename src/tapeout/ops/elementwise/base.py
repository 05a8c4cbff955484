"""What all elementwise operations share: the check of element types, and the numpy reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tapeout.ir.dtype import bool_
from tapeout.ir.op import Binary, Elementwise, Unary
from tapeout.ops.exact import rounded, wide
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType

_KINDS = {"f": "floats", "i": "signed integers", "u": "unsigned integers", "b": "bools"}


class Mapped(Elementwise):
    """An elementwise operation with a `formula` in numpy.

    The reference computes floats in f64 and rounds once, so that it is the best result of its type.
    """

    kinds: ClassVar[str] = "f"
    """The kinds of element types accepted."""

    def formula(self, *xs: Array) -> Array:
        """Return the result of arrays; floats come as f64."""
        raise NotImplementedError(self.name)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the common type of the operands, whose kind must be one of `kinds`."""
        (found,) = super().infer(*types)
        if found.dtype.kind not in self.kinds:
            accepted = " or ".join(_KINDS[k] for k in self.kinds)
            raise ShapeError(f"{self.name} takes {accepted}, got {found}")
        return (found,)

    def reference(self, *arrays: Array) -> Array:
        """Return the formula of the arrays, rounded once."""
        with np.errstate(all="ignore"):
            found = np.asarray(self.formula(*(wide(x) for x in arrays)))
            return found if found.dtype == np.bool_ else rounded(found, arrays[-1].dtype)


class Map1(Mapped, Unary):
    """A mapped operation of one operand."""


class Map2(Mapped, Binary):
    """A mapped operation of two operands."""


class Test1(Map1):
    """A mapped operation of one operand that gives a bool."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return bools of the operand's shape."""
        (found,) = super().infer(*types)
        return (found.with_dtype(bool_),)


class Test2(Map2):
    """A mapped operation of two operands that gives a bool."""

    kinds = "fiub"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return bools of the operands' shape."""
        (found,) = super().infer(*types)
        return (found.with_dtype(bool_),)


def smallest_normal(dtype: DType) -> float:
    """Return the smallest float whose reciprocal is finite and that has full precision."""
    return 2.0**-14 if dtype.name == "f16" else 2.0**-1022 if dtype.bits == 64 else 2.0**-126
