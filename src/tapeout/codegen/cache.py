"""Caches on disk: folders of files named by the hash of what made them.

A file holds its content and the SHA-256 of it; one that does not fit (cut short, flipped bits) is dropped and made again. The
folders belong to the user alone, since what lies in them will be run. Where no folder can be used, nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.support import env

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORES = ("kernels", "programs", "machine", "tuned")
LIMIT = 512 * 1024 * 1024
"""Bytes that a store may take; above it the files that were used longest ago go, down to 3/4 of it."""

_CHECKSUM = 32
# Bytes in each store as far as this process knows: looked up once, then counted.
_filled: dict[str, int] = {}


@dataclass(frozen=True)
class Usage:
    """What a cache holds.

    Attributes:
        folder: Where it lies.
        files: Number of files.
        bytes: Their size.
    """

    folder: Path
    files: int
    bytes: int


@dataclass(frozen=True)
class Store:
    """One folder of the cache.

    Attributes:
        folder: Where it lies; made when first needed.
        limit: Bytes it may take.
    """

    folder: Path
    limit: int = LIMIT

    def get(self, key: str) -> bytes | None:
        """Return what was kept under a key (hex digits), or None. Never raises."""
        if not _is_own(self.folder):
            return None
        path = self._path(key)
        try:
            blob = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        data = blob[:-_CHECKSUM]
        if len(blob) >= _CHECKSUM and hashlib.sha256(data).digest() == blob[-_CHECKSUM:]:
            return data
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def put(self, key: str, data: bytes) -> None:
        """Keep data under a key, whole or not at all. A folder that cannot be written is no error."""
        path = self._path(key)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_own(self.folder):
                return
            path.parent.mkdir(mode=0o700, exist_ok=True)
            handle, made = tempfile.mkstemp(dir=path.parent)
        except OSError:
            return
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
                f.write(hashlib.sha256(data).digest())
            # Not flushed to disk: after a power cut the checksum finds what was lost.
            os.replace(made, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(made)
            return
        self._count(len(data) + _CHECKSUM)

    def usage(self) -> Usage:
        """Return number and size of the files."""
        sizes = [size for _, size, _ in self._files()]
        return Usage(self.folder, len(sizes), sum(sizes))

    def clear(self) -> Usage:
        """Remove every file; return what there was."""
        before = self.usage()
        for _, _, path in list(self._files()):
            with contextlib.suppress(OSError):
                os.unlink(path)
        _filled.pop(str(self.folder), None)
        return before

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """Time of last use, size and path of each file."""
        with contextlib.suppress(OSError):
            for folder in sorted(e.path for e in os.scandir(self.folder) if e.is_dir()):
                for entry in sorted(os.scandir(folder), key=lambda e: e.name):
                    with contextlib.suppress(OSError):
                        stat = entry.stat(follow_symlinks=False)
                        yield stat.st_mtime_ns, stat.st_size, entry.path

    def _count(self, size: int) -> None:
        name = str(self.folder)
        if name not in _filled:
            _filled[name] = self.usage().bytes
        else:
            _filled[name] += size
        if _filled[name] > self.limit:
            self._evict()

    def _evict(self) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self.limit * 3 // 4:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size
        _filled[str(self.folder)] = total


KernelCache = Store


def store_of(name: str) -> Store:
    """Return the store called `kernels`, `programs`, `machine` or `tuned` in the user's cache folder."""
    return Store(env.cache_dir() / name)


def show() -> dict[str, Usage]:
    """Return what each store holds."""
    return {name: store_of(name).usage() for name in STORES}


def clear() -> dict[str, Usage]:
    """Empty every store; return what each held."""
    return {name: store_of(name).clear() for name in STORES}


def _is_own(folder: Path) -> bool:
    """Whether only this user can write the folder: object code from it will be run."""
    try:
        stat = folder.stat()
    except OSError:
        return False
    return not hasattr(os, "geteuid") or (stat.st_uid == os.geteuid() and not stat.st_mode & 0o022)
