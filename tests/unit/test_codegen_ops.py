"""Every operation and conversion, native against the oracle: random operands and all pairs of special ones."""

import itertools

import numpy as np
import pytest

from tapeout.codegen import machine
from tapeout.ir.dtype import ALL, BY_NAME, bool_
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.kernel import loops
from tapeout.kernel.functions import FUNCTIONS
from tapeout.kernel.target import GENERIC
from tests.native import (
    kernel,
    load,
    loop,
    mul,
    op,
    param,
    run_native,
    run_oracle,
    same_bits,
    store,
    var,
)

COUNT = 256
# Scalars share the emitter of vectors: fewer of them, for the oracle takes one at a time.
FEW = 64
HOW = [(1, "native"), (16, "native"), (16, "generic")]


def operands(dtype, rng):
    """Three arrays: every pair of special numbers, then random ones of all sizes."""
    if dtype == bool_:
        return [rng.integers(0, 2, COUNT).astype(bool) for _ in range(3)]
    if dtype.is_float:
        info = np.finfo(dtype.numpy) if dtype.name != "bf16" else None
        most = float(info.max) if info else 3.3895e38
        least = float(info.tiny) if info else 1.1754944e-38
        special = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, most, -most]
        special += [least, least / 4, 1e3]
        draw = rng.normal(0, 1, (3, COUNT)) * 2.0 ** rng.integers(-6, 7, (3, COUNT))
    else:
        info = np.iinfo(dtype.numpy)
        special = [0, 1, 2, 3, 7, info.max, info.max - 1, info.min, dtype.bits, dtype.bits - 1]
        special += [-1, -2, -7] if dtype.kind == "i" else []
        draw = rng.integers(info.min, info.max, (3, COUNT), dtype.numpy, endpoint=True)
    with np.errstate(all="ignore"):
        out = [np.array(d).astype(dtype.numpy) for d in draw]
        pairs = np.array(list(itertools.product(special, special)), object)
        chosen = rng.permutation(len(pairs))[: COUNT * 3 // 4]
        for column in range(2):
            out[column][: len(chosen)] = [dtype.numpy.type(v) for v in pairs[chosen, column]]
    order = rng.permutation(COUNT)
    return [o[order] for o in out]


def ops_of(dtype):
    return [
        n
        for n, s in SCALAR_OPS.items()
        if dtype.kind in s.kinds and n not in FUNCTIONS and n != "select"
    ]


def all_ops(dtype, lanes, names):
    """A kernel with one output per operation, and `select`."""
    count = COUNT if lanes > 1 else FEW
    at = mul(var("i"), lanes)
    x, y, z = (load(n, at, dtype, lanes) for n in "xyz")
    values = {n: op(n, *(x, y, z)[: SCALAR_OPS[n].arity]) for n in names}
    values["select"] = op("select", op("lt", x, y), z, y)
    outs = [param(f"o_{n}", v.dtype, count, "w") for n, v in values.items()]
    body = [store(f"o_{n}", at, v) for n, v in values.items()]
    params = [param(n, dtype, count) for n in "xyz"]
    return kernel([*params, *outs], loop("i", 0, count // lanes, body, kind="grid"))


def arrays_for(k, given):
    return {
        p.name: given[p.name] if p.name in given else np.zeros(p.size, p.dtype.numpy)
        for p in k.params
    }


@pytest.mark.parametrize(("lanes", "target"), HOW)
@pytest.mark.parametrize("name", [d.name for d in ALL])
def test_operations(name, lanes, target, rng):
    dtype = BY_NAME[name]
    chosen = machine.native() if target == "native" else GENERIC
    # `fma` has a test of its own: one rounding in the oracle, two on machines without it.
    names = [n for n in ops_of(dtype) if n != "fma"]
    k = all_ops(dtype, lanes, names)
    arrays = arrays_for(k, dict(zip("xyz", operands(dtype, rng), strict=True)))
    got, want = run_native(k, arrays, target=chosen), run_oracle(k, arrays)
    for p in k.params:
        if p.name in ("o_max", "o_min") and dtype.is_float:
            # Which zero is the greater is left open.
            got[p.name], want[p.name] = (
                got[p.name] + dtype.numpy.type(0),
                want[p.name] + dtype.numpy.type(0),
            )
        try:
            same_bits(got[p.name], want[p.name])
        except AssertionError as e:
            raise AssertionError(f"{p.name}: {e}") from None


@pytest.mark.parametrize("name", ["f32", "f64", "bf16"])
def test_fused_multiply_add(name, rng):
    dtype = BY_NAME[name]
    x, y = (rng.normal(0, 1, COUNT).astype(dtype.numpy) for _ in range(2))
    # Addends that cancel the product, so that a second rounding would show.
    z = (-(x * y).astype(np.float64) * (1 + rng.normal(0, 1e-7, COUNT))).astype(dtype.numpy)
    k = all_ops(dtype, 16, ["fma"])
    arrays = arrays_for(k, {"x": x, "y": y, "z": z})
    got = run_native(k, arrays)["o_fma"]
    want = run_oracle(k, arrays)["o_fma"] if machine.native().fma else x * y + z
    same_bits(got, want)
    if name != "bf16":
        same_bits(run_native(k, arrays, target=GENERIC)["o_fma"], x * y + z)


@pytest.mark.parametrize(("lanes", "target"), HOW)
@pytest.mark.parametrize("name", [d.name for d in ALL])
def test_conversions(name, lanes, target, rng):
    source = BY_NAME[name]
    at = mul(var("i"), lanes)
    x = load("x", at, source, lanes)
    values = {f"c_{d}": loops.Cast(d, lanes, x) for d in ALL if d != source}
    values |= {
        f"b_{d}": loops.Bitcast(d, lanes, x)
        for d in ALL
        if d.bits == source.bits and d != source and bool_ not in (d, source)
    }
    count = COUNT if lanes > 1 else FEW
    outs = [param(n, v.dtype, count, "w") for n, v in values.items()]
    body = [store(n, at, v) for n, v in values.items()]
    k = kernel([param("x", source, count), *outs], loop("i", 0, count // lanes, body, kind="grid"))
    arrays = arrays_for(k, {"x": operands(source, rng)[0]})
    chosen = machine.native() if target == "native" else GENERIC
    got, want = run_native(k, arrays, target=chosen), run_oracle(k, arrays)
    for n in values:
        try:
            same_bits(got[n], want[n])
        except AssertionError as e:
            raise AssertionError(f"{n}: {e}") from None


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_every_narrow_float_survives_widening(name):
    dtype = BY_NAME[name]
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    x = load("x", mul(var("i"), 8), dtype, 8)
    wide = loops.Cast(BY_NAME["f32"], 8, x)
    for target in (machine.native(), GENERIC):
        k = kernel(
            [param("x", dtype, every.size), param("o", BY_NAME["f32"], every.size, "w")],
            loop("i", 0, every.size // 8, [store("o", mul(var("i"), 8), wide)], kind="grid"),
        )
        got = run_native(k, {"x": every, "o": np.zeros(every.size, np.float32)}, target=target)
        same_bits(got["o"], every.astype(np.float32))


@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize("source", ["f32", "f64"])
def test_narrowing_rounds_once(name, source, rng):
    """Ties and their neighbours: halfway between two narrow numbers, and a little to each side."""
    dtype, wide = BY_NAME[name], BY_NAME[source]
    low = rng.integers(0, 0x7B00 if name == "f16" else 0x7F00, COUNT).astype(np.uint16)
    a, b = (v.view(dtype.numpy).astype(np.float64) for v in (low, low + np.uint16(1)))
    middle = ((a + b) / 2).astype(wide.numpy)
    x = np.concatenate(
        [
            middle,
            np.nextafter(middle, wide.numpy.type(0)),
            np.nextafter(middle, wide.numpy.type(np.inf)),
        ]
    )
    want = np.concatenate([np.where(low & 1, b, a), a, b]).astype(dtype.numpy)
    value = loops.Cast(dtype, 8, load("x", mul(var("i"), 8), wide, 8))
    for target in (machine.native(), GENERIC):
        k = kernel(
            [param("x", wide, x.size), param("o", dtype, x.size, "w")],
            loop("i", 0, x.size // 8, [store("o", mul(var("i"), 8), value)], kind="grid"),
        )
        got = run_native(k, {"x": x, "o": np.zeros(x.size, dtype.numpy)}, target=target)
        same_bits(got["o"], want)
