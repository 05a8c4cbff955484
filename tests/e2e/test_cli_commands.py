"""Each command on a small model: what it prints, writes and answers."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tapeout
from tapeout.cli import main as cli
from tapeout.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "models" / "matrix" / "tiny_mlp_dynamo_opset20.onnx"
COMMANDS = (
    "demo", "check", "train", "eval", "predict", "gradcheck", "view", "profile", "tune", "bench", "export-step", "opt", "bisect", "cache",
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder: a small model, and data whose classes can be told apart."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlp.onnx").write_bytes(MLP.read_bytes())
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    centres = rng.standard_normal((3, 8)).astype(np.float32) * 2
    x = centres[labels] + rng.standard_normal((90, 8)).astype(np.float32) * 0.3
    np.savez(tmp_path / "d.npz", x=x.astype(np.float32), labels=labels)
    return tmp_path


TRAIN = [
    "train",
    "mlp.onnx",
    "--data",
    "d.npz",
    "--batch-size",
    "16",
    "--epochs",
    "6",
    "--lr",
    "0.02",
]


# --- the whole ------------------------------------------------------------------------------------


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE), name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"tapeout {name}" in capsys.readouterr().out.partition("\n")[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"tapeout {tapeout.__version__}"


def test_start_is_light() -> None:
    script = (
        "import sys; from tapeout.cli.main import main; main(['--help']); main(['train', '--help']); "
        "print([m for m in ('numpy', 'onnx', 'llvmlite', 'networkx', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=_environment(),
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_module_runs(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tapeout", "check", "mlp.onnx"],
        capture_output=True,
        text=True,
        env=_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "can be trained" in done.stdout


def test_a_fault_of_ours_is_exit_3(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("inside")

    monkeypatch.setattr(tapeout, "load_onnx", broken)
    assert main(TRAIN) == cli.INTERNAL
    message = capsys.readouterr().err
    assert "internal error: KeyError: 'inside'" in message
    assert "Traceback" not in message
    file = Path(re.findall(r"\S+\.txt", message)[0])
    assert "Traceback" in file.read_text()
    file.unlink()


def test_a_closed_pipe_is_no_error(place: Path) -> None:
    command = f"{sys.executable} -m tapeout opt mlp.onnx -p dce 2>err.txt | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env=_environment(),
    )
    assert done.returncode == 0
    assert "rror" not in (place / "err.txt").read_text()


def _environment() -> dict[str, str]:
    found = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in found if p)}


# --- train, eval, predict --------------------------------------------------------------------------


def test_train_then_eval_then_predict(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--val-split", "0.2", "-o", "t.onnx", "--plot", "t.svg"]) == 0
    lines = capsys.readouterr().out.splitlines()
    labels = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert labels == [
        "model",
        "note",
        "data",
        "compiled",
        "memory",
        *["epoch"] * 6,
        "done",
        "wrote",
        "next",
    ]
    assert any(line.strip().startswith("x: f32[N,8] from x f32[72,8]") for line in lines)
    losses = [
        float(line.split("loss ")[1].split()[0]) for line in lines if line.startswith("epoch")
    ]
    assert losses[-1] < 0.5 * losses[0]
    ET.parse(place / "t.svg")

    assert main(["eval", "t.onnx", "--data", "d.npz", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["samples"] == 90
    assert figures["accuracy"] > 0.9

    assert (
        main(["predict", "t.onnx", "--data", "d.npz", "--batch-size", "32", "-o", "out.npz"]) == 0
    )
    with np.load("out.npz") as out, np.load("d.npz") as data:
        (name,) = out.files
        assert out[name].shape == (90, 3)
        assert np.mean(out[name].argmax(1) == data["labels"]) == pytest.approx(figures["accuracy"])


def test_train_changes_weights_and_nothing_else(place: Path) -> None:
    assert main([*TRAIN, "-o", "t.onnx", "--trainable", "fc2.*"]) == 0
    before, after = onnx.load("mlp.onnx"), onnx.load("t.onnx")
    old = {t.name: onnx.numpy_helper.to_array(t) for t in before.graph.initializer}
    new = {t.name: onnx.numpy_helper.to_array(t) for t in after.graph.initializer}
    changed = {name for name, array in old.items() if not np.array_equal(array, new[name])}
    assert changed == {"fc2.weight", "fc2.bias"}
    for model in (before, after):
        for t in model.graph.initializer:
            t.ClearField("raw_data")
    assert before == after


def test_train_is_the_same_every_time(place: Path) -> None:
    for name, threads in (("a.onnx", "1"), ("b.onnx", "2"), ("c.onnx", "2")):
        more = ["--seed", "5"] if name != "c.onnx" else ["--seed", "6"]
        assert main([*TRAIN, "-o", name, "--threads", threads, *more]) == 0
    a, b, c = (Path(n).read_bytes() for n in ("a.onnx", "b.onnx", "c.onnx"))
    assert a == b
    assert a != c


def test_train_json_stands_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "-o", "t.onnx", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["output"] == "t.onnx"
    assert len(result["epochs"]) == 6
    assert result["steps"] == 36
    assert "epoch" in captured.err


@pytest.mark.parametrize(
    "more",
    [
        [
            "--loss",
            "cross_entropy:label_smoothing=0.1",
            "--optimizer",
            "sgd:momentum=0.9,nesterov=true",
        ],
        ["--optimizer", "adamw:betas=0.9/0.98,weight_decay=0.1", "--clip-norm", "1"],
        ["--loss", "mse", "--labels", "onehot"],
    ],
    ids=["sgd", "adamw", "mse"],
)
def test_losses_and_optimizers_by_name(place: Path, more: list[str]) -> None:
    with np.load("d.npz") as data:
        np.savez(
            "d.npz",
            x=data["x"],
            labels=data["labels"],
            onehot=np.eye(3, dtype=np.float32)[data["labels"]],
        )
    assert main([*TRAIN, "-o", "t.onnx", *more]) == 0


def test_input_and_transform_are_applied(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load("d.npz") as data:
        np.savez("e.npz", image=data["x"] * 10, y=data["labels"])
    assert main([*TRAIN, "-o", "a.onnx"]) == 0
    more = ["--data", "e.npz", "--input", "x=image", "--transform", "x=x/10"]
    assert main([*TRAIN, *more, "-o", "b.onnx"]) == 0
    assert "x = x/10" in capsys.readouterr().out
    a, b = (onnx.load(n).graph.initializer for n in ("a.onnx", "b.onnx"))
    for s, t in zip(a, b, strict=True):
        assert np.allclose(onnx.numpy_helper.to_array(s), onnx.numpy_helper.to_array(t), atol=1e-4)


# --- the others ------------------------------------------------------------------------------------


def test_check_says_yes_or_no(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mlp.onnx", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == 75
    assert not report["problems"]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"], name="bad")], "g", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9),
        "no.onnx",
    )
    assert main(["check", "no.onnx"]) == 1
    assert "Det" in capsys.readouterr().out


def test_gradcheck_passes_and_fails(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "mlp.onnx", "--json", "--all"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert {p["name"] for p in report["parameters"]} == {
        "fc1.weight",
        "fc1.bias",
        "fc2.weight",
        "fc2.bias",
    }
    assert main(["gradcheck", "mlp.onnx", "--data", "d.npz", "--loss", "cross_entropy"]) == 0
    assert "passed" in capsys.readouterr().out
    # A parameter that the output does not depend on has a gradient of zero, for which no reason is given.
    model = onnx.load("mlp.onnx")
    for t in model.graph.initializer:
        if t.name == "fc2.weight":
            t.CopyFrom(
                onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(t)), t.name)
            )
    onnx.save(model, "zero.onnx")
    assert main(["gradcheck", "zero.onnx"]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["import", "backward", "optimized"])
@pytest.mark.parametrize("suffix", [".svg", ".dot", ".tape", ".html"])
def test_view_writes_graphs(place: Path, stage: str, suffix: str) -> None:
    target = place / f"v{suffix}"
    assert main(["view", "mlp.onnx", "--stage", stage, "-o", str(target)]) == 0
    text = target.read_text()
    if suffix == ".svg":
        ET.fromstring(text)
    if suffix == ".tape":
        assert main(["view", str(target), "-o", "again.svg"]) == 0
    assert "fc1.weight" in text


def test_view_writes_every_stage_on_a_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "mlp.onnx", "--dims", "N=64"]) == 0
    page = (place / "mlp.html").read_text()
    tabs = re.findall(r'<button role="tab"[^>]*>(\w+)</button>', page)
    assert tabs == ["import", "backward", "optimized", "kernels", "memory"]
    assert "f32[64,8]" in page
    assert main(["view", "mlp.onnx", "--loss", "none", "-o", "alone.html"]) == 0
    assert "backward" not in re.findall(
        r'<button role="tab"[^>]*>(\w+)</button>', (place / "alone.html").read_text()
    )


def test_view_writes_memory_and_onnx(place: Path) -> None:
    assert main(["view", "mlp.onnx", "--stage", "memory", "-o", "m.svg"]) == 0
    ET.parse(place / "m.svg")
    assert main(["view", "mlp.onnx", "--stage", "backward", "--dims", "N=4", "-o", "b.onnx"]) == 0
    onnx.checker.check_model(onnx.load("b.onnx"))


def test_export_step_trains_elsewhere(place: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    args = [
        "export-step",
        "mlp.onnx",
        "--optimizer",
        "sgd",
        "--lr",
        "0.1",
        "--dims",
        "N=30",
        "-o",
        "step.onnx",
    ]
    assert main(args) == 0
    session = ort.InferenceSession("step.onnx", providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    state = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load("step.onnx").graph.initializer
    }
    state = {
        n.removesuffix(".next"): state[n.removesuffix(".next")]
        for n in names
        if n.endswith(".next")
    }
    with np.load("d.npz") as data:
        batch = {"x": data["x"][:30], "labels": data["labels"][:30]}
    trainer = tapeout.Trainer(
        tapeout.load_onnx("mlp.onnx"),
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.sgd(0.1),
    )
    for _ in range(5):
        found = dict(zip(names, session.run(names, {**batch, **state}), strict=True))
        state = {n.removesuffix(".next"): a for n, a in found.items() if n.endswith(".next")}
        assert found["loss"] == pytest.approx(trainer.step(batch)["loss"], abs=1e-5)


def test_opt_prints_or_writes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["opt", "mlp.onnx", "-p", "decompose,fold,simplify,cse,dce"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("tape 1\n")
    assert "// decompose:" in captured.err
    assert main(["opt", "mlp.onnx", "-p", "decompose", "-o", "d.tape"]) == 0
    assert main(["opt", "d.tape", "-p", "fold,simplify,cse,dce"]) == 0
    assert capsys.readouterr().out == captured.out
    assert main(["opt", "--list"]) == 0
    assert "simplify" in capsys.readouterr().out


def test_cache_shows_and_clears(
    place: Path, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "-o", "t.onnx"]) == 0
    beside = empty_cache / "mine.txt"
    beside.write_text("not ours")
    capsys.readouterr()
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] > 0
    assert main(["cache", "clear"]) == 0
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["files"] == 0
    assert beside.read_text() == "not ours"


@pytest.mark.usefixtures("empty_cache")
def test_train_may_tune_first(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "-o", "plain.onnx"]) == 0
    capsys.readouterr()
    assert main([*TRAIN, "-o", "tuned.onnx", "--tune", "0.5"]) == 0
    assert "a step before" in capsys.readouterr().out
    assert (place / "tuned.onnx").read_bytes() == (place / "plain.onnx").read_bytes()
