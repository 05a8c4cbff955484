"""`import tapeout` is light: the heavy packages come with the first call that needs them."""

import subprocess
import sys

import pytest

from tests.arch.sources import PACKAGE

HEAVY = ("onnx", "llvmlite", "networkx", "torch", "onnxruntime", "rich", "click")


def test_import_is_light() -> None:
    if not (PACKAGE / "__init__.py").exists():
        pytest.skip("no package yet")
    script = f"import sys, tapeout; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split(), f"import tapeout loads {done.stdout.strip()}"
