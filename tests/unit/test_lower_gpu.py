"""The same kernels in blocks and warps, in the oracle of level L (in order, and with threads in random orders)."""

import pytest

from tapeout.ir.affine import Affine, Axis
from tapeout.ir.dtype import f32, i32, i64
from tapeout.kernel.compute import ExprBuilder, LoopKernel, Reduce, ScatterKernel, Store
from tapeout.kernel.verify import verify_kernel
from tapeout.kernel.walk import statements
from tapeout.schedule.lower.gpu import lower_gpu
from tapeout.support.errors import CompileError
from tests.lowering import dense, evaluate, fill, run_oracle
from tests.tolerances import close
from tests.unit.test_lower_contract import NHWC, batched, convolution, matmul
from tests.unit.test_lower_loop import softmax

A = Affine.of


def check(kernel, kind="reduction", *, factor=1.0, group=2, lane=4):
    lowered = lower_gpu(kernel, group, lane)
    arrays = fill(kernel)
    want = evaluate(kernel, arrays)
    for call in lowered.launches:
        verify_kernel(call.kernel)
    for seed in (None, 1, 2):
        got = run_oracle(lowered, arrays, seed)
        for b in kernel.buffers:
            if "w" in b.access:
                reason = "other order of summation" if factor != 1.0 else ""
                close(got[b.name], want[b.name], kind, factor=factor, reason=reason)
    return lowered


def bias_and_relu(rows, columns):
    s = ExprBuilder()
    i, j = Axis("i", rows), Axis("j", columns)
    x, b = dense("b0", f32, (rows, columns)), dense("b1", f32, (columns,))
    y = dense("b2", f32, (rows, columns), "w")
    value = s.max(s.add(s.load(x, (A(i), A(j))), s.load(b, (A(j),))), s.const(0, f32))
    return LoopKernel("k", (x, b, y), (i, j), (Store("b2", (), (A(i), A(j)), value),))


def kinds(lowered):
    return [
        type(s).__name__ + getattr(s, "kind", "")
        for s in statements(lowered.launches[0].kernel.body)
    ]


@pytest.mark.parametrize("shape", [(1, 1), (4, 8), (13, 37)])
@pytest.mark.parametrize(("group", "lane"), [(2, 4), (1, 8), (4, 1)])
def test_map(shape, group, lane):
    lowered = check(bias_and_relu(*shape), "exact", group=group, lane=lane)
    if group > 1 and lane > 1:
        assert {"Forgrid", "Forgroup", "Forlane"} <= set(kinds(lowered))


@pytest.mark.parametrize("columns", [1, 5, 37])
def test_rows(columns):
    text = repr(check(softmax(5, columns), "transcendental").launches[0].kernel.body)
    assert "Cross" in text


@pytest.mark.parametrize("columns", [6, 50])
def test_first_extreme(columns):
    s = ExprBuilder()
    i, j = Axis("i", 7), Axis("j", columns)
    x, y = dense("b0", i32, (7, columns)), dense("b1", i32, (7,), "w")
    stages = (
        Reduce("t", "argmax", (j,), s.load(x, (A(i), A(j))), i32),
        Store("b1", (), (A(i),), s.temp("t", i32)),
    )
    check(LoopKernel("k", (x, y), (i,), stages), "exact")


@pytest.mark.parametrize("shape", [(13, 20, 19), (16, 16, 16), (3, 2, 40)])
@pytest.mark.parametrize("mode", ["NN", "NT", "TN"])
def test_contraction(shape, mode):
    lowered = check(matmul(*shape, mode), "contraction", factor=4.0)
    assert {"Barrier", "Alloc"} <= set(kinds(lowered))


def test_batches_prologue_and_two_stores():
    check(batched(2, 7, 9, 12), "contraction", factor=4.0)


@pytest.mark.parametrize("kind", ["fwd", "dw", "dx"])
def test_convolution(kind):
    kernel = convolution(kind, (1, 2, 4, 4, 3, 3, 3), NHWC, 1)
    check(kernel, "contraction", factor=4.0, group=1, lane=8)


def test_nothing_is_no_launch():
    assert lower_gpu(bias_and_relu(0, 4)).launches == ()


def test_a_scatter_is_refused():
    s = ExprBuilder()
    p = Axis("p", 3)
    ids, u, t = dense("b0", i64, (3,)), dense("b1", f32, (3,)), dense("b2", f32, (5,), "rw")
    place = (s.load(ids, (A(p),)),)
    kernel = ScatterKernel("s", (ids, u, t), (), (p,), "b2", place, s.load(u, (A(p),)))
    with pytest.raises(CompileError, match="no form in blocks"):
        lower_gpu(kernel)


def test_a_map_becomes_ptx():
    from tapeout.codegen import ptx

    (call,) = lower_gpu(bias_and_relu(13, 37), group=4, lane=32).launches
    text = ptx.emit_kernel(call.kernel)
    assert ".visible .entry" in text
