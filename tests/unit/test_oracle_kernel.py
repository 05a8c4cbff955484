"""The slow interpreter of kernels: every scalar operation, memory, threads, and what it refuses."""

import math
from fractions import Fraction

import numpy as np
import pytest

from tapeout.ir.dtype import ALL, DType, bf16, bool_, f16, f32, f64, i8, i32, i64, u8, u32
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.kernel import loops
from tapeout.oracle.kernel import run
from tapeout.oracle.scalars import apply as apply_scalar
from tapeout.oracle.scalars import cast
from tapeout.support.errors import VerifyError
from tests.unit.kernels import apply, c, kernel, n

INF, NAN = math.inf, math.nan
LOW = -(1 << 31)

TABLE: list[tuple[str, DType, tuple[float, ...], float]] = [
    ("add", i8, (127, 1), -128),
    ("mul", u8, (16, 17), 16),
    ("add", f16, (1.0, 2.0**-11), 1.0),
    ("add", f32, (1.0, 2.0**-24), 1.0),
    ("sub", f32, (-0.0, 0.0), -0.0),
    ("div", i32, (-7, 2), -3),
    ("div", i32, (7, 0), 0),
    ("div", i32, (LOW, -1), LOW),
    ("div", u8, (250, 3), 83),
    ("div", f32, (1.0, 0.0), INF),
    ("rem", i32, (-7, 2), -1),
    ("rem", i32, (7, 0), 0),
    ("rem", i32, (LOW, -1), 0),
    ("rem", f32, (-7.5, 2.0), -1.5),
    ("max", f32, (NAN, 1.0), NAN),
    ("min", f32, (1.0, NAN), NAN),
    ("max", bool_, (False, True), True),
    ("neg", i8, (-128,), -128),
    ("abs", f32, (-0.0,), 0.0),
    ("fma", f32, (1 + 2.0**-12, 1 + 2.0**-12, -1.0), 2.0**-11 + 2.0**-24),
    ("fma", f64, (1 + 2.0**-30, 1 + 2.0**-30, -1.0), 2.0**-29 + 2.0**-60),
    ("fma", f32, (INF, 0.0, 1.0), NAN),
    ("exp", f32, (0.0,), 1.0),
    ("exp", f32, (89.0,), INF),
    ("log", f64, (0.0,), -INF),
    ("sqrt", f32, (-1.0,), NAN),
    ("rsqrt", f64, (4.0,), 0.5),
    ("sigmoid", f64, (-1000.0,), 0.0),
    ("erf", f64, (INF,), 1.0),
    ("round", f32, (2.5,), 2.0),
    ("round", f32, (-0.5,), -0.0),
    ("trunc", f32, (-2.7,), -2.0),
    ("pow", f64, (2.0, 10.0), 1024.0),
    ("atan2", f64, (0.0, -1.0), math.pi),
    ("eq", f32, (NAN, NAN), False),
    ("ne", f32, (NAN, NAN), True),
    ("lt", u8, (1, 255), True),
    ("ge", bool_, (True, False), True),
    ("isnan", f32, (NAN,), True),
    ("isinf", bf16, (-INF,), True),
    ("and", u8, (12, 10), 8),
    ("xor", bool_, (True, True), False),
    ("not", i8, (0,), -1),
    ("not", bool_, (False,), True),
    ("shl", i32, (1, 31), LOW),
    ("shl", i32, (1, 32), 0),
    ("shr", i32, (-8, 1), -4),
    ("shr", i32, (-8, 40), -1),
    ("shr", u32, (0x80000000, 31), 1),
    ("shr", u8, (255, 8), 0),
]


@pytest.mark.parametrize(("op", "dtype", "args", "want"), TABLE)
def test_scalar_operation(op: str, dtype: DType, args: tuple[float, ...], want: float) -> None:
    result = bool_ if SCALAR_OPS[op].result == "bool" else dtype
    value = loops.Apply(result, 1, op, tuple(c(a, dtype) for a in args))
    k = loops.Kernel("k", (loops.Param("y", result, 1, "w"),), (loops.Store("y", n(0), value),))
    y = np.zeros(1, result.numpy)
    run(k, {"y": y})
    np.testing.assert_array_equal(y[0], np.array(want).astype(result.numpy))
    if result.is_float and not math.isnan(want):
        assert np.signbit(y[0]) == np.signbit(want)


@pytest.mark.parametrize("op", SCALAR_OPS)
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_every_operation_takes_its_types(op: str, dtype: DType) -> None:
    signature = SCALAR_OPS[op]
    if dtype.kind not in signature.kinds:
        return
    one = np.ones(3, dtype.numpy)
    args = [one] * signature.arity
    if op == "select":
        args[0] = np.array([True, False, True])
    with np.errstate(all="ignore"):
        y = apply_scalar(op, tuple(args), dtype)
    assert y.dtype == (np.bool_ if signature.result == "bool" else dtype.numpy)
    assert y.shape == (3,)


