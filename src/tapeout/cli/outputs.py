"""Where results go: checked before work starts, so that no training ends in an unwritable path."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tapeout.support.errors import DataError, OptionError


def check_writable(path: str | Path, *, suffixes: tuple[str, ...] = ()) -> Path:
    """Return the path after proving that a file can be made in its folder; nothing is left there.

    Args:
        path: The file to be written later. An existing file is replaced then.
        suffixes: What the name may end with, the first for the message; empty: anything.

    Raises:
        DataError: No such folder, a folder in its place, or no right to write.
        OptionError: The name ends with something else.
    """
    target = Path(path)
    if suffixes and target.suffix.lower() not in suffixes:
        ends = " or ".join(suffixes)
        found = f"ends with {target.suffix!r}" if target.suffix else "has no ending"
        raise OptionError(f"the name {found}, {ends} is expected", where=str(target))
    if target.is_dir():
        raise DataError("is a folder; name a file in it", where=str(target))
    if not target.parent.is_dir():
        raise DataError(
            f"there is no folder {str(target.parent)!r}", where=str(target), hint="create it first"
        )
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{target.name}.", dir=target.parent):
            pass
    except OSError as e:
        raise DataError(
            f"cannot write: {e.strerror}", where=str(target), hint="choose a writable folder"
        ) from None
    return target


def check_distinct(*paths: Path | None) -> None:
    """Refuse outputs that would overwrite each other.

    Raises:
        OptionError: Two of them are the same place.
    """
    seen: dict[Path, None] = {}
    for path in paths:
        if path is None:
            continue
        if path.resolve() in seen:
            raise OptionError("two outputs have this name", where=str(path))
        seen[path.resolve()] = None


def check_not_input(path: Path, *inputs: str) -> None:
    """Refuse to overwrite what the command reads.

    Raises:
        OptionError: The output is one of the inputs.
    """
    for name in inputs:
        if Path(name).exists() and path.exists() and path.samefile(name):
            raise OptionError("is an input of this command; choose another name", where=str(path))
