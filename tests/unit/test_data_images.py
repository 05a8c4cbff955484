"""Folders of pictures; needs Pillow."""

from pathlib import Path

import numpy as np
import pytest

from tapeout.data import load
from tapeout.support.errors import DataError

Image = pytest.importorskip("PIL.Image")


def picture(path: Path, mode: str = "L", size: tuple[int, int] = (5, 3), value: int = 0) -> None:
    """Write a picture of one colour with a mark at its first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, value if mode == "L" else (value, value, 9))
    image.putpixel((1, 0), 200 if mode == "L" else (200, 100, 50))
    image.save(path)


def test_reads_grey_pictures_by_class(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png", value=1)
    picture(tmp_path / "ant" / "b.png", value=3)
    picture(tmp_path / "ant" / "a.png", value=2)
    dataset = load(str(tmp_path))
    assert dataset.arrays["x"].shape == (3, 1, 3, 5)
    assert dataset.arrays["x"][:, 0, 2, 4].tolist() == [2, 3, 1]
    assert dataset.arrays["x"][0, 0, 0, 1] == 200
    assert dataset.arrays["labels"].tolist() == [0, 0, 1]
    assert "0=ant, 1=cat" in dataset.notes[0]


def test_one_colour_picture_makes_all_rgb(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "1.png", mode="RGB")
    x = load(str(tmp_path)).arrays["x"]
    assert x.shape == (2, 3, 3, 5)
    np.testing.assert_array_equal(x[1, :, 0, 1], [200, 100, 50])


def test_refuses_what_does_not_fit(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "a" / "2.png", size=(6, 3))
    with pytest.raises(DataError, match=r"2\.png.*6x3"):
        load(str(tmp_path))


@pytest.mark.parametrize("damage", ["text", "cut", "link", "empty"])
def test_refuses_damaged_pictures(damage: str, tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    bad = tmp_path / "a" / "2.png"
    whole = (tmp_path / "a" / "1.png").read_bytes()
    match damage:
        case "text":
            bad.write_bytes(b"hello")
        case "cut":
            bad.write_bytes(whole[:-30])
        case "link":
            bad.symlink_to(tmp_path / "a" / "1.png")
        case _:
            bad.write_bytes(b"")
    with pytest.raises(DataError, match=r"2\.png"):
        load(str(tmp_path))


def test_refuses_a_class_without_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="no pictures: b"):
        load(str(tmp_path))
