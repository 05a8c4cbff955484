"""Products of bf16 in pairs: the same sums, one instruction for two steps where a machine has it, and the same code elsewhere."""

import re

import numpy as np
import pytest

from tapeout.codegen import cpu
from tapeout.codegen.assemble import assembly
from tapeout.ir.dtype import bf16, f32
from tapeout.kernel import loops
from tapeout.kernel.math import legalize
from tapeout.kernel.target import AVX2, AVX512, AVX512_BF16, GENERIC
from tapeout.kernel.walk import parts, roots, statements
from tapeout.oracle import scalars
from tapeout.schedule.lower import lower
from tests.lowering import check
from tests.unit.test_lower_contract import NCHW, NHWC, convolution, matmul

SHAPES = [(13, 20, 9), (5, 10, 33), (31, 50, 12), (16, 48, 64), (7, 130, 40)]


def product(shape, mode):
    return matmul(*shape, mode, bf16, accumulate=f32)


def operations(kernel):
    """Return the names of the operations in a kernel."""
    found, stack = set(), [r for s in statements(kernel.body) for r in roots(s)]
    while stack:
        e = stack.pop()
        if isinstance(e, loops.Apply):
            found.add(e.op)
        stack += parts(e)
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", ["NN", "NT", "TN", "TT"])
def test_pairs_give_the_product(shape, mode):
    small = np.prod(shape) < 8000
    lowered = check(
        product(shape, mode), AVX512_BF16, "contraction", oracle=small, factor=2.0, on=GENERIC
    )
    assert loops.DOT2 in operations(lowered.launches[-1].kernel)


@pytest.mark.parametrize("layout", [NCHW, NHWC], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("kind", ["fwd", "dw", "dx"])
@pytest.mark.parametrize("channels", [(16, 17), (6, 8)], ids=str)
def test_convolutions_in_pairs(kind, layout, channels):
    n, f = channels
    kernel = convolution(kind, (2, n, 8, 6, f, 3, 3), layout, 1, dtype=bf16, accumulate=f32)
    check(kernel, AVX512_BF16, "contraction", oracle=False, factor=4.0, on=GENERIC)


def test_pairs_are_cheaper_than_fewer_products():
    kernel = convolution("fwd", (2, 64, 14, 14, 64, 3, 3), NHWC, 1, dtype=bf16, accumulate=f32)
    assert loops.DOT2 in operations(lower(kernel, AVX512_BF16).launches[-1].kernel)


@pytest.mark.parametrize("target", [AVX2, AVX512, GENERIC], ids=lambda t: t.name)
def test_machines_without_pairs_widen(target):
    lowered = lower(product((31, 50, 12), "NT"), target)
    assert all(loops.DOT2 not in operations(x.kernel) for x in lowered.launches)


@pytest.mark.parametrize("mode", ["NN", "NT", "TN"])
def test_contiguous_operands_are_read_as_they_lie(mode):
    """A row operand that is contiguous along the sum needs no copy."""
    lowered = lower(product((64, 96, 128), mode), AVX512_BF16)
    copied = 64 * 128 // 2
    assert (mode[0] == "N") == all(s.size != copied for s in lowered.scratch)


@pytest.mark.parametrize("mode", ["NN", "NT", "TN"])
def test_the_instruction_is_in_the_loop_and_nothing_spills(mode):
    lowered = lower(product((256, 288, 256), mode), AVX512_BF16)
    kernel = legalize(lowered.launches[-1].kernel, AVX512_BF16)
    text = assembly(cpu.emit_kernel(kernel, AVX512_BF16), AVX512_BF16)
    hot = max(_blocks(text), key=lambda lines: sum("vdpbf16ps" in x for x in lines))
    dots = [x for x in hot if "vdpbf16ps" in x]
    assert len(dots) >= 16
    assert all("%zmm" in x for x in dots)
    assert not [x for x in hot if "(%rsp)" in x]
    assert "vcvtneps2bf16" in text


def _blocks(text):
    """Return the lines of each block that ends in a jump to its own start."""
    found, lines, label = [], [], None
    for line in text.splitlines():
        if re.match(r"\.LBB\w+:", line):
            label, lines = line.split(":")[0], []
        lines.append(line)
        if label is not None and re.match(rf"\s+j\w+\s+{re.escape(label)}$", line):
            found.append(lines)
            lines, label = [], None
    return found


def test_the_oracle_adds_the_upper_halves_first_and_flushes_subnormal_numbers():
    def pair(lower_half, upper_half):
        halves = np.array([lower_half, upper_half], np.float32).astype(bf16.numpy).view(np.uint16)
        return np.array([int(halves[0]) | int(halves[1]) << 16], np.uint32)

    def dot2(a, b, total):
        return scalars.apply("dot2", (pair(*a), pair(*b), np.array([total], np.float32)), f32)[0]

    assert dot2((2.0, 3.0), (5.0, 7.0), 1.0) == 32.0
    # Upper first: 2**30 - 2**30 + 1 keeps the 1, the other order does not.
    assert dot2((1.0, -(2.0**30)), (1.0, 1.0), 2.0**30) == 1.0
    assert dot2((2.0**-130, 0.0), (2.0**100, 0.0), 0.0) == 0.0
    assert dot2((2.0**-70, 0.0), (2.0**-70, 0.0), 0.0) == 0.0


def test_pairs_are_multiply_adds_elsewhere(rng):
    """What the formula gives is what the oracle gives, but for subnormal numbers."""
    lanes = 8
    a, b = (rng.normal(0, 1, 2 * lanes).astype(bf16.numpy).view(np.uint32) for _ in range(2))
    total = rng.normal(0, 1, lanes).astype(np.float32)
    want = scalars.apply("dot2", (a, b, total), f32)
    halves = [v.view(bf16.numpy).astype(np.float64).reshape(-1, 2) for v in (a, b)]
    exact = (halves[0] * halves[1]).sum(1) + total
    np.testing.assert_allclose(want, exact, rtol=3e-7, atol=3e-7)
