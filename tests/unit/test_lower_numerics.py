"""What lowering promises beside right results: one name per kernel, stated rounding, costs by the model."""

from dataclasses import replace

import pytest

from tapeout.ir.affine import Affine, Axis
from tapeout.ir.dtype import f32
from tapeout.kernel.compute import ExprBuilder, LoopKernel, Reduce, Store
from tapeout.kernel.target import AVX2, GENERIC
from tapeout.kernel.text import print_kernel
from tapeout.schedule.lower import lower
from tests.lowering import dense
from tests.unit.test_lower_contract import NHWC, convolution, matmul
from tests.unit.test_lower_loop import softmax

A = Affine.of


def row_sum(rows, columns, names=("i", "j")):
    s = ExprBuilder()
    i, j = Axis(names[0], rows), Axis(names[1], columns)
    x, y = dense("b0", f32, (rows, columns)), dense("b1", f32, (rows,), "w")
    stages = (
        Reduce("t", "sum", (j,), s.load(x, (A(i), A(j))), f32),
        Store("b1", (), (A(i),), s.temp("t", f32)),
    )
    return LoopKernel("k", (x, y), (i,), stages)


def names(kernel, target=AVX2):
    return [call.kernel.name for call in lower(kernel, target).launches]


@pytest.mark.parametrize(
    "kernel",
    [row_sum(9, 300), softmax(4, 200), matmul(20, 30, 40), convolution("dw", (40, 2, 12, 12, 3, 3, 3), NHWC, 1)],
    ids=["sum", "softmax", "matmul", "weight gradient"],
)  # fmt: skip
def test_lowering_twice_gives_the_same_text(kernel):
    first, second = lower(kernel, AVX2), lower(kernel, AVX2)
    for a, b in zip(first.launches, second.launches, strict=True):
        assert print_kernel(a.kernel) == print_kernel(b.kernel)
        assert (a.args, a.flops, a.bytes) == (b.args, b.flops, b.bytes)


def test_names_of_axes_and_kernels_leave_no_trace():
    one = row_sum(9, 300)
    other = replace(row_sum(9, 300, ("zeta", "alpha")), name="another")
    assert names(one) == names(other)


def test_rounding_is_stated():
    (call,) = lower(row_sum(50, 300), AVX2).launches
    n = call.kernel.numerics
    assert (n.lanes, n.accumulators, n.partials) == (16, 4, 1)
    cut = lower(row_sum(2, 100_000), AVX2).launches
    assert {c.kernel.numerics.partials for c in cut} == {20}


def test_reductions_round_alike_on_all_cpus():
    # Without products there is no fused multiply-add to tell the classes apart.
    assert names(row_sum(50, 300), AVX2) == names(row_sum(50, 300), GENERIC)


def test_small_kernels_are_one_task_and_large_ones_many():
    assert lower(row_sum(10, 100), AVX2).launches[0].kernel.tasks == 1
    assert lower(row_sum(10_000, 1000), AVX2).launches[0].kernel.tasks >= 100
    assert lower(matmul(16, 16, 16), AVX2).launches[-1].kernel.tasks <= 2
    assert lower(matmul(256, 256, 256), AVX2).launches[-1].kernel.tasks >= 8


def test_costs_follow_the_model():
    (call,) = lower(row_sum(9, 300), AVX2).launches
    assert call.flops == 9 * 300
    assert call.bytes == 4 * (9 * 300 + 9)
    last = lower(matmul(20, 30, 40, bias=False), AVX2).launches[-1]
    assert last.flops == 2 * 20 * 30 * 40
    assert last.bytes == 4 * (20 * 40 + 40 * 30 + 20 * 30)
