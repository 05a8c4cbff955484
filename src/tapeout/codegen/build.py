"""A whole program to object code: its kernels, the driver and the thread pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.codegen import pool
from tapeout.codegen.assemble import assemble_cached, version
from tapeout.codegen.cache import store_of
from tapeout.codegen.cpu import emit_kernel
from tapeout.codegen.crew import Crew
from tapeout.codegen.driver import emit_driver, entry_symbol
from tapeout.kernel.math import legalize

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.kernel.program import Program
    from tapeout.kernel.target import Target

__all__ = ["build", "version"]


def crew_of(target: Target, *, checked: bool = False, cached: bool = True) -> Crew:
    """Return what compiles kernels; arguments as for `build`."""
    return Crew(target, checked=checked, cache=store_of("kernels") if cached else None)


def build(
    program: Program,
    target: Target,
    *,
    checked: bool = False,
    cached: bool = True,
    clocks: bool = False,
    dump: Callable[[str, str, str], None] | None = None,
    crew: Crew | None = None,
) -> tuple[dict[str, bytes], str]:
    """Return the object code of a program by symbol, and the symbol of its entry point.

    The objects are one per kernel, the driver under the entry's symbol, and the thread pool under `pool.SYMBOL`.

    Args:
        program: Launches, buffers and kernels.
        target: Machine class.
        checked: Test the bounds of every load and store.
        cached: Keep and use objects on disk.
        clocks: Let the driver time its launches.
        crew: Compiles the kernels, and may have begun already.
        dump: Called with (stage, suffix, text) for the LLVM IR of the kernels and of the driver.

    Raises:
        CompileError: A kernel or launch cannot be turned into code.
    """
    store = store_of("kernels") if cached else None
    entry = entry_symbol(program.name)
    driver = emit_driver(program, target, checked, clocks)
    if dump is not None:
        for symbol, kernel in program.kernels.items():
            dump(f"kernel-{symbol}", "ll", emit_kernel(legalize(kernel, target), target, checked))
        dump("driver", "ll", driver)
    if crew is None:
        crew = crew_of(target, checked=checked, cached=cached)
    objects = crew.objects(program.kernels)
    objects[entry] = assemble_cached(driver, target, store)
    objects[pool.SYMBOL] = assemble_cached(pool.emit_pool(target), target, store)
    return objects, entry
