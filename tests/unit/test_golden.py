"""The golden fixture: exact, readable when it fails, written only when asked."""

from pathlib import Path

import pytest

from tests import conftest
from tests.conftest import Golden


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(conftest, "GOLDEN", tmp_path)
    return tmp_path


def test_equal_text_passes(folder: Path) -> None:
    (folder / "a.tape").write_text("tape 1\n")
    Golden(update=False)("tape 1", "a.tape")


def test_other_text_fails_with_the_difference(folder: Path) -> None:
    (folder / "a.tape").write_text("one\ntwo\n")
    with pytest.raises(pytest.fail.Exception, match=r"-two\n\+three"):
        Golden(update=False)("one\nthree\n", "a.tape")


def test_missing_file_fails(folder: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="no golden file"):
        Golden(update=False)("text", "new.tape")
    assert not (folder / "new.tape").exists()


def test_update_writes(folder: Path) -> None:
    Golden(update=True)("text", "pass/new.tape")
    assert (folder / "pass" / "new.tape").read_text() == "text\n"
    Golden(update=False)("text\n", "pass/new.tape")
