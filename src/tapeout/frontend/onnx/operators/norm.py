"""Normalisation.

BatchNormalization has two forms. In training it normalises by the statistics of the batch, and the running statistics move
towards them; they are states of the graph. In inference it is arithmetic on the running statistics. The mode decides which;
`as-exported` reads it off the node: `training_mode` since version 14, more than one result before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.registry import op
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
    active = call.mode == "train" or (call.mode == "as-exported" and exported_training)
    if not active:
        scale, bias, mean, variance = rest
        return (norm.batch_norm_inference(x, scale, bias, mean, variance, epsilon), *rest[2:] * 2)
    return _train(call, x, rest, epsilon, momentum, spatial)


def _train(
    call: Call, x: Sym, rest: list[Sym], epsilon: float, momentum: float, spatial: bool
) -> Results:
    scale, bias, *running = rest
    y, *batch = norm.batch_norm(
        x, scale.cast(x.dtype), bias.cast(x.dtype), epsilon, spatial=spatial
    )
    moved = []
    for old, new in zip(running, batch, strict=True):
        wide = call.latest(old).cast(new.dtype)
        moved.append((wide * momentum + new * (1 - momentum)).cast(old.dtype))
    for old, new in zip(running, moved, strict=True):
        call.update(old, new, "the running statistics", needed=not any(call.outputs[1:3]))
    saved = [b.cast(r.dtype) for b, r in zip(batch, running, strict=True)]
    return (y, *moved, *saved)


def _decimal(number: float) -> float:
    """Return the shortest decimal that is the same f32: 0.9 for what a file holds as 0.89999998."""
    return float(str(np.float32(number)))


@op("LayerNormalization", since=17)
def layer_normalization(call: Call, x: Sym, scale: Sym, bias: Sym | None = None) -> Results:
    axis = call.axis(call.integer("axis", -1), x.rank)
    return _layer_norm(call, x, scale, bias, axis)


def _layer_norm(call: Call, x: Sym, scale: Sym, bias: Sym | None, axis: int) -> Results:
    call.integer("stash_type", 1)  # statistics of 16-bit floats are always taken in f32
    axes = tuple(range(axis, x.rank))
    affine = [None if a is None else _repeated(call, a, x, axis) for a in (scale, bias)]
    y, mean, inverse = norm.layer_norm(x, affine[0], affine[1], axes, call.real("epsilon", 1e-5))
    kept = [*x.shape[:axis], *(1,) * len(axes)]
    return y, mean.reshape(kept), inverse.reshape(kept)


def _repeated(call: Call, a: Sym, x: Sym, axis: int) -> Sym:
    """Return a scale or bias in the sizes of the normalised dimensions."""
    call.require(a.rank <= x.rank - axis, f"{a.type} does not repeat to {x.type} from axis {axis}")
    return a.broadcast_to(x.shape[axis:])
