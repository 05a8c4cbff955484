"""What composites promise beyond their rows: recognition, known losses, pooling and linear layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tapeout.autodiff.gradients import expand, gradients
from tapeout.ir.build import Builder
from tapeout.ir.dtype import BY_NAME, from_numpy
from tapeout.ir.op import Composite
from tapeout.ir.type import TensorType
from tapeout.ops.composite import linear, loss, norm, pool, softmax
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as graph_oracle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.op import Array

MOST = 1e-12


def run(formula: Callable[..., Sym], *arrays: Array, wrt: tuple[int, ...] = ()) -> list[Array]:
    """Return the value of a formula, and its gradients with respect to some operands."""
    b = Builder("formula")
    names = [f"x{i}" for i in range(len(arrays))]
    types = [TensorType(from_numpy(a.dtype), a.shape) for a in arrays]
    xs = [Sym(b, b.add_input(n, t)) for n, t in zip(names, types, strict=True)]
    b.set_output("y", formula(*xs).value)
    graph = gradients(b.graph(), "y", [names[i] for i in wrt]) if wrt else b.graph()
    return list(graph_oracle.run(graph, dict(zip(names, arrays, strict=True))).outputs.values())


# --- recognition -----------------------------------------------------------------------------------


def written_softmax(x: Sym, axis: int) -> Sym:
    e = (x - x.max(axis, keepdims=True)).exp()
    return e / e.sum(axis, keepdims=True)


def spread_softmax(x: Sym, axis: int) -> Sym:
    """Return softmax with the maximum and the sum repeated without keeping a size of 1."""
    kept = [d for d in range(x.rank) if d != axis % x.rank]
    e = (x - x.max(axis).broadcast(x.shape, kept)).exp()
    return e / e.sum(axis).broadcast(x.shape, kept)


def unshifted_softmax(x: Sym, axis: int) -> Sym:
    e = x.exp()
    return e / e.sum(axis, keepdims=True)


def written_log_softmax(x: Sym, axis: int) -> Sym:
    z = x - x.max(axis, keepdims=True)
    return z - z.exp().sum(axis, keepdims=True).log()


FORMS = [
    (written_softmax, "softmax"),
    (spread_softmax, "softmax"),
    (unshifted_softmax, "softmax"),
    (written_log_softmax, "log_softmax"),
    (lambda x, axis: written_softmax(x, axis).log(), "log_softmax"),
    (lambda x, axis: softmax.softmax(x, axis).log(), "log_softmax"),
    (lambda x, axis: x - softmax.logsumexp(x, axis, keepdims=True), "log_softmax"),
    (lambda x, axis: x - x.exp().sum(axis, keepdims=True).log(), "log_softmax"),
]


@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (2, 3, 5)])
@pytest.mark.parametrize(("form", "kind"), FORMS)
def test_written_out_softmax_is_recognised(
    form: Callable[..., Sym], kind: str, shape: tuple[int, ...]
) -> None:
    b = Builder("form")
    x = Sym(b, b.add_input("x", TensorType(BY_NAME["f32"], shape)))
    assert softmax.decomposed_logits(form(x, 1).value) == (kind, x.value)


def other_axis(x: Sym) -> Sym:
    e = x.exp()
    return e / e.sum(0, keepdims=True).sum(1, keepdims=True)


LOOKALIKES = [
    lambda x: x,
    lambda x: (
        x.exp() / x.exp().sum(1, keepdims=True)
    ),  # two exponentials: equal, but not proven here
    lambda x: x.exp() / (x * 2.0).exp().sum(1, keepdims=True),
    lambda x: x.exp() / x.exp(),
    lambda x: x / x.sum(1, keepdims=True),
    lambda x: x.exp() / x.exp().max(1, keepdims=True),
    lambda x: x - x.sum(1, keepdims=True).log(),
    lambda x: x - x.exp().log(),
    lambda x: x.log(),
    other_axis,
]


@pytest.mark.parametrize("form", LOOKALIKES)
def test_lookalikes_are_not(form: Callable[[Sym], Sym]) -> None:
    b = Builder("form")
    x = Sym(b, b.add_input("x", TensorType(BY_NAME["f32"], (3, 4))))
    assert softmax.decomposed_logits(form(x).value) is None


def test_a_shift_that_varies_along_the_axis_stays() -> None:
    b = Builder("form")
    x = Sym(b, b.add_input("x", TensorType(BY_NAME["f32"], (3, 4))))
    z = x - x.max(0, keepdims=True)
    e = z.exp()
    assert softmax.decomposed_logits((e / e.sum(1, keepdims=True)).value) == ("softmax", z.value)


# --- cross-entropy ---------------------------------------------------------------------------------

LOGITS = np.array([[1.0, 2.0, 0.5], [0.1, -1.0, 3.0], [0.0, 0.0, 0.0]])
LABELS = np.array([1, 0, -100])


def entropy(**options: Any) -> Callable[..., Sym]:
    return lambda x, t: loss.cross_entropy(x, t, **options)


def test_cross_entropy_of_known_rows() -> None:
    rows = [
        math.log(sum(map(math.exp, r))) - r[t]
        for r, t in zip(LOGITS, LABELS, strict=True)
        if t >= 0
    ]
    y, dx = run(entropy(), LOGITS, LABELS, wrt=(0,))
    assert y == pytest.approx(sum(rows) / 2, rel=MOST)
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    want = (p - np.eye(3)[np.clip(LABELS, 0, 2)]) / 2
    want[2] = 0
    np.testing.assert_allclose(dx, want, rtol=1e-10, atol=1e-15)
    (y,) = run(entropy(reduction="sum"), LOGITS, LABELS)
    assert y == pytest.approx(sum(rows), rel=MOST)


def test_large_logits_stay_exact() -> None:
    x = np.array([[1e4, 1e4 - 1, -1e4]], np.float32)
    y, dx = run(entropy(), x, np.array([1]), wrt=(0,))
    assert y == pytest.approx(1 + math.log1p(math.exp(-1)), rel=1e-6)
    assert np.isfinite(dx).all() and dx[0, 2] == 0


def test_no_row_takes_part() -> None:
    (y,) = run(entropy(), LOGITS, np.full(3, -100))
    assert np.isnan(y)
    (y,) = run(entropy(reduction="sum"), LOGITS, np.full(3, -100))
    assert y == 0


def test_log_probabilities_are_not_normalised_again() -> None:
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    (a,) = run(entropy(normalized=True), log_p, LABELS)
    (b,) = run(entropy(), LOGITS, LABELS)
    assert a == pytest.approx(b, rel=MOST)


def test_labels_of_another_integer_type() -> None:
    (a,) = run(entropy(), LOGITS, LABELS.astype(np.int32))
    (b,) = run(entropy(), LOGITS, LABELS)
    assert a == b


@pytest.mark.parametrize(
    ("labels", "bad"), [([0, 2, -100], False), ([0, 3, 1], True), ([-1, 0, 0], True)]
)
def test_labels_out_of_range_are_told(labels: list[int], bad: bool) -> None:
    b = Builder("labels")
    x = Sym(b, b.add_input("x", TensorType(from_numpy(np.float64), (3, 3))))
    t = Sym(b, b.add_input("t", TensorType(from_numpy(np.int64), (3,))))
    y = loss.cross_entropy(x, t)
    b.set_output("y", y.value)
    found, message = y.value.node.op.precondition((x, t))
    b.add_check(found.value, message)
    failed = graph_oracle.run(b.graph(), {"x": LOGITS, "t": np.array(labels)}).failed
    assert failed == (["labels hold a class outside 0..2"] if bad else [])


# --- pooling and linear ----------------------------------------------------------------------------


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize(("low", "high"), [((0, 0), (0, 0)), ((1, 0), (1, 1))])
def test_avg_pool(include: bool, low: tuple[int, int], high: tuple[int, int]) -> None:
    x = np.random.default_rng(3).normal(size=(2, 3, 5, 6))
    y, dx = run(lambda s: pool.avg_pool(s, (2, 3), (1, 2), low, high, include).sum(), x, wrt=(0,))
    (y,) = run(lambda s: pool.avg_pool(s, (2, 3), (1, 2), low, high, include), x)
    rows = (5 + low[0] + high[0] - 2) // 1 + 1
    columns = (6 + low[1] + high[1] - 3) // 2 + 1
    want, share = np.zeros((2, 3, rows, columns)), np.zeros_like(x)
    for i, j in np.ndindex(rows, columns):
        a, b = i - low[0], j * 2 - low[1]
        at = np.s_[:, :, max(a, 0) : a + 2, max(b, 0) : b + 3]
        part = x[at]
        n = 6 if include else part.shape[2] * part.shape[3]
        want[:, :, i, j] = part.sum((2, 3)) / n
        share[at] += 1 / n
    np.testing.assert_allclose(y, want, rtol=1e-12)
    np.testing.assert_allclose(dx, share, rtol=1e-12)


def test_global_pools() -> None:
    x = np.random.default_rng(3).normal(size=(2, 3, 4, 5))
    (y,) = run(pool.global_avg_pool, x)
    np.testing.assert_allclose(y, x.mean((2, 3), keepdims=True), rtol=1e-12)
    (y,) = run(pool.global_max_pool, x)
    np.testing.assert_array_equal(y, x.max((2, 3), keepdims=True))


def test_linear() -> None:
    rng = np.random.default_rng(3)
    x, w, c = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 4)), rng.normal(size=5)
    (y,) = run(linear.linear, x, w, c)
    np.testing.assert_allclose(y, x @ w.T + c, rtol=1e-12)
    (y,) = run(linear.linear, x, w)
    np.testing.assert_allclose(y, x @ w.T, rtol=1e-12)


def test_every_composite_has_a_rule_of_its_own() -> None:
    """None of ours is differentiated through its formula, where a maximum would share its gradient."""
    assert all(
        c.pullback is not Composite.pullback
        for c in (softmax.Softmax, softmax.LogSoftmax, softmax.LogSumExp)
    )
    assert all(
        c.pullback is not Composite.pullback for c in (loss.SoftmaxCrossEntropy, pool.MaxPool)
    )
    assert all(
        c.pullback is not Composite.pullback for c in (norm.BatchNorm, norm.Normalize, norm.RmsNorm)
    )
    assert expand
