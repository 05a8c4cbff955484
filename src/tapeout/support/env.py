"""The only reader of the environment. docs/reference/environment.md lists the same names."""

from __future__ import annotations

import os
from pathlib import Path

from tapeout.support.errors import OptionError


def _flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0", "false", "no")


def _count(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise OptionError(f"{name} is {text!r}, a whole number is expected", where="environment")
    return int(text)


def threads() -> int:
    """Return the number of threads to run with: TAPEOUT_THREADS, or the cores this process may use."""
    asked = _count("TAPEOUT_THREADS", 0)
    if asked:
        return asked
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_dir() -> Path:
    """Return the folder of the compile caches: TAPEOUT_CACHE_DIR, or the user's cache folder."""
    asked = os.environ.get("TAPEOUT_CACHE_DIR")
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tapeout"


def dump() -> str:
    """Return TAPEOUT_DUMP: `all` or stage names with commas between; empty for none."""
    return os.environ.get("TAPEOUT_DUMP", "")


def dump_dir() -> Path | None:
    """Return TAPEOUT_DUMP_DIR, the folder where each stage's text is written, or None."""
    text = os.environ.get("TAPEOUT_DUMP_DIR", "")
    return Path(text) if text else None


def verify_level() -> int:
    """Return TAPEOUT_VERIFY: 0 never, 1 between stages (default), 2 at every node built."""
    return _count("TAPEOUT_VERIFY", 1)


def check_nans() -> bool:
    """Return whether TAPEOUT_CHECK_NANS asks for a test of every kernel output."""
    return _flag("TAPEOUT_CHECK_NANS")


def checked() -> bool:
    """Return whether TAPEOUT_CHECKED asks for bounds tests on every load and store."""
    return _flag("TAPEOUT_CHECKED")


def is_ci() -> bool:
    """Return whether the process runs under continuous integration."""
    return _flag("CI")
