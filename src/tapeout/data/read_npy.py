"""NumPy's own files, `.npy` and `.npz`, never unpickled."""

from __future__ import annotations

import zipfile
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy_format

from tapeout.data.bounded import (
    DEFLATE_RATIO,
    count_bytes,
    file_size,
    open_stream,
    read_exactly,
    reading,
)
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

_MOST_MEMBERS = 1000
_ENCRYPTED = 1
_BAD_HEADER = (ValueError, TypeError, SyntaxError, TokenError, MemoryError, RecursionError)
_PICKLE_HINT = "save plain numeric arrays; object arrays are pickles and are never loaded"


def read_npy(path: Path) -> Array:
    """Return the array of an `.npy` file (gzip accepted).

    Raises:
        DataError: Not an array file, cut short, an object array, or sizes that the file cannot
            hold.
    """
    with open_stream(path) as (stream, available):
        return _read_array(stream, available, str(path))


def read_npz(path: Path) -> dict[str, Array]:
    """Return the arrays of an `.npz` file by name, in the file's order.

    Raises:
        DataError: Not a zip archive, damaged, encrypted, a repeated name, a member that is no
            array, or as in `read_npy`.
    """
    packed = file_size(path)
    with reading(str(path)), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise DataError(
                f"holds {len(members)} members, more than {_MOST_MEMBERS}", where=str(path)
            )
        arrays: dict[str, Array] = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            _check_member(member, name, arrays, str(path))
            where = f"{path}: array {name!r}"
            available = min(member.file_size, packed * DEFLATE_RATIO)
            with reading(where), archive.open(member) as stream:
                arrays[name] = _read_array(stream, available, where)
    return arrays


def _check_member(member: zipfile.ZipInfo, name: str, seen: dict[str, Array], where: str) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"member {member.filename!r} is encrypted", where=where)
    if name == member.filename:
        raise DataError(f"member {name!r} is not an .npy array", where=where)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"member {name!r} is packed neither plainly nor by deflate", where=where)
    if name in seen:
        raise DataError(f"holds two arrays named {name!r}", where=where)


def _read_array(stream: IO[bytes], available: int, where: str) -> Array:
    shape, fortran_order, dtype = _read_header(stream, where)
    if dtype.hasobject:
        raise DataError(f"is an array of dtype {dtype}", where=where, hint=_PICKLE_HINT)
    size = count_bytes(shape, dtype.itemsize, available, where)
    data = read_exactly(stream, size, where)
    if size == 0:
        return np.empty(shape, dtype)
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy_format.read_magic(stream)
        if version == (1, 0):
            return npy_format.read_array_header_1_0(stream)
        if version == (2, 0):
            return npy_format.read_array_header_2_0(stream)
    except _BAD_HEADER as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"is not a readable .npy array: {reason}", where=where) from error
    raise DataError(f"has .npy format version {version}; plain arrays have 1.0 or 2.0", where=where)
