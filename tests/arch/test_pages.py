"""The blocks of Python on pages that promise to run, run: all blocks of a page in one go, in a folder of their own."""

import sys
from pathlib import Path

import pytest

from tests.arch.pages import blocks, run
from tests.arch.sources import ROOT

PAGES = ("docs/how-to/train-your-own-model.md",)


@pytest.mark.parametrize("name", PAGES)
def test_python_runs(name: str, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(ROOT / name, "python")), encoding="utf-8")
    run([sys.executable, str(script)], tmp_path, {"PYTHONPATH": str(ROOT / "src")})
