"""Object code to functions that Python can call."""

from __future__ import annotations

import ctypes
import threading
from itertools import count, pairwise
from typing import TYPE_CHECKING

import numpy as np

from tapeout.support.errors import TapeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llvmlite import binding

    from tapeout.kernel import loops

KernelFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
"""`void (void **args, int64 lo, int64 hi)`."""

_numbers = count()
_lock = threading.Lock()
_engine: binding.LLJIT | None = None


class Library:
    """Objects linked into this process.

    The code stays mapped as long as the library lives: keep it beside every address taken from it.

    Args:
        objects: Object code, in order.
        symbols: Names of the functions to look up.

    Raises:
        TapeoutError: A symbol is missing or defined twice.
    """

    def __init__(self, objects: Iterable[bytes], symbols: Sequence[str]) -> None:
        """Link."""
        from llvmlite import binding

        builder = binding.JITLibraryBuilder()
        for data in objects:
            builder.add_object_img(data)
        builder.add_current_process()
        for symbol in symbols:
            builder.export_symbol(symbol)
        try:
            with _lock:
                self._tracker = builder.link(_lljit(), f"tapeout{next(_numbers)}")
        except RuntimeError as error:
            raise TapeoutError(f"object code cannot be linked: {error}", where="runtime") from error

    def __getitem__(self, symbol: str) -> int:
        """Return the address of a function."""
        return self._tracker[symbol]


def _lljit() -> binding.LLJIT:
    global _engine  # noqa: PLW0603 (one linker per process, made when first needed)
    if _engine is None:
        from llvmlite import binding

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        # JITLink lays all sections of an object side by side; the older linker maps each by itself,
        # and they may come to lie further apart than 32-bit displacements reach.
        _engine = binding.create_lljit_compiler(use_jit_link=True)
    return _engine


def run_kernel(
    kernel: loops.Kernel,
    code: bytes,
    arrays: Mapping[str, np.ndarray],
    *,
    threads: int = 1,
    checked: bool = False,
) -> None:
    """Run one kernel on numpy arrays, one per param by name; what it writes is in the arrays afterwards.

    Args:
        kernel: The kernel.
        code: Its object.
        arrays: Contiguous arrays of the params' types with at least their sizes.
        threads: Number of contiguous ranges of the grid loop, each run by a thread of its own.
        checked: Whether the object is of a checked build.

    Raises:
        TapeoutError: An array does not fit its param, or (checked) an access was out of bounds.
    """
    library = Library([code], [kernel.name])
    run = KernelFunction(library[kernel.name])
    fault = (ctypes.c_int64 * 4)()
    addresses = [_address(p, arrays) for p in kernel.params]
    args = (ctypes.c_void_p * (len(addresses) + 1))(*addresses, ctypes.addressof(fault))
    tasks = kernel.tasks
    cuts = [tasks * i // threads for i in range(threads + 1)]
    workers = [threading.Thread(target=run, args=(args, a, b)) for a, b in pairwise(cuts)]
    if threads == 1:
        run(args, 0, tasks)
    else:
        for w in workers:
            w.start()
        for w in workers:
            w.join()
    if checked:
        raise_fault(list(fault))


def raise_fault(fault: Sequence[int]) -> None:
    """Raise if a record of a checked build has been filled."""
    if not fault[0]:
        return
    kernel, buffer = (ctypes.string_at(a).decode() for a in (fault[1], fault[2]))
    raise TapeoutError(
        f"access out of bounds: buffer {buffer} at element {fault[3]}", where=f"kernel {kernel}"
    )


def _address(param: loops.Param, arrays: Mapping[str, np.ndarray]) -> int:
    array = arrays.get(param.name)
    if array is None:
        raise TapeoutError(f"no array for param {param.name}; given: {', '.join(arrays)}")
    if array.dtype != param.dtype.numpy or array.size < param.size or not array.flags.c_contiguous:
        raise TapeoutError(
            f"param {param.name} is {param.size} elements of {param.dtype}, given is "
            f"{array.dtype}{list(array.shape)}{'' if array.flags.c_contiguous else ' (not contiguous)'}"
        )
    if array.ctypes.data % param.align:
        raise TapeoutError(f"array for param {param.name} is not aligned to {param.align} bytes")
    return int(array.ctypes.data)
