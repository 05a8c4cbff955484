"""What all operations that move data share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.type import TensorType
    from tapeout.ops.sym import Sym

T = TypeVar("T")
Ints = tuple[int, ...]
Cotangents = tuple["Sym | None", ...]


def one_operand(types: tuple[TensorType, ...], name: str) -> TensorType:
    """Return the type of the only operand of operation `name`."""
    if len(types) != 1:
        raise ShapeError(f"{name} takes one operand, got {len(types)}")
    return types[0]
