"""Loop kernels lowered to loops: maps, rows, reductions, windows, gathers, scatters."""

import numpy as np
import pytest

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.ir.dtype import bool_, f32, f64, i32, i64, u8
from tapeout.kernel.compute import Buffer, ExprBuilder, LoopKernel, Reduce, ScatterKernel, Store
from tapeout.kernel.target import AVX2, GENERIC
from tapeout.schedule.lower import lower
from tapeout.schedule.lower.blocked import in_blocks
from tapeout.schedule.lower.normal import normalise
from tests.lowering import check, dense, fill, ordered

A = Affine.of
NHWC, CHWN, NCHW = (0, 2, 3, 1), (1, 2, 3, 0), (0, 1, 2, 3)


def axes(**extents):
    return tuple(Axis(n, e) for n, e in extents.items())


def row_kernel(stages, buffers, outer):
    return LoopKernel("k", tuple(buffers), tuple(outer), tuple(stages))


# -- maps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 6), (7, 10), (100, 37), (2, 4099)])
def test_bias_and_relu(rows, columns, dtype):
    s = ExprBuilder()
    i, j = axes(i=rows, j=columns)
    x, b = dense("b0", dtype, (rows, columns)), dense("b1", dtype, (columns,))
    y = dense("b2", dtype, (rows, columns), "w")
    value = s.max(s.add(s.load(x, (A(i), A(j))), s.load(b, (A(j),))), s.const(0, dtype))
    check(row_kernel([Store("b2", (), (A(i), A(j)), value)], (x, b, y), (i, j)), AVX2, "exact")


@pytest.mark.parametrize("shape", [(100, 60), (5, 3), (1, 33), (17, 16), (64, 256)])
def test_transpose(shape):
    s = ExprBuilder()
    i, j = axes(i=shape[0], j=shape[1])
    x, y = dense("b0", f32, shape), dense("b1", f32, shape[::-1], "w")
    stage = Store("b1", (), (A(j), A(i)), s.load(x, (A(i), A(j))))
    check(row_kernel([stage], (x, y), (j, i)), AVX2, "exact", oracle=shape[0] < 64)


@pytest.mark.parametrize("shape", [(1, 200_003), (3, 40_001), (70_001, 3), (501, 333)])
def test_the_rest_of_a_line_belongs_to_one_of_many_tasks(shape):
    s = ExprBuilder()
    i, j = axes(i=shape[0], j=shape[1])
    x, b = dense("b0", f32, shape), dense("b1", f32, (shape[1],))
    y = dense("b2", f32, shape, "w")
    value = s.add(s.load(x, (A(i), A(j))), s.load(b, (A(j),)))
    kernel = row_kernel([Store("b2", (), (A(i), A(j)), value)], (x, b, y), (i, j))
    lowered = check(kernel, AVX2, "exact", oracle=False)
    assert lowered.launches[0].kernel.tasks > 3


@pytest.mark.parametrize("shape", [(1000, 333), (40, 5003), (5003, 40), (20_011, 5), (5, 20_011)])
def test_large_transpose(shape):
    s = ExprBuilder()
    i, j = axes(i=shape[0], j=shape[1])
    x, y = dense("b0", f32, shape), dense("b1", f32, shape[::-1], "w")
    stage = Store("b1", (), (A(j), A(i)), s.load(x, (A(i), A(j))))
    lowered = check(row_kernel([stage], (x, y), (j, i)), AVX2, "exact", oracle=False)
    assert lowered.launches[0].kernel.tasks > 3


