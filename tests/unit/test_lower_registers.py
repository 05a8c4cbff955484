"""Register tiles stay in registers: no inner loop of a contraction touches the stack, on any machine we write code for."""

import re

import pytest

from tapeout.codegen import cpu
from tapeout.codegen.assemble import assembly
from tapeout.ir.dtype import f32, f64
from tapeout.kernel.math import legalize
from tapeout.kernel.target import AVX2, AVX512, Target
from tapeout.schedule.lower import lower
from tests.unit.test_lower_contract import matmul

NEON = Target(
    "generic",
    triple="aarch64-unknown-linux-gnu",
    cpu="cortex-a76",
    vector_bytes=16,
    registers=32,
    l1=64 * 1024,
)
MACHINES = {"avx2": AVX2, "avx512": AVX512, "neon": NEON}
FUSED = re.compile(r"^(vfmadd|fmla|fmadd)")
STACK = re.compile(r"%[re]sp|\bsp\b")


def inner_loops(text: str) -> list[list[str]]:
    """Return the lines of every loop that has none inside, by the jumps that lead back."""
    lines = [line.strip() for line in text.splitlines()]
    labels = {line[:-1]: n for n, line in enumerate(lines) if line.endswith(":")}
    found = []
    for n, line in enumerate(lines):
        words = line.replace(",", " ").split()
        if not words or not re.match(r"^(j\w+|b\.\w+|cbn?z|tbn?z)$", words[0]):
            continue
        start = labels.get(words[-1], n)
        if start < n:
            found.append((start, n))
    return [
        lines[a:b]
        for a, b in found
        if not any(a <= c and d <= b and (c, d) != (a, b) for c, d in found)
    ]


CASES = [
    (m, s, mode, dtype)
    for m in MACHINES
    for s, mode, dtype in [
        ((112, 192, 300), "NN", f32),
        ((112, 192, 300), "TN", f32),
        ((65, 100, 64), "NT", f32),
        ((112, 96, 64), "NN", f64),
        ((13, 35, 40), "NN", f32),
    ]
]


@pytest.mark.parametrize(("machine", "shape", "mode", "dtype"), CASES)
def test_no_inner_loop_touches_the_stack(machine, shape, mode, dtype):
    target = MACHINES[machine]
    kernel = legalize(lower(matmul(*shape, mode, dtype), target).launches[-1].kernel, target)
    loops = inner_loops(assembly(cpu.emit_kernel(kernel, target), target))
    hot = [loop for loop in loops if sum(bool(FUSED.match(line)) for line in loop) >= 4]
    assert hot, "no loop multiplies and adds"
    for loop in hot:
        assert not [line for line in loop if STACK.search(line)], "\n".join(loop)


@pytest.mark.parametrize(
    ("machine", "fused", "register"), [("avx2", 12, "%ymm"), ("avx512", 24, "%zmm")]
)
def test_the_largest_tile_fills_the_registers(machine, fused, register):
    target = MACHINES[machine]
    kernel = legalize(lower(matmul(144, 192, 300), target).launches[-1].kernel, target)
    loops = inner_loops(assembly(cpu.emit_kernel(kernel, target), target))
    counts = [sum(line.startswith("vfmadd") and register in line for line in x) for x in loops]
    assert max(counts) >= fused
