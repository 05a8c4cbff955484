"""Target machines: which CPU and instructions LLVM generates for."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from tapeout.kernel.target import AVX2, AVX512, AVX512_BF16, GENERIC, Target
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from llvmlite import binding

# What a class needs, and the CPU that stands for it when the host cannot run it.
_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma", "f16c")
_NEEDS = {
    "avx512-bf16": (*_AVX512, "avx512bf16"),
    "avx512": _AVX512,
    "avx2": ("avx2", "fma", "f16c"),
}
_BASELINE = {"avx512-bf16": "cooperlake", "avx512": "x86-64-v4", "avx2": "x86-64-v3", "generic": ""}


class Machine(NamedTuple):
    """What LLVM needs to know of a machine; two equal ones get the same object code."""

    triple: str
    cpu: str
    features: str


@cache
def native() -> Target:
    """Return the best machine class that this host can run."""
    return next((t for t in (AVX512_BF16, AVX512, AVX2) if _host_runs(t.name)), GENERIC)


def host_runs(target: Target) -> bool:
    """Return whether this host can run code for a target."""
    return target.name in _BASELINE and not target.triple and _host_runs(target.name)


@cache
def resolve(target: Target) -> Machine:
    """Return triple, CPU and features of a target: the host's where it leaves them open and the host can run the class.

    Raises:
        CompileError: The class is not one of a CPU.
    """
    if target.name not in _BASELINE:
        raise CompileError(
            f"{target.name!r} is no class of CPUs; one of {', '.join(_BASELINE)}", where="target"
        )
    from llvmlite import binding

    triple = target.triple or binding.get_process_triple()
    if target.cpu:
        return Machine(triple, target.cpu, target.features)
    if target.triple or not _host_runs(target.name):
        return Machine(triple, _BASELINE[target.name], target.features)
    features = target.features or binding.get_host_cpu_features().flatten()
    return Machine(triple, binding.get_host_cpu_name(), features)


@cache
def target_machine(machine: Machine) -> binding.TargetMachine:
    """Return LLVM's description of a machine, made once.

    Raises:
        CompileError: This LLVM has no back end for the triple.
    """
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        target = binding.Target.from_triple(machine.triple)
    except RuntimeError as error:
        raise CompileError(f"no back end for {machine.triple!r}: {error}", where="target") from None
    return target.create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=3, reloc="pic", codemodel="small"
    )


def _host_runs(name: str) -> bool:
    from llvmlite import binding

    if name == "generic":
        return True
    features = binding.get_host_cpu_features()
    return all(features.get(f, False) for f in _NEEDS[name])
