"""Native gradients against finite differences in f64, and against what PyTorch recorded, on every model of the repository."""

from __future__ import annotations

import numpy as np
import pytest

import tapeout
from tapeout.api.gradcheck import GradcheckReport
from tapeout.ops.composite.norm import BatchNorm
from tapeout.ops.elementwise import Relu
from tapeout.passes.precision import widen
from tests.e2e.networks import LARGER, MODELS

KEPT = ("mlp", "lenet", "lenet_legacy_opset9")
MATRIX = sorted(path.stem for path in (MODELS / "matrix").glob("*.onnx"))


def assert_right(report: GradcheckReport) -> None:
    assert report, f"\n{report}"
    # What the report's verdict stands for, spelled out once more.
    for parameter in report.parameters:
        assert parameter.worst <= 1e-6
        assert parameter.f32 is not None
        assert parameter.f32 <= 1e-4
        assert not parameter.zero
    assert report.kinks <= 0.02 * report.checked


@pytest.mark.parametrize("model", KEPT)
def test_models(model: str) -> None:
    graph = tapeout.load_onnx(MODELS / f"{model}.onnx")
    report = tapeout.gradcheck(graph, tapeout.losses.cross_entropy("logits"))
    assert_right(report)
    for parameter in report.parameters:
        size = graph.parameters[parameter.name].type.size
        # 32 entries and the 8 largest, which may be among them; and 4 directions.
        low, high = (size, size) if size <= 40 else (32, 40)
        assert low <= parameter.checked - 4 <= high


STEP = {"resnet": 1}
"""Which batch, where the first puts too many units near a corner."""


@pytest.mark.slow
@pytest.mark.parametrize("model", LARGER)
def test_larger_models(model: str, unchecked: None) -> None:
    from benchmarks.reference.fixed_batches import fixed_batch

    report = tapeout.gradcheck(
        MODELS / f"{model}.onnx",
        tapeout.losses.cross_entropy("logits"),
        fixed_batch(model, STEP.get(model, 0), batch=2),
        entries=12,
        largest=4,
        directions=2,
    )
    assert_right(report)


@pytest.mark.parametrize("model", MATRIX)
def test_every_exporter_and_opset(model: str) -> None:
    assert_right(tapeout.gradcheck(MODELS / "matrix" / f"{model}.onnx"))


@pytest.mark.parametrize("model", MATRIX)
def test_recorded_gradients(model: str) -> None:
    recorded = np.load(MODELS / "matrix" / f"{model.partition('_')[0]}_{model.split('_')[1]}.npz")
    graph = tapeout.load_onnx(MODELS / "matrix" / f"{model}.onnx").then(widen)
    trainer = tapeout.Trainer(
        graph, loss=lambda known: known["logits"].square().sum() * 0.5, optimizer=None
    )
    batch = {"x": recorded["x"]}
    loss, gradients = trainer.gradients(batch)
    logits = recorded["logits"]
    np.testing.assert_allclose(trainer.predict(batch)["logits"], logits, rtol=1e-12, atol=1e-13)
    assert loss == pytest.approx(np.sum(logits**2) / 2, rel=1e-12)
    names = {n.removeprefix("grad/") for n in recorded.files if n.startswith("grad/")}
    assert set(gradients) == names
    for name, gradient in gradients.items():
        want = recorded[f"grad/{name}"]
        assert np.max(np.abs(gradient - want)) <= 1e-12 * np.max(np.abs(want)), name


@pytest.mark.slow
def test_every_entry_of_lenet(unchecked: None) -> None:
    """61,706 entries, about 370,000 forward passes."""
    report = tapeout.gradcheck(
        MODELS / "lenet.onnx",
        tapeout.losses.cross_entropy("logits"),
        {"x": _digits(2), "labels": np.array([3, 7])},
        all_entries=True,
    )
    assert_right(report)
    assert report.checked == 61706 + 4 * 10


