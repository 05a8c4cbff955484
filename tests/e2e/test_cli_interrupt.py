"""Ctrl-C while training: the running step ends, the weights so far are kept, and the run goes on bit for bit."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tapeout.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "models" / "mlp.onnx"
BASE = ["train", "mlp.onnx", "--data", "d.npz", "--batch-size", "32", "--seed", "3"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlp.onnx").write_bytes(MLP.read_bytes())
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 784)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, labels=rng.integers(0, 10, 1000))
    return tmp_path


def _start(*more: str) -> subprocess.Popen[str]:
    found = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in found if p),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tapeout", *BASE, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def _interrupt(process: subprocess.Popen[str], after: str) -> tuple[str, int]:
    """Wait for a line, send SIGINT, and return what was said at the end with the exit code."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(after):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    return err, process.returncode


def test_interrupted_training_keeps_its_weights_and_goes_on(place: Path) -> None:
    err, code = _interrupt(_start("--epochs", "100000", "-o", "t.onnx"), "epoch")
    assert code == 130, err
    assert err.startswith("tapeout: interrupted; after ")
    assert "t.interrupted.onnx" in err
    assert "Traceback" not in err
    kept = sorted(p.name for p in place.iterdir())
    assert kept == ["d.npz", "mlp.onnx", "t.interrupted.ckpt", "t.interrupted.onnx"]
    onnx.checker.check_model(onnx.load("t.interrupted.onnx"))

    steps = int(err.split("after ")[1].split()[0])
    epochs = str(steps // 32 + 2)
    again = shlex.split(err.split("go on with: ")[1])[1:]
    again[again.index("--epochs") + 1] = epochs
    assert main(again) == 0
    assert main([*BASE, "--epochs", epochs, "-o", "whole.onnx"]) == 0
    assert (place / "t.onnx").read_bytes() == (place / "whole.onnx").read_bytes()


def test_interrupt_before_the_first_step_writes_nothing(place: Path) -> None:
    err, code = _interrupt(_start("--epochs", "100000", "-o", "t.onnx"), "model")
    assert code == 130, err
    assert "Traceback" not in err
    kept = sorted(p.name for p in place.iterdir())
    # A quick machine may have taken its first step before the signal came.
    if "weights so far" not in err:
        assert "nothing was written" in err
        assert kept == ["d.npz", "mlp.onnx"]


def test_what_a_checkpoint_holds_cannot_be_changed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _interrupt(_start("--epochs", "100000", "-o", "t.onnx"), "epoch")
    resume = [
        "train",
        "mlp.onnx",
        "--data",
        "d.npz",
        "--resume",
        "t.interrupted.ckpt",
        "-o",
        "t.onnx",
    ]
    assert main([*resume, "--epochs", "90000", "--loss", "mse"]) == 2
    assert "--loss comes from the checkpoint" in capsys.readouterr().err
    assert main([*resume, "--epochs", "1"]) == 2
    assert "epochs already" in capsys.readouterr().err
