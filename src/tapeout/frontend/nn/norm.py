"""Normalisation layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.init import ones, zeros
from tapeout.frontend.nn.base import expect, expect_shape, known, parameter, recorder
from tapeout.ir.dtype import f32
from tapeout.ir.type import TensorType
from tapeout.ops.composite import norm as composite_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ops.sym import Sym


def batch_norm(
    x: Sym,
    *,
    name: str,
    eps: float = 1e-5,
    momentum: float = 0.1,
    affine: bool = True,
    track: bool = True,
) -> Sym:
    """Return `x` normalised per channel: by the statistics of the batch in training, by running ones in inference.

    Args:
        x: [N, C, *], at least two values per channel.
        name: Name of the layer. Its parameters are `name.weight` and `name.bias` [C], its states `name.running_mean` and
            `name.running_var` [C], which a step moves towards the mean and the population's variance of its batch. (The variance is
            ONNX's rule; PyTorch takes that of the sample.)
        eps: Added to the variance.
        momentum: How far a step moves them.
        affine: Whether it has the two parameters.
        track: Whether it has the two states; without them the batch is normalised by itself in inference, too.

    Returns:
        Of the type of `x`.
    """
    expect_shape(x.rank >= 2, f"batch_norm {name!r}: [N, C, *] is expected, got {x.type.text}")
    expect(0.0 <= momentum <= 1.0, f"batch_norm {name!r}: the momentum is {momentum}")
    scale, bias = _affine(x, name, [known(x, 1, name)], affine)
    y, mean, variance = composite_norm.batch_norm(x, scale, bias, eps)
    if not track:
        return y
    here = recorder(x, name)
    type_ = TensorType(mean.dtype, (known(x, 1, name),))
    running_mean = here.declare(f"{name}.running_mean", type_, zeros(), "state", trainable=False)
    running_var = here.declare(f"{name}.running_var", type_, ones(), "state", trainable=False)
    for state, found in ((running_mean, mean), (running_var, variance)):
        here.update_for(name, state, composite_norm.moved(state, found, momentum))
    one, none = (x.constant(v, x.dtype).broadcast_to(type_.shape) for v in (1.0, 0.0))
    inference = composite_norm.batch_norm_inference(
        x,
        one if scale is None else scale,
        none if bias is None else bias,
        running_mean,
        running_var,
        eps,
    )
    return here.by_mode(name, y, inference)


def layer_norm(
    x: Sym,
    axes: int | Sequence[int] = -1,
    *,
    name: str,
    eps: float = 1e-5,
    affine: bool = True,
    bias: bool = True,
) -> Sym:
    """Return `x` normalised over its last dimensions.

    Args:
        x: Any shape.
        axes: What to normalise over: the last axis, or several that stand at the end.
        name: Name of the layer; its parameters are `name.weight` and `name.bias`, of the sizes of those axes.
        eps: Added to the variance.
        affine: Whether it has the two parameters.
        bias: Whether it has the second of them.
    """
    at = _last(x, axes, f"layer_norm {name!r}")
    scale, offset = _affine(x, name, [known(x, a, name) for a in at], affine, bias)
    return composite_norm.layer_norm(x, scale, offset, at, eps)[0]


def rms_norm(
    x: Sym,
    axes: int | Sequence[int] = -1,
    *,
    name: str,
    eps: float | None = None,
    affine: bool = True,
) -> Sym:
    """Return `x` divided by its root mean square over the last dimensions.

    Args:
        x: Any shape.
        axes: The last axis, or several that stand at the end.
        name: Name of the layer; its parameter is `name.weight`, of the sizes of those axes.
        eps: Added to the mean square; None: the smallest step at 1 of the element type (of f32 for narrower ones).
        affine: Whether it has the parameter.
    """
    import numpy as np

    at = _last(x, axes, f"rms_norm {name!r}")
    scale, _ = _affine(x, name, [known(x, a, name) for a in at], affine, bias=False)
    wide = f32 if x.dtype.bits == 16 else x.dtype
    least = float(np.finfo(wide.numpy).eps) if eps is None else eps
    return composite_norm.rms_norm(x, scale, at, least)[0]


def group_norm(x: Sym, groups: int, *, name: str, eps: float = 1e-5, affine: bool = True) -> Sym:
    """Return `x` normalised over groups of channels and all places.

    Args:
        x: [N, C, *].
        groups: How many groups; they part C evenly.
        name: Name of the layer; its parameters are `name.weight` and `name.bias` [C].
        eps: Added to the variance.
        affine: Whether it has the two parameters.
    """
    scale, bias = _affine(x, name, [known(x, 1, name)], affine)
    return composite_norm.group_norm(x, scale, bias, groups, eps)


def instance_norm(x: Sym, *, name: str = "", eps: float = 1e-5, affine: bool = False) -> Sym:
    """Return `x` normalised over the places of each sample and channel.

    Args:
        x: [N, C, *spatial].
        name: Name of the layer; its parameters, if it has them, are `name.weight` and `name.bias` [C].
        eps: Added to the variance.
        affine: Whether it has the two parameters.
    """
    expect_shape(x.rank >= 3, f"instance_norm: [N, C, *spatial] is expected, got {x.type.text}")
    expect(bool(name) or not affine, "instance_norm: with affine=True a name is needed")
    scale, bias = _affine(x, name, [known(x, 1, name or "instance_norm")], affine)
    return composite_norm.instance_norm(x, scale, bias, eps)


def _affine(
    x: Sym, name: str, shape: Sequence[int], affine: bool, bias: bool = True
) -> tuple[Sym | None, Sym | None]:
    """Declare weight and bias."""
    if not affine:
        return None, None
    scale = parameter(x, f"{name}.weight", shape, ones())
    return scale, parameter(x, f"{name}.bias", shape, zeros()) if bias else None


def _last(x: Sym, axes: int | Sequence[int], what: str) -> tuple[int, ...]:
    """Return axes counted from the front."""
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    expect(all(-x.rank <= a < x.rank for a in given), f"{what}: no axes {given} in {x.type.text}")
    found = tuple(sorted(a % x.rank for a in given))
    expect(
        len(found) > 0 and found == tuple(range(x.rank - len(found), x.rank)),
        f"{what}: the axes {given} are not the last ones of {x.type.text}",
    )
    return found
