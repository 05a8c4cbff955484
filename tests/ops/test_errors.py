"""Operands that do not fit are refused, and the message says what was expected and got."""

import re

import numpy as np
import pytest

from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f16, f32, f64, i32, i64, u8, u32
from tapeout.ir.type import TensorType as T
from tapeout.ops import elementwise as ew
from tapeout.ops import gather as ga
from tapeout.ops import movement as mv
from tapeout.ops import reduce as rd
from tapeout.ops.composite import linear, pool
from tapeout.ops.composite.loss import SoftmaxCrossEntropy
from tapeout.ops.composite.softmax import LogSumExp, Softmax
from tapeout.ops.contraction import Conv, DotGeneral
from tapeout.ops.random import RandomBits, bernoulli, uniform
from tapeout.ops.running import CumSum
from tapeout.ops.sym import Sym
from tapeout.support.errors import NotDifferentiable, OptionError, ShapeError

PLAIN = {"strides": (1,), "low": (0,), "high": (0,), "dilations": (1,)}
WINDOWS = {"axes": (0,), "sizes": (3,), **PLAIN}

TYPES = [
    (ew.Exp(), (T(i32, (3,)),), "exp takes floats, got i32[3]"),
    (ew.Exp(), (T(f32), T(f32)), "exp takes 1 operands, got 2"),
    (ew.Add(), (T(bool_, (2,)),) * 2, "add takes floats or signed integers"),
    (ew.Add(), (T(f32, (2,)), T(f32, (3,))), "operand 1 is f32[3], operand 0 is f32[2]"),
    (ew.Add(), (T(f32, (2,)), T(f64, (2,))), "operand 1 is f64[2]"),
    (ew.Add(), (T(f32),), "add takes 2 operands, got 1"),
    (ew.And(), (T(f32),) * 2, "and takes bools or"),
    (ew.Not(), (T(f32),), "not takes bools or"),
    (ew.ShiftLeft(), (T(bool_),) * 2, "shift_left takes signed integers or"),
    (ew.IsNan(), (T(i32),), "is_nan takes floats"),
    (ew.Neg(), (T(bool_),), "neg takes"),
    (ew.Select(), (T(f32), T(f32), T(f32)), "the condition is f32[], expected bool[]"),
    (ew.Select(), (T(bool_), T(f32), T(f64)), "the branches are f32[] and f64[]"),
    (ew.Select(), (T(bool_), T(f32)), "select takes 3 operands, got 2"),
    (ew.Bitcast(dtype=i32), (T(f64, (2,)),), "the widths must be equal"),
    (ew.Bitcast(dtype=u8), (T(bool_, (2,)),), "bitcast"),
    (ew.Cast(dtype=f32), (), "cast takes 1 operands, got 0"),
    (mv.Reshape(shape=(5,)), (T(f32, (2, 3)),), "has 6 elements, [5] has 5"),
    (mv.Transpose(perm=(0, 0)), (T(f32, (2, 3)),), "no permutation"),
    (mv.Broadcast(shape=(3,), axes=(0,)), (T(f32, (2,)),), "does not repeat"),
    (mv.Broadcast(shape=(3, 2), axes=(1, 0)), (T(f32, (2, 3)),), "do not place"),
    (mv.Slice(starts=(0,), limits=(4,), strides=(1,)), (T(f32, (3,)),), "does not lie in 0..3"),
    (mv.Slice(starts=(0,), limits=(3,), strides=(0,)), (T(f32, (3,)),), "slice"),
    (mv.Pad(low=(0, 0), high=(0,), interior=(0,)), (T(f32, (3,)),), "one number per dimension"),
    (mv.Pad(low=(-2,), high=(-2,), interior=(0,)), (T(f32, (3,)),), "negative size"),
    (mv.Concat(axis=0), (T(f32, (2, 3)), T(f32, (2, 4))), "operand 1 is f32[2,4]"),
    (mv.Concat(axis=2), (T(f32, (2, 3)),), "concat: axis 2"),
    (mv.Windows(**WINDOWS), (T(f32, (2,)),), "a window of 3 does not fit"),
    (mv.Iota(shape=(2,), axis=1), (), "iota: axis 1"),
    (rd.ReduceSum(axes=(1,)), (T(f32, (3,)),), "axes [1]"),
    (rd.ReduceSum(axes=(0,)), (T(bool_, (3,)),), "reduce_sum of bool[3]"),
    (rd.ReduceAny(axes=(0,)), (T(f32, (3,)),), "reduce_any of f32[3]"),
    (rd.ArgMax(axes=(0,)), (T(f32, (0,)),), "empty axis"),
    (CumSum(axis=1), (T(f32, (3,)),), "cumsum: axis 1"),
    (DotGeneral((1,), (0,)), (T(f32, (2, 3)), T(f32, (4, 5))), "does not pair"),
    (DotGeneral((1,), (0,)), (T(f32, (2, 3)), T(f64, (3, 5))), "differ in element type"),
    (Conv(out="y", **PLAIN), (T(f32, (1, 2, 5)), T(f32, (3, 4, 2))), "2 channels in 1 groups"),
    (Conv(out="y", **PLAIN), (T(f32, (1, 2, 2)), T(f32, (3, 2, 3))), "does not fit 2 with padding"),
    (Conv(out="z", **PLAIN), (T(f32, (1, 2, 5)), T(f32, (3, 2, 2))), "it must be 'y', 'x' or 'w'"),
    (ga.Take(axis=1), (T(f32, (3,)), T(i64, (2,))), "take: axis 1"),
    (ga.Take(axis=0), (T(f32, (3,)), T(f32, (2,))), "integers are expected"),
    (ga.ScatterAdd(axis=0), (T(f32, (3,)), T(i64, (2,)), T(f32, (3,))), "expected f32[2]"),
    (ga.TakeAlong(axis=0), (T(f32, (3, 2)), T(i64, (2, 3))), "do not fit"),
    (RandomBits(shape=(2,), stream=0), (T(i32), T(i64)), "got i32[], i64[]"),
    (Softmax(axis=2), (T(f32, (2, 3)),), "softmax: axis 2 of f32[2,3]"),
    (Softmax(axis=0), (T(i32, (2,)),), "softmax takes floats"),
    (LogSumExp(axes=(0, 0)), (T(f32, (2,)),), "axes [0, 0]"),
    (
        SoftmaxCrossEntropy(),
        (T(f32, (2, 3)), T(i64, (3,))),
        "the labels are i64[3], expected i64[2]",
    ),
    (SoftmaxCrossEntropy(), (T(f32, (2, 3)), T(f32, (2,))), "expected i64[2]"),
    (SoftmaxCrossEntropy(), (T(i32, (2, 3)), T(i64, (2,))), "expected floats"),
    (SoftmaxCrossEntropy(), (T(f32, (2, 3)), T(i64, (2,)), T(f32, (2,))), "expected f32[3]"),
    (SoftmaxCrossEntropy(), (T(f32, (2, 3)),), "takes 2 or 3 operands"),
    (pool.MaxPool((2, 2), (1, 1), (0, 0), (0, 0), (1, 1)), (T(f32, (1, 1, 4)),), "1 spatial"),
    (pool.MaxPool((5,), (1,), (0,), (0,), (1,)), (T(f32, (1, 1, 4)),), "a window of 5"),
]


