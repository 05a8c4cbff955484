"""Contractions lowered to tiles: matrix products, convolutions in three passes, prologues, epilogues, splits of k."""

import numpy as np
import pytest

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.ir.dtype import bf16, bool_, f16, f32, f64, i32, i64
from tapeout.kernel.compute import Buffer, ContractionKernel, ExprBuilder, Store
from tapeout.kernel.target import AVX2, AVX512, GENERIC
from tapeout.schedule.lower import lower
from tapeout.schedule.lower.contract import blocks
from tapeout.schedule.lower.contract.lower import plan_contraction
from tapeout.schedule.lower.contract.planner import Plan
from tapeout.schedule.lower.contract.tiles import choose_tiling, divide, vectors
from tests.lowering import check, dense, ordered

A = Affine.of
NHWC, CHWN, NCHW = (0, 2, 3, 1), (1, 2, 3, 0), (0, 1, 2, 3)


def axes(**extents):
    return tuple(Axis(n, e) for n, e in extents.items())


def matmul(m, n, k, mode="NN", dtype=f32, *, accumulate=None, bias=True):
    """Return relu(a @ b + bias); `mode` says which operand is stored transposed."""
    s = ExprBuilder()
    acc = accumulate or dtype
    i, j, c = axes(i=m, j=n, k=k)
    a = dense("b0", dtype, (m, k) if mode[0] == "N" else (k, m))
    b = dense("b1", dtype, (k, n) if mode[1] == "N" else (n, k))
    y, e = dense("b2", dtype, (m, n), "w"), dense("b3", dtype, (n,))
    left = s.load(a, (A(i), A(c)) if mode[0] == "N" else (A(c), A(i)))
    right = s.load(b, (A(c), A(j)) if mode[1] == "N" else (A(j), A(c)))
    value = s.temp("acc", acc)
    if bias:
        value = s.max(s.add(value, s.cast(s.load(e, (A(j),)), acc)), s.const(0, acc))
    store = Store("b2", (), (A(i), A(j)), s.cast(value, dtype))
    return ContractionKernel("c", (a, b, y, e), (), (i,), (j,), (c,), left, right, acc, (store,))


