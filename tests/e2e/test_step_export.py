"""The exported step: 50 steps of LeNet in stock onnxruntime lose what ours lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tapeout
from tests.e2e.networks import OPTIMIZERS, batch_of, load, make_optimizer, record

STEPS = 50


class Foreign:
    """Runs a step of our writing in onnxruntime, feeding back what each variable becomes."""

    def __init__(self, path: Path) -> None:
        import onnx
        import onnxruntime

        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert {o.domain for o in model.opset_import} == {""}, "plain ONNX needs no other domain"
        notes = {p.key: p.value for p in model.metadata_props}
        self.variables = json.loads(notes["tapeout.variables"])
        self.checks = json.loads(notes["tapeout.checks"])
        initial = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        self.state = {n: initial[n] for n in self.variables}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(self, batch: dict[str, np.ndarray], *, apply: bool = True) -> dict[str, np.ndarray]:
        """Return all outputs; the variables become what they say unless `apply` is false."""
        names = [o.name for o in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(None, {**self.state, **batch}), strict=True))
        if apply:
            for name in self.variables:
                self.state[name] = found.get(f"{name}.next", self.state[name])
        return found


def exported(path: Path, optimizer: str, dtype: str = "float32", **options: Any) -> Foreign:
    made = make_optimizer(record("lenet", optimizer)["optimizer"])
    loss = tapeout.losses.cross_entropy("logits")
    step = tapeout.training_step(load("lenet", dtype), loss, made, **options)
    tapeout.save_onnx(step, path)
    return Foreign(path)


def ours(optimizer: str, **options: Any) -> tapeout.Trainer:
    return tapeout.Trainer(
        load("lenet"),
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=make_optimizer(record("lenet", optimizer)["optimizer"]),
        **options,
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fifty_steps_of_lenet(tmp_path: Path, optimizer: str) -> None:
    theirs, trainer = exported(tmp_path / "step.onnx", optimizer), ours(optimizer)
    worst = 0.0
    for step in range(STEPS):
        batch = batch_of("lenet", step)
        found = theirs.run(batch)
        assert not any(found[c] for c in found if c.startswith("check."))
        worst = max(worst, abs(float(found["loss"]) - trainer.step(batch)["loss"]))
    assert worst <= 1e-4
    assert float(found["loss"]) < 1.5  # it learns
    for name, tensor in trainer.parameters.items():
        assert np.max(np.abs(theirs.state[name] - tensor)) <= 1e-3 * np.max(np.abs(tensor)), name
    assert theirs.state["optimizer/step"] == STEPS


def test_the_recorded_losses_of_pytorch(tmp_path: Path) -> None:
    """Without our code generator: our derivative, run elsewhere, against PyTorch's in f64."""
    theirs = exported(tmp_path / "step.onnx", "sgd")
    want = record("lenet", "sgd")["float64"]["losses"]
    for step, loss in enumerate(want):
        assert float(theirs.run(batch_of("lenet", step))["loss"]) == pytest.approx(loss, abs=1e-5)


def test_clipping_and_another_batch_size(tmp_path: Path) -> None:
    theirs = exported(tmp_path / "step.onnx", "sgd", clip_norm=0.5)
    trainer = ours("sgd", clip_norm=0.5)
    for step, rows in enumerate((16, 3, 1, 16)):
        batch = {n: a[:rows] for n, a in batch_of("lenet", step).items()}
        found, result = theirs.run(batch), trainer.step(batch)
        assert float(found["loss"]) == pytest.approx(result["loss"], abs=1e-5)
        assert float(found["grad_norm"]) == pytest.approx(result["grad_norm"], rel=1e-4)


def test_a_check_tells_not_to_apply_the_step(tmp_path: Path) -> None:
    theirs = exported(tmp_path / "step.onnx", "sgd")
    batch = batch_of("lenet", 0)
    batch["labels"][3] = 10
    found = theirs.run(batch, apply=False)
    fired = [c for c in found if c.startswith("check.") and found[c]]
    assert any("labels" in theirs.checks[c] for c in fired)
