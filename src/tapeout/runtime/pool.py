"""Thread pools, shared by all executables of this process that run with the same number of threads."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref

from tapeout.runtime.jit import Library
from tapeout.support import env
from tapeout.support.errors import BudgetError

SYMBOL = "tapeout__pool"
"""Under which name the pool's object stands among those of a program."""

# Some 50 microseconds of waiting alone: longer than the gaps between the launches of a step, so that nobody
# loses a core within one by offering it to another process. Then some hundred of offering. More threads than
# cores stand in each other's way: less.
_SPINS = 2000
_SPINS_CROWDED = 10

_shared: weakref.WeakValueDictionary[tuple[int, int], Pool] = weakref.WeakValueDictionary()
_lock = threading.Lock()


class Pool:
    """A number of threads that run the tasks of kernels together.

    One caller at a time: hold `lock` while a program runs. The threads are joined when nobody uses the pool any more, at the
    latest when the process ends.

    Args:
        threads: Number of threads, the caller's included.
        code: The pool's object code.

    Raises:
        BudgetError: There is no memory for it.
    """

    def __init__(self, threads: int, code: bytes) -> None:
        """Start the threads."""
        library = Library([code], ["tapeout_pool_create", "tapeout_pool_destroy"])
        create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
            library["tapeout_pool_create"]
        )
        address = create(threads, _SPINS if threads <= env.cores() else _SPINS_CROWDED)
        if not address:
            raise BudgetError(f"no memory for a pool of {threads} threads")
        self.address = int(address)
        self.process = os.getpid()
        self.lock = threading.Lock()
        weakref.finalize(self, _destroy, library, self.address, self.process)


def shared_pool(threads: int, code: bytes) -> Pool:
    """Return this process's pool of a size; a forked child makes its own, for threads do not survive a fork."""
    with _lock:
        key = (os.getpid(), threads)
        pool = _shared.get(key)
        if pool is None:
            pool = Pool(threads, code)
            _shared[key] = pool
        return pool


def _destroy(library: Library, address: int, process: int) -> None:
    if process == os.getpid():
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(library["tapeout_pool_destroy"])(address)


def _fresh_lock() -> None:
    # Another thread may have held it when this process was forked.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)
