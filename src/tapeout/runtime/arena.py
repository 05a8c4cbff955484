"""One block of memory that a program lives in."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

from tapeout.support.errors import BudgetError

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array

ALIGN = 64
_HUGE = 4 * 1024 * 1024
_PROT_NONE = 0


class Arena:
    """Zeroed memory at an address that 64 divides.

    Args:
        size: Its bytes.
        guard: Put it between two pages that may not be touched. Its end is flush with the second (up to 64 bytes of alignment),
            so that an access beyond it faults; before its start there may be slack of less than a page.

    Raises:
        BudgetError: The system has not that much memory.
    """

    def __init__(self, size: int, guard: bool = False) -> None:
        """Map the memory."""
        page = mmap.PAGESIZE
        inner = max(page, -(-size // page) * page)
        fence = page if guard else 0
        try:
            # Private: a forked child gets a copy of its own, as of every other array.
            self._map = mmap.mmap(-1, inner + 2 * fence, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, ValueError, OverflowError) as error:
            raise BudgetError(
                f"no memory for an arena of {size} bytes: {error}", hint="use a smaller batch"
            ) from None
        whole = np.frombuffer(self._map, np.uint8)
        start = fence + (inner - size) // ALIGN * ALIGN if guard else 0
        self.bytes = size
        self.memory = whole[start : start + size]
        self.address = int(whole.ctypes.data) + start
        if guard:
            _protect(int(whole.ctypes.data), page)
            _protect(int(whole.ctypes.data) + fence + inner, page)
        elif inner >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            # Fewer misses of the address cache; where the system has none it does without.
            with contextlib.suppress(OSError):
                self._map.madvise(mmap.MADV_HUGEPAGE)

    def view(
        self, offset: int, dtype: DType, shape: tuple[int, ...], order: tuple[int, ...]
    ) -> Array:
        """Return the memory from `offset` on as an array of logical shape `shape`, dimensions laid out in `order`."""
        return shaped(self.memory[offset:], dtype, shape, order)

    def poison(self, start: int) -> None:
        """Fill everything from `start` on with NaN (-1 as integers): what is read before it is written shows."""
        self.memory[start:] = 0xFF


def shaped(memory: Array, dtype: DType, shape: tuple[int, ...], order: tuple[int, ...]) -> Array:
    """Return the first bytes of `memory` as an array of logical shape `shape`, dimensions laid out in `order`."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.bytes
    stored = memory[:size].view(dtype.numpy).reshape([shape[d] for d in order])
    return stored.transpose(np.argsort(order)) if shape else stored


def _protect(address: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), _PROT_NONE):
        raise OSError(ctypes.get_errno(), f"mprotect: {os.strerror(ctypes.get_errno())}")
