"""Text of LLVM IR to object code."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.codegen.machine import Machine, resolve, target_machine
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from llvmlite import binding

    from tapeout.codegen.cache import Store
    from tapeout.kernel.target import Target


def assemble(text: str, target: Target) -> bytes:
    """Return the position-independent object code of a module.

    Raises:
        CompileError: LLVM refuses the text (a fault of this package).
    """
    from llvmlite import binding

    machine = target_machine(resolve(target))
    with binding.create_context() as context, _parse(text, context) as module:
        _optimize(module, machine)
        return machine.emit_object(module)


def assembly(text: str, target: Target) -> str:
    """Return the assembly of a module, for people to read."""
    from llvmlite import binding

    machine = target_machine(resolve(target))
    with binding.create_context() as context, _parse(text, context) as module:
        _optimize(module, machine)
        return machine.emit_assembly(module)


def assemble_cached(text: str, target: Target, store: Store | None) -> bytes:
    """Return the object code of a module, from the store if it has it."""
    if store is None:
        return assemble(text, target)
    key = content_key("llvm", resolve(target), text)
    found = store.get(key)
    if found is None:
        found = assemble(text, target)
        store.put(key, found)
    return found


def content_key(kind: str, machine: Machine, text: str) -> str:
    """Return the name under which object code is kept: it changes with the text, the machine, LLVM and our own emitter."""
    digest = hashlib.sha256(f"{kind}\n{version()}\n{machine!r}\n".encode())
    digest.update(text.encode())
    return digest.hexdigest()


@cache
def version() -> str:
    """Return what identifies the emitter: LLVM's version and a hash of the sources that write code."""
    from llvmlite import binding

    here = Path(__file__).parent
    digest = hashlib.sha256()
    for folder in (here, here.parent / "kernel"):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    llvm = ".".join(map(str, binding.llvm_version_info))
    return f"{llvm}-{digest.hexdigest()[:16]}"


def _parse(text: str, context: binding.ContextRef) -> binding.ModuleRef:
    from llvmlite import binding

    try:
        module = binding.parse_assembly(text, context)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refuses the text: {error}", where="codegen") from error
    return module


def _optimize(module: binding.ModuleRef, machine: binding.TargetMachine) -> None:
    """Only what turns stack slots into registers and tidies up: the vectors are chosen already.

    The full pipeline takes ten times as long and makes no kernel faster (docs/adr/0005-text-emitter.md).
    """
    from llvmlite import binding

    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_unrolling = options.loop_interleaving = False
    with (
        options,
        binding.create_pass_builder(machine, options) as builder,
        binding.create_new_module_pass_manager() as passes,
    ):
        passes.add_sroa_pass()
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        passes.run(module, builder)
