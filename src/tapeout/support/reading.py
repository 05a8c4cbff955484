"""Files that are read without trust: no way out of a folder, no pipe, no surprise in size."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

# O_NONBLOCK: opening a pipe must not wait for a writer. Windows has neither flag.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def read_file(path: Path, limit: int) -> bytes:
    """Return the whole content of a regular file of at most `limit` bytes.

    Raises:
        DataError: Nothing is there, it is no regular file, it is too long, or it cannot be read.
    """
    with _faults(str(path)):
        descriptor = os.open(path, _READ)
    try:
        with _faults(str(path)):
            size = _regular_size(os.fstat(descriptor))
            if size > limit:
                raise DataError(f"is {size} bytes long, the limit is {limit}")
            return _read_at(descriptor, 0, size)
    finally:
        os.close(descriptor)


def read_contained(folder: Path, location: str, offset: int, length: int | None) -> bytes:
    """Return bytes of a file inside a folder, whose name an untrusted file gave.

    No way out of the folder is followed: no absolute path, no `..`, no symbolic link, and no hard
    link (a second name could be that of a file elsewhere).

    Args:
        folder: The folder that must contain the file.
        location: Path of the file, relative to `folder`, with `/` between its parts.
        offset: Where to start, in bytes.
        length: How many bytes to return; None: up to the end.

    Raises:
        DataError: The file is not in the folder, is not plain, or is shorter than asked.
    """
    parts = _parts(location)
    descriptor = _open_inside(folder, parts, location)
    try:
        with _faults(location):
            status = os.fstat(descriptor)
            size = _regular_size(status)
            if status.st_nlink > 1:
                raise DataError("has a second name (hard link); copy it into the model's folder")
            wanted = size - offset if length is None else length
            if offset < 0 or wanted < 0 or offset + wanted > size:
                raise DataError(f"bytes {offset}..{offset + wanted} are asked, it has {size}")
            return _read_at(descriptor, offset, wanted)
    finally:
        os.close(descriptor)


def _parts(location: str) -> list[str]:
    parts = location.split("/")
    if not location or location.startswith("/") or "\\" in location or ":" in location:
        raise DataError("must be a path relative to the model's folder", where=repr(location))
    if "\0" in location or any(part in ("", "..") for part in parts):
        raise DataError("leads out of the model's folder", where=repr(location))
    return [part for part in parts if part != "."] or ["."]


def _open_inside(folder: Path, parts: list[str], location: str) -> int:
    """Open the file one part of its path at a time, so that no link is followed unseen."""
    with _faults(str(folder)):
        here = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        for part in parts[:-1]:
            with _faults(location):
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=here)
            os.close(here)
            here = inner
        with _faults(location):
            return os.open(parts[-1], _READ | _NO_LINK, dir_fd=here)
    finally:
        os.close(here)


def _regular_size(status: os.stat_result) -> int:
    if stat.S_ISDIR(status.st_mode):
        raise DataError("is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise DataError("is not a regular file")
    return status.st_size


def _read_at(descriptor: int, offset: int, size: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise DataError(f"ends after {offset + len(data)} of {offset + size} bytes")
    return data


@contextmanager
def _faults(where: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if error.where:
            raise
        raise DataError(error.message, where=where, hint=error.hint) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            reason = "it is a symbolic link"
        raise DataError(f"cannot be read: {reason}", where=where) from error
