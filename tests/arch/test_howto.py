"""What docs/how-to/add-an-op.md says is done to a copy of the checkout, as it stands there."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.arch.pages import blocks, run
from tests.arch.sources import ROOT

PAGE = ROOT / "docs" / "how-to" / "add-an-op.md"
COPIED = ("src", "tests", "pyproject.toml")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources with the diff of the page applied."""
    if shutil.which("git") is None:
        pytest.skip("needs git to apply the diff")
    copy = tmp_path_factory.mktemp("checkout")
    junk = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=junk)
        else:
            shutil.copy(ROOT / name, copy / name)
    (diff,) = blocks(PAGE, "diff")
    # Above the copy git must not look for a repository, whose root would be where paths start.
    alone = {"GIT_CEILING_DIRECTORIES": str(copy.parent)}
    run(["git", "apply", "--check", "-"], copy, alone, diff)
    run(["git", "apply", "-"], copy, alone, diff)
    return copy


def here(copy: Path) -> dict[str, str]:
    """Return the environment in which the copy's package is imported."""
    return {"PYTHONPATH": str(copy / "src")}


def test_the_diff_is_one_source_file_and_one_row() -> None:
    (diff,) = blocks(PAGE, "diff")
    files = re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE)
    assert [f.split("/")[0] for f in files] == ["src", "tests"]
    rows = diff.split("+++ b/tests")[1]
    added = re.findall(r"^\+(?!\+)(.*)$", rows, re.MULTILINE)
    assert len(added) == 2 and added[0].startswith("from "), "an import and a row"


def test_the_generic_tests_accept_the_new_operation(changed: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops"]
    tests = "gaussian or every_operation or every_differentiable or rows_differ"
    out = run([*command, "-k", tests], changed, here(changed))
    passed = re.search(r"(\d+) passed", out)
    assert passed and int(passed[1]) >= 20, out
    assert "native" in run([*command, "--collect-only", "-k", "gaussian"], changed, here(changed))


def test_the_examples_run_natively(changed: Path) -> None:
    script = changed / "page.py"
    script.write_text("\n".join(blocks(PAGE, "python")), encoding="utf-8")
    run([sys.executable, str(script)], changed, here(changed))