SHAPES = [
    (2, 2, 2), (13, 20, 9), (5, 10, 33), (64, 10, 84), (31, 50, 5), (7, 130, 40), (1, 9, 70), (9, 1, 70),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", ["NN", "NT", "TN", "TT"])
def test_matrix_product(shape, mode):
    small = np.prod(shape) < 6000
    check(matmul(*shape, mode), AVX2, "contraction", oracle=small, factor=2.0)


@pytest.mark.parametrize("mode", ["NN", "TN", "TT"])
def test_long_sums_in_blocks(mode, monkeypatch):
    monkeypatch.setattr(blocks, "LONG_WHOLE", 400)
    monkeypatch.setattr(blocks, "LONG_BLOCK", 256)
    lowered = check(matmul(40, 100, 900, mode), AVX2, "contraction", oracle=False, factor=4.0)
    assert lowered.launches[-1].kernel.numerics.extra["k_block"] <= 256


@pytest.mark.parametrize(("stride", "copied"), [(1024, True), (500, False)])
def test_rows_that_alias_are_copied(stride, copied):
    lowered = check(matmul(60, 64, stride, "NN"), AVX2, "contraction", oracle=False, factor=4.0)
    # The columns are in panels in both cases: their lines lie 256 bytes apart.
    assert len(lowered.scratch) == 1 + copied


@pytest.mark.parametrize("mode", ["NN", "NT", "TN"])
def test_f64(mode):
    check(matmul(37, 29, 41, mode, f64), AVX2, "contraction", oracle=False)


@pytest.mark.parametrize("dtype", [bf16, f16])
def test_narrow_operands_are_summed_in_f32(dtype):
    kernel = matmul(13, 21, 40, "NT", dtype, accumulate=f32)
    check(kernel, AVX2, "contraction", factor=2.0)


def test_integers():
    check(matmul(13, 21, 40, "NN", i32, bias=False), AVX2, "exact")


@pytest.mark.parametrize("target", [AVX512, GENERIC], ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("shape", [(13, 20, 9), (31, 50, 12), (20, 107, 500)], ids=str)
def test_tiles_of_other_machines(target, shape, dtype):
    small = np.prod(shape) < 20_000
    check(
        matmul(*shape, "NT", dtype), target, "contraction", oracle=small, factor=4.0, on=GENERIC
    )  # fmt: skip


@pytest.mark.parametrize("target", [AVX512, GENERIC], ids=lambda t: t.name)
@pytest.mark.parametrize("kind", ["fwd", "dw", "dx"])
def test_convolutions_for_other_machines(target, kind):
    kernel = convolution(kind, (16, 17, 8, 6, 6, 2, 5), NCHW, 1, dtype=f64)
    check(kernel, target, "contraction", oracle=False, factor=4.0, on=GENERIC)


def test_machines_of_all_classes_assemble():
    from tapeout.codegen import cpu

    for target in (AVX512, AVX2, GENERIC):
        for kernel in (
            matmul(40, 100, 300, "NT"),
            convolution("dx", (2, 6, 8, 8, 16, 3, 3), NHWC, 1),
        ):
            kernels = {c.kernel.name: c.kernel for c in lower(kernel, target).launches}
            assert all(cpu.compile_objects(kernels, target).values())


def test_nothing_summed_is_zero_through_the_epilogue():
    from tests.lowering import fill, run_native

    kernel = matmul(5, 6, 0)
    arrays = fill(kernel)
    got = run_native(lower(kernel, AVX2), AVX2, arrays)
    np.testing.assert_array_equal(
        got["b2"].reshape(5, 6), np.tile(np.maximum(arrays["b3"], 0), (5, 1))
    )


# -- convolutions -----------------------------------------------------------------------------------


def convolution(kind, sizes, order, pad, stride=1, dtype=f32, activate=False, *, accumulate=None):
    """Return a forward pass, weight gradient (`dw`) or data gradient (`dx`, stride 1 or holes)."""
    n_, c_, h_, w_, o_, kh_, kw_ = sizes
    oh_, ow_ = (h_ + 2 * pad - kh_) // stride + 1, (w_ + 2 * pad - kw_) // stride + 1
    s = ExprBuilder()
    n, o, c, kh, kw = axes(n=n_, o=o_, c=c_, kh=kh_, kw=kw_)
    y_shape = (n_, o_, oh_, ow_)
    writes = {"fwd": "b2", "dw": "b1", "dx": "b0"}[kind]

    def buffer(name, of, shape, layout):
        return ordered(name, of, shape, layout, "w" if name == writes else "r")

    x = buffer("b0", dtype, (n_, c_, h_, w_), order)
    w = buffer("b1", dtype, (o_, c_, kh_, kw_), NCHW)
    y = buffer("b2", dtype, y_shape, order)
    weight = s.load(w, (A(o), A(c), A(kh), A(kw)))
    total = accumulate or dtype
    acc = s.cast(s.temp("acc", total), dtype)
    if kind == "dx":
        h, v = axes(h=h_, w=w_)
        up, left = A(h) + pad - A(kh), A(v) + pad - A(kw)
        where = [Guard(up // stride, 0, oh_), Guard(left // stride, 0, ow_)]
        where += [Guard(up % stride, 0, 1), Guard(left % stride, 0, 1)]
        dy = s.load(y, (A(n), A(o), up // stride, left // stride), where)
        store = Store("b0", (), (A(n), A(c), A(h), A(v)), acc)
        return ContractionKernel(
            "c", (x, w, y), (), (n, h, v), (c,), (o, kh, kw), dy, weight, total, (store,)
        )
    oh, ow = axes(oh=oh_, ow=ow_)
    down, right = A(oh) * stride + kh - pad, A(ow) * stride + kw - pad
    window = s.load(x, (A(n), A(c), down, right), [Guard(down, 0, h_), Guard(right, 0, w_)])
    at = (A(n), A(o), A(oh), A(ow))
    if kind == "dw":
        store = Store("b1", (), (A(o), A(c), A(kh), A(kw)), acc)
        return ContractionKernel(
            "c",
            (x, w, y),
            (),
            (c, kh, kw),
            (o,),
            (n, oh, ow),
            window,
            s.load(y, at),
            total,
            (store,),
        )
    bias, mask = dense("b3", dtype, (o_,)), ordered("b4", bool_, y_shape, order, "w")
    value = s.add(acc, s.load(bias, (A(o),)))
    stages = [Store("b2", (), at, value)]
    if activate:
        value = s.max(value, s.const(0, dtype))
        positive = s.compare("gt", value, s.const(0, dtype))
        stages = [Store("b2", (), at, value), Store("b4", (), at, positive)]
    return ContractionKernel(
        "c", (x, w, y, bias, mask), (), (n, oh, ow), (o,), (c, kh, kw), window, weight, total,
        tuple(stages),
    )  # fmt: skip


CONVOLUTIONS = {
    "one channel": ((5, 1, 8, 8, 6, 5, 5), 2),
    "no border": ((16, 6, 7, 7, 16, 5, 5), 0),
    "many images": ((32, 3, 6, 6, 5, 3, 3), 1),
    "uneven": ((2, 7, 5, 6, 20, 3, 2), 1),
    "pointwise": ((2, 17, 5, 6, 33, 1, 1), 0),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("order", [NHWC, CHWN, NCHW], ids=["nhwc", "chwn", "nchw"])
@pytest.mark.parametrize("kind", ["fwd", "dw", "dx"])
def test_convolution(kind, order, case):
    sizes, pad = CONVOLUTIONS[case]
    check(
        convolution(kind, sizes, order, pad, activate=True),
        AVX2, "contraction", oracle=np.prod(sizes) < 15_000, factor=4.0,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["fwd", "dw", "dx"])
@pytest.mark.parametrize("sizes", [(2, 5, 9, 9, 7, 3, 3), (2, 3, 8, 8, 40, 3, 3)], ids=str)
def test_strided_convolution(kind, sizes):
    check(
        convolution(kind, sizes, NHWC, 1, stride=2), AVX2, "contraction", oracle=False, factor=4.0
    )


@pytest.mark.parametrize("order", [NHWC, CHWN, NCHW], ids=["nhwc", "chwn", "nchw"])
@pytest.mark.parametrize("kind", ["fwd", "dw", "dx"])
def test_convolution_with_tiny_blocks(kind, order, monkeypatch):
    monkeypatch.setattr(blocks, "K_WHOLE", 20)
    monkeypatch.setattr(blocks, "K_BLOCK", 16)
    sizes, pad = CONVOLUTIONS["uneven"]
    check(convolution(kind, sizes, order, pad), AVX2, "contraction", oracle=False, factor=4.0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("blocked", [False, True], ids=["whole", "blocks"])
@pytest.mark.parametrize("target", [AVX2, AVX512, GENERIC], ids=lambda t: t.name)
@pytest.mark.parametrize("channels", [64, 70])
def test_windows_of_a_weight_gradient_share_one_copy_in_panels(
    stride, blocked, target, channels, monkeypatch
):
    if blocked:
        monkeypatch.setattr(blocks, "K_WHOLE", 20)
        monkeypatch.setattr(blocks, "K_BLOCK", 16)
    kernel = convolution("dw", (3, channels, 9, 8, 50, 3, 3), NHWC, 1, stride)
    plan = plan_contraction(kernel, target, "s")
    assert isinstance(plan, Plan)
    assert plan.windows or stride > 1
    if target is not AVX512:
        check(kernel, target, "contraction", oracle=False, factor=8.0)


def test_a_border_is_left_out_by_bounds_of_loops_where_a_tile_allows_it():
    sizes, pad = (16, 4, 8, 8, 5, 3, 3), 1
    assert lower(convolution("dx", sizes, CHWN, pad), AVX2).scratch == ()
    assert lower(convolution("dx", sizes, NHWC, pad), AVX2).scratch != ()


@pytest.mark.parametrize("sizes", [(64, 1, 16, 16, 6, 5, 5), (67, 2, 12, 12, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("order", [NHWC, CHWN], ids=["nhwc", "chwn"])
def test_weight_gradient_is_cut_along_k(sizes, order):
    kernel = convolution("dw", sizes, order, 1)
    lowered = check(kernel, AVX2, "contraction", oracle=False, factor=8.0)
    assert "sums" in {s.name for s in lowered.scratch}
    assert any(call.kernel.numerics.partials > 1 for call in lowered.launches)


def test_a_long_sum_that_no_number_of_parts_divides():
    kernel = matmul(13, 20, 10_007, "TN")
    lowered = check(kernel, AVX2, "contraction", oracle=False, factor=8.0)
    assert "sums" in {s.name for s in lowered.scratch}


# -- prologues and epilogues ------------------------------------------------------------------------


def batched(batch, m, n, k, dtype=f32):
    """Return z = select(mask > 0, x, 0) @ (2 y)^T per batch, stored twice: plainly, and negated and transposed."""
    s = ExprBuilder()
    b, i, j, c = axes(b=batch, i=m, j=n, k=k)
    x, mask = dense("b0", dtype, (batch, m, k)), dense("b1", dtype, (batch, m, k))
    y = dense("b2", dtype, (batch, n, k))
    z, zt = dense("b3", dtype, (batch, m, n), "w"), dense("b4", dtype, (n, batch, m), "w")
    at = (A(b), A(i), A(c))
    positive = s.compare("gt", s.load(mask, at), s.const(0, dtype))
    left = s.select(positive, s.load(x, at), s.const(0, dtype))
    right = s.mul(s.load(y, (A(b), A(j), A(c))), s.const(2, dtype))
    acc = s.temp("acc", dtype)
    stages = (
        Store("b3", (), (A(b), A(i), A(j)), acc),
        Store("b4", (), (A(j), A(b), A(i)), s.neg(acc)),
    )
    return ContractionKernel(
        "c", (x, mask, y, z, zt), (b,), (i,), (j,), (c,), left, right, dtype, stages
    )


@pytest.mark.parametrize(
    "sizes", [(3, 7, 9, 5), (2, 33, 40, 70), (4, 6, 3, 500), (2, 1, 8, 8)], ids=str
)
def test_batches_with_prologue_and_two_stores(sizes):
    check(batched(*sizes), AVX2, "contraction", oracle=np.prod(sizes) < 5000, factor=4.0)


@pytest.mark.parametrize("rows", [12, 90])
def test_gathered_operand(rows):
    s = ExprBuilder()
    t, e, o = axes(t=rows, e=20, o=11)
    table, ids = dense("b0", f32, (40, 20)), dense("b1", i32, (rows,))
    w, y = dense("b2", f32, (11, 20)), dense("b3", f32, (rows, 11), "w")
    row = s.cast(s.load(ids, (A(t),)), i64)
    kernel = ContractionKernel(
        "c", (table, ids, w, y), (), (t,), (o,), (e,),
        s.load(table, (row, A(e))), s.load(w, (A(o), A(e))), f32,
        (Store("b3", (), (A(t), A(o)), s.temp("acc", f32)),),
    )  # fmt: skip
    check(kernel, AVX2, "contraction", factor=2.0)


def sliding(rows, columns, steps, dtype=f32):
    """Return a contraction whose operand is a function of overlapping windows and of the index: nothing can copy it."""
    s = ExprBuilder()
    i, j, c = axes(i=rows, j=columns, k=steps)
    x, w = dense("b0", dtype, (rows + steps,)), dense("b1", dtype, (columns, steps))
    y = dense("b2", dtype, (rows, columns), "w")
    here = A(i) + A(c)
    value = s.load(x, (here,), [Guard(here, 2, rows + steps - 3)], 0.5)
    value = s.mul(value, s.cast(s.index(A(c) * 2 - A(i)), dtype))
    return ContractionKernel(
        "c", (x, w, y), (), (i,), (j,), (c,), value, s.load(w, (A(j), A(c))), dtype,
        (Store("b2", (), (A(i), A(j)), s.temp("acc", dtype)),),
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [(20, 9, 13), (50, 40, 30), (33, 17, 500)], ids=str)
def test_operand_evaluated_tile_by_tile(sizes):
    lowered = check(sliding(*sizes), AVX2, "contraction", oracle=np.prod(sizes) < 4000, factor=4.0)
    assert "local" in repr(lowered.launches[-1].kernel.body)


def test_merged_dimensions_are_split():
    s = ExprBuilder()
    i, j, k = axes(i=8, j=10, k=5 * 3 * 2)
    x = ordered("b0", f32, (8, 5, 3, 2), (1, 2, 3, 0))
    w, y = dense("b1", f32, (10, 30)), dense("b2", f32, (8, 10), "w")
    left = s.load(x, (A(i), A(k) // 6, A(k) // 2 % 3, A(k) % 2))
    kernel = ContractionKernel(
        "c", (x, w, y), (), (i,), (j,), (k,), left, s.load(w, (A(j), A(k))), f32,
        (Store("b2", (), (A(i), A(j)), s.temp("acc", f32)),),
    )  # fmt: skip
    check(kernel, AVX2, "contraction", factor=2.0)


def test_update_in_the_epilogue():
    s = ExprBuilder()
    i, j, k = axes(i=30, j=24, k=12)
    x, dy = dense("b0", f32, (12, 30)), dense("b1", f32, (12, 24))
    w, g = dense("b2", f32, (30, 24), "rw"), dense("b3", f32, (30, 24), "w")
    at, acc = (A(i), A(j)), s.temp("acc", f32)
    stages = (
        Store("b2", (), at, s.sub(s.load(w, at), s.mul(acc, s.const(0.1, f32)))),
        Store("b3", (), at, acc),
    )
    kernel = ContractionKernel(
        "c", (x, dy, w, g), (), (i,), (j,), (k,),
        s.load(x, (A(k), A(i))), s.load(dy, (A(k), A(j))), f32, stages,
    )  # fmt: skip
    check(kernel, AVX2, "contraction", factor=2.0)


# -- random -----------------------------------------------------------------------------------------


def random_contraction(seed):
    """Return a contraction with up to two axes of each role, operands and result in any order of memory."""
    rng = np.random.default_rng(seed)
    sizes = [2, 3, 5, 8, 11, 16]
    roles = {
        role: tuple(
            Axis(f"{role}{n}", int(rng.choice(sizes))) for n in range(int(rng.integers(lo, 3)))
        )
        for role, lo in (("b", 0), ("m", 1), ("n", 1), ("k", 1))
    }
    s = ExprBuilder()

    def operand(name, own, access="r") -> tuple[Buffer, tuple[Affine, ...]]:
        own = [own[d] for d in rng.permutation(len(own))]
        order = tuple(int(d) for d in rng.permutation(len(own)))
        buffer = ordered(name, f32, tuple(a.extent for a in own), order, access)
        return buffer, tuple(A(a) for a in own)

    x, at_x = operand("b0", roles["b"] + roles["m"] + roles["k"])
    y, at_y = operand("b1", roles["b"] + roles["n"] + roles["k"])
    z, at_z = operand("b2", roles["b"] + roles["m"] + roles["n"], "w")
    left = s.load(x, at_x)
    if rng.random() < 0.3:
        left = s.load(x, at_x, [Guard(at_x[0] * 2, 1, 9)], 0.0)
    store = Store("b2", (), at_z, s.add(s.temp("acc", f32), s.const(1, f32)))
    return ContractionKernel(
        "c", (x, y, z), roles["b"], roles["m"], roles["n"], roles["k"], left, s.load(y, at_y), f32,
        (store,),
    )  # fmt: skip


@pytest.mark.parametrize("seed", [*range(14), 1061, 1594])
def test_random_contractions(seed):
    target = GENERIC if seed % 4 == 0 else AVX2
    check(random_contraction(seed), target, "contraction", oracle=False, factor=2.0)


# -- tiles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extent", range(1, 40))
def test_row_tiles_cover_the_extent(extent):
    for size in range(1, 15):
        rows = divide(extent, size)
        assert rows.whole * rows.size + sum(rows.rest) == extent
        assert all(0 < r <= size for r in rows.rest)


@pytest.mark.parametrize("element", [4, 8])
@pytest.mark.parametrize("register", [2, 4, 8])
def test_vectors_cover_the_columns(element, register):
    for columns in range(1, 70):
        found = vectors(columns, element, register)
        assert sum(v.used for v in found) == columns
        assert all(v.lanes & (v.lanes - 1) == 0 and v.lanes * element <= 64 for v in found)
        full = len(found) if columns % register == 0 else len(found) - 1
        last = found[-1]
        assert last.start + last.lanes <= -(-columns // register) * register
        assert all(v.used == v.lanes for v in found[:full])


@pytest.mark.parametrize("target", [AVX512, AVX2, GENERIC], ids=lambda t: t.name)
def test_accumulators_leave_registers_for_operands(target):
    for rows, columns in ((100, 100), (1000, 6), (28, 16), (5, 200)):
        tiling = choose_tiling(rows, columns, 100, target, 4)
        registers = -(-tiling.panel // target.lanes(4))
        assert tiling.rows.size * registers + registers + 1 <= target.registers