def test_fma_rounds_once(rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64):
        a, b = (rng.standard_normal(200).astype(dtype) for _ in range(2))
        z = -(a * b) * (1 + rng.integers(-4, 5, 200) * np.finfo(dtype).eps).astype(dtype)
        got = apply_scalar("fma", (a, b, z), f32 if dtype == np.float32 else f64)
        exact = [
            Fraction(float(x)) * Fraction(float(y)) + Fraction(float(w))
            for x, y, w in zip(a, b, z, strict=True)
        ]
        for g, e in zip(got, exact, strict=True):
            near = [np.nextafter(g, dtype(s)) for s in (-INF, INF)]
            assert all(abs(Fraction(float(g)) - e) <= abs(Fraction(float(m)) - e) for m in near)


@pytest.mark.parametrize(
    ("value", "source", "target", "want"),
    [
        (-1.9, f32, i32, -1),
        (NAN, f32, i32, 0),
        (1e20, f64, i32, (1 << 31) - 1),
        (-5.0, f32, u8, 0),
        (300, i32, u8, 44),
        (-1, i8, u32, 0xFFFFFFFF),
        (NAN, f32, bool_, True),
        (-0.0, f32, bool_, False),
        (1 + 2.0**-8 + 2.0**-40, f64, bf16, 1 + 2.0**-7),  # rounded once: through f32 it is a tie
        (65520.0, f32, f16, INF),
        (True, bool_, f64, 1.0),
        ((1 << 53) + 1, i64, f64, float(1 << 53)),
    ],
)
def test_cast(value: float, source: DType, target: DType, want: float) -> None:
    with np.errstate(all="ignore"):
        got = cast(np.array([value], source.numpy), target)
    np.testing.assert_array_equal(got, np.array([want], target.numpy))


def test_bits_lanes_and_gathers() -> None:
    k = kernel(
        "in a: f32[8], out b: f32[8], out i: i32[8], out s: f32[4]\n"
        "store b[0] = a[7:i64x1 :8 active 1 else 5.0] + splat<8>(a[1])\n"
        "store i[0] = bitcast<i32>(a[0 :8])\n"
        "store b[4 active 2] = a[(ramp<4>(3) * 2:i64x4) - 3:i64x4 active 2 else -1.0]\n"
        "store s[0] = lanes<sum>(a[0 :8])\n"
        "store s[1] = lanes<max>(a[0 :8])\n"
        "store s[2 mask lt(a[0 :2], 0.5:f32x2)] = a[2 :2]\n"
    )
    a = np.arange(8, dtype=np.float32)
    b, i, s = np.zeros(8, np.float32), np.zeros(8, np.int32), np.full(4, 9, np.float32)
    run(k, {"a": a, "b": b, "i": i, "s": s})
    np.testing.assert_array_equal(b, [8, 6, 6, 6, 3, 5, 6, 6])
    np.testing.assert_array_equal(i, a.view(np.int32))
    np.testing.assert_array_equal(s, [28, 7, 2, 9])


def test_lanes_are_added_as_a_tree() -> None:
    a = np.array([1e8, 1.0, -1e8, 1.0], np.float32)
    k = kernel("in a: f32[4], out b: f32[1]\nstore b[0] = lanes<sum>(a[0 :4])")
    b = np.zeros(1, np.float32)
    run(k, {"a": a, "b": b})
    assert b[0] == np.float32(np.float32(a[0] + a[2]) + np.float32(a[1] + a[3])) == 2.0


def test_loops_branches_and_registers() -> None:
    k = kernel("""\
in a: f32[10], out b: f32[10], out n: i64[1]
alloc acc: f32x2[2] register
alloc t: i64[1] local
store t[0] = 0
for %i in 1..9 step 3 {
  store t[0] = (t[0] * 10) + %i
  if lt(%i, 5) {
    store acc[0] = a[%i :2]
  } else {
    store acc[1] = a[%i :2]
  }
}
store n[0] = t[0]
store b[0] = acc[0] + acc[1]
""")
    b, count = np.zeros(10, np.float32), np.zeros(1, np.int64)
    run(k, {"a": np.arange(10, dtype=np.float32), "b": b, "n": count})
    assert count[0] == 147
    np.testing.assert_array_equal(b[:2], [4 + 7, 5 + 8])


def test_index_arithmetic_wraps_at_64_bits() -> None:
    k = kernel("out n: i64[1]\nstore n[0] = (4611686018427387904 * 4) + 5")
    count = np.zeros(1, np.int64)
    run(k, {"n": count})
    assert count[0] == 5


