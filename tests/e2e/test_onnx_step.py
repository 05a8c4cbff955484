"""The whole training step as plain ONNX: onnxruntime trains as the oracle of graphs and as native code do."""

import numpy as np
import onnx
import pytest

import tapeout
from tapeout.export.onnx.save import model
from tapeout.oracle import graph as oracle
from tests.conftest import ROOT
from tests.onnx_models import Array, run_elsewhere

LENET = ROOT / "models" / "matrix" / "tiny_lenet_dynamo_opset18.onnx"
OPTIMIZERS = {
    "sgd": tapeout.optimizers.sgd(0.05, momentum=0.9),
    "adamw": tapeout.optimizers.adamw(lr=1e-2),
}


def batch(n: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1, 12, 12)).astype(np.float32)
    return {"x": x, "labels": rng.integers(0, 3, n)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_elsewhere(name: str) -> None:
    """The file keeps the batch size open: every step has another one."""
    graph = tapeout.load_onnx(LENET)
    step = tapeout.training_step(
        graph, tapeout.losses.cross_entropy(), OPTIMIZERS[name], clip_norm=1.0
    )
    made = model(step)
    onnx.checker.check_model(made, full_check=True)
    state: dict[str, Array] = {}
    mine: dict[str, Array] = {}
    for i in range(6):
        feed = batch(3 + i, i)
        out = run_elsewhere(made, {**feed, **state})
        assert not any(v.any() for n, v in out.items() if n.startswith("check."))
        state = {n.removesuffix(".next"): v for n, v in out.items() if n.endswith(".next")}
        want = oracle.run(step.bind({"N": 3 + i}), feed, mine)
        mine |= want.updates
        np.testing.assert_allclose(out["loss"], want.outputs["loss"], rtol=1e-5)
        for n, v in want.updates.items():
            np.testing.assert_allclose(state[n], v, rtol=1e-4, atol=1e-6)


def test_steps_as_native_code() -> None:
    graph = tapeout.load_onnx(LENET)
    loss, optimizer = tapeout.losses.cross_entropy(), tapeout.optimizers.adam(lr=1e-2)
    made = model(tapeout.training_step(graph, loss, optimizer))
    trainer = tapeout.Trainer(graph, loss=loss, optimizer=optimizer)
    state: dict[str, Array] = {}
    for i in range(10):
        feed = batch(8, i)
        out = run_elsewhere(made, {**feed, **state})
        state = {n.removesuffix(".next"): v for n, v in out.items() if n.endswith(".next")}
        np.testing.assert_allclose(float(trainer.step(feed)["loss"]), out["loss"], rtol=1e-4)


def test_a_bad_label_sets_a_check() -> None:
    graph = tapeout.load_onnx(LENET)
    step = tapeout.training_step(graph, tapeout.losses.cross_entropy(), OPTIMIZERS["sgd"])
    feed = batch(4, 0)
    feed["labels"] = np.array([0, 1, 7, 2])
    made = model(step)
    facts = {p.key: p.value for p in made.metadata_props}
    out = run_elsewhere(made, feed)
    fired = [n for n, v in out.items() if n.startswith("check.") and v]
    assert fired
    assert all(n in facts["tapeout.checks"] for n in fired)
