"""Norms beyond their rows of the table: numbers far from zero, floats of 16 bits, optional operands, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tapeout.autodiff.gradients import gradients
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bf16, f32, from_numpy
from tapeout.ir.op import Array
from tapeout.ir.type import TensorType
from tapeout.ops.composite import norm
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tapeout.support.errors import ShapeError

RNG = np.random.default_rng(2)


def run(formula: Callable[..., Any], *arrays: Array, wrt: tuple[int, ...] = ()) -> list[Array]:
    """Return the results of a formula; with `wrt`, the gradients of the sum of the squares of the first."""
    b = Builder("formula")
    names = [f"x{i}" for i in range(len(arrays))]
    xs = [
        Sym(b, b.add_input(n, TensorType(from_numpy(a.dtype), a.shape)))
        for n, a in zip(names, arrays, strict=True)
    ]
    found = formula(*xs)
    for i, y in enumerate(found if isinstance(found, tuple) else (found,)):
        b.set_output(f"y{i}", y.value)
        if i == 0 and wrt:
            factors = np.random.default_rng(0).normal(size=y.shape).astype(y.dtype.numpy)
            b.set_output("loss", (y * y.constant(factors)).sum().value)
    graph = gradients(b.graph(), "loss", [names[i] for i in wrt]) if wrt else b.graph()
    outputs = oracle.run(graph, dict(zip(names, arrays, strict=True))).outputs
    return [a for n, a in outputs.items() if not wrt or n.startswith("grad/")]


FAR = (1e4 + RNG.normal(0, 1, (4, 3, 50))).astype(np.float32)


def test_a_large_mean_does_not_spoil_the_deviation() -> None:
    """A difference of mean squares would lose all of it: 1e8 has steps of 8 in f32."""
    _, mean, variance = run(lambda x: norm.batch_norm(x, None, None), FAR)
    wide = FAR.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, wide.var((0, 2)), rtol=1e-5)
    _, _, inverse = run(lambda x: norm.layer_norm(x, None, None, [2]), FAR)
    np.testing.assert_allclose(inverse, 1 / np.sqrt(wide.var(2) + 1e-5), rtol=1e-5)


def test_equal_values_give_the_bias_and_finite_gradients() -> None:
    x = np.full((4, 3, 5), 7.0, np.float32)
    scale, bias = RNG.normal(1, 1, 3).astype(np.float32), RNG.normal(0, 1, 3).astype(np.float32)
    y, _, variance = run(norm.batch_norm, x, scale, bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias[:, None], x.shape))
    assert not variance.any()
    for g in run(norm.batch_norm, x, scale, bias, wrt=(0, 1, 2)):
        assert np.isfinite(g).all()


def test_numbers_of_16_bits_are_summed_in_32() -> None:
    x = (100 + RNG.normal(0, 1, (64, 2, 64))).astype(bf16.numpy)
    y, mean, variance = run(lambda v: norm.batch_norm(v, None, None), x)
    assert y.dtype == x.dtype
    assert mean.dtype == variance.dtype == np.float32
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, wide.var((0, 2)), rtol=1e-5)


X = RNG.normal(0.5, 2, (2, 6, 4))
SCALE, BIAS = RNG.normal(1, 0.5, 6), RNG.normal(0, 1, 6)


def test_a_group_of_one_is_an_instance_and_one_group_is_a_layer() -> None:
    (groups,) = run(lambda x, s, b: norm.group_norm(x, s, b, 6), X, SCALE, BIAS)
    (instances,) = run(norm.instance_norm, X, SCALE, BIAS)
    np.testing.assert_allclose(groups, instances, rtol=1e-12)
    (one,) = run(lambda x: norm.group_norm(x, None, None, 1), X)
    layers = run(lambda x: norm.layer_norm(x, None, None, [1, 2]), X)
    np.testing.assert_allclose(one, layers[0], rtol=1e-12)


@pytest.mark.parametrize(
    "apply",
    [
        lambda x, s, b: norm.batch_norm(x, s, b)[0],
        lambda x, s, b: norm.group_norm(x, s, b, 3),
        norm.instance_norm,
    ],
)
def test_scale_and_bias_may_each_be_missing(apply: Callable[..., Sym]) -> None:
    (plain,) = run(lambda x: apply(x, None, None), X)
    (scaled,) = run(lambda x, s: apply(x, s, None), X, SCALE)
    (moved,) = run(lambda x, b: apply(x, None, b), X, BIAS)
    np.testing.assert_allclose(scaled, plain * SCALE[:, None], rtol=1e-12)
    np.testing.assert_allclose(moved, plain + BIAS[:, None], rtol=1e-12)


def test_inference_is_training_with_the_statistics_of_the_batch() -> None:
    y, mean, variance = run(norm.batch_norm, X, SCALE, BIAS)
    (other,) = run(norm.batch_norm_inference, X, SCALE, BIAS, mean, variance)
    np.testing.assert_allclose(other, y, rtol=1e-12)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda x: norm.group_norm(x, None, None, 4), "4 groups do not divide"),
        (lambda x: norm.group_norm(x, None, None, 0), "0 groups do not divide"),
        (lambda x: norm.layer_norm(x, None, None, [2, 1]), r"dimensions \[2, 1\]"),
        (lambda x: norm.layer_norm(x, x, None, [2]), "the scale is"),
        (lambda x: norm.batch_norm(x[:1, :, :1], None, None), "fewer than 2 values"),
        (lambda x: norm.rms_norm(x.cast(from_numpy(np.int32)), None, [2]), "takes floats"),
    ],
)
def test_what_does_not_fit_is_told(formula: Callable[[Sym], Any], message: str) -> None:
    b = Builder("wrong")
    x = Sym(b, b.add_input("x", TensorType(f32, (2, 6, 4))))
    with pytest.raises(ShapeError, match=message):
        formula(x)