SHARED = """\
in x: f32[16], out y: f32[16]
for %b in 0..2 grid {{
  alloc sh: f32[8] shared
  for %w in 0..2 group {{
    for %l in 0..4 lane {{
      %t: i64 = (%w * 4) + %l
      %v: f32 = x[(%b * 8) + %t]
      %warp: f32 = cross<sum, lane>(%v)
      %all: f32 = cross<sum, group>(%warp)
      store sh[%t] = %v
      {barrier}
      store y[(%b * 8) + %t] = %all + sh[{index}]
    }}
  }}
}}
"""


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_threads_wait_and_combine(seed: int | None) -> None:
    k = kernel(SHARED.format(barrier="barrier group", index="7 - %t"))
    x, y = np.arange(16, dtype=np.float32), np.zeros(16, np.float32)
    run(k, {"x": x, "y": y}, seed=seed)
    rows = x.reshape(2, 8)
    np.testing.assert_array_equal(y.reshape(2, 8), rows.sum(1, keepdims=True) + rows[:, ::-1])


def test_missing_barrier_is_found_in_any_order() -> None:
    k = kernel(SHARED.format(barrier="%u: f32 = 0.0", index="7 - %t"))
    for seed in (None, 0):
        with pytest.raises(VerifyError, match="no barrier between"):
            run(k, {"x": np.zeros(16, np.float32), "y": np.zeros(16, np.float32)}, seed=seed)


def test_barrier_of_a_warp_does_not_order_warps() -> None:
    near = kernel(SHARED.format(barrier="barrier lane", index="((%w * 4) + 3) - %l"))
    far = kernel(SHARED.format(barrier="barrier lane", index="7 - %t"))
    buffers = {"x": np.zeros(16, np.float32), "y": np.zeros(16, np.float32)}
    run(near, buffers)
    with pytest.raises(VerifyError, match="no barrier between"):
        run(far, buffers)


def test_combination_orders_no_memory() -> None:
    text = SHARED.format(barrier="%u: f32 = cross<max, lane>(%v)", index="((%w * 4) + 3) - %l")
    with pytest.raises(VerifyError, match="no barrier between"):
        run(kernel(text), {"x": np.zeros(16, np.float32), "y": np.zeros(16, np.float32)})


BAD = [
    ("out a: f32[4]\nstore a[4] = 1.0", r"a\[4\] is written, but it has 4"),
    ("in a: f32[4], out b: f32[4]\nstore b[0] = a[2 :4]", r"a\[4\] is read, but it has 4"),
    ("in a: f32[4], out b: f32[4]\nstore b[0] = a[-1]", r"a\[-1\] is read"),
    ("in a: f32[4]\nstore a[0] = 1.0", "only read"),
    ("out a: f32[4]\nstore a[0] = 1.0:f64", "holds float32"),
    (
        "inout a: f32[4]\nfor %i in 0..2 grid {\nstore a[0] = 1.0\n}",
        "another iteration of the grid",
    ),
    (
        "inout a: f32[4]\nfor %i in 0..2 grid {\nstore a[%i] = a[1 - %i]\n}",
        "another iteration of the grid",
    ),
    (
        "out a: f32[4]\nfor %l in 0..4 lane {\nif lt(%l, 2) {\nbarrier lane\n}\n}",
        "reach the same barrier",
    ),
    (
        "out a: f32[4]\nalloc t: f32[4] local\nfor %l in 0..4 lane {\nstore t[%l] = 1.0\n}",
        "make it shared",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_faults_are_told_with_the_statement(text: str, message: str) -> None:
    k = kernel(text)
    buffers = {p.name: np.zeros(p.size, p.dtype.numpy) for p in k.params}
    with pytest.raises(VerifyError, match=message) as e:
        run(k, buffers)
    assert "\n> " in str(e.value)


def test_masked_lanes_touch_nothing() -> None:
    k = kernel(
        "inout a: f32[4]\n%m: boolx4 = lt(ramp<4>(2), 4:i64x4)\n"
        "store a[2 mask %m] = a[2 :4 mask %m else 7.0] + 1.0:f32x4"
    )
    a = np.arange(4, dtype=np.float32)
    run(k, {"a": a})
    np.testing.assert_array_equal(a, [0, 1, 3, 4])


def test_allocated_memory_is_poisoned() -> None:
    for scope, dtype in (("local", "f32"), ("register", "bf16"), ("local", "i32"), ("local", "u8")):
        k = kernel(f"out a: {dtype}[4]\nalloc t: {dtype}[4] {scope}\nstore a[0] = t[1]")
        a = np.zeros(4, k.params[0].dtype.numpy)
        run(k, {"a": a})
        assert a[0] != a[0] if k.params[0].dtype.is_float else a[0] != 0


def test_buffers_must_fit() -> None:
    k = kernel("out a: f32[4]\nstore a[0] = 1.0")
    for buffers in ({}, {"a": np.zeros(4)}, {"a": np.zeros(3, np.float32)}):
        with pytest.raises(VerifyError, match="'a'"):
            run(k, buffers)


def test_shared_expressions_are_computed_once() -> None:
    x: loops.Expr = loops.Load(f32, 1, "a", n(0))
    for _ in range(60):
        x = apply("mul", c(0.5), apply("add", x, x))
    k = loops.Kernel("k", (loops.Param("a", f32, 1, "rw"),), (loops.Store("a", n(0), x),))
    a = np.array([3.0], np.float32)
    run(k, {"a": a})
    assert a[0] == 3.0
