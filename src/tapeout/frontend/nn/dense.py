"""Fully connected layers, embeddings, dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.init import fan_in_uniform, normal
from tapeout.frontend.nn.base import expect, expect_shape, known, parameter, recorder
from tapeout.ir.dtype import DType, f32, u32
from tapeout.ir.type import Shape, TensorType
from tapeout.ops.composite import linear as composite_linear

if TYPE_CHECKING:
    from tapeout.frontend.init import Initializer
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym


def linear(
    x: Sym, features: int, *, name: str, bias: bool = True, init: Initializer | Array | None = None
) -> Sym:
    """Return `x @ weight.T + bias`.

    Args:
        x: [*, in].
        features: How many numbers come out.
        name: Name of the layer; its parameters are `name.weight` [features, in] and `name.bias` [features].
        bias: Whether there is a bias.
        init: Other initial values of the weight than uniform ones in ±1/√in.

    Returns:
        [*, features].
    """
    inside = known(x, -1, name)
    drawn = fan_in_uniform(inside)
    weight = parameter(x, f"{name}.weight", (features, inside), drawn if init is None else init)
    offset = parameter(x, f"{name}.bias", (features,), drawn) if bias else None
    return composite_linear.linear(x, weight, offset)


def bilinear(a: Sym, b: Sym, features: int, *, name: str, bias: bool = True) -> Sym:
    """Return `a @ weight[f] @ b + bias[f]` for each feature f.

    Args:
        a: [*, in1].
        b: [*, in2].
        features: How many numbers come out.
        name: Name of the layer; its parameters are `name.weight` [features, in1, in2] and `name.bias` [features].
        bias: Whether there is a bias.

    Returns:
        [*, features].
    """
    expect_shape(
        a.shape[:-1] == b.shape[:-1], f"bilinear {name!r}: {a.type.text} and {b.type.text} differ"
    )
    first, second = known(a, -1, name), known(b, -1, name)
    drawn = fan_in_uniform(first)
    weight = parameter(a, f"{name}.weight", (features, first, second), drawn)
    spread = a.dot_general(weight, contract=((a.rank - 1,), (1,)))  # [*, features, in2]
    y = (spread * b.expand_dims([-2])).sum(-1)
    return y + parameter(a, f"{name}.bias", (features,), drawn) if bias else y


def embedding(
    indices: Sym,
    count: int,
    features: int,
    *,
    name: str,
    padding: int | None = None,
    init: Initializer | Array | None = None,
    like: Sym | None = None,
) -> Sym:
    """Return the rows of a table that indices name.

    Args:
        indices: Integers of any shape, 0..count-1; others make the step fail before any update.
        count: Rows of the table.
        features: Numbers in a row.
        name: Name of the layer; its parameter is `name.weight` [count, features].
        padding: A row that stays zero: it starts so and gets no gradient.
        init: Other initial values than normal ones of deviation 1.
        like: A value whose element type the table takes; without it the table is f32.

    Returns:
        [*indices, features].
    """
    expect_shape(
        indices.dtype.is_integer, f"embedding {name!r}: the indices are {indices.type.text}"
    )
    dtype = f32 if like is None else like.dtype
    rows = recorder(indices, name)
    drawn: Initializer | Array = normal(1.0) if init is None else init
    if padding is not None:
        expect(-count <= padding < count, f"embedding {name!r}: no row {padding} among {count}")
        drawn = _zero_row(drawn, padding % count)
    table = rows.declare(f"{name}.weight", TensorType(dtype, (count, features)), drawn)
    if padding is None:
        return table.take(indices, 0)
    blank = indices == (padding % count)
    found = table.take(indices, 0)
    # The row is read as a constant 0, so that its gradient is zero.
    return blank.expand_dims([-1]).where(found.zeros_like(), found)


def _zero_row(init: Initializer | Array, row: int) -> Initializer:
    def made(shape: Shape, dtype: DType, rng: np.random.Generator) -> Array:
        data = np.array(init(shape, dtype, rng) if callable(init) else init)
        data[row] = 0
        return data

    return made


def dropout(x: Sym, p: float = 0.5, *, name: str) -> Sym:
    """Return `x` with a share of its elements 0 and the others scaled up; in inference `x` itself.

    Args:
        x: Any shape.
        p: The share, 0..1.
        name: Name of the layer: what is dropped follows from it, the seed of the trainer and the step.
    """
    return _dropped(x, p, name, x.shape)


def dropout2d(x: Sym, p: float = 0.5, *, name: str) -> Sym:
    """Return `x` [N, C, *] with a share of its whole channels 0 and the others scaled up; in inference `x` itself."""
    expect_shape(x.rank >= 3, f"dropout2d {name!r}: [N, C, *] is expected, got {x.type.text}")
    return _dropped(x, p, name, x.shape[:2])


def _dropped(x: Sym, p: float, name: str, shape: tuple[int, ...]) -> Sym:
    expect(0.0 <= p <= 1.0, f"dropout {name!r}: the share is {p}, expected 0..1")
    return recorder(x, name).by_mode(name, in_training(x, p, name, shape), x) if p else x


def in_training(x: Sym, p: float, name: str, shape: tuple[int, ...] | None = None) -> Sym:
    """Return `x` with a share of its elements 0 and the others scaled up; `shape` is what is drawn: that of `x`, or its first dimensions."""
    if p == 1.0:
        return x.zeros_like()
    drawn = x.shape if shape is None else shape
    limit = min(round(p * (1 << 32)), (1 << 32) - 1)
    kept = recorder(x, name).bits(name, drawn) >= x.constant(limit, u32)
    kept = kept.broadcast(x.shape, range(len(drawn)))
    return kept.where(x * (1.0 / (1.0 - p)), 0)
