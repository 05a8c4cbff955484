"""What is known of values when a graph is compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ops import movement as mv

if TYPE_CHECKING:
    from tapeout.ir.graph import Value
    from tapeout.ir.op import Array

_SPREADS = (mv.Broadcast, mv.Reshape, mv.Transpose, mv.Reverse, mv.Slice)
"""Operations whose result holds no element that their operand lacks."""


def constant_of(value: Value) -> Array | None:
    """Return the data of a constant node's result."""
    if value.node is None or not isinstance(value.node.op, mv.Constant):
        return None
    return value.node.op.tensor.array


def splat_of(value: Value) -> int | float | bool | None:
    """Return the number that every element is, seen through broadcasts and the like; None if it is not known.

    An empty tensor has no such number.
    """
    if not value.type.size:
        return None
    while value.node is not None and isinstance(value.node.op, _SPREADS):
        (value,) = value.node.operands
    if value.node is None or not isinstance(value.node.op, mv.Constant):
        return None
    return value.node.op.tensor.splat
