"""Level T as text, for reading."""

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.ir.dtype import f32, f64, i32, i64
from tapeout.kernel.compute import (
    Buffer,
    ContractionKernel,
    ExprBuilder,
    LoopKernel,
    Reduce,
    ScatterKernel,
    Store,
)
from tapeout.kernel.text_compute import print_compute
from tapeout.support.loc import Loc

ROW, COLUMN, DEEP = Axis("i", 4), Axis("j", 10), Axis("k", 6)
i, j, k = (Affine.of(a) for a in (ROW, COLUMN, DEEP))


def test_rows() -> None:
    e = ExprBuilder()
    x, y = Buffer("x", f32, (4, 10), (10, 1)), Buffer("y", f32, (4, 10), (1, 4), "w")
    at = e.load(x, (i, j))
    less = e.exp(e.sub(at, e.temp("m", f32)))
    stages = (
        Reduce("m", "max", (COLUMN,), at, f32),
        Reduce("s", "sum", (COLUMN,), less, f32),
        Store("y", (COLUMN,), (i, j), e.div(less, e.temp("s", f32))),
    )
    kernel = LoopKernel("softmax", (x, y), (ROW,), stages, Loc("m.onnx", "/head/Softmax"))
    assert (
        print_compute(kernel)
        == """\
rows softmax(in x: f32[4,10], out y: f32[4,10] strides [1,4]) @ m.onnx:/head/Softmax
  for i in 4
    $0: f32 = x[i,j]
    m: f32 = max over j in 10 of $0
    $1: f32 = exp($0 - m)
    s: f32 = sum over j in 10 of $1
    y[i,j] = div($1, s) for j in 10
"""
    )


def test_contraction_with_padding() -> None:
    e = ExprBuilder()
    x, w = Buffer("x", f32, (10,), (1,)), Buffer("w", f64, (6,), (1,))
    y = Buffer("y", f32, (10,), (1,), "w")
    a = e.load(x, (j + k - 2,), (Guard(j + k - 2, 0, 10),), 0.0)
    b = e.cast(e.load(w, (k,)), f32)
    store = Store("y", (), (j,), e.max(e.temp("acc", f32), e.const(0, f32)))
    kernel = ContractionKernel("", (x, w, y), (), (COLUMN,), (), (DEEP,), a, b, f32, (store,))
    assert (
        print_compute(kernel)
        == """\
contraction _(in x: f32[10], in w: f64[6], out y: f32[10])
  for j in 10
    acc: f32 = sum over k in 6 of ((x[j + k + -2] where 0 <= j + k + -2 < 10 else 0.0)) * (cast<f32>(w[k]))
    y[j] = max(acc, 0.0)
"""
    )


def test_scatter() -> None:
    e = ExprBuilder()
    at, u = Buffer("at", i32, (4,), (1,)), Buffer("u", f32, (4, 10), (10, 1))
    t = Buffer("t", f32, (7, 10), (10, 1), "rw")
    index = e.cast(e.load(at, (i,)), i64)
    kernel = ScatterKernel("add", (at, u, t), (COLUMN,), (ROW,), "t", (index, j), e.load(u, (i, j)))
    assert (
        print_compute(kernel)
        == """\
scatter add(in at: i32[4], in u: f32[4,10], inout t: f32[7,10])
  for j in 10, in order i in 4
    t[cast<i64>(at[i]),j] += u[i,j]
"""
    )


def test_deep_and_shared_expressions_stay_short() -> None:
    e = ExprBuilder()
    x, y = Buffer("x", f32, (4,), (1,)), Buffer("y", f32, (4,), (1,), "w")
    value = e.load(x, (i,))
    for _ in range(3000):
        value = e.add(value, value)
    kernel = LoopKernel("deep", (x, y), (ROW,), (Store("y", (), (i,), value),))
    assert len(print_compute(kernel)) < 200_000
