"""Tables of numbers, `.csv` and `.csv.gz`: one row per sample, at most one column of labels."""

from __future__ import annotations

import csv
import io
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.bounded import read_text
from tapeout.support.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

_LABEL_NAMES = ("label", "labels", "class", "target", "y")
_MOST_CLASSES = 100_000
_ROW = re.compile(r"\brow (\d+)")


class _Classes:
    """Numbers the texts of a label column in order of appearance."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}

    def __call__(self, cell: str) -> float:
        if not cell.strip():
            raise ValueError("empty label")
        if len(self.codes) >= _MOST_CLASSES and cell not in self.codes:
            raise ValueError(f"more than {_MOST_CLASSES} classes")
        return float(self.codes.setdefault(cell.strip(), len(self.codes)))


def read_csv(path: Path, label_column: str | None) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the numbers of a table.

    Args:
        path: Cells are separated by commas and may be quoted; a first row with a cell that is no
            number is the header.
        label_column: Name or position (from 0, negative from the end) of the labels' column, "" for
            none. None: the column called label, labels, class, target or y; without a header the
            last one if it holds whole numbers >= 0.

    Returns:
        Arrays and notes: `x` f64[rows, columns] without the label column; `labels` i64[rows], or
        f64[rows] where the column holds fractions. Labels that are texts become their position in
        the sorted list of texts.

    Raises:
        DataError: No rows, rows of different lengths, a cell that is no number, an unknown label
            column.
    """
    where = str(path)
    text = read_text(path)
    header, first = _first_rows(text, where)
    label = _label_index(header, first, label_column, where)
    classes = _Classes() if label is not None and _number(first[label]) is None else None
    table = _parse(text, 1 if header else 0, classes, label, where)
    if label is None and label_column is None and not header:
        label = _guess_last(table)
    notes = [_label_note(where, header, label, label_column)]
    if label is None:
        return {"x": table}, tuple(notes)
    labels, class_note = _labels(table[:, label], classes)
    notes += [f"{where}: {class_note}"] if class_note else []
    features = np.delete(table, label, axis=1)
    arrays = {"x": features, "labels": labels} if features.size else {"labels": labels}
    return arrays, tuple(notes)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _first_rows(text: str, where: str) -> tuple[list[str], list[str]]:
    """Return the header (empty if there is none) and the first row of data."""
    try:
        rows = list(islice((row for row in csv.reader(io.StringIO(text)) if row), 2))
    except csv.Error as error:
        raise DataError(f"is not a readable table: {error}", where=where) from error
    if not rows:
        raise DataError("holds no rows", where=where)
    texts = [_number(cell) is None for cell in rows[0]]
    is_header = all(texts) or (
        len(rows) == 2 and sum(texts) > sum(_number(c) is None for c in rows[1])
    )
    if not is_header:
        return [], rows[0]
    if len(rows) == 1:
        raise DataError("holds a header and no rows", where=where)
    return [cell.strip() for cell in rows[0]], rows[1]


def _label_index(header: list[str], first: list[str], asked: str | None, where: str) -> int | None:
    columns = len(first)
    if asked == "":
        return None
    if asked is None:
        named = [i for i, name in enumerate(header) if name.lower() in _LABEL_NAMES]
        texts = [i for i, cell in enumerate(first) if _number(cell) is None]
        found = named or texts
        return found[0] if len(found) == 1 else None
    if asked in header:
        return header.index(asked)
    if re.fullmatch(r"-?\d{1,9}", asked) and -columns <= int(asked) < columns:
        return int(asked) % columns
    known = nearest(asked, header) if header else f"the columns are 0 to {columns - 1}"
    raise DataError(f"has no column {asked!r}", where=where, hint=known)


def _parse(text: str, skip: int, classes: _Classes | None, label: int | None, where: str) -> Array:
    converters: dict[int | str, Callable[[str], Any]] = {}
    if classes is not None and label is not None:
        converters[label] = classes
    try:
        table: Array = np.loadtxt(
            io.StringIO(text),
            dtype=np.float64,
            delimiter=",",
            quotechar='"',
            comments=None,
            skiprows=skip,
            converters=converters or None,
            ndmin=2,
        )
    except (ValueError, OverflowError) as error:
        raise DataError(f"{_with_line(str(error), skip)}", where=where) from error
    if table.size == 0:
        raise DataError("holds no rows", where=where)
    return table


def _with_line(message: str, skip: int) -> str:
    """Say on which line, from 1, the parser stopped (it counts rows of data, some from 0)."""
    message = message.partition(";")[0].rstrip(".")
    found = _ROW.search(message)
    if not found:
        return message
    from_zero = message.startswith("could not convert")
    line = int(found[1]) + skip + (1 if from_zero else 0)
    return f"line {line}: {message}"


def _guess_last(table: Array) -> int | None:
    last = table[:, -1]
    whole = bool(np.all((last >= 0) & (last == np.floor(last)) & (last < _MOST_CLASSES)))
    return table.shape[1] - 1 if whole and table.shape[1] > 1 else None


def _label_note(where: str, header: list[str], label: int | None, asked: str | None) -> str:
    if label is None:
        return f"{where}: no label column" + ("" if asked == "" else "; name one if there is")
    named = f"{header[label]!r}" if header else f"{label}"
    guess = "" if asked is not None or header else " (no header: the last column was taken)"
    return f"{where}: labels are column {named}{guess}"


def _labels(column: Array, classes: _Classes | None) -> tuple[Array, str]:
    if classes is not None:
        names = sorted(classes.codes)
        position = {name: i for i, name in enumerate(names)}
        rank = np.array([position[name] for name in classes.codes], dtype=np.int64)
        shown = ", ".join(f"{i}={name}" for i, name in enumerate(names[:10]))
        return rank[column.astype(np.int64)], f"classes: {shown}{', …' if len(names) > 10 else ''}"
    exact = bool(
        np.all(np.isfinite(column))
        and np.all(np.abs(column) < 2**53)
        and np.all(column == np.floor(column))
    )
    return (column.astype(np.int64) if exact else np.ascontiguousarray(column)), ""
