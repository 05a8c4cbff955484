"""Convolutions over one, two and three dimensions, and their transposes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.frontend.init import fan_in_uniform
from tapeout.frontend.nn.base import along, expect, expect_shape, known, parameter, per_axis
from tapeout.ops.contraction import Conv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.frontend.init import Initializer
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym

    Ints = int | Sequence[int]


def conv(
    x: Sym,
    channels: int,
    kernel: Sequence[int],
    *,
    name: str,
    strides: Ints | None = None,
    padding: Ints | str = 0,
    dilations: Ints | None = None,
    groups: int = 1,
    bias: bool = True,
    init: Initializer | Array | None = None,
) -> Sym:
    """Return the convolution of `x` over as many dimensions as the kernel has.

    Args:
        x: [N, C, *spatial].
        channels: Channels of the result.
        kernel: Size of the window per dimension.
        name: Name of the layer; its parameters are `name.weight` [channels, C/groups, *kernel] and `name.bias` [channels].
        strides: Steps of the window (default 1).
        padding: Zeros before and after each dimension; `"valid"` for none, `"same"` for a result of the size of `x`.
        dilations: Steps inside the window (default 1).
        groups: Into how many groups channels are parted; C for a depthwise convolution.
        bias: Whether there is a bias.
        init: Other initial values of the weight than uniform ones in ±1/√(C/groups · kernel).

    Returns:
        [N, channels, *counts].

    Raises:
        ShapeError: Sizes do not fit.
        OptionError: An option has no meaning.
    """
    inside, axes = _channels(x, channels, kernel, groups, name), len(kernel)
    steps = per_axis(1 if strides is None else strides, axes, f"conv {name!r}: strides")
    spread = per_axis(1 if dilations is None else dilations, axes, f"conv {name!r}: dilations")
    low, high = _padding(name, padding, kernel, steps, spread)
    drawn = fan_in_uniform(inside // groups * math.prod(kernel))
    shape = (channels, inside // groups, *kernel)
    weight = parameter(x, f"{name}.weight", shape, drawn if init is None else init)
    y = x.conv(weight, strides=steps, low=low, high=high, dilations=spread, groups=groups)
    return y + along(y, parameter(x, f"{name}.bias", (channels,), drawn), 1) if bias else y


def conv_transpose(
    x: Sym,
    channels: int,
    kernel: Sequence[int],
    *,
    name: str,
    strides: Ints | None = None,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilations: Ints | None = None,
    groups: int = 1,
    bias: bool = True,
    init: Initializer | Array | None = None,
) -> Sym:
    """Return the transposed convolution of `x`: the data gradient of the convolution with the same options.

    Args:
        x: [N, C, *spatial].
        channels: Channels of the result.
        kernel: Size of the window per dimension.
        name: Name of the layer; its parameters are `name.weight` [C, channels/groups, *kernel] and `name.bias` [channels].
        strides: How far apart the elements of `x` stand in the result (default 1).
        padding: What is cut off before and after each dimension of the result.
        output_padding: What is put on behind it.
        dilations: Steps inside the window (default 1).
        groups: Into how many groups channels are parted.
        bias: Whether there is a bias.
        init: Other initial values of the weight than uniform ones in ±1/√(channels/groups · kernel).

    Returns:
        [N, channels, *sizes], a size being `(n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1`.

    Raises:
        ShapeError: Sizes do not fit.
        OptionError: An option has no meaning.
    """
    inside, axes = _channels(x, channels, kernel, groups, name), len(kernel)
    what = f"conv_transpose {name!r}: "
    steps = per_axis(1 if strides is None else strides, axes, what + "strides")
    spread = per_axis(1 if dilations is None else dilations, axes, what + "dilations")
    cut = per_axis(padding, axes, what + "padding", least=0)
    more = per_axis(output_padding, axes, what + "output_padding", least=0)
    for i in range(axes):
        expect(
            more[i] < max(steps[i], spread[i]),
            f"{what}output_padding {more[i]} must be less than stride {steps[i]} or dilation {spread[i]}",
        )
    sizes = [
        (n - 1) * steps[i] - 2 * cut[i] + spread[i] * (kernel[i] - 1) + more[i] + 1
        for i, n in enumerate(x.shape[2:])
    ]
    expect_shape(all(n > 0 for n in sizes), f"{what}the result would have the sizes {sizes}")
    drawn = fan_in_uniform(channels // groups * math.prod(kernel))
    shape = (inside, channels // groups, *kernel)
    weight = parameter(x, f"{name}.weight", shape, drawn if init is None else init)
    made = Conv(
        out="x",
        strides=steps,
        low=cut,
        high=cut,
        dilations=spread,
        groups=groups,
        shape=(x.shape[0], channels, *sizes),
    )
    y = x.emit(made, x, weight)
    return y + along(y, parameter(x, f"{name}.bias", (channels,), drawn), 1) if bias else y


def _channels(x: Sym, channels: int, kernel: Sequence[int], groups: int, name: str) -> int:
    """Return the channels of `x`, after all sizes were looked at."""
    spatial = x.rank - 2
    expect_shape(
        spatial == len(kernel),
        f"conv {name!r}: a kernel of {len(kernel)} dimensions for {max(spatial, 0)} spatial dimensions of {x.type.text}",
    )
    expect(all(k > 0 for k in kernel), f"conv {name!r}: the kernel is {list(kernel)}")
    inside = known(x, 1, name)
    expect_shape(
        groups > 0 and inside % groups == 0 and channels % groups == 0 and channels > 0,
        f"conv {name!r}: {groups} groups do not part {inside} channels in and {channels} out",
    )
    return inside


def _padding(
    name: str,
    padding: Ints | str,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if not isinstance(padding, str):
        pads = per_axis(padding, len(kernel), f"conv {name!r}: padding", least=0)
        return pads, pads
    expect(
        padding in ("same", "valid"),
        f"conv {name!r}: padding is {padding!r}, expected numbers, 'same' or 'valid'",
    )
    if padding == "valid":
        return (0,) * len(kernel), (0,) * len(kernel)
    expect(
        all(s == 1 for s in strides),
        f"conv {name!r}: padding 'same' has no meaning with strides {list(strides)}",
    )
    total = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


def conv1d(
    x: Sym,
    channels: int,
    kernel: Ints,
    *,
    name: str,
    strides: Ints | None = None,
    padding: Ints | str = 0,
    dilations: Ints | None = None,
    groups: int = 1,
    bias: bool = True,
    init: Initializer | Array | None = None,
) -> Sym:
    """Return `conv` over one spatial dimension."""
    return conv(
        x,
        channels,
        per_axis(kernel, 1, f"conv1d {name!r}: the kernel"),
        name=name,
        strides=strides,
        padding=padding,
        dilations=dilations,
        groups=groups,
        bias=bias,
        init=init,
    )


def conv2d(
    x: Sym,
    channels: int,
    kernel: Ints,
    *,
    name: str,
    strides: Ints | None = None,
    padding: Ints | str = 0,
    dilations: Ints | None = None,
    groups: int = 1,
    bias: bool = True,
    init: Initializer | Array | None = None,
) -> Sym:
    """Return `conv` over two spatial dimensions."""
    return conv(
        x,
        channels,
        per_axis(kernel, 2, f"conv2d {name!r}: the kernel"),
        name=name,
        strides=strides,
        padding=padding,
        dilations=dilations,
        groups=groups,
        bias=bias,
        init=init,
    )


def conv3d(
    x: Sym,
    channels: int,
    kernel: Ints,
    *,
    name: str,
    strides: Ints | None = None,
    padding: Ints | str = 0,
    dilations: Ints | None = None,
    groups: int = 1,
    bias: bool = True,
    init: Initializer | Array | None = None,
) -> Sym:
    """Return `conv` over three spatial dimensions."""
    return conv(
        x,
        channels,
        per_axis(kernel, 3, f"conv3d {name!r}: the kernel"),
        name=name,
        strides=strides,
        padding=padding,
        dilations=dilations,
        groups=groups,
        bias=bias,
        init=init,
    )


def conv_transpose1d(
    x: Sym,
    channels: int,
    kernel: Ints,
    *,
    name: str,
    strides: Ints | None = None,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilations: Ints | None = None,
    groups: int = 1,
    bias: bool = True,
    init: Initializer | Array | None = None,
) -> Sym:
    """Return `conv_transpose` over one spatial dimension."""
    return conv_transpose(
        x,
        channels,
        per_axis(kernel, 1, f"conv_transpose1d {name!r}: the kernel"),
        name=name,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        dilations=dilations,
        groups=groups,
        bias=bias,
        init=init,
    )


def conv_transpose2d(
    x: Sym,
    channels: int,
    kernel: Ints,
    *,
    name: str,
    strides: Ints | None = None,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilations: Ints | None = None,
    groups: int = 1,
    bias: bool = True,
    init: Initializer | Array | None = None,
) -> Sym:
    """Return `conv_transpose` over two spatial dimensions."""
    return conv_transpose(
        x,
        channels,
        per_axis(kernel, 2, f"conv_transpose2d {name!r}: the kernel"),
        name=name,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        dilations=dilations,
        groups=groups,
        bias=bias,
        init=init,
    )


def conv_transpose3d(
    x: Sym,
    channels: int,
    kernel: Ints,
    *,
    name: str,
    strides: Ints | None = None,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilations: Ints | None = None,
    groups: int = 1,
    bias: bool = True,
    init: Initializer | Array | None = None,
) -> Sym:
    """Return `conv_transpose` over three spatial dimensions."""
    return conv_transpose(
        x,
        channels,
        per_axis(kernel, 3, f"conv_transpose3d {name!r}: the kernel"),
        name=name,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        dilations=dilations,
        groups=groups,
        bias=bias,
        init=init,
    )
