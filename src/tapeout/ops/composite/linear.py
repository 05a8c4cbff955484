"""The fully connected layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ops.sym import Sym


def linear(x: Sym, weight: Sym, bias: Sym | None = None) -> Sym:
    """Return `x @ weight.T + bias`.

    Args:
        x: [*, in].
        weight: [out, in].
        bias: [out].

    Returns:
        [*, out].

    Raises:
        ShapeError: The shapes do not fit.
    """
    if x.rank < 1 or weight.rank != 2 or weight.shape[1] != x.shape[-1]:
        raise ShapeError(
            f"linear: x is {x.type}, weight is {weight.type}; expected [*, in] and [out, in]"
        )
    y = x.dot_general(weight, contract=((x.rank - 1,), (1,)))
    if bias is None:
        return y
    if bias.shape != weight.shape[:1]:
        raise ShapeError(f"linear: bias is {bias.type}, weight is {weight.type}; expected [out]")
    return y + bias
