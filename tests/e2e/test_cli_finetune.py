"""`--trainable`, `--mode`, `--replace-head`: on every command that takes them, in files, and through an interruption."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tapeout
from tapeout.cli.main import main
from tests.onnx_models import Array, parsed

ROOT = Path(__file__).resolve().parents[2]
HEAD = ["--replace-head", "3", "--trainable", "fc_*"]
TRAIN = ["train", "net.onnx", "--data", "d.npz", "--batch-size", "16", "--lr", "0.02"]


def f32(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def net() -> onnx.ModelProto:
    """A backbone with batch normalisation and dropout, in inference form, and a head of 5 classes behind a softmax."""
    made = parsed(
        "g (float[N,8] x) => (float[N,5] y) {h = Gemm <transB = 1> (x, body_w, body_b); "
        '["body/bn"] n = BatchNormalization (h, bn_scale, bn_bias, bn_mean, bn_var); '
        '["body/drop"] d = Dropout (n, half); r = Relu (d); ["fc"] l = Gemm <transB = 1> (r, fc_w, fc_b); '
        "y = Softmax <axis = 1> (l)}",
        body_w=f32(6, 8), body_b=f32(6), bn_scale=np.ones(6, np.float32), bn_bias=f32(6), bn_mean=f32(6), bn_var=np.ones(6, np.float32), half=np.array(0.5, np.float32), fc_w=f32(5, 6), fc_b=f32(5),
    )  # fmt: skip
    made.metadata_props.add(key="license", value="free")
    return made


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder."""
    monkeypatch.chdir(tmp_path)
    onnx.save(net(), "net.onnx")
    labels = np.arange(96) % 3
    x = f32(3, 8)[labels] * 2 + np.random.default_rng(1).standard_normal((96, 8)) * 0.3
    np.savez("d.npz", x=x.astype(np.float32), labels=labels)
    return tmp_path


