"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable


def write_atomic(path: str | Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file whole or not at all: a new file beside it, flushed to disk, then renamed over it.

    Raises:
        DataError: The place cannot be written; an older file at the path is untouched and nothing is left behind.
    """
    target = Path(path)
    try:
        handle, made = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as e:
        raise DataError(
            f"cannot write: {e.strerror}", where=str(target), hint="choose a writable folder"
        ) from None
    try:
        with os.fdopen(handle, "wb") as f:
            f.writelines([data] if isinstance(data, bytes) else data)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(made, 0o666 & ~_umask())
        os.replace(made, target)
    except OSError as e:
        Path(made).unlink(missing_ok=True)
        raise DataError(
            f"cannot write: {e.strerror}", where=str(target), hint="choose a writable place"
        ) from None
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
