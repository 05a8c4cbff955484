"""The stubs in typings/ agree with the package they describe."""

import os
import subprocess
import sys

import pytest

from tests.arch.sources import ROOT


@pytest.mark.slow
def test_llvmlite_stubs_match() -> None:
    pytest.importorskip("mypy", reason="needs mypy (make types)")
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "--ignore-missing-stub", "llvmlite.binding"],
        env={**os.environ, "MYPYPATH": str(ROOT / "typings")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
