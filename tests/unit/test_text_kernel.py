"""Kernels as text: complete, deterministic, linear in shared expressions, and read back as they were."""

import math

import pytest

from tapeout.ir.dtype import bf16, bool_, f32, f64, i32, i64, u8
from tapeout.kernel import loops
from tapeout.kernel.compute import Numerics
from tapeout.kernel.parse import parse_kernel
from tapeout.kernel.text import excerpt, named, print_kernel
from tapeout.support.errors import ParseError
from tests.unit.kernels import apply, c, i, n


def _everything() -> loops.Kernel:
    """A kernel that holds every kind of statement and expression."""
    x = loops.Load(f32, 8, "a", apply("add", apply("mul", i("g"), n(8)), i("j")))
    gather = loops.Load(f32, 8, "a", loops.Ramp(i64, 8, i("j")), None, c(True, bool_, 8), math.inf)
    tail = loops.Load(f32, 8, "a", i("j"), 3, None, -0.0)
    total = loops.Lanes(f32, 1, "sum", apply("fma", x, gather, tail))
    vector = loops.Var(f32, 8, "odd name")
    body = (
        loops.Alloc("acc", f32, 8, 2, "register"),
        loops.Alloc("tmp", u8, 1, 64, "local"),
        loops.Alloc("sh", f32, 1, 32, "shared"),
        loops.Let(vector, loops.Splat(f32, 8, total)),
        loops.Store("acc", n(1), vector),
        loops.For(
            "j",
            n(0),
            apply("min", i("g"), n(7)),
            2,
            "unroll",
            (
                loops.Store("b", i("j"), loops.Load(f32, 8, "acc", n(1)), 5, c(True, bool_, 8)),
                loops.Store("d", i("j"), loops.Cast(bf16, 1, c(math.nan, f64))),
                loops.Store("i", i("j"), loops.Bitcast(i32, 1, c(1.5))),
            ),
        ),
        loops.For("w", n(0), n(2), 1, "group", (
            loops.For("l", n(0), n(4), 1, "lane", (
                loops.Let(loops.Var(f32, 1, "s"), loops.Cross(f32, 1, "max", c(1.0), "lane")),
                loops.Barrier("lane"),
                loops.Barrier("group"),
            )),
        )),
        loops.If(apply("lt", i("g"), n(3)), (loops.Store("i", n(0), c(-7, i32)),), ()),
        loops.If(c(False, bool_), (), (loops.Store("i", n(1), c(7, i32)),)),
    )  # fmt: skip
    params = (
        loops.Param("a", f32, 64),
        loops.Param("b", f32, 64, "w", 4),
        loops.Param("d", bf16, 8, "rw"),
        loops.Param("i", i32, 8, "w"),
    )
    grid = loops.For("g", n(0), n(4), 1, "grid", body)
    return loops.Kernel("k", params, (grid,), Numerics(8, 4, 2, {"kc": 256}))


def test_everything_reads_back() -> None:
    text = print_kernel(_everything())
    assert print_kernel(parse_kernel(text)) == text


def test_text_is_readable() -> None:
    x = loops.Load(f32, 8, "a", apply("add", apply("mul", i("r"), n(16)), i("j")))
    store = loops.Store(
        "b", apply("add", apply("mul", i("r"), n(16)), i("j")), apply("max", x, c(0, f32, 8))
    )
    inner = loops.For("j", n(0), n(16), 8, "serial", (store,))
    params = (loops.Param("a", f32, 64), loops.Param("b", f32, 64, "w"))
    k = loops.Kernel("k", params, (loops.For("r", n(0), n(4), 1, "grid", (inner,)),))
    assert (
        print_kernel(k)
        == """\
kernel k(in a: f32[64], out b: f32[64]) {
  for %r in 0..4 grid {
    for %j in 0..16 step 8 {
      store b[(%r * 16) + %j] = max(a[(%r * 16) + %j :8], 0.0:f32x8)
    }
  }
}
"""
    )


def test_shared_expressions_print_once() -> None:
    x: loops.Expr = loops.Load(f32, 1, "a", n(0))
    for _ in range(200):
        x = apply("add", x, x)  # 2**200 leaves, written out
    k = loops.Kernel("k", (loops.Param("a", f32, 1, "rw"),), (loops.Store("a", n(0), x),))
    text = print_kernel(k)
    assert len(text) < 10_000
    again = parse_kernel(text)
    assert print_kernel(again) == text


def test_long_chains_need_no_recursion() -> None:
    x: loops.Expr = loops.Load(f32, 1, "a", n(0))
    for _ in range(20_000):
        x = apply("neg", x)
    k = loops.Kernel("k", (loops.Param("a", f32, 1, "rw"),), (loops.Store("a", n(0), x),))
    text = print_kernel(k)
    assert print_kernel(parse_kernel(text)) == text


def test_name_is_that_of_the_content() -> None:
    k = _everything()
    a, b = named(k), named(loops.Kernel("other", k.params, k.body, k.numerics))
    assert a.name == b.name
    assert a.name.startswith("k_")
    assert len(a.name) == 18
    assert named(loops.Kernel("k", k.params, k.body)).name != a.name
    assert named(a).name == a.name


def test_equal_kernels_of_different_objects_print_alike() -> None:
    assert print_kernel(_everything()) == print_kernel(_everything())


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1e-45, 1.0000001, math.inf, -math.inf, math.nan, 3.4028234663852886e38]
)
def test_numbers_read_back_exactly(value: float) -> None:
    k = loops.Kernel(
        "k", (loops.Param("a", f64, 1, "w"),), (loops.Store("a", n(0), c(value, f64)),)
    )
    (store,) = parse_kernel(print_kernel(k)).body
    assert isinstance(store, loops.Store)
    assert isinstance(store.value, loops.Const)
    assert repr(store.value.value) == repr(value)


def test_excerpt_marks_the_statement() -> None:
    k = _everything()
    grid = k.body[0]
    assert isinstance(grid, loops.For)
    lines = excerpt(k, grid.body[4], around=1).splitlines()
    assert [line[0] for line in lines] == [" ", ">", " "]
    assert "store acc[1]" in lines[1]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("kernel k() {", "line 1, column 13", "is expected"),
        ("kernel k(in a: f33[4]) {\n}", "line 1, column 16", "f33"),
        ("kernel k(in a: f32x8[4]) {\n}", "line 1, column 16", "without lanes"),
        ("kernel k() {\n  jump\n}", "line 2, column 3", "'for' or 'if'"),
        ("kernel k() {\n  %x: f32 = $0\n}", "line 2, column 13", "not defined above"),
        ("kernel k() {\n  $1: f32 = 1.0\n}", "line 2, column 3", "$0 is expected"),
        ("kernel k() {\n  %x: f32 = 1.0 1\n}", "line 2, column 17", "end of the line"),
        ("kernel k() {\n  %x: i32 = nan:i32\n}", "line 2, column 16", "does not make sense"),
        ("kernel k() {\n  %x: f32 = " + "(" * 500, "line 2, column 112", "nested"),
    ],
)
def test_errors_name_the_place(text: str, place: str, message: str) -> None:
    with pytest.raises(ParseError, match=message.replace("$", r"\$")) as e:
        parse_kernel(text)
    assert e.value.where == place
