"""Object code for CPUs: kernels of level L to text of LLVM IR, and that to position-independent objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.codegen.crew import Crew
from tapeout.codegen.emit import KernelEmitter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.codegen.cache import KernelCache
    from tapeout.kernel import loops
    from tapeout.kernel.target import Target


def emit_kernel(kernel: loops.Kernel, target: Target, checked: bool = False) -> str:
    """Return the LLVM IR of a verified, legalized kernel.

    It defines `void @SYMBOL(ptr args, i64 lo, i64 hi)`: `args` points to the addresses of the buffers in the order of the
    params; `lo .. hi` are the iterations of the grid loop to run. In a checked build one more address follows, that of four
    words `{state, kernel name, buffer name, index}`: the first access out of bounds fills it and leaves the kernel.

    Raises:
        CompileError: The kernel holds what a CPU thread cannot do.
    """
    return KernelEmitter(kernel, target, checked).text()


def compile_objects(
    kernels: Mapping[str, loops.Kernel],
    target: Target,
    *,
    checked: bool = False,
    cache: KernelCache | None = None,
) -> dict[str, bytes]:
    """Return object code by symbol, one object per kernel.

    Args:
        kernels: Verified kernels by symbol.
        target: Machine class.
        checked: Test the bounds of every load and store.
        cache: Where objects are kept; None keeps none.

    Raises:
        CompileError: A kernel holds what a CPU thread cannot do.
    """
    return Crew(target, checked=checked, cache=cache).objects(kernels)
