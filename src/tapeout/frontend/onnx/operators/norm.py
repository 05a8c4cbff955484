"""Normalisation.

BatchNormalization has two forms. In training it normalises by the statistics of the batch, and the running statistics move
towards them; they are states of the graph. In inference it is arithmetic on the running statistics. The mode decides which;
`as-exported` reads it off the node: `training_mode` since version 14, more than one result before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import f32, f64
from tapeout.ops.composite import norm

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym

    Results = tuple[Sym | None, ...]


@op("BatchNormalization", since=7, note="mode decides")
def batch_normalization_spatial(
    call: Call, x: Sym, scale: Sym, bias: Sym, mean: Sym, variance: Sym
) -> Results:
    spatial = call.flag("spatial", True)
    return _batch_norm(call, (x, scale, bias, mean, variance), len(call.outputs) > 1, spatial)


@op("BatchNormalization", since=9, note="mode decides")
def batch_normalization_by_results(
    call: Call, x: Sym, scale: Sym, bias: Sym, mean: Sym, variance: Sym
) -> Results:
    return _batch_norm(call, (x, scale, bias, mean, variance), len(call.outputs) > 1)


@op("BatchNormalization", since=14, note="mode decides")
def batch_normalization(
    call: Call, x: Sym, scale: Sym, bias: Sym, mean: Sym, variance: Sym
) -> Results:
    return _batch_norm(call, (x, scale, bias, mean, variance), call.flag("training_mode"))


def _batch_norm(
    call: Call, operands: tuple[Sym, ...], exported_training: bool, spatial: bool = True
) -> Results:
    x, *rest = operands
    if x.rank == 1:  # one channel
        operands = (x.reshape([x.shape[0], 1]), *rest)
        y, *more = _batch_norm(call, operands, exported_training, spatial)
        return (None if y is None else y.reshape(x.shape), *more)
    wanted = x.shape[1:] if not spatial else x.shape[1:2]
    for name, operand in zip(("scale", "bias", "mean", "variance"), rest, strict=True):
        call.require(operand.shape == wanted, f"the {name} is {operand.type}, the operand {x.type}")
    epsilon, momentum = call.real("epsilon", 1e-5), _decimal(call.real("momentum", 0.9))
    # Statistics that the file computes from its inputs are the layer's own affair: it has none to keep.
    trained = exported_training or not any(call.is_computed(r) for r in rest[2:])
    active = trained if call.mode == "train" else exported_training and call.mode != "eval"
    if not active:
        scale, bias, mean, variance = rest
        return (norm.batch_norm_inference(x, scale, bias, mean, variance, epsilon), *rest[2:] * 2)
    return _train(call, x, rest, epsilon, momentum, spatial)


def _train(
    call: Call, x: Sym, rest: list[Sym], epsilon: float, momentum: float, spatial: bool
) -> Results:
    scale, bias, *running = rest
    wide = scale.dtype if scale.dtype.bits > x.dtype.bits else x.dtype
    affine = (scale.cast(wide), bias.cast(wide))
    y, *batch = norm.batch_norm(x.cast(wide), *affine, epsilon, spatial=spatial)
    moved = [
        norm.moved(call.latest(old), new, 1 - momentum)
        for old, new in zip(running, batch, strict=True)
    ]
    for old, new in zip(running, moved, strict=True):
        call.update(old, new, "the running statistics", needed=not any(call.outputs[1:3]))
    saved = [b.cast(r.dtype) for b, r in zip(batch, running, strict=True)]
    return (y.cast(x.dtype), *moved, *saved)


def _decimal(number: float) -> float:
    """Return the shortest decimal that is the same f32: 0.9 for what a file holds as 0.89999998."""
    return float(str(np.float32(number)))


# -- of each sample -----------------------------------------------------------------------------------------------------


@op("LayerNormalization", since=17)
def layer_normalization(call: Call, x: Sym, scale: Sym, bias: Sym | None = None) -> Results:
    axis = call.axis(call.integer("axis", -1), x.rank)
    _check_stash(call, x)
    axes = tuple(range(axis, x.rank))
    affine = [
        None if a is None else _repeated(call, a.cast(x.dtype), x, axis) for a in (scale, bias)
    ]
    y, mean, inverse = norm.layer_norm(x, affine[0], affine[1], axes, call.real("epsilon", 1e-5))
    kept = [*x.shape[:axis], *(1,) * len(axes)]
    return y, mean.reshape(kept), inverse.reshape(kept)


@op("RMSNormalization", since=23)
def rms_normalization(call: Call, x: Sym, scale: Sym) -> Sym:
    axis = call.axis(call.integer("axis", -1), x.rank)
    _check_stash(call, x)
    axes, epsilon = range(axis, x.rank), call.real("epsilon", 1e-5)
    if scale.dtype == x.dtype:
        return norm.rms_norm(x, _repeated(call, scale, x, axis), axes, epsilon)[0]
    # The result has the type of the scale.
    wide = scale.dtype if scale.dtype.bits > x.dtype.bits else x.dtype
    y, _ = norm.rms_norm(x.cast(wide), None, axes, epsilon)
    scale = _repeated(call, scale, x, axis)
    return y.cast(scale.dtype) * scale


@op("GroupNormalization", since=18)
def group_normalization_per_group(call: Call, x: Sym, scale: Sym, bias: Sym) -> Sym:
    groups = call.integer("num_groups")
    _check_affine(call, x, (groups,), scale, bias)
    epsilon = call.real("epsilon", 1e-5)
    return norm.group_norm(x, scale, bias, groups, epsilon, per_group=True)


@op("GroupNormalization", since=21)
def group_normalization(call: Call, x: Sym, scale: Sym, bias: Sym) -> Sym:
    _check_affine(call, x, x.shape[1:2], scale, bias)
    _check_stash(call, x)
    return norm.group_norm(x, scale, bias, call.integer("num_groups"), call.real("epsilon", 1e-5))


@op("InstanceNormalization", since=6)
def instance_normalization(call: Call, x: Sym, scale: Sym, bias: Sym) -> Sym:
    _check_affine(call, x, x.shape[1:2], scale, bias)
    return norm.instance_norm(x, scale, bias, call.real("epsilon", 1e-5))


@op("MeanVarianceNormalization", since=9)
def mean_variance_normalization(call: Call, x: Sym) -> Sym:
    axes = call.integers("axes")
    # The file's formula divides by the deviation + 1e-9, which differs from this one where the deviation is 1e-9.
    return norm.layer_norm(x, None, None, call.axes(axes or (0, 2, 3), x.rank), 1e-18)[0]


def _repeated(call: Call, a: Sym, x: Sym, axis: int) -> Sym:
    """Return a scale or bias in the sizes of the normalised dimensions."""
    call.require(a.rank <= x.rank - axis, f"{a.type} does not repeat to {x.type} from axis {axis}")
    return a.broadcast_to(x.shape[axis:])


def _check_affine(call: Call, x: Sym, wanted: tuple[int, ...], scale: Sym, bias: Sym) -> None:
    call.require(x.rank >= 2, f"the operand is {x.type}, a batch of channels is expected")
    for name, a in (("scale", scale), ("bias", bias)):
        call.require(a.shape == wanted, f"the {name} is {a.type}, {list(wanted)} is expected")


def _check_stash(call: Call, x: Sym) -> None:
    """Statistics of 16-bit floats are taken in f32, those of others in their own type."""
    stash = call.dtype("stash_type", f32)
    if stash == f64 and x.dtype != f64:
        call.unsupported(f"statistics of {x.dtype} are not taken in f64")
