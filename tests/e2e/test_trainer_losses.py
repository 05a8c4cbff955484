"""Losses, compiled: value and gradient against loops over Python floats, and against PyTorch where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tapeout
from tests.e2e import losses as by_hand
from tests.e2e.losses import CROSS_ENTROPY, Case

ELEMENTWISE = [
    (name, reduction, options)
    for name, options in (
        ("mse", {}),
        ("l1", {}),
        ("huber", {}),
        ("huber", {"delta": 0.3}),
        ("bce_with_logits", {}),
    )
    for reduction in ("mean", "sum")
]


def identity(shape: tuple[int, ...], after: Callable[[Any], Any] = lambda x: x) -> tapeout.Graph:
    """Return a model without parameters: its output is its input, or a function of it."""
    with tapeout.Builder("identity") as g:
        g.output("y", after(g.input("x", shape, tapeout.f64)))
    return g.graph()


def value_and_gradient(
    model: tapeout.Graph, loss: Any, batch: dict[str, np.ndarray]
) -> tuple[float, np.ndarray]:
    trainer = tapeout.Trainer(model, loss=loss, optimizer=None)
    value, found = trainer.gradients(batch, wrt=["x"])
    # The forward pass alone gives the same bits.
    assert trainer.loss_of(batch) == value
    assert trainer.evaluate([batch], metrics=())["loss"] == pytest.approx(value, rel=1e-14)
    return value, found["x"]


def near(got: Any, want: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


# --- against loops ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CROSS_ENTROPY, ids=lambda c: c.id)
def test_cross_entropy(case: Case) -> None:
    scores, labels = case.draw()
    options = {**case.options, "axis": case.axis}

    def loss(x: np.ndarray) -> float:
        return by_hand.cross_entropy(x, labels, **options)

    value, gradient = value_and_gradient(
        identity(case.shape),
        tapeout.losses.cross_entropy(**case.options),
        {"x": scores, "labels": labels},
    )
    near(value, loss(scores))
    near(gradient, by_hand.differences(loss, scores), 1e-9)


@pytest.mark.parametrize(("name", "reduction", "options"), ELEMENTWISE)
def test_elementwise(name: str, reduction: str, options: dict[str, float]) -> None:
    rng = np.random.default_rng(3)
    y, t = rng.standard_normal((5, 3)), rng.uniform(0, 1, (5, 3))
    each = getattr(by_hand, name)

    def loss(x: np.ndarray) -> float:
        return by_hand.elementwise(each, x, t, reduction, **options)

    value, gradient = value_and_gradient(
        identity(y.shape),
        getattr(tapeout.losses, name)(reduction=reduction, **options),
        {"x": y, "target": t},
    )
    near(value, loss(y))
    near(gradient, by_hand.differences(loss, y), 1e-9)


@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nll(shape: tuple[int, ...], reduction: str) -> None:
    scores, labels = Case("nll", shape, ignored=1).draw()
    model = identity(shape, lambda x: tapeout.nn.log_softmax(x, 1))
    loss = tapeout.losses.nll(reduction=reduction)

    def want(x: np.ndarray) -> float:
        return by_hand.cross_entropy(x, labels, reduction=reduction)

    value, gradient = value_and_gradient(model, loss, {"x": scores, "labels": labels})
    near(value, want(scores))
    near(gradient, by_hand.differences(want, scores), 1e-9)


def composed(x: Any) -> Any:
    """Softmax in the steps in which a model may spell it."""
    e = (x - x.max([1], keepdims=True)).exp()
    return e / e.sum([1], keepdims=True)


@pytest.mark.parametrize("spelled", [tapeout.nn.softmax, tapeout.nn.log_softmax, composed])
def test_the_loss_is_taken_behind_a_softmax(spelled: Callable[[Any], Any]) -> None:
    scores, labels = Case("auto", (4, 5)).draw()
    scores[0] *= 400  # a probability that f64 cannot hold
    trainer = tapeout.Trainer(
        identity((4, 5), spelled), loss=tapeout.losses.cross_entropy(), optimizer=None
    )
    value, gradient = trainer.gradients({"x": scores, "labels": labels}, wrt=["x"])
    near(value, by_hand.cross_entropy(scores, labels))
    assert np.all(np.isfinite(gradient["x"]))
    assert len(trainer.notes) == 1
    assert "softmax" in trainer.notes[0]


def test_from_logits_as_told() -> None:
    scores, labels = Case("told", (4, 5)).draw()
    batch = {"x": scores, "labels": labels}
    model = identity((4, 5), tapeout.nn.softmax)
    probabilities = softmax(scores)
    # True: the probabilities are taken as logits.
    value, _ = value_and_gradient(model, tapeout.losses.cross_entropy(from_logits=True), batch)
    near(value, by_hand.cross_entropy(probabilities, labels))
    # False: they are probabilities, whether or not something is known of where they came from.
    for graph, x in ((model, scores), (identity((4, 5)), probabilities)):
        loss = tapeout.losses.cross_entropy(from_logits=False)
        value, _ = value_and_gradient(graph, loss, {"x": x, "labels": labels})
        near(value, by_hand.cross_entropy(probabilities, labels, kind="probabilities"))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x)
    return e / e.sum(1, keepdims=True)


def test_an_output_or_a_function_as_loss() -> None:
    x = np.array([[0.5, -1.0, 2.0]])
    model = identity((1, 3), lambda x: x.square().sum())
    value, gradient = value_and_gradient(model, "y", {"x": x})
    near(value, 5.25)
    near(gradient, 2 * x)
    value, gradient = value_and_gradient(
        identity((1, 3)), lambda known: (known["y"] * known["x"]).mean(), {"x": x}
    )
    near(value, 1.75)
    near(gradient, 2 * x / 3)


# --- against PyTorch -------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("case", CROSS_ENTROPY, ids=lambda c: c.id)
def test_cross_entropy_as_torch(case: Case) -> None:
    import torch

    scores, labels = case.draw()
    options = {k: v for k, v in case.options.items() if k != "axis"}
    if "weight" in options:
        options["weight"] = torch.tensor(options["weight"], dtype=torch.float64)
    x = torch.tensor(scores, requires_grad=True)
    want = torch.nn.functional.cross_entropy(
        x.movedim(case.axis, 1), torch.tensor(labels), **options
    )
    want.backward()
    value, gradient = value_and_gradient(
        identity(case.shape),
        tapeout.losses.cross_entropy(**case.options),
        {"x": scores, "labels": labels},
    )
    near(value, want.item())
    near(gradient, x.grad.numpy())


@pytest.mark.torch
@pytest.mark.parametrize(("name", "reduction", "options"), ELEMENTWISE)
def test_elementwise_as_torch(name: str, reduction: str, options: dict[str, float]) -> None:
    import torch

    functions = torch.nn.functional
    theirs = {
        "mse": functions.mse_loss,
        "l1": functions.l1_loss,
        "huber": functions.huber_loss,
        "bce_with_logits": functions.binary_cross_entropy_with_logits,
    }[name]
    rng = np.random.default_rng(3)
    y, t = rng.standard_normal((5, 3)), rng.uniform(0, 1, (5, 3))
    y[0, 0] = t[0, 0]  # where |y - t| has its corner
    x = torch.tensor(y, requires_grad=True)
    want = theirs(x, torch.tensor(t), reduction=reduction, **options)
    want.backward()
    value, gradient = value_and_gradient(
        identity(y.shape),
        getattr(tapeout.losses, name)(reduction=reduction, **options),
        {"x": y, "target": t},
    )
    near(value, want.item())
    near(gradient, x.grad.numpy())


# --- what does not fit -----------------------------------------------------------------------------


def fault(model: tapeout.Graph, loss: Any, batch: dict[str, np.ndarray] | None = None) -> str:
    """Return the message with which a trainer, or its first step, is refused."""
    with pytest.raises(tapeout.TapeoutError) as found:
        tapeout.Trainer(model, loss=loss, optimizer=None).gradients(batch or {}, wrt=["x"])
    return str(found.value)


def test_an_unknown_output() -> None:
    message = fault(identity((4, 5)), tapeout.losses.cross_entropy("logitz"))
    assert "'logitz'" in message
    assert "'y'" in message


def test_two_outputs() -> None:
    with tapeout.Builder("two") as g:
        x = g.input("x", (4, 5), tapeout.f64)
        g.output("left", x)
        g.output("right", x + 1.0)
    message = fault(g.graph(), tapeout.losses.mse())
    assert "2 outputs" in message
    assert "'left'" in message


def test_labels_that_fit_no_axis() -> None:
    scores = np.zeros((2, 3, 4))
    message = fault(
        identity((2, 3, 4)),
        tapeout.losses.cross_entropy(),
        {"x": scores, "labels": np.zeros((2, 5), np.int64)},
    )
    assert "[2, 5]" in message


def test_labels_that_fit_two_axes() -> None:
    scores = np.zeros((2, 3, 3))
    batch = {"x": scores, "labels": np.zeros((2, 3), np.int64)}
    message = fault(identity((2, 3, 3)), tapeout.losses.cross_entropy(), batch)
    assert "axis=" in message
    value, _ = value_and_gradient(identity((2, 3, 3)), tapeout.losses.cross_entropy(axis=2), batch)
    near(value, np.log(3))


def test_a_target_of_another_shape() -> None:
    batch = {"x": np.zeros((4, 5)), "target": np.zeros((4, 6))}
    message = fault(identity((4, 5)), tapeout.losses.mse(), batch)
    assert "target" in message
    assert "[4, 6]" in message
    assert "[4, 5]" in message


def test_options_out_of_range() -> None:
    for make in (
        lambda: tapeout.losses.cross_entropy(label_smoothing=1.5),
        lambda: tapeout.losses.cross_entropy(reduction="average"),  # type: ignore[arg-type]
        lambda: tapeout.losses.huber(delta=0.0),
        lambda: tapeout.losses.mse(reduction="none"),  # type: ignore[arg-type]
    ):
        with pytest.raises(tapeout.TapeoutError):
            make()


def test_a_loss_that_is_no_scalar() -> None:
    assert "scalar" in fault(identity((4, 5)), "y")
    assert "scalar" in fault(identity((4, 5)), lambda known: known["y"])
    assert "is no loss" in fault(identity((4, 5)), 3)
