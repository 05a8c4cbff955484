"""The blocks of Python on pages run as they stand, and print what the page shows. `--update-golden` shows it anew."""

from pathlib import Path

import pytest

from tests.arch.pages import run_blocks, with_output
from tests.arch.sources import ROOT

PAGES = (
    "docs/how-to/write-a-model.md",
    "docs/how-to/train-your-own-model.md",
    "docs/how-to/fine-tune.md",
    "docs/explanation/autodiff.md",
    "docs/explanation/fusion.md",
    "docs/explanation/memory-plan.md",
    "docs/explanation/numerics.md",
    "docs/reference/errors.md",
)


@pytest.mark.parametrize("name", PAGES)
def test_python_runs_and_prints(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    page = ROOT / name
    shown = page.read_text(encoding="utf-8")
    renewed = with_output(shown, run_blocks(page, tmp_path, ROOT / "src"))
    if pytestconfig.getoption("--update-golden"):
        page.write_text(renewed, encoding="utf-8")
        return
    assert renewed == shown, (
        "the page shows other text than its blocks print; if that is right, --update-golden"
    )
