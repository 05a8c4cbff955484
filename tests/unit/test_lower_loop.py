"""Loop kernels lowered to loops: maps, rows, reductions, windows, gathers."""

import pytest

from tapeout.ir.affine import Affine, Axis
from tapeout.ir.dtype import f32, f64
from tapeout.kernel.compute import Buffer, ExprBuilder, LoopKernel, Store
from tapeout.kernel.target import AVX2
from tests.lowering import check

A = Affine.of


def dense(name, dtype, shape, access="r"):
    strides, n = [], 1
    for d in reversed(shape):
        strides.append(n)
        n *= d
    return Buffer(name, dtype, tuple(shape), tuple(reversed(strides)), access)


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 6), (7, 10), (100, 37), (2, 4099)])
def test_bias_and_relu(rows, columns, dtype):
    s = ExprBuilder()
    i, j = Axis("i", rows), Axis("j", columns)
    x, b = dense("b0", dtype, (rows, columns)), dense("b1", dtype, (columns,))
    y = dense("b2", dtype, (rows, columns), "w")
    value = s.max(s.add(s.load(x, (A(i), A(j))), s.load(b, (A(j),))), s.const(0, dtype))
    kernel = LoopKernel("k", (x, b, y), (i, j), (Store("b2", (), (A(i), A(j)), value),))
    check(kernel, AVX2, "exact")


@pytest.mark.parametrize("shape", [(100, 60), (5, 3), (1, 33), (17, 16)])
def test_transpose(shape):
    s = ExprBuilder()
    i, j = Axis("i", shape[0]), Axis("j", shape[1])
    x, y = dense("b0", f32, shape), dense("b1", f32, shape[::-1], "w")
    kernel = LoopKernel(
        "k", (x, y), (j, i), (Store("b1", (), (A(j), A(i)), s.load(x, (A(i), A(j)))),)
    )
    check(kernel, AVX2, "exact")