def _digits(count: int) -> np.ndarray:
    from benchmarks.reference.fixed_batches import fixed_batch

    return fixed_batch("lenet", 0)["x"][:count]


# --- the check itself ------------------------------------------------------------------------------


def scaled(factor: float, width: int = 3) -> tapeout.Graph:
    """Return x [N, 3] -> sum over (relu(x * scale)), with a parameter that takes no part."""
    with tapeout.Builder("scaled") as g:
        x = g.input("x", ("N", width))
        scale = g.parameter("scale", (width,), np.full(width, factor, np.float32))
        g.parameter("idle", (2,), np.ones(2, np.float32))
        g.output("y", (x * scale).relu())
    return g.graph()


def test_a_zero_gradient_needs_a_reason() -> None:
    graph = scaled(0.7)
    report = tapeout.gradcheck(graph)
    assert not report
    assert [p.name for p in report.parameters if not p.passed] == ["idle"]
    assert "the gradient is all zero" in str(report)
    assert tapeout.gradcheck(graph, zero_gradients={"idle": "takes no part in the output"})


def before_norm() -> tapeout.Graph:
    """Return a layer whose bias batch normalisation takes off again: its gradient is rounding noise."""
    with tapeout.Builder("noise") as g:
        x = g.input("x", ("N", 4))
        h = tapeout.nn.linear(x, 3, name="layer")
        g.output("y", tapeout.nn.batch_norm(h, name="norm").tanh())
    return g.graph()


def test_rounding_noise_is_no_gradient() -> None:
    report = tapeout.gradcheck(before_norm())
    assert_right(report)
    (bias,) = (p for p in report.parameters if p.name == "layer.bias")
    assert not bias.kinks


def test_a_small_gradient_that_should_be_noise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = BatchNorm.pullback

    def wrong(self, cotangents, operands, results):
        dx, *rest = right(self, cotangents, operands, results)
        return (dx + cotangents[0] * 1e-5, *rest)

    monkeypatch.setattr(BatchNorm, "pullback", wrong)
    report = tapeout.gradcheck(before_norm())
    assert "layer.bias" in [p.name for p in report.parameters if not p.passed]


@pytest.mark.parametrize("factor", [-1.0, 1.01, 0.0])
def test_a_wrong_rule_is_found(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Relu.grad

    def wrong(self, dy, x, y):
        return right(self, dy, x, y) * factor

    monkeypatch.setattr(Relu, "grad", wrong)
    report = tapeout.gradcheck(scaled(0.7), zero_gradients={"idle": "takes no part"})
    assert [p.name for p in report.parameters if not p.passed] == ["scale"]


def test_kinks_are_listed_and_not_compared() -> None:
    with tapeout.Builder("corners") as g:
        x = g.input("x", ("N", 3))
        # The corner of relu lies within every step, within the larger ones, within none.
        scale = g.parameter("scale", (3,), np.array([1e-6, 2e-5, 0.5], np.float32))
        g.output("y", x * scale.relu())
    (found,) = tapeout.gradcheck(g.graph(), directions=0, f32=False).parameters
    assert found.checked == 3
    assert found.kinks == [(0,)]
    assert found.worst <= 1e-6


def test_data_of_the_user() -> None:
    rng = np.random.default_rng(5)
    batch = {
        "x": rng.standard_normal((3, 1, 12, 12)).astype(np.float32),
        "labels": rng.integers(0, 3, 3),
    }
    loss = tapeout.losses.cross_entropy("logits")
    told: list[tuple[str, int, int]] = []
    report = tapeout.gradcheck(
        str(MODELS / "matrix" / "tiny_lenet_dynamo_opset18.onnx"),
        loss,
        batch,
        entries=2,
        largest=1,
        directions=1,
        progress=lambda *a: told.append(a),
    )
    assert_right(report)
    assert told == [(p.name, i, 6) for i, p in enumerate(report.parameters)]
    assert all(p.checked <= 4 for p in report.parameters)
