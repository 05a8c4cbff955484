"""What all layers share: how a layer declares its parameters, and sizes that must be known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.dsl import Recorder, user_line
from tapeout.ir.type import Dim, TensorType
from tapeout.support.errors import OptionError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.frontend.init import Initializer
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym


def recorder(x: Sym, layer: str) -> Recorder:
    """Return the recorder of a `tapeout.Builder` that a value belongs to.

    Raises:
        ShapeError: The value is part of a loop's or branch's body, a gradient rule or a loss, which have no variables.
    """
    if isinstance(x.builder, Recorder):
        return x.builder
    raise ShapeError(
        f"layer {layer!r} declares variables, but the graph {x.builder.name!r} has none of its own",
        where=str(user_line()),
        hint="declare them outside with g.parameter, and pass them in",
    )


def parameter(x: Sym, name: str, shape: Sequence[int], init: Initializer | Array) -> Sym:
    """Declare a parameter of the element type of `x`."""
    return recorder(x, name).declare(name, TensorType(x.dtype, tuple(shape)), init)


def state(x: Sym, name: str, shape: Sequence[int], init: Initializer | Array) -> Sym:
    """Declare a state of the element type of `x`."""
    return recorder(x, name).declare(
        name, TensorType(x.dtype, tuple(shape)), init, "state", trainable=False
    )


def known(x: Sym, axis: int, layer: str) -> int:
    """Return the size of an axis that decides the shape of a parameter.

    Raises:
        ShapeError: There is no such axis, or its size is not bound.
    """
    if not -x.rank <= axis < x.rank:
        raise ShapeError(f"{layer!r}: {x.type.text} has no axis {axis}", where=str(user_line()))
    size = x.shape[axis]
    if isinstance(size, Dim):
        raise ShapeError(
            f"{layer!r}: axis {axis} of {x.type.text} decides the shape of a parameter, but has no number yet",
            where=str(user_line()),
            hint="give the input a number there",
        )
    return size


def expect(condition: bool, message: str, hint: str = "") -> None:
    """Raise at the user's line unless a condition on options holds.

    Raises:
        OptionError: It does not.
    """
    if not condition:
        raise OptionError(message, where=str(user_line()), hint=hint)


def expect_shape(condition: bool, message: str, hint: str = "") -> None:
    """Raise at the user's line unless a condition on shapes holds.

    Raises:
        ShapeError: It does not.
    """
    if not condition:
        raise ShapeError(message, where=str(user_line()), hint=hint)


def per_axis(value: int | Sequence[int], axes: int, what: str, least: int = 1) -> tuple[int, ...]:
    """Return one number per axis of one for all, or of as many.

    Raises:
        OptionError: The count does not fit, or a number is too small.
    """
    found = (value,) * axes if isinstance(value, int) else tuple(int(v) for v in value)
    expect(
        len(found) == axes and all(v >= least for v in found),
        f"{what} is {value}, expected one number or {axes} of them, at least {least}",
    )
    return found


def along(x: Sym, vector: Sym, axis: int) -> Sym:
    """Return a vector in the shape of `x`, its entries along an axis."""
    return vector.broadcast(x.shape, [axis % x.rank])
