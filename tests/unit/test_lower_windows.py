"""Depthwise convolutions lowered to windows: three passes, strides, dilations, borders, layouts, types, machines."""

import numpy as np
import pytest

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.ir.dtype import bf16, f16, f32, f64, i32
from tapeout.kernel.compute import ContractionKernel, ExprBuilder, Store
from tapeout.kernel.target import AVX2, AVX512, GENERIC
from tapeout.kernel.text import print_kernel
from tapeout.schedule import contract
from tapeout.schedule.lower import lower
from tapeout.schedule.lower.windows.plan import plan_windows
from tests.lowering import check, dense, ordered

A = Affine.of


def depthwise(
    kind, channels, sizes, taps, *, batch=2, pad=1, stride=1, dilation=1, last="c", dtype=f32,
    accumulate=None,
):  # fmt: skip
    """Return one pass of a depthwise convolution: `y`, `x` or `w`, with an epilogue."""
    d = len(sizes)
    s, acc = ExprBuilder(), accumulate or dtype
    results = [
        (n + 2 * pad - dilation * (k - 1) - 1) // stride + 1
        for n, k in zip(sizes, taps, strict=True)
    ]
    c, n = Axis("c", channels), Axis("n", batch)
    o = [Axis(f"o{i}", e) for i, e in enumerate(results)]
    h = [Axis(f"h{i}", e) for i, e in enumerate(sizes)]
    k = [Axis(f"k{i}", e) for i, e in enumerate(taps)]
    order = (0, *range(2, d + 2), 1) if last == "c" else (1, *range(2, d + 2), 0)
    order = tuple(range(d + 2)) if last == "w" else order
    x = ordered("b0", dtype, (batch, channels, *sizes), order)
    w = dense("b1", dtype, (channels, 1, *taps))
    y = ordered("b2", dtype, (batch, channels, *results), order)
    e = dense("b3", dtype, (channels,))
    at = [A(i) * stride + A(j) * dilation - pad for i, j in zip(o, k, strict=True)]
    where = [Guard(i, 0, m) for i, m in zip(at, sizes, strict=True)]
    weight = s.load(w, (A(c), Affine(), *map(A, k)))
    value = s.temp("acc", acc)
    if kind == "x":
        back = [A(i) + pad - A(j) * dilation for i, j in zip(h, k, strict=True)]
        where = [Guard(i % stride, 0, 1) for i in back] if stride > 1 else []
        at = [i // stride for i in back]
        where += [Guard(i, 0, m) for i, m in zip(at, results, strict=True)]
        left, right, out = s.load(y, (A(n), A(c), *at), where), weight, x
        m, summed, place = (n, *h), tuple(k), (A(n), A(c), *map(A, h))
    elif kind == "y":
        left, right, out = s.load(x, (A(n), A(c), *at), where), weight, y
        m, summed, place = (n, *o), tuple(k), (A(n), A(c), *map(A, o))
    else:
        left, right = s.load(x, (A(n), A(c), *at), where), s.load(y, (A(n), A(c), *map(A, o)))
        out, m, summed, place = w, tuple(k), (n, *o), (A(c), Affine(), *map(A, k))
    value = s.cast(s.add(value, s.cast(s.load(e, (A(c),)), acc)), dtype)
    buffers = tuple(ordered_access(b, "w" if b is out else "r") for b in (x, w, y, e))
    stage = Store(out.name, (), place, value)
    return ContractionKernel("c", buffers, (c,), m, (), summed, left, right, acc, (stage,))


def ordered_access(buffer, access):
    from dataclasses import replace

    return replace(buffer, access=access)


def judge(kernel, target=AVX2, *, taken=True, kind="contraction", oracle=True, **options):
    """Check every part of a pass; `taken` says whether windows must do it."""
    for found in contract.by_parity(kernel):
        part = contract._forward(found) if isinstance(found, ContractionKernel) else found
        if taken and isinstance(part, ContractionKernel):
            assert plan_windows(part, target) is not None
        small = np.prod([a.extent for a in (*kernel.batch, *kernel.m, *kernel.k)]) < 60_000
        check(part, target, kind, oracle=oracle and small, **options)


CASES = [
    (16, (9, 11), (3, 3), {}),
    (24, (6, 6), (3, 3), {"stride": 2}),
    (20, (3, 3), (3, 3), {"batch": 3}),
    (12, (7, 7), (5, 5), {"pad": 2}),
    (8, (9, 12), (7, 7), {"pad": 3, "batch": 1}),
    (33, (13, 8), (3, 2), {"stride": 2, "pad": 0}),
    (9, (19, 19), (3, 3), {"dilation": 2, "pad": 2}),
    (16, (40,), (9,), {"pad": 4}),
    (10, (4, 5, 6), (3, 3, 3), {}),
    (136, (5, 17), (3, 3), {"stride": 3}),
]


@pytest.mark.parametrize("kind", ["y", "x", "w"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_depthwise(kind, case):
    channels, sizes, taps, options = case
    judge(depthwise(kind, channels, sizes, taps, **options), factor=4.0)


@pytest.mark.parametrize("kind", ["y", "x", "w"])
@pytest.mark.parametrize("target", [GENERIC, AVX2, AVX512], ids=lambda t: t.name)
def test_depthwise_for_other_machines(kind, target):
    kernel = depthwise(kind, 40, (7, 9), (3, 3), dtype=f64)
    judge(kernel, target, native=target is not AVX512)


@pytest.mark.parametrize("kind", ["y", "x", "w"])
@pytest.mark.parametrize("dtype", [bf16, f16])
def test_narrow_types_are_summed_in_f32(kind, dtype):
    judge(depthwise(kind, 24, (5, 9), (3, 3), dtype=dtype, accumulate=f32), factor=2.0)


@pytest.mark.parametrize("kind", ["y", "x", "w"])
def test_integers(kind):
    judge(depthwise(kind, 16, (5, 9), (3, 3), dtype=i32), kind="exact")


@pytest.mark.parametrize("kind", ["y", "x"])
@pytest.mark.parametrize("stride", [1, 2])
def test_lanes_along_the_batch(kind, stride):
    judge(depthwise(kind, 3, (9, 12), (3, 3), batch=16, last="n", stride=stride), factor=4.0)


def test_what_windows_do_not_do():
    assert plan_windows(depthwise("w", 3, (9, 12), (3, 3), batch=16, last="n"), AVX2) is None
    assert plan_windows(depthwise("y", 16, (9, 12), (3, 3), last="w"), AVX2) is None
    assert plan_windows(depthwise("y", 16, (90,), (40,), pad=0), AVX2) is None


def test_a_task_takes_lanes_whose_sums_stay_near():
    windows = plan_windows(depthwise("w", 960, (6, 6), (3, 3), batch=16), AVX2)
    assert windows is not None
    assert windows.tiles.chunks > 1 and windows.parts > 1


def test_loads_are_shared_between_neighbours():
    lowered = lower(depthwise("y", 16, (1, 64), (1, 3), pad=0), AVX2)
    body = print_kernel(lowered.launches[-1].kernel)
    loads, sums = body.count("= b0["), body.count("fma")
    assert loads < 0.6 * sums