@pytest.mark.parametrize(("lines", "columns"), [(64, 768), (40, 604), (12, 4096), (7, 300)])
def test_panels_of_far_lines_come_block_by_block(lines, columns):
    """Few lines at a time are read whole, a piece of each for every panel."""
    s = ExprBuilder()
    panel, line, lane = axes(panel=columns // 6, line=lines, lane=6)
    x = dense("b0", f32, (lines, columns))
    y = dense("b1", f32, (columns // 6, lines, 6), "w")
    value = s.load(x, (A(line), A(panel) * 6 + lane))
    kernel = row_kernel(
        [Store("b1", (), (A(panel), A(line), A(lane)), value)], (x, y), (panel, line, lane)
    )
    check(kernel, AVX2, "exact", oracle=columns < 700)
    far = in_blocks(normalise(kernel), lane).axes
    cut = lines > 8 and columns * 4 >= 1024
    assert [a.name for a in far] == (
        ["line.0", "panel", "line.1", "lane"] if cut else ["panel", "line", "lane"]
    )


@pytest.mark.parametrize("order", [NHWC, CHWN, NCHW])
def test_a_map_follows_the_layout_of_its_buffers(order):
    s = ExprBuilder()
    shape = (3, 6, 5, 7)
    n, c, h, w = axes(n=3, c=6, h=5, w=7)
    x, y = ordered("b0", f32, shape, order), ordered("b1", f32, shape, order, "w")
    at = tuple(A(a) for a in (n, c, h, w))
    kernel = row_kernel([Store("b1", (), at, s.neg(s.load(x, at)))], (x, y), (n, c, h, w))
    lowered = check(kernel, AVX2, "exact")
    # Contiguous in both: one loop over whole vectors.
    assert lowered.launches[0].bytes == 2 * 4 * np.prod(shape)


def test_padding_and_holes():
    s = ExprBuilder()
    i, j = axes(i=12, j=41)
    x, y = dense("b0", f32, (10, 30)), dense("b1", f32, (12, 41), "w")
    at = (A(i) - 1, A(j) - 5)
    value = s.load(x, at, [Guard(at[0], 0, 10), Guard(at[1], 0, 30)], 7.0)
    check(row_kernel([Store("b1", (), (A(i), A(j)), value)], (x, y), (i, j)), AVX2, "exact")
    odd = A(j) % 2
    value = s.load(x, (A(i) % 10, A(j) // 2), [Guard(odd, 1, 2)], -1.0)
    check(row_kernel([Store("b1", (), (A(i), A(j)), value)], (x, y), (i, j)), AVX2, "exact")


@pytest.mark.parametrize("extent", [24, 35])
def test_divided_indices(extent):
    s = ExprBuilder()
    (i,) = axes(i=extent)
    x, y = dense("b0", f32, (6, 6)), dense("b1", f32, (extent,), "w")
    value = s.add(s.load(x, (A(i) // 6, A(i) % 6)), s.cast(s.index((A(i) + 3) // 4), f32))
    check(row_kernel([Store("b1", (), (A(i),), value)], (x, y), (i,)), AVX2, "exact")


def test_nested_divisions_become_plain_axes():
    s = ExprBuilder()
    (i,) = axes(i=3 * 4 * 5)
    x, y = dense("b0", f32, (5, 4, 3)), dense("b1", f32, (60,), "w")
    value = s.load(x, (A(i) % 5, A(i) // 5 % 4, A(i) // 5 // 4))
    check(row_kernel([Store("b1", (), (A(i),), value)], (x, y), (i,)), AVX2, "exact")


def test_gathers_are_clamped():
    s = ExprBuilder()
    p, c = axes(p=20, c=37)
    ids, table = dense("b0", i32, (20,)), dense("b1", f32, (5, 37))
    y = dense("b2", f32, (20, 37), "w")
    # Numbers up to 6 point beyond the table's 5 rows.
    row = s.cast(s.load(ids, (A(p),)), i64)
    kernel = row_kernel(
        [Store("b2", (), (A(p), A(c)), s.load(table, (row, A(c))))], (ids, table, y), (p, c)
    )
    check(kernel, AVX2, "exact")


def test_in_place_updates_are_made_before_they_are_written():
    s = ExprBuilder()
    (i,) = axes(i=100)
    w, m, g = (
        dense("b0", f32, (100,), "rw"),
        dense("b1", f32, (100,), "rw"),
        dense("b2", f32, (100,)),
    )
    at = (A(i),)
    moment = s.add(s.mul(s.load(m, at), s.const(0.9, f32)), s.load(g, at))
    stages = [
        Store("b1", (), at, moment),
        Store("b0", (), at, s.sub(s.load(w, at), s.mul(moment, s.const(0.1, f32)))),
    ]
    kernel = row_kernel(stages, (w, m, g), (i,))
    arrays = fill(kernel)
    new = arrays["b1"] * np.float32(0.9) + arrays["b2"]
    from tests.lowering import run_native, run_oracle

    for got in (
        run_oracle(lower(kernel, AVX2), arrays),
        run_native(lower(kernel, AVX2), AVX2, arrays),
    ):
        np.testing.assert_allclose(got["b1"], new, rtol=1e-6)
        np.testing.assert_allclose(got["b0"], arrays["b0"] - new * np.float32(0.1), rtol=1e-5)


def test_bytes_and_bools():
    s = ExprBuilder()
    (i,) = axes(i=77)
    x, b, y = dense("b0", u8, (77,)), dense("b1", bool_, (77,)), dense("b2", f32, (77,), "w")
    m = dense("b3", bool_, (77,), "w")
    at = (A(i),)
    value = s.mul(s.cast(s.load(x, at), f32), s.const(1 / 255, f32))
    small = s.apply("and", s.load(b, at), s.compare("lt", value, s.const(0.01, f32)))
    stages = [Store("b2", (), at, value), Store("b3", (), at, small)]
    check(row_kernel(stages, (x, b, y, m), (i,)), AVX2, "exact")


# -- rows -------------------------------------------------------------------------------------------


def softmax(rows, columns, dtype=f32):
    s = ExprBuilder()
    i, j = axes(i=rows, j=columns)
    x, y = dense("b0", dtype, (rows, columns)), dense("b1", dtype, (rows, columns), "w")
    e = s.exp(s.sub(s.load(x, (A(i), A(j))), s.temp("m", dtype)))
    stages = [
        Reduce("m", "max", (j,), s.load(x, (A(i), A(j))), dtype),
        Reduce("t", "sum", (j,), e, dtype),
        Store("b1", (j,), (A(i), A(j)), s.div(e, s.temp("t", dtype))),
    ]
    return row_kernel(stages, (x, y), (i,))


@pytest.mark.parametrize("columns", [1, 3, 10, 37, 130, 1000])
def test_softmax(columns):
    lowered = check(softmax(3, columns), AVX2, "transcendental")
    kept = any("row0" in repr(s) for s in lowered.launches[0].kernel.body)
    assert kept == (columns > 128)


@pytest.mark.parametrize("rows", [2, 20, 64])
@pytest.mark.parametrize("columns", [4, 6, 100])
def test_softmax_over_its_operand(rows, columns):
    """Short rows of an operand that is overwritten: one row at a time, or several side by side."""
    s = ExprBuilder()
    i, j = axes(i=rows, j=columns)
    x = dense("b0", f64, (rows, columns), "rw")
    e = s.exp(s.sub(s.load(x, (A(i), A(j))), s.temp("m", f64)))
    stages = [
        Reduce("m", "max", (j,), s.load(x, (A(i), A(j))), f64),
        Reduce("t", "sum", (j,), e, f64),
        Store("b0", (j,), (A(i), A(j)), s.div(e, s.temp("t", f64))),
    ]
    check(row_kernel(stages, (x,), (i,)), AVX2, "transcendental")


def test_softmax_of_few_long_rows_is_cut():
    lowered = check(softmax(2, 20_000, f64), AVX2, "transcendental", oracle=False)
    assert len(lowered.launches) > 3
    assert all(call.kernel.tasks > 1 for call in lowered.launches[::2])


@pytest.mark.parametrize("combine", ["sum", "prod", "max", "min", "any", "all"])
@pytest.mark.parametrize("along_rows", [True, False])
def test_combinations(combine, along_rows):
    s = ExprBuilder()
    i, j = axes(i=21, j=19)
    dtype = bool_ if combine in ("any", "all") else f64
    x = dense("b0", dtype, (21, 19))
    kept, gone = (i, j) if along_rows else (j, i)
    y = dense("b1", dtype, (kept.extent,), "w")
    stages = [
        Reduce("t", combine, (gone,), s.load(x, (A(i), A(j))), dtype),
        Store("b1", (), (A(kept),), s.temp("t", dtype)),
    ]
    check(row_kernel(stages, (x, y), (kept,)), AVX2)


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("extent", [2, 8, 16, 24, 37, 64])
@pytest.mark.parametrize("product", [True, False])
def test_sums_along_an_axis_that_nothing_moves_along(dtype, extent, product):
    """As the sum of a broadcast: each step counts, also where all of them are one vector."""
    s = ExprBuilder()
    i, b, j = axes(i=8, b=3, j=extent)
    x, y = dense("b0", dtype, (3, 8)), dense("b1", dtype, (8,), "w")
    value = s.load(x, (A(b), A(i)))
    stages = [
        Reduce("t", "sum", (b, j), s.mul(value, value) if product else value, dtype),
        Store("b1", (), (A(i),), s.temp("t", dtype)),
    ]
    check(row_kernel(stages, (x, y), (i,)), AVX2)


@pytest.mark.parametrize("combine", ["argmax", "argmin"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 100), (40, 3), (33, 64)])
@pytest.mark.parametrize("along_rows", [True, False])
def test_first_extreme(combine, shape, along_rows):
    s = ExprBuilder()
    i, j = axes(i=shape[0], j=shape[1])
    x = dense("b0", f32, shape)
    kept, gone = (i, j) if along_rows else (j, i)
    y = dense("b1", i32, (kept.extent,), "w")
    stages = [
        Reduce("t", combine, (gone,), s.load(x, (A(i), A(j))), i32),
        Store("b1", (), (A(kept),), s.temp("t", i32)),
    ]
    kernel = row_kernel(stages, (x, y), (kept,))
    arrays = fill(kernel)
    # Whole numbers tie; one row and column get NaN, one infinities of the losing sign.
    values = np.round(arrays["b0"]).reshape(shape)
    values[2, 1] = values[min(4, shape[0] - 1), 1] = np.nan
    values[1], values[:, 2] = (-np.inf, -np.inf) if combine == "argmax" else (np.inf, np.inf)
    arrays["b0"] = values.reshape(-1)
    check(kernel, AVX2, "exact", arrays=arrays)


def test_extreme_over_two_axes_counts_in_row_major_order():
    s = ExprBuilder()
    c, h, w = axes(c=16, h=4, w=5)
    x, y = ordered("b0", f32, (16, 4, 5), (2, 1, 0)), dense("b1", i32, (16,), "w")
    stages = [
        Reduce("t", "argmax", (h, w), s.load(x, (A(c), A(h), A(w))), i32),
        Store("b1", (), (A(c),), s.temp("t", i32)),
    ]
    check(row_kernel(stages, (x, y), (c,)), AVX2, "exact")


@pytest.mark.parametrize("order", [NHWC, CHWN, NCHW])
def test_pooling(order):
    s = ExprBuilder()
    n, c, h, w, kh, kw = axes(n=3, c=6, h=5, w=5, kh=2, kw=2)
    x = ordered("b0", f32, (3, 6, 10, 10), order)
    y, z = (ordered(f"b{i}", t, (3, 6, 5, 5), order, "w") for i, t in ((1, f32), (2, i32)))
    value = s.load(x, (A(n), A(c), A(h) * 2 + kh, A(w) * 2 + kw))
    at = tuple(A(a) for a in (n, c, h, w))
    stages = [
        Reduce("m", "max", (kh, kw), value, f32),
        Reduce("a", "argmax", (kh, kw), value, i32),
        Store("b1", (), at, s.temp("m", f32)),
        Store("b2", (), at, s.temp("a", i32)),
    ]
    check(row_kernel(stages, (x, y, z), (n, c, h, w)), AVX2, "exact")


@pytest.mark.parametrize("order", [NHWC, CHWN, NCHW])
def test_pooling_backwards(order):
    s = ExprBuilder()
    n, c, h, w = axes(n=3, c=6, h=10, w=10)
    dy, a = (ordered(f"b{i}", t, (3, 6, 5, 5), order) for i, t in ((0, f32), (1, i32)))
    dx = ordered("b2", f32, (3, 6, 10, 10), order, "w")
    at = (A(n), A(c), A(h) // 2, A(w) // 2)
    here = s.cast(s.index(A(h) % 2 * 2 + A(w) % 2), i32)
    value = s.select(s.compare("eq", s.load(a, at), here), s.load(dy, at), s.const(0, f32))
    stage = Store("b2", (), tuple(A(x) for x in (n, c, h, w)), value)
    check(row_kernel([stage], (dy, a, dx), (n, c, h, w)), AVX2, "exact")


# -- long reductions --------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "parts"), [(9_000, 2), (65_536, 16), (100_003, 23)])
@pytest.mark.parametrize("dtype", [f32, f64])
def test_full_sum(count, parts, dtype):
    s = ExprBuilder()
    (i,) = axes(i=count)
    x, y = dense("b0", dtype, (count,)), dense("b1", dtype, (), "w")
    square = s.mul(s.load(x, (A(i),)), s.load(x, (A(i),)))
    stages = [Reduce("t", "sum", (i,), square, dtype), Store("b1", (), (), s.temp("t", dtype))]
    lowered = check(row_kernel(stages, (x, y), ()), AVX2, oracle=False)
    assert {call.kernel.numerics.partials for call in lowered.launches} == {parts}


@pytest.mark.parametrize("order", [NHWC, CHWN, NCHW])
def test_bias_gradient(order):
    s = ExprBuilder()
    shape = (32, 6, 20, 20)
    n, c, h, w = axes(n=32, c=6, h=20, w=20)
    x, y = ordered("b0", f32, shape, order), dense("b1", f32, (6,), "w")
    stages = [
        Reduce("t", "sum", (n, h, w), s.load(x, tuple(A(a) for a in (n, c, h, w))), f32),
        Store("b1", (), (A(c),), s.temp("t", f32)),
    ]
    reason = 4.0  # sums of 12,800 terms of mixed sign
    lowered = check(row_kernel(stages, (x, y), (c,)), AVX2, oracle=False, factor=reason)
    assert lowered.scratch


@pytest.mark.parametrize(
    ("rows", "columns"), [(128, 512), (64, 120), (300, 10), (7, 1000), (100, 5003), (17, 30_001)]
)
def test_sum_of_rows(rows, columns):
    s = ExprBuilder()
    i, j = axes(i=rows, j=columns)
    x, y = dense("b0", f32, (rows, columns)), dense("b1", f32, (columns,), "w")
    stages = [
        Reduce("t", "sum", (i,), s.load(x, (A(i), A(j))), f32),
        Store("b1", (), (A(j),), s.temp("t", f32)),
    ]
    check(row_kernel(stages, (x, y), (j,)), AVX2, oracle=rows * columns < 10_000, factor=2.0)


@pytest.mark.parametrize("order", [NHWC, NCHW])
def test_batch_norm_statistics_and_map(order):
    s = ExprBuilder()
    shape = (16, 6, 28, 28)
    n, c, h, w = axes(n=16, c=6, h=28, w=28)
    own = (n, h, w)
    x, y = ordered("b0", f32, shape, order), ordered("b1", f32, shape, order, "w")
    m = dense("b2", f32, (6,), "w")
    at = tuple(A(a) for a in (n, c, h, w))
    inverse = s.const(1 / (16 * 28 * 28), f32)
    mean = s.mul(s.temp("t0", f32), inverse)
    centred = s.sub(s.load(x, at), mean)
    deviation = s.sqrt(s.add(s.mul(s.temp("t1", f32), inverse), s.const(1e-5, f32)))
    stages = [
        Reduce("t0", "sum", own, s.load(x, at), f32),
        Reduce("t1", "sum", own, s.mul(centred, centred), f32),
        Store("b2", (), (A(c),), mean),
        Store("b1", own, at, s.div(centred, deviation)),
    ]
    lowered = check(row_kernel(stages, (x, y, m), (c,)), AVX2, oracle=False, factor=8.0)
    assert lowered.launches[-1].kernel.tasks > 6


def test_stages_over_the_same_axes_in_different_order_of_memory():
    s = ExprBuilder()
    n, h, w = axes(n=4, h=9, w=20)
    x, y, z = (
        dense("b0", f32, (4, 9, 20)),
        dense("b1", f32, (4, 9, 20), "w"),
        dense("b2", i32, (4,), "w"),
    )
    value = s.load(x, (A(n), A(h), A(w)))
    mean = s.mul(s.temp("t0", f32), s.const(1 / 180, f32))
    stages = [
        Reduce("t0", "sum", (h, w), value, f32),
        Reduce("t1", "argmax", (h, w), value, i32),
        Store("b2", (), (A(n),), s.temp("t1", i32)),
        Store("b1", (h, w), (A(n), A(h), A(w)), s.sub(value, mean)),
    ]
    check(row_kernel(stages, (x, y, z), (n,)), AVX2, factor=2.0)


# -- nothing ----------------------------------------------------------------------------------------


def test_no_points_are_no_launches():
    s = ExprBuilder()
    i, j = axes(i=0, j=3)
    x, y = dense("b0", f32, (0, 3)), dense("b1", f32, (0, 3), "w")
    at = (A(i), A(j))
    assert (
        lower(row_kernel([Store("b1", (), at, s.load(x, at))], (x, y), (i, j)), AVX2).launches == ()
    )


@pytest.mark.parametrize(("combine", "expected"), [("sum", 0.0), ("prod", 1.0), ("max", -np.inf)])
def test_nothing_combined_is_neutral(combine, expected):
    s = ExprBuilder()
    i, j = axes(i=4, j=0)
    x, y = dense("b0", f32, (4, 0)), dense("b1", f32, (4,), "w")
    stages = [
        Reduce("t", combine, (j,), s.load(x, (A(i), A(j))), f32),
        Store("b1", (), (A(i),), s.temp("t", f32)),
    ]
    kernel = row_kernel(stages, (x, y), (i,))
    from tests.lowering import run_native

    got = run_native(lower(kernel, AVX2), AVX2, fill(kernel))
    np.testing.assert_array_equal(got["b1"], np.full(4, expected, np.float32))


# -- scatters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 5, 37, 64, 17, 3003])
def test_scatter_adds_in_order(width):
    s = ExprBuilder()
    p, c = axes(p=50, c=width)
    ids, u = dense("b0", i32, (50,)), dense("b1", f32, (50, width))
    target = dense("b2", f32, (7, width), "rw")
    place = (s.cast(s.load(ids, (A(p),)), i64), A(c))
    kernel = ScatterKernel("s", (ids, u, target), (c,), (p,), "b2", place, s.load(u, (A(p), A(c))))
    # The order of the additions is part of the meaning.
    check(kernel, AVX2, "exact", oracle=width < 100)


def test_scatter_along_the_fast_dimension():
    s = ExprBuilder()
    p, r = axes(p=30, r=9)
    ids, u = dense("b0", i64, (9, 30)), dense("b1", f32, (9, 30))
    target = dense("b2", f32, (9, 7), "rw")
    place = (A(r), s.load(ids, (A(r), A(p))))
    kernel = ScatterKernel("s", (ids, u, target), (r,), (p,), "b2", place, s.load(u, (A(r), A(p))))
    check(kernel, AVX2, "exact")


# -- random -----------------------------------------------------------------------------------------


def random_map(seed):
    """Return a map over up to four axes with permuted, broadcast, shifted and strided reads."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 5))
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 5, 8, 16, 19], rank))
    own = tuple(Axis(f"a{d}", n) for d, n in enumerate(shape))
    s = ExprBuilder()
    order = tuple(int(d) for d in rng.permutation(rank))
    buffers = [ordered("b0", f32, shape, order, "w")]
    value = s.const(0.5, f32)
    for n in range(1, int(rng.integers(2, 5))):
        kind = rng.integers(0, 4)
        perm = tuple(int(d) for d in rng.permutation(rank))
        index, extents, where = [], [], []
        for a in own:
            if kind == 0 and rng.random() < 0.5:
                index.append(Affine())
                extents.append(1)
                continue
            step, shift = (
                (int(rng.integers(1, 3)), int(rng.integers(-2, 3))) if kind == 1 else (1, 0)
            )
            at = A(a) * step + shift
            index.append(at)
            extents.append(max(1, (a.extent - 1) * step + 1))
            where.append(Guard(at, 0, extents[-1]))
        buffer = ordered(f"b{n}", f32, tuple(extents), perm)
        buffers.append(buffer)
        value = s.add(value, s.load(buffer, index, where, 2.0))
    stage = Store("b0", (), tuple(A(a) for a in own), value)
    return LoopKernel("k", tuple(buffers), own, (stage,))


@pytest.mark.parametrize("seed", range(24))
def test_random_maps(seed):
    check(random_map(seed), GENERIC if seed % 3 == 0 else AVX2, "exact")


def random_rows(seed):
    """Return a reduction over a random subset of axes, then a store over the same ones."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(2, 5))
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 6, 9, 16, 21], rank))
    own = tuple(Axis(f"a{d}", n) for d, n in enumerate(shape))
    gone = tuple(a for a in own if rng.random() < 0.5) or own[:1]
    kept = tuple(a for a in own if a not in gone)
    s = ExprBuilder()
    orders = [tuple(int(d) for d in rng.permutation(rank)) for _ in range(2)]
    x, y = ordered("b0", f64, shape, orders[0]), ordered("b1", f64, shape, orders[1], "w")
    z = dense("b2", f64, tuple(a.extent for a in kept), "w")
    at = tuple(A(a) for a in own)
    combine = str(rng.choice(["sum", "max", "prod"]))
    stages = [
        Reduce("t", combine, gone, s.load(x, at), f64),
        Store("b2", (), tuple(A(a) for a in kept), s.temp("t", f64)),
        Store("b1", gone, at, s.sub(s.load(x, at), s.temp("t", f64))),
    ]
    return LoopKernel("k", (x, y, z), kept, tuple(stages))


@pytest.mark.parametrize("seed", range(24))
def test_random_rows(seed):
    check(random_rows(seed), AVX2, factor=4.0)


def test_a_buffer_that_is_not_named_is_not_passed():
    s = ExprBuilder()
    (i,) = axes(i=8)
    x, spare, y = dense("b0", f32, (8,)), dense("b1", f32, (8,)), dense("b2", f32, (8,), "w")
    kernel = row_kernel([Store("b2", (), (A(i),), s.load(x, (A(i),)))], (x, spare, y), (i,))
    (call,) = lower(kernel, AVX2).launches
    assert call.args == ("b0", "b2")
    assert [p.access for p in call.kernel.params] == ["r", "w"]
    assert isinstance(spare, Buffer)
