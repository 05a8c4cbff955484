"""examples/builder_mlp.py: a model written in Python trains, and is the same model after a trip through ONNX, bit for bit."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tapeout
from tests.e2e.networks import ROOT

SCRIPT = ROOT / "examples" / "builder_mlp.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("builder_mlp", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trainer(graph: tapeout.Graph, optimizer: object = None) -> tapeout.Trainer:
    return tapeout.Trainer(
        graph,
        loss=tapeout.losses.cross_entropy("logits", labels="labels"),
        optimizer=optimizer or tapeout.optimizers.adam(lr=3e-3),
    )


def test_the_script_learns_and_writes_a_model(tmp_path: Path, unchecked: None) -> None:
    out = tmp_path / "spirals.onnx"
    command = [sys.executable, str(SCRIPT), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, after = (float(a) for a in re.findall(r"accuracy (\d+\.\d)%", done.stdout))
    assert before < 70
    assert after > 95
    assert f"wrote {out}" in done.stdout

    import onnxruntime

    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["x"]
    x = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32)
    (theirs,) = session.run(["logits"], {"x": x})
    ours = trainer(tapeout.load_onnx(out)).predict({"x": x})["logits"]
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [
        tapeout.optimizers.adam(3e-3),
        tapeout.optimizers.adamw(3e-3),
        tapeout.optimizers.sgd(0.1, momentum=0.9),
    ],
    ids=["adam", "adamw", "sgd"],
)
def test_through_onnx_and_back(example: ModuleType, tmp_path: Path, optimizer: object) -> None:
    graph = example.build()
    tapeout.save_onnx(graph, tmp_path / "spirals.onnx")
    loaded = tapeout.load_onnx(tmp_path / "spirals.onnx")
    assert list(loaded.parameters) == list(graph.parameters)
    assert loaded.dims.keys() == graph.dims.keys()

    data = example.spirals(500, seed=1)
    direct, back = trainer(graph, optimizer), trainer(loaded, optimizer)
    first = direct.fit(data, epochs=3, batch_size=64)
    again = back.fit(data, epochs=3, batch_size=64)
    assert first.steps == again.steps
    assert first.steps[-1] < first.steps[0]
    for name in direct.parameters:
        assert np.array_equal(direct.parameters[name], back.parameters[name]), name
    assert direct.evaluate(data) == back.evaluate(data)


def test_the_same_weights_again_from_the_same_seed(example: ModuleType) -> None:
    one, two = example.build(), example.build()
    for name, variable in one.parameters.items():
        assert np.array_equal(variable.initial, two.parameters[name].initial)


def test_errors_name_the_users_line() -> None:
    with tapeout.Builder("wrong") as g:
        x, y = g.input("x", (3, 4)), g.input("y", (3, 4))
    with pytest.raises(tapeout.ShapeError, match=r"test_builder\.py:\d+"):
        x @ y
