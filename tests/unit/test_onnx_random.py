"""Operators that draw numbers: their distributions, that steps differ, and that a seed repeats them."""

from __future__ import annotations

import numpy as np
import pytest

from tapeout.frontend.onnx import load
from tapeout.oracle import graph as oracle
from tests.onnx_models import Array, one_node

OPERATORS = {"RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike", "Bernoulli", "Multinomial"}  # fmt: skip
N = 1 << 15


def drawn(
    op: str, operand: Array | None = None, step: int = 0, key: int = 3, **more: object
) -> Array:
    """Return what a node draws at a step under a seed."""
    made = one_node(op, {} if operand is None else {"x": operand}, opset=18, **more)
    graph = load(made, mode="as-exported")
    variables = {"rng.seed": np.array(key), "rng.step": np.array(step)}
    feed = {} if operand is None or "x" not in graph.input else {"x": operand}
    return oracle.run(graph, feed, variables).outputs["y0"]


UNIFORM = [
    ("RandomUniform", None, {"shape": [N], "low": -1.0, "high": 3.0}),
    ("RandomUniformLike", np.zeros(N, np.float64), {"low": -1.0, "high": 3.0}),
]
NORMAL = [
    ("RandomNormal", None, {"shape": [N // 4, 4], "mean": 1.0, "scale": 2.0, "dtype": 11}),
    ("RandomNormalLike", np.zeros((N,), np.float32), {"mean": 1.0, "scale": 2.0, "seed": 9.0}),
]


@pytest.mark.parametrize(("op", "operand", "more"), UNIFORM)
def test_even(op: str, operand: Array | None, more: dict[str, object]) -> None:
    x = drawn(op, operand, **more)
    assert (
        x.min() >= -1 and x.max() < 3 and x.dtype == (np.float32 if operand is None else np.float64)
    )
    counts, _ = np.histogram(x, 16, (-1, 3))
    assert np.abs(counts / N * 16 - 1).max() < 0.1


@pytest.mark.parametrize(("op", "operand", "more"), NORMAL)
def test_normal(op: str, operand: Array | None, more: dict[str, object]) -> None:
    x = (drawn(op, operand, **more).astype(np.float64).ravel() - 1) / 2
    assert abs(x.mean()) < 0.02 and abs(x.var() - 1) < 0.03
    assert abs((x**3).mean()) < 0.06 and abs((x**4).mean() - 3) < 0.15
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.02


def test_steps_differ_and_seeds_repeat() -> None:
    more = {"shape": [64]}
    first = drawn("RandomNormal", **more)
    np.testing.assert_array_equal(first, drawn("RandomNormal", **more))
    assert (first != drawn("RandomNormal", step=1, **more)).all()
    assert (first != drawn("RandomNormal", key=4, **more)).all()


def test_chances() -> None:
    chance = np.repeat(np.array([0.0, 0.2, 0.7, 1.0], np.float32), N)
    x = drawn("Bernoulli", chance, dtype=7).reshape(4, N)
    assert x.dtype == np.int64 and set(np.unique(x)) == {0, 1}
    np.testing.assert_allclose(x.mean(1), [0, 0.2, 0.7, 1], atol=0.01)
    assert x[0].sum() == 0 and x[3].sum() == N


def test_classes() -> None:
    share = np.array([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5]])
    with np.errstate(divide="ignore"):
        logits = np.log(share).astype(np.float32) + 2
    x = drawn("Multinomial", logits, sample_size=8192)
    assert x.shape == (2, 8192) and x.dtype == np.int32
    found = np.stack([np.bincount(row, minlength=3) for row in x]) / 8192
    np.testing.assert_allclose(found, share, atol=0.02)