@pytest.mark.parametrize(("op", "types", "message"), TYPES, ids=lambda x: repr(x)[:60])
def test_types_that_do_not_fit(op: object, types: tuple[T, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=re.escape(message)):
        op.infer(*types)


OPTIONS = [
    (lambda: ew.Gelu(approximate="fast"), "'fast', expected 'none' or 'tanh'"),
    (lambda: RandomBits(shape=(1,), stream=-1), "stream is -1"),
    (lambda: SoftmaxCrossEntropy(reduction="none"), "'none', expected 'mean' or 'sum'"),
    (lambda: SoftmaxCrossEntropy(label_smoothing=1.5), "label_smoothing is 1.5"),
]


@pytest.mark.parametrize(("make", "message"), OPTIONS, ids=[m for _, m in OPTIONS])
def test_options_without_meaning(make: object, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        make()


def symbol(b: Builder, name: str, dtype: object = f32, *shape: int) -> Sym:
    return Sym(b, b.add_input(name, T(dtype, shape)))


def test_functions_refuse_what_does_not_fit() -> None:
    b = Builder("errors")
    x, w = symbol(b, "x", f32, 2, 3), symbol(b, "w", f32, 4, 5)
    with pytest.raises(ShapeError, match="linear: x is"):
        linear.linear(x, w)
    with pytest.raises(ShapeError, match="linear: bias is"):
        linear.linear(x, symbol(b, "v", f32, 4, 3), symbol(b, "c", f32, 3))
    with pytest.raises(ShapeError, match="spatial dimensions"):
        pool.avg_pool(x, (2,), (1,), (0,), (0,))
    bits = symbol(b, "bits", u32, 4)
    with pytest.raises(ShapeError, match="uniform makes floats of u32"):
        uniform(bits, i32)
    with pytest.raises(ShapeError, match="uniform makes floats of u32"):
        uniform(x, f32)
    with pytest.raises(OptionError, match=r"probability is 1.5"):
        bernoulli(bits, 1.5)


def test_bitcast_of_floats_has_no_gradient() -> None:
    b = Builder("errors")
    x = symbol(b, "x", f16, 2)
    y = x.bitcast(f16)
    with pytest.raises(NotDifferentiable, match="bitcast"):
        y.value.node.op.pullback((y,), (x,), (y,))
    assert np.float16(1) == 1
