"""Random numbers, from the generator that counts: the seed is the trainer's, so that a run can be repeated and resumed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import f32, f64, i32
from tapeout.ops.random import uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.frontend.onnx.call import Call
    from tapeout.ir.dtype import DType
    from tapeout.ops.sym import Sym

_SEED = "seed of the node: not used, the trainer has one"


def _shape(call: Call) -> tuple[int, ...]:
    shape = call.integers("shape")
    if shape is None:
        call.fail("attribute 'shape' is missing")
    call.require(all(n >= 0 for n in shape), f"shape {list(shape)} has a negative size")
    return shape


def _even(call: Call, shape: Sequence[int], dtype: DType) -> Sym:
    low, high = call.real("low", 0.0), call.real("high", 1.0)
    drawn = uniform(call.random_bits(shape), f64 if dtype == f64 else f32)
    return (drawn * (high - low) + low).cast(dtype)


def _normal(call: Call, shape: Sequence[int], dtype: DType) -> Sym:
    """Return normal numbers by the method of Box and Muller: two even ones make one."""
    mean, scale = call.real("mean", 0.0), call.real("scale", 1.0)
    wide = f64 if dtype == f64 else f32
    pair = uniform(call.random_bits((2, *shape)), wide)
    radius = (1.0 - pair[0]).log() * -2.0  # of a number over 0
    drawn = radius.sqrt() * (pair[1] * (2 * math.pi)).cos()
    return (drawn * scale + mean).cast(dtype)


@op("RandomUniform", since=1, note=_SEED)
def random_uniform(call: Call) -> Sym:
    call.skip("seed")
    return _even(call, _shape(call), call.dtype("dtype", f32))


@op("RandomUniformLike", since=1, note=_SEED)
def random_uniform_like(call: Call, x: Sym) -> Sym:
    call.skip("seed")
    return _even(call, x.shape, call.dtype("dtype", x.dtype))


@op("RandomNormal", since=1, note=_SEED)
def random_normal(call: Call) -> Sym:
    call.skip("seed")
    return _normal(call, _shape(call), call.dtype("dtype", f32))


@op("RandomNormalLike", since=1, note=_SEED)
def random_normal_like(call: Call, x: Sym) -> Sym:
    call.skip("seed")
    return _normal(call, x.shape, call.dtype("dtype", x.dtype))


@op("Bernoulli", since=15, note=_SEED)
def bernoulli(call: Call, probability: Sym) -> Sym:
    call.skip("seed")
    dtype = call.dtype("dtype", probability.dtype)
    drawn = uniform(call.random_bits(probability.shape), f64 if probability.dtype == f64 else f32)
    return (drawn < probability.cast(drawn.dtype)).cast(dtype)


@op("Multinomial", since=7, note=_SEED)
def multinomial(call: Call, x: Sym) -> Sym:
    """The class whose logit, with a number drawn for each, is greatest (the method of Gumbel)."""
    call.skip("seed")
    call.require(x.rank == 2 and x.shape[1] > 0, f"a batch of logits is expected, got {x.type}")
    samples = call.integer("sample_size", 1)
    call.require(samples > 0, f"sample_size is {samples}")
    rows, classes = x.shape
    shape = (rows, samples, classes)
    drawn = uniform(call.random_bits(shape), f64 if x.dtype == f64 else f32)
    gumbel = -(-(1.0 - drawn).log()).log()
    logits = x.cast(drawn.dtype).broadcast(shape, [0, 2])
    return (logits + gumbel).argmax([2]).cast(call.dtype("dtype", i32))
