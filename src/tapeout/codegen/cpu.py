"""Object code for CPUs: kernels of level L to text of LLVM IR, and that to position-independent objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.codegen.emit import KernelEmitter
from tapeout.codegen.machine import resolve, target_machine
from tapeout.support.errors import CompileError

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
    """Return object code by symbol."""
    from tapeout.kernel.math import legalize

    machine = resolve(target)
    return {
        symbol: assemble(emit_kernel(legalize(kernel, target), target, checked), target)
        for symbol, kernel in kernels.items()
    }


def assemble(text: str, target: Target) -> bytes:
    """Return the object code of a module's text."""
    from llvmlite import binding

    machine = target_machine(resolve(target))
    with binding.create_context() as context, parse(text, context) as module:
        optimize(module, machine)
        return machine.emit_object(module)


def parse(text, context):
    from llvmlite import binding

    try:
        module = binding.parse_assembly(text, context)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refuses the text of a kernel: {error}", where="codegen") from error
    return module


def optimize(module, machine):
    from llvmlite import binding

    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_unrolling = options.loop_interleaving = False
    builder = binding.create_pass_builder(machine, options)
    passes = binding.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)
