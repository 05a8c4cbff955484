"""What the verifier of kernels refuses, and what it says."""

import pytest

from tapeout.ir.dtype import f32, i32
from tapeout.kernel import loops
from tapeout.kernel.verify import verify_kernel
from tapeout.support.errors import VerifyError
from tests.unit.kernels import apply, c, kernel, n

GOOD = [
    "in a: f32[64], out b: f32[64]\nfor %i in 0..8 grid {\nstore b[%i * 8] = a[%i * 8 :8]\n}",
    "inout a: f32[8]\nalloc r: f32x8[2] register\nfor %i in 0..2 unroll {\nstore r[%i] = a[0 :8]\n}",
    "out a: f32[9]\nfor %i in 0..9 step 4 {\nstore a[%i active 1] = 0.0:f32x4\n}",
    "out a: f32[1]\nfor %i in 5..5 {\nstore a[%i] = 0.0\n}",
    "out a: f32[4]\nfor %l in 0..4 lane {\nstore a[%l] = cross<sum, lane>(cast<f32>(%l))\n}",
    "in a: f32[8], out b: f32[1]\nstore b[0] = lanes<sum>(a[0 :8])",
]

BAD = [
    ("in a: f32[4]\nstore a[0] = 1.0", "only read"),
    ("out a: f32[4]\n%x: f32 = a[0]", "only written"),
    ("out a: f32[4]\nstore b[0] = 1.0", "no buffer is called 'b'"),
    ("out a: f32[4]\nstore a[0] = %x:f32", "%x is not defined"),
    ("out a: f32[4]\nif true {\n%x: f32 = 1.0\n}\nstore a[0] = %x:f32", "%x is not defined"),
    ("out a: f32[4]\n%x: f32 = 1.0\n%x: f32 = 2.0", "%x is defined twice"),
    ("out a: f32[4]\nalloc a: f32[4] local", "two buffers"),
    ("out a: f32[4]\nfor %i in 0..2 {\nfor %i in 0..2 {\n}\n}", "hides"),
    ("out a: f32[4]\nstore a[0] = 1.0:f64", "holds f32, f64 is stored"),
    ("out a: f32[4]\nstore a[1.0] = 1.0", "index of a store is f32"),
    ("out a: f32[4]\n%x: f32 = 1.0 + 1", "operands f32, i64"),
    ("out a: f32[4]\n%x: f32 = frob(1.0)", "'frob'"),
    ("out a: f32[4]\n%x: f32 = exp(1.0, 2.0)", "takes 1 operands, got 2"),
    ("out a: f32[4]\n%x: i64 = exp(1)", "exp does not take i64"),
    ("out a: f32[4]\n%x: f32 = select(1.0, 1.0, 1.0)", "condition of a select"),
    ("out a: f32[4]\n%x: f32 = 1.0:f64", "%x is f32, its value is f64"),
    ("out a: f32[4]\n%x: u8 = 256:u8", "256 is no u8"),
    ("out a: f32[4]\n%x: f32 = lanes<sum>(0.0:f32x6)", "no power of two"),
    ("out a: f32[4]\n%x: bool = lanes<sum>(true:boolx4)", "does not combine bool"),
    ("out a: f32[4]\nif 1 {\n}", "a condition is i64"),
    ("out a: f32[4]\nstore a[4] = 1.0", "a has 4 elements, but 4 is accessed"),
    ("out a: f32[4]\nstore a[-1] = 1.0", "but -1 is accessed"),
    ("out a: f32[16]\nfor %i in 0..8 grid {\nstore a[%i * 2] = 0.0:f32x4\n}", "0..14 and 3 more"),
    ("out a: f32[4]\nfor %i in 0..4 {\n%j: i64 = %i + 1\nstore a[%j] = 0.0\n}", "1..4 is accessed"),
    ("out a: f32[4]\nstore a[0 active 5] = 0.0:f32x4", "5 of 4 lanes"),
    ("out a: f32[4]\nstore a[0 mask true] = 0.0:f32x4", "a mask is bool"),
    ("out a: f32[4]\nfor %i in 0..2 {\nfor %j in 0..2 grid {\n}\n}", "grid loop is the only"),
    ("out a: f32[4]\n%x: f32 = 1.0\nfor %j in 0..2 grid {\n}", "grid loop is the only"),
    ("out a: f32[4]\nfor %l in 0..2 lane {\nfor %g in 0..2 group {\n}\n}", "may not hold a group"),
    ("out a: f32[4]\nfor %i in 0..2 step 0 {\n}", "the step is 0"),
    ("out a: f32[4]\nfor %i in 0..2 {\nfor %j in 0..%i unroll {\n}\n}", "unrolled loop"),
    ("out a: f32[4]\nalloc r: f32x4[2] register\nstore r[2] = 0.0:f32x4", "r has 2 elements"),
    ("out a: f32[4]\nalloc r: f32x4[2] register\nstore r[0] = 0.0", "vectors of 4 lanes"),
    (
        "out a: f32[4]\nalloc r: f32x4[2] register\nfor %i in 0..2 {\nstore r[%i] = 0.0:f32x4\n}",
        "no constant",
    ),
    ("out a: f32[4]\nfor %l in 0..4 lane {\nalloc s: f32[4] shared\n}", "allocated outside"),
    (
        "out a: f32[4]\nalloc t: f32[4] local\nfor %l in 0..4 lane {\nstore t[%l] = 0.0\n}",
        "make it shared",
    ),
    ("out a: f32[4]\n%x: f32 = cross<sum, lane>(1.0)", "none encloses it"),
    (
        "out a: f32[4]\nfor %l in 0..4 lane {\nif lt(%l, 2) {\nbarrier lane\n}\n}",
        "not all iterations of the lane loops",
    ),
    (
        "out a: f32[4]\nfor %g in 0..4 group {\nfor %i in 0..%g {\nbarrier group\n}\n}",
        "not all iterations of the group loops",
    ),
    (
        "in a: f32[4]\nfor %l in 0..4 lane {\n%x: f32 = a[%l]\nif lt(%x, 0.0) {\n"
        "%s: f32 = cross<max, lane>(%x)\n}\n}",
        "where a value is combined",
    ),
]


