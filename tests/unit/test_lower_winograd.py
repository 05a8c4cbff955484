"""Sums over windows of three taps by fewer products: recognition, results in three passes, layouts, borders, errors."""

from dataclasses import replace

import numpy as np
import pytest

from tapeout.ir.dtype import bf16, f64
from tapeout.kernel.target import AVX2, AVX512, GENERIC
from tapeout.schedule.lower import lower
from tapeout.schedule.lower.contract import winograd_plan
from tapeout.schedule.lower.contract.winograd import find_windows
from tapeout.schedule.lower.contract.winograd_plan import plan_winograd
from tests.lowering import check, evaluate, fill, run_native
from tests.unit.test_lower_contract import CHWN, NCHW, NHWC, convolution

KINDS = ["fwd", "dx", "dw"]
SIZES = {
    "even": (2, 16, 8, 6, 16, 3, 3),
    "odd": (3, 16, 7, 5, 24, 3, 3),
    "one image, uneven channels": (1, 19, 4, 9, 21, 3, 3),
    "smaller than a tile": (5, 17, 2, 2, 16, 3, 3),
    "several groups of columns": (1, 16, 5, 4, 70, 3, 3),
    "many tiles": (7, 16, 9, 10, 16, 3, 3),
    "several groups of rows": (2, 130, 4, 5, 16, 3, 3),
}


@pytest.fixture
def always(monkeypatch):
    """Take windows wherever there are some."""
    monkeypatch.setattr(winograd_plan, "_GAIN", 0.0)
    monkeypatch.setattr(winograd_plan, "_FEWEST", 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pad", [0, 1, 2])
@pytest.mark.parametrize("sizes", SIZES)
def test_windows_give_what_plain_sums_do(kind, pad, sizes, always):
    n, c, h, w, *_ = SIZES[sizes]
    if h + 2 * pad < 4 or w + 2 * pad < 4:
        pytest.skip("no two points to slide over")
    kernel = convolution(kind, SIZES[sizes], NHWC, pad, activate=True)
    assert plan_winograd(kernel, AVX2, "s") is not None
    small = n * c * h * w < 900
    check(kernel, AVX2, "contraction", oracle=small, factor=8.0)


@pytest.mark.parametrize("kind", ["fwd", "dx"])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("sizes", [*list(SIZES.values())[1:3], (1, 64, 5, 4, 64, 3, 3)], ids=str)
def test_windows_stage_by_stage(kind, pad, sizes, always, monkeypatch):
    def spread_out(windows, target, prefix):
        tiles = winograd_plan.plan_tiles(windows, target, prefix)
        return winograd_plan.spread(tiles, target, prefix)

    monkeypatch.setattr(winograd_plan, "_cheapest", spread_out)
    kernel = convolution(kind, sizes, NHWC, pad, activate=True)
    lowered = check(kernel, AVX2, "contraction", oracle=False, factor=8.0)
    assert {"scratch.elements", "scratch.products"} <= {s.name for s in lowered.scratch}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [AVX512, GENERIC], ids=lambda t: t.name)
def test_windows_for_other_machines(kind, target, always):
    kernel = convolution(kind, SIZES["odd"], NHWC, 1)
    assert plan_winograd(kernel, target, "s") is not None
    check(kernel, target, "contraction", oracle=False, factor=4.0, on=GENERIC)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_assemble_for_avx512(kind, always):
    from tapeout.codegen import cpu

    lowered = lower(convolution(kind, (2, 64, 14, 14, 64, 3, 3), NHWC, 1), AVX512)
    assert any(s.name in ("scratch.weights", "scratch.sums") for s in lowered.scratch)
    kernels = {c.kernel.name: c.kernel for c in lowered.launches}
    assert all(cpu.compile_objects(kernels, AVX512).values())


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_threads_gives_the_same_bits(kind, always):
    kernel = convolution(kind, SIZES["many tiles"], NHWC, 1)
    arrays = fill(kernel)
    lowered = lower(kernel, AVX2)
    results = [run_native(lowered, AVX2, arrays, threads=n) for n in (1, 2, 3, 7)]
    for other in results[1:]:
        for name, first in results[0].items():
            np.testing.assert_array_equal(other[name], first)


@pytest.mark.parametrize("order", [CHWN, NCHW], ids=["chwn", "nchw"])
@pytest.mark.parametrize("kind", KINDS)
def test_memory_in_another_order_is_left_to_plain_sums(kind, order, always):
    kernel = convolution(kind, SIZES["even"], order, 1)
    assert plan_winograd(kernel, AVX2, "s") is None
    check(kernel, AVX2, "contraction", oracle=False, factor=4.0)


@pytest.mark.parametrize("kind", KINDS)
def test_where_it_pays(kind):
    def chosen(sizes, **more):
        return plan_winograd(convolution(kind, sizes, NHWC, 1, **more), AVX2, "s") is not None

    assert chosen((32, 64, 32, 32, 64, 3, 3))
    assert chosen((4, 256, 14, 14, 256, 3, 3))
    assert not chosen((32, 3, 32, 32, 64, 3, 3))
    assert not chosen((1, 512, 2, 2, 512, 3, 3))
    assert not chosen((32, 64, 1, 32, 64, 3, 3))
    assert not chosen((32, 64, 32, 32, 64, 5, 5))
    assert not chosen((32, 64, 32, 32, 64, 3, 3), dtype=f64)
    assert not chosen((32, 64, 32, 32, 64, 3, 3), dtype=bf16)


def test_strides_and_a_target_without_windows_have_none():
    sizes = (32, 64, 32, 32, 64, 3, 3)
    assert find_windows(convolution("fwd", sizes, NHWC, 1, stride=2)) is None
    plain = replace(AVX2, winograd=False)
    assert plan_winograd(convolution("fwd", sizes, NHWC, 1), plain, "s") is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(2, 64, 16, 16, 64, 3, 3), (2, 512, 6, 6, 32, 3, 3)], ids=str)
def test_the_error_is_within_twice_that_of_plain_sums(kind, sizes):
    kernel = convolution(kind, sizes, NHWC, 1)
    arrays = fill(kernel)
    wide = convolution(kind, sizes, NHWC, 1, dtype=f64)
    exact = evaluate(wide, {n: a.astype(np.float64) for n, a in arrays.items()})
    name = {"fwd": "b2", "dx": "b0", "dw": "b1"}[kind]
    errors = []
    for target in (AVX2, replace(AVX2, winograd=False)):
        got = run_native(lower(kernel, target), AVX2, arrays)[name]
        off = got.astype(np.float64) - exact[name]
        errors.append((np.abs(off).max(), np.sqrt(np.mean(off**2))))
    assert all(fewer <= 2 * plain for fewer, plain in zip(*errors, strict=True)), errors


def test_infinity_reaches_no_further_than_its_tiles(always):
    kernel = convolution("fwd", (1, 16, 8, 8, 16, 3, 3), NHWC, 1)
    arrays = fill(kernel)
    x = arrays["b0"].reshape(8, 8, 16)
    x[5, 5, 3] = np.inf
    got = run_native(lower(kernel, AVX2), AVX2, arrays)["b2"].reshape(8, 8, 16)
    # Of the tiles that read (5, 5), and of no other.
    assert not np.isfinite(got[4:7, 4:7]).any()
    assert np.isfinite(got[:4]).all()
    assert np.isfinite(got[:, :4]).all()
