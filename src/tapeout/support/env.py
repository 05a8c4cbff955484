"""The only reader of the environment. docs/reference/environment.md lists the same names."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.support.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    return _count("TAPEOUT_THREADS", 0) or cores()


def jobs() -> int:
    """Return how many processes compile kernels at once: TAPEOUT_JOBS, or the cores this process may use."""
    return _count("TAPEOUT_JOBS", 0) or cores()


def cores(system: Path = Path("/")) -> int:
    """Return how many cores this process may use: its affinity, and the time that its control groups leave it, rounded up.

    Args:
        system: The root of the file system in which control groups are described.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, *(math.ceil(q) for q in _quotas(system)), allowed))


def _quotas(system: Path) -> Iterator[float]:
    """Return the cores' worth of time that each control group around this process has."""
    for line in _read(system / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = system / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # In a container the path may be that of the host, and the group itself the top.
        own = top / path.lstrip("/")
        around = [f for f in own.parents if top in f.parents]
        for folder in dict.fromkeys((top, own, *around)):
            if controllers:
                words = [_read(folder / f"cpu.cfs_{n}_us").strip() for n in ("quota", "period")]
            else:
                words = _read(folder / "cpu.max").split()
            if len(words) == 2 and all(w.isdigit() for w in words) and int(words[1]):
                yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def cache_dir() -> Path:
    """Return the folder of the compile caches: TAPEOUT_CACHE_DIR, or the user's cache folder."""
    asked = os.environ.get("TAPEOUT_CACHE_DIR")
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tapeout"


def of_child(threads: int, cache: Path | None = None) -> dict[str, str]:
    """Return the environment of a process that runs with so many threads, its engine's included.

    Args:
        threads: Number of threads.
        cache: Folder of the compile caches; None: as here.
    """
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TAPEOUT_THREADS")
    found = {**os.environ, **dict.fromkeys(names, count)}
    found.setdefault("JAX_PLATFORMS", "cpu")
    if threads == 1:
        flags = found.get("XLA_FLAGS", "")
        found["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false"
    if cache is not None:
        found["TAPEOUT_CACHE_DIR"] = str(cache)
    return found


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


def direct() -> bool:
    """Return whether TAPEOUT_DIRECT asks for convolutions by plain sums of products."""
    return _flag("TAPEOUT_DIRECT")


def is_ci() -> bool:
    """Return whether the process runs under continuous integration."""
    return _flag("CI")
