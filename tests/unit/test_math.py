"""How far the functions of floats are from the truth, swept over the whole format, and their special cases."""

import math

import numpy as np
import pytest

from tapeout.codegen import cpu, machine
from tapeout.codegen.assemble import assembly
from tapeout.ir.dtype import BY_NAME, bf16, f16, f32, f64
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.kernel import loops
from tapeout.kernel.functions import FUNCTIONS
from tapeout.kernel.math import MAX_ULP, WITHOUT_FMA, legalize
from tapeout.kernel.target import BY_NAME as TARGETS
from tapeout.kernel.target import GENERIC
from tests.native import const, kernel, load, loop, mul, op, param, run_native, store, var

# Beside f32 stands f64, beside f64 the 64-bit mantissa of x87; elsewhere f64 cannot be judged.
LONG = np.longdouble
HAS_LONG = np.finfo(LONG).nmant > 60
UNARY = [n for n in FUNCTIONS if SCALAR_OPS[n].arity == 1]
COUNT = 1 << 16
# A large odd step through all bit patterns of f32 meets every binade, sign and special number.
STEP = 65521


def _erf(x):
    """`2/sqrt(pi) * exp(-x*x) * sum of (2 x x)**n * x / (1 3 5 …)`, whose terms are all positive."""
    a = np.minimum(np.abs(x), x.dtype.type(7))
    term, total = a.copy(), a.copy()
    for n in range(1, 220):
        term = term * (2 * a * a) / (2 * n + 1)
        total = total + term
    pi = x.dtype.type("3.14159265358979323846264338327950288")
    value = np.minimum(np.exp(-a * a) * total * (2 / np.sqrt(pi)), 1)
    return np.where(np.isnan(x), x, np.copysign(value, x))


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


