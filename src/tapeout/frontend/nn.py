"""Layers for the builder: functions of a Sym that declare their parameters by name, with PyTorch's layouts and defaults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.frontend.init import fan_in_uniform
from tapeout.ops.composite import linear as composite_linear
from tapeout.ops.composite import pool as composite_pool
from tapeout.ops.composite import softmax as composite_softmax
from tapeout.ops.sym import Sym
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.frontend.init import Initializer
    from tapeout.ir.type import Shape


def _parameter(x: Sym, name: str, shape: Shape, init: Initializer) -> Sym:
    from tapeout.frontend.init import generator
    from tapeout.ir.type import TensorType

    data = init(shape, x.dtype, generator(getattr(x.builder, "seed", 0), name))
    return Sym(x.builder, x.builder.add_variable(name, TensorType(x.dtype, shape), initial=data))


def linear(
    x: Sym, features: int, *, name: str, bias: bool = True, init: Initializer | None = None
) -> Sym:
    """Return `x @ weight.T + bias` with parameters `name.weight` [features, in] and `name.bias` [features]."""
    inside = int(x.shape[-1])
    weight = _parameter(x, f"{name}.weight", (features, inside), init or fan_in_uniform(inside))
    offset = _parameter(x, f"{name}.bias", (features,), fan_in_uniform(inside)) if bias else None
    return composite_linear.linear(x, weight, offset)


def conv(
    x: Sym,
    channels: int,
    kernel: Sequence[int],
    *,
    name: str,
    strides: Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
    bias: bool = True,
    init: Initializer | None = None,
) -> Sym:
    """Return the convolution of `x` [N, C, *spatial] with parameters `name.weight` [channels, C/groups, *kernel] and `name.bias`."""
    spatial = x.rank - 2
    if spatial != len(kernel):
        raise ShapeError(
            f"conv {name!r}: a kernel of {len(kernel)} dimensions for {spatial} spatial dimensions of {x.type}"
        )
    inside = int(x.shape[1]) // groups
    fan_in = inside * math.prod(kernel)
    pads = [padding] * spatial if isinstance(padding, int) else list(padding)
    weight = _parameter(
        x, f"{name}.weight", (channels, inside, *kernel), init or fan_in_uniform(fan_in)
    )
    y = x.conv(
        weight,
        strides=strides or [1] * spatial,
        low=pads,
        high=pads,
        dilations=dilations,
        groups=groups,
    )
    if not bias:
        return y
    offset = _parameter(x, f"{name}.bias", (channels,), fan_in_uniform(fan_in))
    return y + offset.reshape([channels, *[1] * spatial])


def conv1d(x: Sym, channels: int, kernel: int, **options: object) -> Sym:
    """Return `conv` over one spatial dimension."""
    return conv(x, channels, [kernel], **options)  # type: ignore[arg-type]


def conv2d(x: Sym, channels: int, kernel: int | Sequence[int], **options: object) -> Sym:
    """Return `conv` over two spatial dimensions."""
    size = [kernel] * 2 if isinstance(kernel, int) else kernel
    return conv(x, channels, size, **options)  # type: ignore[arg-type]


def conv3d(x: Sym, channels: int, kernel: int | Sequence[int], **options: object) -> Sym:
    """Return `conv` over three spatial dimensions."""
    size = [kernel] * 3 if isinstance(kernel, int) else kernel
    return conv(x, channels, size, **options)  # type: ignore[arg-type]


def max_pool2d(x: Sym, kernel: int, stride: int | None = None, padding: int = 0) -> Sym:
    """Return the greatest of each window; the first in scan order gets the gradient."""
    step = kernel if stride is None else stride
    return composite_pool.max_pool(
        x, (kernel, kernel), (step, step), (padding, padding), (padding, padding)
    )


def flatten(x: Sym, start: int = 1) -> Sym:
    """Return the dimensions from `start` on joined into one."""
    return x.reshape([*x.shape[:start], math.prod(x.shape[start:])])


def relu(x: Sym) -> Sym:
    """Return `max(x, 0)`."""
    return x.relu()


def sigmoid(x: Sym) -> Sym:
    """Return `1 / (1 + exp(-x))`."""
    return x.sigmoid()


def tanh(x: Sym) -> Sym:
    """Return the hyperbolic tangent."""
    return x.tanh()


def softmax(x: Sym, axis: int = -1) -> Sym:
    """Return `exp(x)` divided by its sum along `axis`."""
    return composite_softmax.softmax(x, axis)


def log_softmax(x: Sym, axis: int = -1) -> Sym:
    """Return the logarithm of softmax along `axis`, computed without overflow."""
    return composite_softmax.log_softmax(x, axis)