@pytest.mark.parametrize("text", GOOD)
def test_good_kernels_pass(text: str) -> None:
    verify_kernel(kernel(text), round_trip=True)


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_kernels_are_told(text: str, message: str) -> None:
    with pytest.raises(VerifyError) as e:
        verify_kernel(kernel(text))
    assert message in str(e.value)
    assert "\n> " in str(e.value), "the statement is shown"


def test_uniform_condition_may_hold_a_barrier() -> None:
    verify_kernel(
        kernel("in n: i64[1]\nfor %l in 0..4 lane {\nif lt(n[0], 3) {\nbarrier lane\n}\n}")
    )


def test_combined_value_is_uniform() -> None:
    text = "in a: f32[4]\nfor %l in 0..4 lane {\n%m: f32 = cross<max, lane>(a[%l])\nif lt(%m, 0.0) {\nbarrier lane\n}\n}"
    verify_kernel(kernel(text))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ((loops.Param("a", f32, 1), loops.Param("a", f32, 1)), "two params"),
        ((loops.Param("a", f32, 1, "x"),), "access 'x'"),
        ((loops.Param("a", f32, 1, align=3),), "alignment 3"),
        ((loops.Param("a", f32, -1),), "size -1"),
    ],
)
def test_bad_params_are_told(params: tuple[loops.Param, ...], message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        verify_kernel(loops.Kernel("k", params, ()))


def test_conditional_accesses_are_not_guessed_at() -> None:
    inside = loops.Store("a", n(9), c(1.0))
    test = loops.If(apply("lt", loops.Load(i32, 1, "n", n(0)), c(0, i32)), (inside,))
    params = (loops.Param("a", f32, 4, "w"), loops.Param("n", i32, 1))
    verify_kernel(loops.Kernel("k", params, (test,)))
