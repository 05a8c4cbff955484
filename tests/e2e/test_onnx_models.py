"""The models of this repository, by both exporters and all opsets: as onnxruntime and as PyTorch in f64."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tapeout.autodiff.gradients import gradients
from tapeout.export.onnx import write_weights
from tapeout.export.onnx.save import model
from tapeout.frontend.onnx import load
from tapeout.frontend.onnx.report import report
from tapeout.ir.build import rebuilder
from tapeout.ir.graph import Graph
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tests.conftest import ROOT
from tests.onnx_models import run_elsewhere
from tests.tolerances import close

MODELS = sorted((ROOT / "models").glob("*.onnx"))
MATRIX = sorted((ROOT / "models" / "matrix").glob("*.onnx"))


def name_of(path: Path) -> str:
    return path.stem


def batch(graph: Graph, n: int) -> dict[str, np.ndarray]:
    """Return inputs by name: normal numbers, words, or a mask."""
    rng = np.random.default_rng(n)
    found = {}
    for name, value in graph.input.items():
        shape = (n, *map(int, value.type.shape[1:]))
        whole = rng.integers(0, 2 if "mask" in name else 32, shape)
        floats = value.type.dtype.is_float
        found[name] = rng.normal(size=shape).astype(np.float32) if floats else whole
    return found


@pytest.mark.parametrize("path", [*MODELS, *MATRIX], ids=name_of)
def test_as_onnxruntime(path: Path) -> None:
    graph = load(path, mode="eval")
    assert list(graph.dims) == ["N"]
    for n in (1, 5):
        x = batch(graph, n)
        got = oracle.run(graph.bind({"N": n}), x).outputs["logits"]
        close(got, run_elsewhere(onnx.load(path), x)["logits"], "network")


@pytest.mark.parametrize("path", [*MODELS, *MATRIX], ids=name_of)
def test_everything_trains(path: Path) -> None:
    found = report(path)
    assert found.ok
    assert all("is a softmax" in w for w in found.warnings)
    assert all(n.gradient in ("yes", "no") for n in found.nodes)


@pytest.mark.parametrize("path", MATRIX, ids=name_of)
def test_parameters_are_pytorchs(path: Path) -> None:
    recorded = np.load(
        path.with_name(path.name.partition("_dynamo")[0].partition("_legacy")[0] + ".npz")
    )
    names = [n.removeprefix("grad/") for n in recorded.files if n.startswith("grad/")]
    assert sorted(load(path).parameters) == sorted(names)


@pytest.mark.parametrize("path", MATRIX, ids=name_of)
def test_gradients_are_pytorchs(path: Path) -> None:
    """The imported graph, differentiated and run by the oracle, against PyTorch in f64."""
    recorded = np.load(
        path.with_name(path.name.partition("_dynamo")[0].partition("_legacy")[0] + ".npz")
    )
    x = recorded["x"].astype(np.float32)
    graph = load(path).bind({"N": len(x)})
    close(
        oracle.run(graph, {"x": x}).outputs["logits"],
        recorded["logits"].astype(np.float32),
        "network",
    )
    found = oracle.run(gradients(half_square(graph), of="loss", wrt="parameters"), {"x": x}).outputs
    for name in graph.parameters:
        want = recorded[f"grad/{name}"].astype(np.float32)
        close(found[f"grad/{name}"], want, "network", factor=4, reason="f32 against f64")


def half_square(graph: Graph) -> Graph:
    """Return the graph with `sum(logits**2) / 2` as the output `loss`."""
    b = rebuilder(graph)
    for node in graph.nodes:
        b.keep(node)
    b.set_output("loss", (Sym(b, graph.output["logits"]).square().sum() * 0.5).value)
    return b.graph()


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_written_and_read_again(path: Path) -> None:
    graph = load(path, mode="eval")
    made = model(graph)
    again = load(made, mode="as-exported")
    assert list(again.parameters) == list(graph.parameters)
    x = batch(graph, 3)
    want = oracle.run(graph.bind({"N": 3}), x).outputs["logits"]
    got = oracle.run(again.bind({"N": 3}), x).outputs["logits"]
    if path.stem.startswith(("mlp", "lenet")):
        np.testing.assert_array_equal(got, want)
    # What ONNX has no operator for is spelled by its formula, which the oracle rounds at every step.
    close(got, want, "network")
    close(run_elsewhere(made, x)["logits"], want, "network")


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_trained_weights_go_back(path: Path, tmp_path: Path) -> None:
    graph = load(path, mode="eval")
    assert isinstance(graph.origin, bytes)
    assert graph.origin == path.read_bytes()
    weights = {n: np.asarray(v.initial) * np.float32(0.5) for n, v in graph.parameters.items()}
    write_weights(graph.origin, weights, tmp_path / "trained.onnx")
    x = batch(graph, 2)
    want = oracle.run(graph.bind({"N": 2}), x, weights).outputs["logits"]
    got = run_elsewhere(onnx.load(tmp_path / "trained.onnx"), x)["logits"]
    close(got, want, "network")
    before, after = onnx.load(path), onnx.load(tmp_path / "trained.onnx")
    for m in (before, after):
        m.graph.ClearField("initializer")
    assert before == after
