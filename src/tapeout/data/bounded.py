"""Reading files without trusting them: sizes are checked before memory is taken."""

from __future__ import annotations

import gzip
import stat
import zipfile
import zlib
from contextlib import contextmanager
from math import prod
from typing import IO, TYPE_CHECKING, cast

from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LIMIT_BYTES = 8 << 30
"""The most bytes that one array, or one text after decompression, may take."""

DEFLATE_RATIO = 1032
"""Deflate cannot shrink data further than this, so a file bounds what may come out of it."""

_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_FAULTS = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
)


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what the standard library raises on a damaged or unreadable file into DataError."""
    try:
        yield
    except DataError:
        raise
    except EOFError as error:
        raise DataError("the file is cut short", where=where) from error
    except _FAULTS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"cannot be read: {reason}", where=where) from error


def file_size(path: Path) -> int:
    """Return the size of a regular, non-empty file in bytes.

    Raises:
        DataError: Nothing is there, it is not a regular file (a pipe or a device could block for
            ever), or it is empty.
    """
    with reading(str(path)):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError("is not a regular file", where=str(path))
    if status.st_size == 0:
        raise DataError("is an empty file", where=str(path))
    return status.st_size


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file that may be gzip-compressed (told by its first bytes, not by its name).

    Yields:
        The stream of decompressed bytes, and an upper bound of how many can come out of it.
    """
    size = file_size(path)
    with reading(str(path)), path.open("rb") as raw:
        packed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if not packed:
            yield raw, size
            return
        with gzip.GzipFile(fileobj=raw) as stream:
            yield cast("IO[bytes]", stream), size * DEFLATE_RATIO


def count_bytes(shape: Sequence[int], itemsize: int, available: int, where: str) -> int:
    """Return the bytes that an array takes, checked before any of them is allocated.

    Args:
        shape: The sizes that a header states.
        itemsize: Bytes per entry.
        available: How many bytes the file can hold at most.
        where: The file, for messages.

    Raises:
        DataError: The header states more than the file can hold, or more than `LIMIT_BYTES`.
    """
    if any(size < 0 for size in shape):
        raise DataError(f"the header states a negative size: {list(shape)}", where=where)
    wanted = prod(shape) * itemsize
    if wanted > available:
        stated = f"the header states {list(shape)}, {wanted} bytes"
        raise DataError(f"{stated}, more than the file can hold", where=where)
    if wanted > LIMIT_BYTES:
        raise DataError(f"needs {wanted} bytes, more than the limit of {LIMIT_BYTES}", where=where)
    return wanted


def read_exactly(stream: IO[bytes], size: int, where: str) -> bytearray:
    """Read `size` bytes, which must be all that is left; memory grows with what really arrives.

    Raises:
        DataError: The stream ends earlier or later.
    """
    data = bytearray()
    while len(data) < size:
        piece = stream.read(min(_CHUNK, size - len(data)))
        if not piece:
            raise DataError(f"is cut short: {len(data)} of {size} bytes are there", where=where)
        data += piece
    if stream.read(1):
        raise DataError(f"goes on after the {size} bytes that its header states", where=where)
    return data


def read_text(path: Path) -> str:
    """Return a whole UTF-8 text file, decompressed where it is gzip.

    Raises:
        DataError: Unreadable, damaged, not UTF-8, or longer than `LIMIT_BYTES`.
    """
    data = bytearray()
    with open_stream(path) as (stream, _):
        while piece := stream.read(_CHUNK):
            data += piece
            if len(data) > LIMIT_BYTES:
                raise DataError(f"is longer than the limit of {LIMIT_BYTES} bytes", where=str(path))
    with reading(str(path)):
        return data.decode("utf-8-sig")
