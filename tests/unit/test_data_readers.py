"""Files of data, good ones and hostile ones: each format's table."""

import gzip
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapeout.data import load
from tapeout.data.bounded import LIMIT_BYTES
from tapeout.support.errors import DataError

X = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
LABELS = np.array([0, 1, 2, 1], np.int64)


def npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    """Return the bytes of an .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def npy_with_header(header: str, body: bytes = b"") -> bytes:
    """Return an .npy file with a header of the test's own."""
    text = header.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def npz(**members: bytes) -> bytes:
    """Return a deflated archive of members with the suffix .npy."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def idx(array: np.ndarray[Any, Any], code: int, shape: tuple[int, ...] | None = None) -> bytes:
    """Return an IDX file that may lie about its shape."""
    sizes = array.shape if shape is None else shape
    head = struct.pack(f">HBB{len(sizes)}I", 0, code, len(sizes), *sizes)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(folder: Path, name: str, data: bytes) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- good files -----------------------------------------------------------------------------------

PIXELS = (np.arange(2 * 4 * 4) * 7 % 256).astype(np.uint8).reshape(2, 4, 4)
DIGITS = np.array([3, 8], np.uint8)

GOOD: dict[str, tuple[str, bytes, dict[str, np.ndarray[Any, Any]]]] = {
    "npz": ("d.npz", npz(x=npy(X), labels=npy(LABELS)), {"x": X, "labels": LABELS}),
    "npz, Fortran order": ("d.npz", npz(x=npy(np.asfortranarray(X))), {"x": X}),
    "npz, foreign byte order": ("d.npz", npz(x=npy(X.astype(">f4"))), {"x": X}),
    "npy": ("d.npy", npy(X), {"d": X}),
    "npy, version 2": ("d.npy", npy(X, version=(2, 0)), {"d": X}),
    "npy.gz": ("d.npy.gz", gzip.compress(npy(X)), {"d": X}),
    "bool": ("d.npy", npy(X > 3), {"d": X > 3}),
    "float16": ("d.npy", npy(X.astype(np.float16)), {"d": X.astype(np.float16)}),
    "idx of images": ("t10k-images-idx3-ubyte", idx(PIXELS, 0x08), {"x": PIXELS}),
    "idx of labels": ("labels-idx1-ubyte.gz", gzip.compress(idx(DIGITS, 0x08)), {"labels": DIGITS}),
    "idx of floats": ("a.images.idx3.ubyte", idx(X, 0x0D), {"x": X}),
    "csv with a header": (
        "d.csv",
        b"a,b,label\n1,2,0\n3,4.5,1\n",
        {"x": np.array([[1, 2], [3, 4.5]]), "labels": np.array([0, 1])},
    ),
    "csv, labels in front": (
        "d.csv",
        b"label,a\n7,1\n8,2\n",
        {"x": np.array([[1.0], [2.0]]), "labels": np.array([7, 8])},
    ),
    "csv without a header": (
        "d.csv",
        b"0.5,1,2\r\n0.25,3,0\r\n",
        {"x": np.array([[0.5, 1], [0.25, 3]]), "labels": np.array([2, 0])},
    ),
    "csv, no labels": ("d.csv", b"1.5,2.5\n", {"x": np.array([[1.5, 2.5]])}),
    "csv, labels are texts": (
        "d.csv.gz",
        gzip.compress(b'1,2,"set,osa"\n3,4,ant\n5,6,"set,osa"\n'),
        {"x": np.array([[1.0, 2], [3, 4], [5, 6]]), "labels": np.array([1, 0, 1])},
    ),
    "csv, a target with fractions": (
        "d.csv",
        "\ufeffa,target\n1,0.5\n2,0.25\n".encode(),
        {"x": np.array([[1.0], [2]]), "labels": np.array([0.5, 0.25])},
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_reads(case: str, tmp_path: Path) -> None:
    name, data, want = GOOD[case]
    dataset = load(str(write(tmp_path, name, data)))
    assert list(dataset.arrays) == list(want)
    for key, array in want.items():
        got = dataset.arrays[key]
        assert got.dtype == array.dtype
        assert got.dtype.isnative
        np.testing.assert_array_equal(got, array)
    assert dataset.samples == len(next(iter(want.values())))


def test_reads_npy_pairs(tmp_path: Path) -> None:
    a, b = write(tmp_path, "a.npy", npy(X)), write(tmp_path, "b.npy", npy(LABELS))
    assert list(load(f"{a},{b}").arrays) == ["a", "b"]
    assert list(load(f"x={a}, labels={b}").arrays) == ["x", "labels"]
    assert list(load(str(tmp_path)).arrays) == ["a", "b"]


def test_reads_a_folder_of_idx_and_its_prefixes(tmp_path: Path) -> None:
    for stem, rows in (("train", PIXELS), ("t10k", PIXELS[:1])):
        write(tmp_path, f"{stem}-images-idx3-ubyte.gz", gzip.compress(idx(rows, 0x08)))
        write(tmp_path, f"{stem}-labels-idx1-ubyte", idx(DIGITS[: len(rows)], 0x08))
    whole = load(str(tmp_path))
    assert whole.samples == 2
    assert "t10k" in whole.notes[0]
    held_out = load(str(tmp_path / "t10k"))
    assert held_out.samples == 1
    beside = load(str(tmp_path / "train-images-idx3-ubyte.gz"))
    assert list(beside.arrays) == ["x", "labels"]


def test_label_column_is_chosen_by_name_or_position(tmp_path: Path) -> None:
    path = str(write(tmp_path, "d.csv", b"a,b,c\n1,2,3\n4,5,6\n"))
    for column in ("b", "1", "-2"):
        dataset = load(path, label_column=column)
        np.testing.assert_array_equal(dataset.arrays["labels"], [2, 5])
        np.testing.assert_array_equal(dataset.arrays["x"], [[1, 3], [4, 6]])
    assert list(load(path, label_column="").arrays) == ["x"]
    with pytest.raises(DataError, match="no column 'd'"):
        load(path, label_column="d")


def test_a_guess_is_told(tmp_path: Path) -> None:
    notes = load(str(write(tmp_path, "d.csv", b"1,cat\n2,ant\n"))).notes
    assert any("column 1" in note for note in notes)
    assert any("0=ant, 1=cat" in note for note in notes)


# --- hostile files --------------------------------------------------------------------------------

FLIPPED = bytearray(npz(x=npy(np.tile(X, (50, 1, 1)))))
FLIPPED[len(FLIPPED) // 3] ^= 0xFF
TWICE = io.BytesIO()
with zipfile.ZipFile(TWICE, "w") as _archive:
    _archive.writestr("x.npy", npy(X))
    with pytest.warns(UserWarning, match="Duplicate"):
        _archive.writestr("x.npy", npy(X))

BAD: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("d.npz", b"", "empty file"),
    "unknown suffix": ("d.parquet", b"PAR1", "does not tell a format"),
    "npz: not a zip": ("d.npz", b"hello, world", "cannot be read"),
    "npz: cut short": ("d.npz", npz(x=npy(X))[:-40], "cannot be read"),
    "npz: a flipped byte": ("d.npz", bytes(FLIPPED), "'x'.*(cannot be read|cut short|not a read)"),
    "npz: no arrays": ("d.npz", npz(), "no arrays"),
    "npz: a name twice": ("d.npz", TWICE.getvalue(), "two arrays named 'x'"),
    "npz: lengths differ": (
        "d.npz",
        npz(x=npy(X), labels=npy(LABELS[:3])),
        "'x' has 4, 'labels' has 3",
    ),
    "npz: NaN": (
        "d.npz",
        npz(x=npy(np.where(X == 7, np.nan, X))),
        r"'x'.*nan at index \[1, 0, 1\]",
    ),
    "npz: infinity": ("d.npz", npz(x=npy(np.where(X == 1, np.inf, X))), "'x'.*inf at index"),
    "npz: objects": (
        "d.npz",
        npz(x=npy(np.array([None, 1], object), allow_pickle=True)),
        "'x'.*dtype object",
    ),
    "npz: texts": ("d.npz", npz(x=npy(np.array(["a", "b"]))), "'x'.*dtype <U1"),
    "npz: complex": ("d.npz", npz(x=npy(np.ones(2, complex))), "'x'.*dtype complex128"),
    "npz: records": ("d.npz", npz(x=npy(np.zeros(2, [("a", "f4")]))), "'x'.*dtype"),
    "npz: a scalar": ("d.npz", npz(x=npy(np.float32(1))), "'x'.*single number"),
    "npz: no rows": ("d.npz", npz(x=npy(X[:0])), r"'x'.*empty.*\[0, 2, 3\]"),
    "npz: empty rows": ("d.npz", npz(x=npy(X[:, :0])), "'x'.*empty"),
    "npy: not an array": ("d.npy", b"hello, world", "not a readable .npy"),
    "npy: cut short": ("d.npy", npy(X)[:-1], "95 of 96 bytes"),
    "npy: bytes left over": ("d.npy", npy(X) + b"!", "goes on after"),
    "npy: huge": (
        "d.npy",
        npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 65536)}"),
        "more than the file can hold",
    ),
    "npy: sizes that overflow": (
        "d.npy",
        npy_with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 62}, 8)}}"),
        "more than the file can hold",
    ),
    "npy: negative": (
        "d.npy",
        npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        "negative",
    ),
    "npy: a pickle in the header": (
        "d.npy",
        npy_with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\x80\x04N."),
        "dtype object",
    ),
    "npy: code in the header": ("d.npy", npy_with_header("__import__('os').abort()"), "not a read"),
    "npy: deep brackets": ("d.npy", npy_with_header("[" * 116), "not a read"),
    "gz: cut short": ("d.npy.gz", gzip.compress(npy(X))[:-12], "cut short|cannot be read"),
    "gz: a wrong checksum": ("d.npy.gz", gzip.compress(npy(X))[:-8] + b"\0" * 8, "cannot be read"),
    "gz: a bomb": (
        "d.npy.gz",
        gzip.compress(
            npy_with_header("{'descr':'|u1','fortran_order':False,'shape':(99999999999,)}")
        ),
        "more than the file can hold",
    ),
    "idx: not IDX": ("a-images-idx3-ubyte", b"hello, world", "not an IDX"),
    "idx: unknown dtype": ("a-images-idx3-ubyte", idx(PIXELS, 0x0A), "not an IDX"),
    "idx: no axes": ("a-images-idx3-ubyte", b"\0\0\x08\0", "0 axes"),
    "idx: 200 axes": ("a-images-idx3-ubyte", b"\0\0\x08\xc8" + b"\0\0\0\1" * 200, "200 axes"),
    "idx: cut in the header": ("a-images-idx3-ubyte", idx(PIXELS, 0x08)[:9], "in its header"),
    "idx: huge": (
        "a-images-idx3-ubyte",
        idx(PIXELS, 0x08, (1 << 31, 1 << 31, 1 << 31)),
        "more than the file can hold",
    ),
    "idx: cut short": ("a-images-idx3-ubyte", idx(PIXELS, 0x08)[:-1], "cut short|can hold"),
    "idx.gz: cut short": (
        "a-images-idx3-ubyte.gz",
        gzip.compress(idx(PIXELS[:, :, :3], 0x08, (2, 4, 4))),
        "24 of 32 bytes",
    ),
    "idx: longer": ("a-images-idx3-ubyte", idx(PIXELS, 0x08, (1, 4, 4)), "goes on after"),
    "idx: no images": ("a-images-idx3-ubyte", idx(PIXELS[:0], 0x08), "empty"),
    "csv: blank": ("d.csv", b"\n\n", "no rows"),
    "csv: header only": ("d.csv", b"a,b\n", "header and no rows"),
    "csv: a cell of text": ("d.csv", b"a,b\n1,2\n3,x\n", "line 3.*'x'"),
    "csv: a cell of text, no header": ("d.csv", b"1,2,0\n3,4,1\n3,x,1\n", "line 3.*'x'"),
    "csv: an empty cell": ("d.csv", b"1,2\n3,\n", "line 2"),
    "csv: rows differ": ("d.csv", b"1,2,3\n1,2,3\n1,2\n", "line 3.*3 to 2"),
    "csv: NaN": ("d.csv", b"1,2\nnan,4\n", r"'x'.*nan at index \[1, 0\]"),
    "csv: infinity": ("d.csv", b"1,2\n1e999,4\n", "'x'.*inf"),
    "csv: bytes": ("d.csv", b"\xff\xfe1,2\n", "cannot be read"),
    "csv.gz: cut short": ("d.csv.gz", gzip.compress(b"1,2\n" * 99)[:-9], "cut short"),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses(case: str, tmp_path: Path) -> None:
    name, data, message = BAD[case]
    path = write(tmp_path, name, data)
    with pytest.raises(DataError, match=f"(?s){message}") as caught:
        load(str(path))
    assert str(path) in str(caught.value)


def test_a_bomb_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    data = npy_with_header(
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({LIMIT_BYTES + 1},)}}",
        bytes(1 << 24),
    )
    path = write(tmp_path, "d.npy.gz", gzip.compress(data))
    with pytest.raises(DataError, match=r"can hold|more than the limit"):
        load(str(path))


MISSING: dict[str, tuple[Callable[[Path], str], str]] = {
    "no file": (lambda folder: str(folder / "trian.npz"), "no such file.*(?s:.)*'train.npz'"),
    "no folder": (lambda folder: str(folder / "a" / "b"), "no such file"),
    "an empty folder": (lambda folder: str(folder / "empty"), "holds nothing"),
    "no text": (lambda _: "  ", "not a path"),
    "a null byte": (lambda _: "a\0b", "not a path"),
    "a device": (lambda _: "/dev/zero", "does not tell|not a regular"),
    "a long name": (lambda folder: str(folder / ("a" * 5000)), "cannot be read"),
    "a name twice": (lambda folder: f"x={folder}/a.npy,x={folder}/a.npy", "used twice"),
    "not a list of npy": (lambda folder: f"x={folder}/a.csv,y={folder}/b.csv", "only .npy"),
    "labels of npz": (lambda folder: str(folder / "train.npz"), "only be chosen in a CSV"),
}


@pytest.mark.parametrize("case", MISSING)
def test_names_what_is_missing(case: str, tmp_path: Path) -> None:
    write(tmp_path, "train.npz", npz(x=npy(X)))
    write(tmp_path, "a.npy", npy(X))
    (tmp_path / "empty").mkdir()
    spec, message = MISSING[case]
    with pytest.raises(DataError, match=message):
        load(spec(tmp_path), label_column="c" if case == "labels of npz" else None)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "pipe.npy"
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a regular file"):
        load(str(path))
