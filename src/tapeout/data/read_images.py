"""Folders of pictures, one sub-folder per class, read by Pillow (the extra `images`)."""

from __future__ import annotations

from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.bounded import LIMIT_BYTES, file_size
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    Array = NDArray[Any]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm"})
_MOST_PIXELS = 1 << 26
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")


def has_image_classes(folder: Path) -> bool:
    """Return whether some sub-folder of `folder` holds a picture."""
    return any(_pictures(sub) for sub in _class_folders(folder))


def read_images(folder: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the pictures of a folder that has one sub-folder per class.

    Args:
        folder: Sub-folders in sorted order are the classes 0, 1, …; in each the pictures are read
            in sorted order.

    Returns:
        Arrays and notes: `x` u8[samples, channels, height, width], one channel if all pictures are
        grey, else RGB; `labels` i64[samples].

    Raises:
        DataError: Pillow is not installed, a class has no pictures, sizes differ, a file is a link,
            damaged or too large.
    """
    classes = _class_folders(folder)
    files = [(path, label) for label, sub in enumerate(classes) for path in _pictures(sub)]
    empty = [sub.name for sub in classes if not _pictures(sub)]
    if empty or not files:
        raise DataError(
            f"these class folders hold no pictures: {', '.join(empty)}", where=str(folder)
        )
    pillow = _pillow()
    kinds = [_size_and_mode(pillow, path) for path, _ in files]
    size = kinds[0][0]
    for (path, _), (other, _mode) in zip(files, kinds, strict=True):
        if other != size:
            raise DataError(
                f"is {other[0]}x{other[1]} pixels, {files[0][0].name} is {size[0]}x{size[1]}",
                where=str(path),
                hint="bring all pictures to one size first",
            )
    grey = all(mode in ("1", "L") for _, mode in kinds)
    shape = (len(files), 1 if grey else 3, size[1], size[0])
    if prod(shape) > LIMIT_BYTES:
        raise DataError(
            f"the pictures need more than the limit of {LIMIT_BYTES} bytes", where=str(folder)
        )
    x = np.empty(shape, np.uint8)
    for row, (path, _) in enumerate(files):
        x[row] = _pixels(pillow, path, grey)
    names = ", ".join(f"{i}={sub.name}" for i, sub in enumerate(classes[:10]))
    note = f"{folder}: classes: {names}{', …' if len(classes) > 10 else ''}"
    return {"x": x, "labels": np.array([label for _, label in files], np.int64)}, (note,)


def _class_folders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _pillow() -> ModuleType:
    try:
        return import_module("PIL.Image")
    except ImportError as error:
        problem = "folders of pictures are read by Pillow, which is not installed"
        raise DataError(problem, hint="pip install 'tapeout[images]'") from error


def _size_and_mode(pillow: ModuleType, path: Path) -> tuple[tuple[int, int], str]:
    """Return (width, height) and Pillow's mode from the header alone."""
    if path.is_symlink():
        raise DataError(
            "is a symbolic link", where=str(path), hint="copy the picture into the folder"
        )
    file_size(path)
    try:
        with pillow.open(path, formats=_FORMATS) as image:
            size, mode = image.size, image.mode
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        raise DataError(f"is not a readable picture: {error}", where=str(path)) from error
    if size[0] * size[1] > _MOST_PIXELS:
        raise DataError(f"is {size[0]}x{size[1]} pixels, more than {_MOST_PIXELS}", where=str(path))
    return (int(size[0]), int(size[1])), str(mode)


def _pixels(pillow: ModuleType, path: Path, grey: bool) -> Array:
    """Return u8[channels, height, width]."""
    try:
        with pillow.open(path, formats=_FORMATS) as image:
            pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    except Exception as error:  # as above: a damaged body shows only here
        raise DataError(f"is a damaged picture: {error}", where=str(path)) from error
    return pixels[np.newaxis] if grey else pixels.transpose(2, 0, 1)