TRUTH = {
    **{n: getattr(np, n) for n in ("exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "tan")},
    **{n: getattr(np, n) for n in ("sinh", "cosh")},
    **{f"a{n}": getattr(np, f"arc{n}") for n in ("sin", "cos", "tan", "tan2", "sinh", "cosh", "tanh")},
    "sigmoid": _sigmoid,
    "erf": _erf,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "pow": np.power,
}  # fmt: skip


def applied(name, dtype, lanes, count):
    at = mul(var("i"), lanes)
    names = "xy"[: SCALAR_OPS[name].arity]
    value = op(name, *(load(n, at, dtype, lanes) for n in names))
    params = [*(param(n, dtype, count) for n in names), param("o", dtype, count, "w")]
    return kernel(params, loop("i", 0, count // lanes, [store("o", at, value)], kind="grid"))


def native(name, dtype, *xs, lanes=16, target=None):
    k = applied(name, dtype, lanes, xs[0].size)
    arrays = dict(zip("xy", xs, strict=False)) | {"o": np.zeros_like(xs[0])}
    return run_native(k, arrays, target=target)["o"]


def ulps(got, truth):
    """Errors in units of the last place of the true value; where rounding gives the same number, at most 1/2."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = truth.astype(got.dtype)
        finite = np.where(np.isfinite(truth), np.abs(truth), 1)
        unit = np.ldexp(
            truth.dtype.type(1), np.frexp(np.maximum(finite, info.tiny))[1] - info.nmant - 1
        )
        error = np.abs(got.astype(truth.dtype) - truth) / unit
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(same, 0, np.nan_to_num(error.astype(np.float64), nan=np.inf))


def check(name, got, truth, xs, bound):
    errors = ulps(got, truth)
    at = int(errors.argmax())
    shown = ", ".join(float(x[at]).hex() for x in xs)
    assert errors[at] <= bound, (
        f"{name}({shown}) = {got[at]!r}, {truth[at]!r} expected: {errors[at]:.3f} ulp"
    )


def near_places(rng, dtype):
    """Arguments where something happens: all sizes, near the ends of ranges, and the special numbers."""
    n = 1 << 12
    yield rng.integers(0, 1 << 63, n, dtype=np.uint64, endpoint=True).view(np.float64)
    for size in (1e-3, 0.1, 0.5, 1, 2, 5, 10, 30, 100, 800):
        yield rng.uniform(-size, size, n)
    for centre in (-20, -5, 0, 5, 20):
        yield np.exp(rng.normal(centre, 5, n)) * rng.choice([-1, 1], n)
    for place in (
        1,
        -1,
        0.5,
        math.pi / 2,
        math.pi,
        2,
        0.41421356,
        2.41421356,
        709.78,
        -708,
        -745,
        2.0**20,
        88.7,
        -87.3,
        0.625,
    ):
        yield place * (1 + rng.normal(0, 1e-3, n))
        yield place * (1 + rng.normal(0, 1e-12, n))
    info = np.finfo(dtype.numpy)
    special = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1,
        -1,
        info.max,
        -info.max,
        info.tiny,
        -info.tiny,
    ]
    special += [info.smallest_subnormal, -info.smallest_subnormal]
    yield np.resize(np.array(special, np.float64), 16)


@pytest.mark.parametrize("target", ["native", "generic"])
@pytest.mark.parametrize("name", UNARY)
def test_f32_over_all_bit_patterns(name, target):
    chosen = machine.native() if target == "native" else GENERIC
    x = (np.arange(COUNT, dtype=np.uint64) * STEP % (1 << 32)).astype(np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        truth = TRUTH[name](x.astype(np.float64))
    bound = MAX_ULP[name][0] + (0 if chosen.fma else WITHOUT_FMA)
    check(name, native(name, f32, x, target=chosen), truth, [x], bound)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("target", ["native", "generic"])
def test_functions_where_something_happens(name, dtype, target, rng):
    if dtype == "f64" and not HAS_LONG:
        pytest.skip("no wider format to compare f64 with")
    d = BY_NAME[dtype]
    chosen = machine.native() if target == "native" else GENERIC
    with np.errstate(all="ignore"):
        x = np.concatenate(list(near_places(rng, d))).astype(d.numpy)
        truth = TRUTH[name](x.astype(LONG if d == f64 else np.float64))
    bound = MAX_ULP[name][d == f64] + (0 if chosen.fma else WITHOUT_FMA)
    check(name, native(name, d, x, target=chosen), truth, [x], bound)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("target", ["native", "generic"])
def test_power(dtype, target, rng):
    if dtype == "f64" and not HAS_LONG:
        pytest.skip("no wider format to compare f64 with")
    d, n = BY_NAME[dtype], 1 << 12
    chosen = machine.native() if target == "native" else GENERIC
    wide = LONG if d == f64 else np.float64
    pairs = [
        (np.exp(rng.normal(0, 3, n)), rng.normal(0, 30, n)),
        (1 + rng.normal(0, 1e-5, n), rng.normal(0, 1e7, n)),
        (np.exp(rng.uniform(-700, 700, n)), rng.uniform(-1.1, 1.1, n)),
        (rng.uniform(0, 3, n), rng.uniform(-600, 600, n)),
        (-rng.uniform(0, 3, n), np.rint(rng.uniform(-600, 600, n))),
        (np.exp(rng.uniform(-745, -700, n)), rng.uniform(-1.1, 1.1, n)),
        *((rng.uniform(0, 30, n), np.full(n, y)) for y in (1.0, 2.0, 3.0, 0.5, -1.0)),
    ]
    bound = MAX_ULP["pow"][d == f64] + (0 if chosen.fma else WITHOUT_FMA)
    with np.errstate(all="ignore"):
        x, y = (np.concatenate([p[i] for p in pairs]).astype(d.numpy) for i in range(2))
        truth = np.power(x.astype(wide), y.astype(wide))
    check("pow", native("pow", d, x, y, target=chosen), truth, [x, y], bound)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", ["pow", "atan2"])
@pytest.mark.parametrize("target", ["native", "generic"])
def test_special_pairs(name, dtype, target):
    """Every pair of zeros, ones, integers odd and even, infinities and NaN gives C's answer, with its sign."""
    d = BY_NAME[dtype]
    numbers = [0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, np.inf, -np.inf, np.nan, 1e30, -1e30]
    numbers += [2.0**24, 2.0**24 - 1] if d == f32 else [2.0**53, 2.0**53 - 1]
    x, y = (a.ravel().astype(d.numpy) for a in np.meshgrid(numbers, numbers))
    padding = -x.size % 16
    x, y = np.append(x, np.ones(padding, d.numpy)), np.append(y, np.ones(padding, d.numpy))
    got = native(name, d, x, y, target=machine.native() if target == "native" else GENERIC)
    with np.errstate(all="ignore"):
        want = TRUTH[name](x, y)
    same = (np.isnan(got) & np.isnan(want)) | (
        np.isclose(got, want, rtol=8 * np.finfo(d.numpy).eps, atol=0)
        & (np.signbit(got) == np.signbit(want))
    )
    assert same.all(), [(x[i], y[i], got[i], want[i]) for i in np.flatnonzero(~same)[:8]]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_angle_of_a_point(dtype, rng):
    if dtype == "f64" and not HAS_LONG:
        pytest.skip("no wider format to compare f64 with")
    d, n = BY_NAME[dtype], 1 << 14
    wide = LONG if d == f64 else np.float64
    y, x = (
        np.concatenate(
            [np.exp(rng.normal(0, s, n)) * rng.choice([-1, 1], n) for s in (0.1, 1, 10)]
        ).astype(d.numpy)
        for _ in range(2)
    )
    truth = np.arctan2(y.astype(wide), x.astype(wide))
    check("atan2", native("atan2", d, y, x), truth, [y, x], MAX_ULP["atan2"][d == f64])


@pytest.mark.parametrize("name", ["exp", "sin", "pow", "tanh"])
def test_scalars_and_vectors_give_the_same_bits(name, rng):
    xs = [np.exp(rng.normal(0, 2, 64)).astype(np.float32) for _ in range(SCALAR_OPS[name].arity)]
    first = native(name, f32, *xs, lanes=1)
    for lanes in (2, 8, 64):
        np.testing.assert_array_equal(native(name, f32, *xs, lanes=lanes), first)


@pytest.mark.parametrize("dtype", [f16, bf16])
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "erf", "sigmoid"])
def test_narrow_floats_are_rounded_once(name, dtype):
    x = (np.arange(1 << 12, dtype=np.uint16) * 13).view(dtype.numpy)
    with np.errstate(all="ignore"):
        truth = TRUTH[name](x.astype(np.float64))
        got = native(name, dtype, x).astype(np.float64)
        want = truth.astype(np.float32).astype(dtype.numpy).astype(np.float64)
        near = np.abs(got - want) <= np.abs(want) * (2.0**-7 if dtype == bf16 else 2.0**-10)
    exact = (got == want) | (np.isnan(got) & np.isnan(want))
    assert (exact | near).all()
    assert exact.mean() > 0.999  # only ties decided by the last bits of f32 may differ


def test_legalize_keeps_what_needs_nothing():
    k = kernel([param("x", f32, 8)], store("x", 0, op("sqrt", load("x", 0))))
    assert legalize(k, GENERIC) is k


def test_legalize_reaches_every_place():
    """Conditions, bounds, masks, indices and nested blocks."""
    e = op("exp", load("x", 0))
    whole = loops.Cast(BY_NAME["i64"], 1, e)
    small = op("lt", e, const(2, f32))
    k = kernel(
        [param("x", f32, 8), param("o", f32, 64, "rw")],
        loops.If(
            small,
            (loop("i", whole, op("add", whole, const(3)), [store("o", var("i"), e, mask=small)]),),
            (store("o", op("add", whole, const(1)), load("x", whole, mask=op("not", small))),),
        ),
    )
    legal = legalize(k, GENERIC)
    assert legal is not k
    text = cpu.emit_kernel(legal, GENERIC)
    assert "llvm.exp" not in text
    for start in (0.0, 0.9):
        x = np.full(8, start, np.float32)
        got = run_native(k, {"x": x, "o": np.zeros(64, np.float32)})["o"]
        first = math.exp(start)
        want = np.zeros(64, np.float32)
        if first < 2:
            want[1:4] = first
        else:
            want[int(first) + 1] = x[0]
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("target", ["avx2", "avx512"])
@pytest.mark.parametrize("dtype", [f32, f64])
def test_no_function_of_a_library_is_called(target, dtype):
    """Not even for one lane: libm would be several times slower, and its bits are not ours."""
    chosen = TARGETS[target]
    text = "".join(
        cpu.emit_kernel(legalize(renamed(applied(n, dtype, 8, 64), f"k_{n}"), chosen), chosen)
        for n in FUNCTIONS
    )
    calls = [
        line
        for line in assembly(text, chosen).splitlines()
        if "\tcall" in line and ".body" not in line
    ]
    assert not calls


def renamed(k, name):
    return loops.Kernel(name, k.params, k.body, k.numerics)
