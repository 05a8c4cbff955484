"""What the gradient is where mathematics leaves a choice: corners, ties, poles and masks.

Every row is what at least one of PyTorch and JAX gives, and finite where one of them is; the last rows of masks are better than both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tapeout.autodiff.gradients import gradients
from tapeout.ir.build import Builder
from tapeout.ir.dtype import from_numpy
from tapeout.ir.type import TensorType
from tapeout.ops import elementwise as ew
from tapeout.ops.composite import index, loss, order, pool, softmax
from tapeout.ops.running import cumulative_product
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as graph_oracle

if TYPE_CHECKING:
    from collections.abc import Callable

INF, NAN = math.inf, math.nan


def gradient(formula: Callable[..., Sym], dtype: type, *values: Any) -> list[np.ndarray]:
    """Return the gradients of the sum of a formula with respect to each operand."""
    arrays = [np.asarray(v, dtype) for v in values]
    b = Builder("row")
    xs = [
        Sym(b, b.add_input(f"x{i}", TensorType(from_numpy(a.dtype), a.shape)))
        for i, a in enumerate(arrays)
    ]
    b.set_output("loss", formula(*xs).sum().value)
    names = [f"x{i}" for i in range(len(xs))]
    graph = gradients(b.graph(), "loss", names)
    found = graph_oracle.run(graph, dict(zip(names, arrays, strict=True))).outputs
    return [found[f"grad/{n}"] for n in names]


def op(made: Any) -> Callable[..., Sym]:
    return lambda *xs: xs[0].emit(made, *xs)


def row(name: str, formula: Callable[..., Sym], values: list[Any], expected: list[Any]) -> Any:
    return pytest.param(formula, values, expected, id=name)


def pooled(kernel: int) -> Callable[[Sym], Sym]:
    return lambda x: pool.max_pool(x, (kernel, kernel), (kernel, kernel), (0, 0), (0, 0))


def picked(x: Sym) -> Sym:
    """Return the greatest of a row by its place."""
    return x.take_along(x.argmax(0, keepdims=True), 0)


SQUARE = [[[[1.0, 1.0], [1.0, 1.0]]]]


def weighed_softmax(x: Sym) -> Sym:
    """Return softmax with elements of different weight, as their plain sum is always 1."""
    return softmax.softmax(x) * x.constant(np.array([1.0, 2.0])).cast(x.dtype)


def ranked(x: Sym) -> Sym:
    """Return the elements in rising order, weighed 1, 2, 3."""
    found, _ = order.top_k(x, 3, 0, largest=False)
    return found * x.constant(np.array([1.0, 2.0, 3.0])).cast(x.dtype)


def scattered(reduction: str) -> Callable[[Sym, Sym], Sym]:
    """Return a scatter of two updates to one place."""
    return lambda x, u: index.scatter_along(x, x.constant(np.array([0, 0])), u, 0, reduction)


ROWS = [
    row("relu", op(ew.Relu()), [[0.0, -0.0, NAN, 1.0]], [[0, 0, 0, 1]]),
    row("max with 0", lambda x: x.maximum(0.0), [[0.0]], [[0.5]]),
    row("max tie", op(ew.Max()), [[1.0], [1.0]], [[0.5], [0.5]]),
    row("min tie", op(ew.Min()), [[1.0], [1.0]], [[0.5], [0.5]]),
    row("max of nan", op(ew.Max()), [[NAN], [1.0]], [[1], [1]]),
    row("abs", op(ew.Abs()), [[0.0, -0.0]], [[0, 0]]),
    row("l1", lambda a, b: (a - b).abs(), [[1.0], [1.0]], [[0], [0]]),
    row("sign", op(ew.Sign()), [[0.5, 0.0]], [[0, 0]]),
    row("clip", op(ew.Clip(low=0.0, high=1.0)), [[0.0, 1.0, 0.5, 2.0]], [[1, 1, 1, 0]]),
    row("clip crossed", op(ew.Clip(low=1.0, high=0.0)), [[0.0, 1.0, 0.5]], [[0, 0, 0]]),
    row("relu6", op(ew.Relu6()), [[0.0, 6.0, 3.0]], [[0, 0, 1]]),
    row("hard_sigmoid", op(ew.HardSigmoid(alpha=0.25)), [[-2.0, 2.0]], [[0, 0]]),
    row("hard_sigmoid sixth", op(ew.HardSigmoid(alpha=1 / 6)), [[-3.0, 3.0]], [[0, 0]]),
    row("hard_tanh", op(ew.HardTanh()), [[-1.0, 1.0]], [[0, 0]]),
    row("hard_swish", op(ew.HardSwish()), [[-3.0, 3.0]], [[0, 1]]),
    row("leaky_relu", op(ew.LeakyRelu(alpha=0.25)), [[0.0]], [[0.25]]),
    row("prelu", op(ew.Prelu()), [[0.0], [0.25]], [[0.25], [0]]),
    row("elu", op(ew.Elu(alpha=2.0)), [[0.0]], [[2]]),
    row("celu", op(ew.Celu(alpha=2.0)), [[0.0]], [[1]]),
    row("selu", op(ew.Selu()), [[0.0]], [[1.05070102214813232421875 * 1.67326319217681884765625]]),
    row("softsign", op(ew.Softsign()), [[0.0]], [[1]]),
    row("shrink", op(ew.Shrink(bias=0.5, lambd=0.5)), [[0.5, -0.5]], [[0, 0]]),
    row("thresholded_relu", op(ew.ThresholdedRelu()), [[1.0]], [[0]]),
    row("sqrt", op(ew.Sqrt()), [[0.0]], [[INF]]),
    row("rsqrt", op(ew.Rsqrt()), [[0.0]], [[-INF]]),
    row("log", op(ew.Log()), [[0.0, -1.0]], [[INF, -1]]),
    row("reciprocal", lambda x: 1 / x, [[0.0]], [[-INF]]),
    row("pow(0, 2)", lambda x: x**2, [[0.0]], [[0]]),
    row("pow(0, 0) constant", lambda x: x**0, [[0.0]], [[0]]),
    row("pow(0, 1) constant", lambda x: x**1, [[0.0]], [[1]]),
    row("pow(0, 1/2) constant", lambda x: x**0.5, [[0.0]], [[INF]]),
    row("pow(0, 0)", op(ew.Pow()), [[0.0], [0.0]], [[0], [0]]),
    row("pow(0, 2) both", op(ew.Pow()), [[0.0], [2.0]], [[0], [0]]),
    row("pow(0, -1)", op(ew.Pow()), [[0.0], [-1.0]], [[-INF], [-INF]]),
    row("pow(-2, 2)", op(ew.Pow()), [[-2.0], [2.0]], [[-4], [NAN]]),
    row("pow(tiny, 0)", lambda x: x**0, [[1e-310]], [[0]]),
    row("reduce_max tie", lambda x: x.max(0), [[1.0, 1.0, 0.0]], [[0.5, 0.5, 0]]),
    row("reduce_min tie", lambda x: x.min(0), [[1.0, 1.0, 2.0]], [[0.5, 0.5, 0]]),
    row("argmax tie", picked, [[1.0, 1.0, 0.0]], [[1, 0, 0]]),
    row("max_pool tie", pooled(2), [SQUARE], [[[[[1, 0], [0, 0]]]]]),
    row("max_pool nan", pooled(2), [[[[[NAN, 1.0], [2.0, 3.0]]]]], [[[[[1, 0], [0, 0]]]]]),
    row("global_max_pool tie", pool.global_max_pool, [SQUARE], [[[[[1, 0], [0, 0]]]]]),
    row("reduce_prod one 0", lambda x: x.prod(0), [[2.0, 0.0, 3.0]], [[0, 6, 0]]),
    row("reduce_prod two 0", lambda x: x.prod(0), [[0.0, 2.0, 0.0]], [[0, 0, 0]]),
    row("logsumexp -inf", softmax.logsumexp, [[-INF, -INF]], [[NAN, NAN]]),
    row("softmax -inf", weighed_softmax, [[-INF, -INF]], [[NAN, NAN]]),
    row("floor, round", lambda x: x.floor() + x.unary(ew.Round()), [[0.5]], [[0]]),
    row("rem", op(ew.Rem()), [[5.5], [2.0]], [[1], [-2]]),
    row("mod", op(ew.Mod()), [[-5.5], [2.0]], [[1], [3]]),
    row("take twice", lambda x: x.take(x.constant(np.array([0, 0])), 0), [[1.0, 2.0]], [[2, 0]]),
    row("top_k tie", lambda x: order.top_k(x, 1, 0)[0], [[1.0, 1.0, 0.0]], [[1, 0, 0]]),
    row("sort tie", ranked, [[5.0, 5.0, 1.0]], [[2, 3, 1]]),
    row("scatter twice", scattered("set"), [[1.0, 2.0], [7.0, 8.0]], [[0, 1], [0, 1]]),
    row("scatter max tie", scattered("max"), [[1.0, 2.0], [1.0, 0.0]], [[0.5, 1], [0.5, 0]]),
    row("scatter mul 0", scattered("mul"), [[2.0, 3.0], [0.0, 5.0]], [[0, 1], [10, 0]]),
    row("cumprod 0", lambda x: cumulative_product(x, 0), [[2.0, 0.0, 3.0]], [[1, 8, 0]]),
    row("asin", op(ew.Asin()), [[1.0, -1.0]], [[INF, INF]]),
    row("acos", op(ew.Acos()), [[1.0, -1.0]], [[-INF, -INF]]),
    row("acosh", op(ew.Acosh()), [[1.0]], [[INF]]),
    row("atanh", op(ew.Atanh()), [[1.0]], [[INF]]),
    row("erf", op(ew.Erf()), [[0.0]], [[2 / math.sqrt(math.pi)]]),
    row("bce with logits", lambda y, t: loss.softplus(y) - y * t, [[0.0], [0.5]], [[0], [0]]),
    row("atan2 of the origin", op(ew.Atan2()), [[0.0], [0.0]], [[0], [0]]),
    row("softplus", op(ew.Softplus()), [[100.0, -200.0]], [[1, 0]]),
    row("log_sigmoid", op(ew.LogSigmoid()), [[-200.0, 200.0]], [[1, 0]]),
    row("gelu by tanh", op(ew.Gelu(approximate="tanh")), [[-50.0, 50.0]], [[0, 1]]),
    row("gelu", op(ew.Gelu()), [[-50.0, 50.0]], [[0, 1]]),
    row("mish", op(ew.Mish()), [[-200.0, 200.0]], [[0, 1]]),
    row("silu", op(ew.Silu()), [[-200.0, 200.0]], [[0, 1]]),
    row("elu far off", op(ew.Elu()), [[800.0, -800.0]], [[1, 0]]),
    row("mask over sqrt", lambda x: (x > 0).where(x.sqrt(), 0.0), [[0.0, 4.0]], [[0, 0.25]]),
    row("mask over rsqrt", lambda x: (x > 0).where(x.rsqrt(), 0.0), [[0.0, 4.0]], [[0, -0.0625]]),
    row("mask over log", lambda x: (x > 0).where(x.log(), 0.0), [[0.0, 4.0]], [[0, 0.25]]),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("formula", "values", "expected"), ROWS)
def test_gradient(
    formula: Callable[..., Sym], values: list[Any], expected: list[Any], dtype: type
) -> None:
    for got, want in zip(gradient(formula, dtype, *values), expected, strict=True):
        rel = 1e-12 if dtype is np.float64 else 1e-6
        np.testing.assert_allclose(got, np.asarray(want, dtype), rtol=rel, atol=rel / 100)


def test_tan_near_its_pole_is_large() -> None:
    (found,) = gradient(op(ew.Tan()), np.float64, [math.pi / 2])
    assert found[0] > 1e30


def test_a_mask_does_not_hide_a_second_derivative() -> None:
    """The cotangent of sqrt is 0 at x = 4 by accident here, not by a mask."""
    b = Builder("row")
    x = Sym(b, b.add_input("x", TensorType(from_numpy(np.float64))))
    b.set_output("loss", (x.sqrt() - 2.0).square().value)
    once = gradients(b.graph(), "loss", ["x"], prefix="")
    twice = gradients(once, "x", ["x"], prefix="second/")
    found = graph_oracle.run(twice, {"x": np.array(4.0)}).outputs
    assert found["x"] == 0.0
    np.testing.assert_allclose(found["second/x"], 2 * (1 / 4) ** 2)