def changed(path: str) -> set[str]:
    """Return which tensors of a file differ from those of net.onnx."""
    old, new = (
        {t.name: numpy_helper.to_array(t) for t in onnx.load(p).graph.initializer}
        for p in ("net.onnx", path)
    )
    assert list(old) == list(new)
    return {n for n in old if old[n].shape != new[n].shape or (old[n] != new[n]).any()}


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ([*HEAD, "--mode", "eval"], {"fc_w", "fc_b"}),
        (
            ["--replace-head", "3", "--trainable", "fc_w,body_*", "--mode", "body/bn=eval"],
            {"fc_w", "fc_b", "body_w", "body_b"},
        ),
        (
            ["--replace-head", "3", "--trainable", "!body_*"],
            {"fc_w", "fc_b", "bn_scale", "bn_bias", "bn_mean", "bn_var"},
        ),
        (
            [
                "--replace-head",
                "3",
                "--trainable",
                "fc_*",
                "--mode",
                "eval",
                "--mode",
                "bn_*=train",
            ],
            {"fc_w", "fc_b", "bn_mean", "bn_var"},
        ),
    ],
)
def test_train(
    options: list[str], trained: set[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, *options, "--epochs", "2", "-o", "out.onnx"]) == 0
    said = capsys.readouterr().out
    assert "new head fc (Gemm): 3 classes for 5" in said
    made = onnx.load("out.onnx")
    onnx.checker.check_model(made)
    assert changed("out.onnx") == trained
    assert made.metadata_props == net().metadata_props
    assert [n.name for n in made.graph.node] == [n.name for n in net().graph.node]
    assert made.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3
    assert main(["eval", "out.onnx", "--data", "d.npz", "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["accuracy"] <= 1


def test_it_learns(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, *HEAD, "--mode", "eval", "--epochs", "40", "-o", "head.onnx"]) == 0
    assert main(["train", "head.onnx", *TRAIN[2:], "--epochs", "20", "-o", "all.onnx"]) == 0
    capsys.readouterr()
    losses = []
    for path in ("head.onnx", "all.onnx"):
        assert main(["eval", path, "--data", "d.npz", "--json"]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert max(losses) < 0.1


def test_the_seed_draws_the_head(place: Path) -> None:
    for seed, path in (("0", "a.onnx"), ("0", "b.onnx"), ("1", "c.onnx")):
        assert main([*TRAIN, *HEAD, "--seed", seed, "--epochs", "1", "-o", path]) == 0
    assert (place / "a.onnx").read_bytes() == (place / "b.onnx").read_bytes()
    assert (place / "a.onnx").read_bytes() != (place / "c.onnx").read_bytes()


def test_an_interrupted_run_goes_on(place: Path) -> None:
    """The new head, what is frozen and the modes come from the checkpoint."""
    options = [*HEAD, "--mode", "body/drop=eval", "--seed", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tapeout", *TRAIN, *options, "--epochs", "100000", "-o", "t.onnx"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    steps = int(err.split("after ")[1].split()[0])
    epochs = str(steps // 6 + 2)
    again = shlex.split(err.split("go on with: ")[1])[1:]
    again[again.index("--epochs") + 1] = epochs
    for option in (["--replace-head", "3"], ["--trainable", "*"], ["--mode", "eval"]):
        assert main([*again, *option]) == 2
    assert main(again) == 0
    assert main([*TRAIN, *options, "--epochs", epochs, "-o", "whole.onnx"]) == 0
    assert (place / "t.onnx").read_bytes() == (place / "whole.onnx").read_bytes()


def test_check(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "net.onnx", *HEAD]) == 0
    said = capsys.readouterr().out
    assert "new head fc" in said
    assert "output y: f32[N,3]" in said
    assert "21 of them train" in said
    assert main(["check", "net.onnx", *HEAD, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "net.onnx"
    assert [p["name"] for p in found["parameter_list"] if p["trainable"]] == ["fc_w", "fc_b"]


def test_gradcheck(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--mode", "body/drop=eval", "--loss", "cross_entropy", "--json"]
    assert main(["gradcheck", "net.onnx", *HEAD, *options, "--data", "d.npz"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in found["parameters"]] == ["fc_w", "fc_b"]


def test_export_step(place: Path) -> None:
    """Only the head has moments; the statistics are states of the step in mode train."""
    step = ["export-step", "net.onnx", *HEAD, "--dims", "N=4", "--optimizer", "adam"]
    for modes, follows in ((["--mode", "eval"], False), (["--mode", "body/drop=eval"], True)):
        assert main([*step, *modes, "-o", "step.onnx"]) == 0
        names = {o.name for o in onnx.load("step.onnx").graph.output}
        assert {"fc_w.next", "fc_b.next"} <= names
        assert ("bn_mean.next" in names) == follows
        assert "body_w.next" not in names


def test_view(place: Path) -> None:
    assert main(["view", "net.onnx", *HEAD, "--stage", "backward", "-o", "step.tape"]) == 0
    graph = tapeout.Graph.parse((place / "step.tape").read_text(encoding="utf-8"))
    assert [n for n, v in graph.parameters.items() if v.trainable] == ["fc_w", "fc_b"]
    assert graph.parameters["fc_w"].type.shape == (3, 6)


BAD = {
    "mode": (["--mode", "evil"], "'eval'"),
    "mode of a glob": (["--mode", "bn_*=evil"], "'eval'"),
    "glob of a mode": (["--mode", "=eval"], "GLOB=MODE"),
    "layer": (["--mode", "nb_*=eval"], "no dropout or batch normalisation"),
    "parameter": (["--trainable", "cf_*"], "no parameter is called 'cf_*'"),
    "head of no classes": (["--replace-head", "0"], "--replace-head"),
    "head of words": (["--replace-head", "ten"], "--replace-head"),
    "statistics": (["--trainable", "bn_mean"], "no parameter is called 'bn_mean'"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("command", ["check", "train"])
def test_bad_options(
    case: str, command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, said = BAD[case]
    more = ["--data", "d.npz", "-o", "out.onnx"] if command == "train" else []
    assert main([command, "net.onnx", *more, *options]) == 2
    assert said in capsys.readouterr().err
    assert not (place / "out.onnx").exists()


def test_a_model_without_a_head(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(parsed("g (float[N,8] x) => (float[N,8] y) {y = Relu (x)}"), "relu.onnx")
    assert main(["check", "relu.onnx", "--replace-head", "3"]) == 2
    said = capsys.readouterr().err
    assert "no last layer is recognised" in said
    assert "relu.onnx" in said
