"""`tapeout bench`: our own step, a peer that does the same work, one that does not, and one that is not there."""

import json
import sys
from pathlib import Path

import pytest

from tapeout.cli.main import main

MLP = Path(__file__).resolve().parents[2] / "models" / "matrix" / "tiny_mlp_dynamo_opset20.onnx"
QUICK = ["--batch-size", "8", "--threads", "1", "--seconds", "0.02", "--repeats", "2"]


def test_our_own_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = tmp_path / "h.jsonl"
    assert main(["bench", str(MLP), *QUICK, "--history", str(history), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(history.read_text())
    (ours,) = found["engines"]
    assert 0 < ours["least_seconds"] <= ours["median_seconds"] <= ours["p90_seconds"]
    assert found["compile_cached_seconds"] < found["compile_cold_seconds"]
    assert found["memory"]["parameters"] > 0 and found["batch"] == 8


def test_the_exported_step_is_a_peer(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    words = [
        "bench",
        str(MLP),
        *QUICK,
        "--against",
        "onnxruntime",
        "--optimizer",
        "sgd:momentum=0.9",
        "--lr",
        "0.1",
    ]
    assert main([*words, "--json"]) == 0
    _, peer = json.loads(capsys.readouterr().out)["engines"]
    assert peer["engine"] == "onnxruntime" and peer["agrees"] and peer["ratio"] > 0


def test_an_engine_that_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -c "import sys; sys.exit(3)"\n')
    bare.chmod(0o755)
    words = ["bench", str(MLP), *QUICK, "--against", "torch", "--torch-model", "net.py:build"]
    assert main([*words, "--torch-python", str(bare)]) == 0
    assert "pip install torch, or name another --torch-python" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("against", "told"),
    [
        ("tensorflow", "no engine is called 'tensorflow'"),
        ("torch", "--torch-model FILE.py:FUNCTION"),
    ],
)
def test_what_cannot_be_compared(
    against: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(MLP), *QUICK, "--against", against]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.torch
def test_a_module_with_the_files_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    source = tmp_path / "net.py"
    models = str(MLP.parents[1])
    source.write_text(
        f"import sys\nsys.path.insert(0, {models!r})\nimport nets\n\ndef build():\n    return nets.build('lenet')\n"
    )
    words = ["bench", str(MLP.parents[1] / "lenet.onnx"), *QUICK, "--against", "torch"]
    assert main([*words, "--torch-model", f"{source}:build", "--json"]) == 0
    _, peer = json.loads(capsys.readouterr().out)["engines"]
    assert peer["agrees"]
