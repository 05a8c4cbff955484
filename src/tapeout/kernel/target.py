"""What a schedule needs to know of a machine. Two machines of one class give the same bits."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Target:
    """A class of machines.

    Attributes:
        name: `avx512-bf16`, `avx512`, `avx2` or `generic` (any CPU: LLVM legalises the vectors); later GPUs.
        triple: LLVM target triple, empty for the host's.
        cpu: LLVM CPU name, empty for the host's (the name of the class is what rounding depends on, never this).
        features: LLVM feature string, empty for the host's.
        vector_bytes: Bytes of the widest vector register.
        registers: Number of vector registers.
        pairs: Whether a dot product of pairs of bf16 is an instruction.
        fma: Whether fused multiply-add is an instruction (else it is a multiply and an add).
        l1: Bytes of the first-level data cache that blocking assumes.
        l2: Bytes of the second-level cache that blocking assumes.
        winograd: Whether sums over windows may be taken by fewer products than they have (Winograd's), which rounds otherwise.
    """

    name: str
    triple: str = ""
    cpu: str = ""
    features: str = ""
    vector_bytes: int = 32
    registers: int = 16
    fma: bool = True
    pairs: bool = False
    l1: int = 32 * 1024
    l2: int = 512 * 1024
    winograd: bool = True

    def lanes(self, element_bytes: int) -> int:
        """Return how many elements one vector register holds."""
        return max(1, self.vector_bytes // element_bytes)


AVX512 = Target("avx512", vector_bytes=64, registers=32, l1=48 * 1024, l2=1024 * 1024)
AVX512_BF16 = replace(AVX512, name="avx512-bf16", pairs=True)
AVX2 = Target("avx2")
GENERIC = Target("generic", vector_bytes=16, fma=False)
BY_NAME = {t.name: t for t in (AVX512_BF16, AVX512, AVX2, GENERIC)}
LEVELS = {
    "x86-64-v3": replace(AVX2, cpu="x86-64-v3"),
    "x86-64-v4": replace(AVX512, cpu="x86-64-v4"),
}
"""A class on the least processor of an x86-64 microarchitecture level, whatever more the host has."""
