"""Every operator and version against onnxruntime: a model of one node, imported and run by the oracle."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tapeout.frontend.onnx.registry import table
from tests.onnx_models import Array, one_node, run, run_elsewhere
from tests.tolerances import close
from tests.unit import test_onnx_random, test_onnx_sequences

F32, I64 = np.float32, np.int64


@dataclass(frozen=True)
class Case:
    """One node: operator, version, operands (a shape is drawn, an array stands as it is), attributes."""

    op: str
    opset: int
    operands: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    kind: str = "arithmetic"
    stored: tuple[int, ...] = ()
    values: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """Name in reports."""
        shapes = ",".join(
            "-" if o is None else "x".join(map(str, o if isinstance(o, tuple) else o.shape)) or "."
            for o in self.operands
        )
        attributes = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        kinds = "".join(
            o.dtype.kind + str(o.dtype.itemsize) for o in self.operands if isinstance(o, np.ndarray)
        )
        content = [
            o.ravel().tolist()
            for i, o in enumerate(self.operands)
            if i in (*self.stored, *self.values)
        ]
        return f"{self.op}-{self.opset}({shapes}){kinds}{content}{attributes}".replace(" ", "")

    def draw(self) -> dict[str, Array | None]:
        """Return the operands, always the same."""
        rng = np.random.default_rng(zlib.crc32(self.id.encode()))
        return {
            f"x{i}": rng.uniform(-2, 2, o).astype(F32) if isinstance(o, tuple) else o
            for i, o in enumerate(self.operands)
        }


def ints(*numbers: int) -> Array:
    return np.array(numbers, I64)


def scalar(number: float, dtype: type = I64) -> Array:
    return np.array(number, dtype)


def numbers(dtype: type, *shape: int, low: int = -9, high: int = 9) -> Array:
    rng = np.random.default_rng(sum(shape) + 7)
    least = max(low, 0) if np.dtype(dtype).kind == "u" else low
    return rng.integers(least, high, shape).astype(dtype)


def positive(*shape: int) -> Array:
    return np.random.default_rng(3).uniform(0.1, 3, shape).astype(F32)


def inside(*shape: int) -> Array:
    return np.random.default_rng(4).uniform(-0.9, 0.9, shape).astype(F32)


def truth(*shape: int) -> Array:
    return np.random.default_rng(5).integers(0, 2, shape).astype(bool)


def unary() -> Iterator[Case]:
    T = "transcendental"
    for op, opset in (
        ("Sin", 7),
        ("Cos", 7),
        ("Tan", 7),
        ("Atan", 7),
        ("Sinh", 9),
        ("Cosh", 9),
        ("Asinh", 9),
        ("Erf", 9),
        ("Exp", 13),
        ("Tanh", 13),
        ("Sigmoid", 13),
        ("Softplus", 9),
        ("Softsign", 9),
        ("Mish", 18),
        ("Erf", 13),
    ):
        yield Case(op, opset, ((3, 5),), kind=T)
    for op in ("Abs", "Neg", "Sign", "Floor", "Ceil", "Relu", "Reciprocal", "Identity"):
        yield Case(op, 13, ((3, 5),))
    yield Case("Relu", 14, (numbers(np.int32, 3, 5),))
    yield Case("Abs", 13, (numbers(np.int8, 3, 5),))
    yield Case("Sign", 13, (numbers(I64, 3, 5),))
    yield Case("Round", 11, (np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.4, np.inf], F32),))
    for op in ("Sqrt", "Log"):
        yield Case(op, 13, (positive(3, 5),), kind=T)
    for op, opset in (("Asin", 7), ("Acos", 7), ("Atanh", 9)):
        yield Case(op, opset, (inside(3, 5),), kind=T)
    yield Case("Acosh", 9, (positive(3, 5) + 1,), kind=T)
    special = np.array([1, np.nan, np.inf, -np.inf, 0], F32)
    yield Case("IsNaN", 13, (special,))
    for attributes in (
        {},
        {"detect_negative": 0},
        {"detect_positive": 0},
        {"detect_negative": 0, "detect_positive": 0},
    ):
        yield Case("IsInf", 10, (special,), attributes)
    yield Case("Not", 1 + 6, (truth(4),))
    for dtype in (np.int32, np.uint8):
        yield Case("BitwiseNot", 18, (numbers(dtype, 7),))


def binary() -> Iterator[Case]:
    for op in ("Add", "Sub", "Mul", "Div"):
        yield Case(op, 7, ((3, 1, 5), (4, 1)))
        yield Case(op, 14, ((3, 5), ()))
    yield Case("Div", 14, (numbers(np.int32, 20), np.array([3, -3, 7, -7, 1] * 4, np.int32)))
    yield Case("Add", 14, (numbers(np.uint8, 5), numbers(np.uint8, 5)))
    yield Case("Pow", 13, (positive(3, 5), (3, 5)), kind="transcendental")
    yield Case("Pow", 13, ((3, 5), scalar(2)))
    yield Case("Pow", 15, (numbers(np.int32, 5, low=1), scalar(3, np.int32)))
    yield Case("Mod", 13, (numbers(np.int32, 20), np.array([3, -3, 7, -7, 1] * 4, np.int32)))
    yield Case(
        "Mod", 13, (numbers(np.int32, 20), np.array([3, -3, 7, -7, 1] * 4, np.int32)), {"fmod": 1}
    )
    yield Case("Mod", 10, ((3, 5), (3, 5)), {"fmod": 1})
    for op in ("Equal", "Less", "Greater"):
        yield Case(op, 13, (numbers(I64, 3, 5, high=-6), numbers(I64, 5, high=-6)))
        yield Case(op, 11, ((3, 5), (3, 5)))
    yield Case("Equal", 13, (truth(8), truth(8)))
    for op in ("LessOrEqual", "GreaterOrEqual"):
        yield Case(op, 12, (numbers(F32, 3, 5, high=-6), numbers(F32, 5, high=-6)))
    for op in ("And", "Or", "Xor"):
        yield Case(op, 7, (truth(8), truth(3, 8)))
        yield Case(f"Bitwise{op}", 18, (numbers(np.int32, 3, 4), numbers(np.int32, 4)))
    for direction in ("LEFT", "RIGHT"):
        yield Case(
            "BitShift",
            11,
            (numbers(np.uint8, 8, high=200), numbers(np.uint8, 8, low=0, high=7)),
            {"direction": direction},
        )
    yield Case("Where", 9, (truth(3, 1), (4,), (3, 4)))
    yield Case("PRelu", 16, ((2, 3, 4), (3, 1)))
    yield Case("PRelu", 9, ((2, 3, 4), (1,)))


def many() -> Iterator[Case]:
    for op in ("Sum", "Mean", "Max", "Min"):
        yield Case(op, 13, ((3, 5), (5,), (1, 1)))
        yield Case(op, 8, ((3, 5), (3, 5)))
        yield Case(op, 13, ((3, 5),))
    yield Case("Max", 13, (numbers(I64, 4), numbers(I64, 4), numbers(I64, 1)))


def activations() -> Iterator[Case]:
    T = "transcendental"
    for op, opset, attributes in (
        ("Elu", 6 + 1, {}), ("Elu", 7, {"alpha": 0.5}), ("Selu", 7, {}), ("Selu", 7, {"alpha": 2.0, "gamma": 0.5}),
        ("Celu", 12, {"alpha": 2.0}), ("LeakyRelu", 16, {"alpha": 0.2}), ("ThresholdedRelu", 10, {"alpha": 0.5}),
        ("HardSigmoid", 7, {}), ("HardSigmoid", 7, {"alpha": 0.3, "beta": 0.4}), ("HardSwish", 14, {}), ("Gelu", 20, {}),
        ("Gelu", 20, {"approximate": "tanh"}), ("Shrink", 9, {"bias": 0.3, "lambd": 0.6}), ("Swish", 24, {"alpha": 1.5}),
        ("Swish", 24, {}),
    ):  # fmt: skip
        yield Case(op, opset, ((3, 5),), attributes, kind=T)
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for opset in (7, 11, 13):
            yield Case(op, opset, ((2, 3, 4),), kind=T)
            yield Case(op, opset, ((2, 3, 4),), {"axis": 0}, kind=T)
            yield Case(op, opset, ((2, 3, 4),), {"axis": 2}, kind=T)
        yield Case(op, 13, ((2, 3, 4),), {"axis": -2}, kind=T)
    yield Case("Clip", 7, ((3, 5),), {"min": -0.5, "max": 0.5})
    yield Case("Clip", 7, ((3, 5),))
    bounds = (scalar(-0.5, F32), scalar(0.5, F32))
    yield Case("Clip", 13, ((3, 5), *bounds), stored=(1, 2))
    yield Case("Clip", 13, ((3, 5), *bounds))
    yield Case("Clip", 13, ((3, 5), None, bounds[1]), stored=(2,))
    yield Case("Clip", 13, ((3, 5), bounds[0]))
    yield Case("Clip", 13, ((3, 5), bounds[1], bounds[0]))
    yield Case("Clip", 12, (numbers(I64, 8), scalar(-3), scalar(4)), stored=(1, 2))
    yield Case("Dropout", 7, ((3, 5),), {"ratio": 0.7})
    yield Case(
        "Dropout", 13, ((3, 5), scalar(0.7, F32), scalar(False, bool)), outputs=2, stored=(1, 2)
    )


def movement() -> Iterator[Case]:
    E = "exact"
    yield Case("Reshape", 13, ((2, 3, 4), ints(0, -1)), kind=E, stored=(1,))
    yield Case("Reshape", 7, ((2, 3, 4), ints(4, 6)), kind=E, stored=(1,))
    yield Case("Reshape", 14, ((0, 3), ints(3, 0)), {"allowzero": 1}, kind=E, stored=(1,))
    yield Case("Reshape", 13, ((2, 3, 4), ints(3, 8)), kind=E, values=(1,))
    for axis in (0, 1, 2, 3, -1, -3):
        yield Case("Flatten", 13, ((2, 3, 4),), {"axis": axis}, kind=E)
    yield Case("Transpose", 13, ((2, 3, 4),), kind=E)
    yield Case("Transpose", 13, ((2, 3, 4),), {"perm": [1, 2, 0]}, kind=E)
    yield Case("Transpose", 13, (truth(2, 3),), kind=E)
    for opset in (7, 11):
        yield Case("Squeeze", opset, ((2, 1, 3, 1),), {"axes": [1]}, kind=E)
        yield Case("Unsqueeze", opset, ((2, 3),), {"axes": [0, 3]}, kind=E)
    yield Case("Squeeze", 11, ((2, 1, 3, 1),), {"axes": [-1]}, kind=E)
    yield Case("Squeeze", 13, ((2, 1, 3, 1), ints(-1, 1)), kind=E, stored=(1,))
    yield Case("Squeeze", 13, ((2, 1, 3, 1),), kind=E)
    yield Case("Unsqueeze", 13, ((2, 3), ints(-1, 0)), kind=E, stored=(1,))
    yield Case("Shape", 13, ((2, 3, 4),), kind=E)
    for attributes in ({"start": 1}, {"end": -1}, {"start": -2, "end": 3}, {"start": 2, "end": 1}):
        yield Case("Shape", 15, ((2, 3, 4),), attributes, kind=E)
    yield Case("Size", 13, ((2, 3, 4),), kind=E)
    yield Case("Expand", 8, ((3, 1), ints(2, 1, 4)), kind=E, stored=(1,))
    yield Case("Expand", 13, ((3, 4), ints(1, 1)), kind=E, stored=(1,))
    yield Case("Tile", 13, ((2, 3), ints(2, 3)), kind=E, stored=(1,))
    yield Case("Tile", 7, ((2, 3), ints(1, 0)), kind=E, stored=(1,))
    yield Case("Concat", 13, ((2, 3), (2, 1), (2, 2)), {"axis": -1}, kind=E)
    yield Case("Concat", 13, ((2, 3),), {"axis": 0}, kind=E)
    for opset in (7, 11):
        yield Case("Split", opset, ((2, 6),), {"axis": 1}, outputs=3, kind=E)
        yield Case("Split", opset, ((2, 6),), {"axis": 1, "split": [1, 5]}, outputs=2, kind=E)
    yield Case("Split", 13, ((6, 2), ints(2, 4)), outputs=2, kind=E, stored=(1,))
    yield Case("Split", 18, ((7, 2),), {"num_outputs": 3}, outputs=3, kind=E)
    yield Case("Split", 18, ((7, 2), ints(2, 0, 5)), outputs=3, kind=E, stored=(1,))
    yield Case("Slice", 9, ((5, 6),), {"starts": [1, -4], "ends": [4, 99], "axes": [0, 1]}, kind=E)
    yield Case("Slice", 9, ((5, 6),), {"starts": [1], "ends": [-1]}, kind=E)
    most, least = (1 << 63) - 1, -(1 << 63)
    for starts, ends, axes, steps in (
        ([1, 0], [4, 6], [0, 1], [1, 2]), ([0], [most], [1], [3]), ([-1], [least], [0], [-1]), ([4], [0], [1], [-2]),
        ([-2], [-5], [-1], [-1]), ([3], [1], [0], [1]), ([0], [most], [0], [99]), ([99], [-99], [0], [-3]), ([1], [2], [1], [-1]),
        ([-99], [least], [0], [-1]),
    ):  # fmt: skip
        yield Case(
            "Slice",
            13,
            ((5, 6), *map(np.array, (starts, ends, axes, steps))),
            kind=E,
            stored=(1, 2, 3, 4),
        )
    yield Case("Slice", 10, ((5, 6), ints(1, 2), ints(3, 4)), kind=E, stored=(1, 2))
    pads = ints(1, 0, 2, 1)
    for mode in ("constant", "reflect", "edge"):
        yield Case("Pad", 7, ((4, 5),), {"pads": [1, 0, 2, 1], "mode": mode}, kind=E)
        yield Case("Pad", 13, ((4, 5), pads), {"mode": mode}, kind=E, stored=(1,))
    yield Case("Pad", 19, ((4, 5), ints(6, 7, 5, 1)), {"mode": "wrap"}, kind=E, stored=(1,))
    yield Case("Pad", 13, ((4, 5), pads, scalar(7.5, F32)), kind=E, stored=(1, 2))
    yield Case("Pad", 13, ((4, 5), ints(-1, 0, 2, -2)), kind=E, stored=(1,))
    yield Case("Pad", 18, ((4, 5), ints(2, 1), None, ints(-1)), kind=E, stored=(1, 3))
    for mode in ("DCR", "CRD"):
        yield Case("DepthToSpace", 13, ((2, 8, 2, 3),), {"blocksize": 2, "mode": mode}, kind=E)
    yield Case("DepthToSpace", 9, ((2, 8, 2, 3),), {"blocksize": 2}, kind=E)
    yield Case("SpaceToDepth", 13, ((2, 2, 4, 6),), {"blocksize": 2}, kind=E)
    for to in (1, 6, 7, 9, 11):
        yield Case("Cast", 13, ((3, 4),), {"to": to}, kind=E)
    yield Case("Cast", 13, (numbers(I64, 3, 4),), {"to": 10}, kind=E)
    yield Case("Cast", 9, (positive(3, 4),), {"to": 2}, kind=E)
    yield Case("CastLike", 15, ((3, 4), numbers(np.int32, 1)), kind=E)
    yield Case("BitCast", 26, ((3, 4),), {"to": 12}, kind=E)


def indices() -> Iterator[Case]:
    E = "exact"
    for axis in (0, 1, -1):
        yield Case("Gather", 13, ((4, 5, 6), ints(0, -1, 3).reshape(1, 3)), {"axis": axis}, kind=E)
        yield Case(
            "GatherElements",
            13,
            ((3, 4), numbers(I64, 3, 4, low=-3, high=3)),
            {"axis": axis},
            kind=E,
        )
    yield Case("Gather", 11, ((4, 5), scalar(2)), kind=E)
    yield Case("Gather", 13, ((4, 5), np.array([1, 2], np.int32)), kind=E)
    for axis in (-1, 0, 1):
        yield Case(
            "OneHot",
            11,
            (numbers(I64, 3, 4, low=-5, high=6), scalar(5), np.array([-1, 2], F32)),
            {"axis": axis},
            kind=E,
            stored=(1,),
        )
    for upper in (0, 1):
        yield Case("Trilu", 14, ((2, 4, 5),), {"upper": upper}, kind=E)
        for k in (-2, 1, 9):
            yield Case("Trilu", 14, ((2, 4, 5), scalar(k)), {"upper": upper}, kind=E, stored=(1,))
    yield Case("Trilu", 14, ((4, 5), scalar(1)), kind=E)


def constants() -> Iterator[Case]:
    E = "exact"
    yield Case("Constant", 13, (), {"value_float": 1.5}, kind=E)
    yield Case("Constant", 13, (), {"value_floats": [1.5, 2.5]}, kind=E)
    yield Case("Constant", 13, (), {"value_int": 3}, kind=E)
    yield Case("Constant", 13, (), {"value_ints": [3, 4]}, kind=E)
    yield Case("ConstantOfShape", 9, (ints(2, 3),), kind=E, stored=(0,))
    for dtype in (F32, np.float64, np.int32, I64):
        operands = tuple(scalar(n, dtype) for n in (1, 9, 3))
        yield Case("Range", 11, operands, kind=E, stored=(0, 1, 2))
        yield Case(
            "Range", 11, tuple(scalar(n, dtype) for n in (9, 1, -3)), kind=E, stored=(0, 1, 2)
        )
    yield Case("Range", 11, tuple(map(scalar, (5, 1, 1))), kind=E, stored=(0, 1, 2))
    for attributes in ({}, {"k": 1}, {"k": -2, "dtype": 7}):
        yield Case("EyeLike", 9, ((3, 4),), attributes, kind=E)


def reductions() -> Iterator[Case]:
    R = "reduction"
    names = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp")
    for name in names:
        op = f"Reduce{name}"
        yield Case(op, 11, ((2, 3, 4),), {"axes": [0, -1]}, kind=R)
        yield Case(op, 11, ((2, 3, 4),), {"keepdims": 0}, kind=R)
        yield Case(op, 18, ((2, 3, 4), ints(1)), {"keepdims": 0}, kind=R, stored=(1,))
        yield Case(op, 18, ((2, 3, 4),), kind=R)
        if name in ("Sum", "Mean", "Max", "Min", "Prod"):
            yield Case(op, 18, ((2, 3, 4),), {"noop_with_empty_axes": 1}, kind=R)
    yield Case("ReduceLogSum", 11, (positive(3, 4),), {"axes": [1]}, kind=R)
    yield Case("ReduceLogSum", 18, (positive(3, 4), ints(1)), kind=R, stored=(1,))
    yield Case("ReduceSum", 13, (numbers(I64, 3, 4), ints(0)), kind=R, stored=(1,))
    yield Case("ReduceMean", 13, (numbers(np.int32, 3, 4, low=0),), {"axes": [0]}, kind=R)
    yield Case("ReduceMax", 20, (truth(3, 4), ints(0)), kind=R, stored=(1,))
    yield Case("ReduceMin", 20, (truth(3, 4), ints(0)), kind=R, stored=(1,))
    tied = np.array([[1, 3, 3, 0], [2, 2, 1, 2]], F32)
    for op in ("ArgMax", "ArgMin"):
        for attributes in ({}, {"axis": 1, "keepdims": 0}, {"axis": -1}):
            yield Case(op, 11, (tied,), attributes, kind="exact")
            yield Case(op, 13, (tied,), {**attributes, "select_last_index": 1}, kind="exact")
    for flags in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
        yield Case("CumSum", 14, ((3, 4), scalar(1)), flags, kind=R, stored=(1,))
    yield Case("CumSum", 11, (numbers(np.int32, 3, 4), scalar(-2)), kind=R, stored=(1,))


def products() -> Iterator[Case]:
    C = "contraction"
    for a, b in (
        ((3, 4), (4, 5)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((2, 3, 4), (4, 5)),
    ):
        yield Case("MatMul", 13, (a, b), kind=C)
    yield Case("MatMul", 9, (numbers(np.int32, 3, 4), numbers(np.int32, 4, 2)), kind="exact")
    for opset in (7, 9, 11, 13):
        yield Case("Gemm", opset, ((3, 4), (4, 5), (5,)), kind=C)
    yield Case(
        "Gemm",
        13,
        ((4, 3), (5, 4), (3, 1)),
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
        kind=C,
    )
    yield Case("Gemm", 11, ((3, 4), (5, 4)), {"transB": 1}, kind=C)
    yield Case("Gemm", 13, ((3, 4), (4, 5), ()), {"beta": 0.0}, kind=C)
    yield Case("Conv", 11, ((2, 3, 7), (4, 3, 3), (4,)), {"strides": [2], "pads": [1, 2]}, kind=C)
    yield Case(
        "Conv",
        11,
        ((2, 4, 6, 7), (6, 2, 3, 2)),
        {"group": 2, "dilations": [1, 2], "pads": [0, 1, 2, 3]},
        kind=C,
    )
    yield Case("Conv", 22, ((1, 2, 4, 5, 6), (3, 2, 2, 2, 3)), {"kernel_shape": [2, 2, 3]}, kind=C)
    yield Case("Conv", 7, ((1, 4, 5, 5), (4, 1, 3, 3), (4,)), {"group": 4}, kind=C)
    for pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield Case(
            "Conv", 11, ((1, 2, 6, 7), (3, 2, 3, 4)), {"auto_pad": pad, "strides": [2, 3]}, kind=C
        )
    for equation, shapes in (
        ("ij,jk->ik", ((3, 4), (4, 5))), ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))), ("ij->ji", ((3, 4),)), ("ij->", ((3, 4),)),
        ("ij,ij->i", ((3, 4), (3, 4))), ("i,j->ij", ((3,), (4,))), ("...ij,...jk->...ik", ((2, 3, 4), (2, 4, 5))),
        ("ij,jk,kl->il", ((3, 4), (4, 5), (5, 2))), ("ij,jk", ((3, 4), (4, 5))), ("bhwc,hkc->bhwk", ((2, 3, 4, 5), (3, 6, 5))),
    ):  # fmt: skip
        yield Case("Einsum", 12, shapes, {"equation": equation}, kind=C)


def pools() -> Iterator[Case]:
    R = "reduction"
    for x, attributes in (
        ((1, 2, 6, 7), {"kernel_shape": [2, 3]}),
        ((1, 2, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        (
            (1, 2, 6, 7),
            {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1},
        ),
        ((1, 2, 7), {"kernel_shape": [2], "strides": [3], "ceil_mode": 1}),
        ((1, 1, 4, 4, 4), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
        ((1, 2, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((1, 2, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        ((1, 2, 6, 7), {"kernel_shape": [3, 3], "auto_pad": "VALID"}),
    ):
        yield Case("MaxPool", 12, (x,), attributes, kind="exact")
        yield Case("MaxPool", 12, (x,), attributes, outputs=2, kind="exact")
        yield Case("AveragePool", 11, (x,), attributes, kind=R)
        if "pads" in attributes:
            yield Case("AveragePool", 11, (x,), {**attributes, "count_include_pad": 1}, kind=R)
    # The window is larger than the picture, the step no smaller: one window is left, and cut.
    for size in ([2, 2], [3, 3]):
        yield Case(
            "MaxPool", 12, ((1, 2, 1, 7),), {"kernel_shape": size, "strides": [3, 2]}, kind="exact"
        )
    yield Case(
        "MaxPool",
        12,
        ((1, 2, 8, 9),),
        {"kernel_shape": [2, 3], "dilations": [2, 2]},
        outputs=2,
        kind="exact",
    )
    yield Case(
        "MaxPool",
        12,
        ((2, 2, 4, 5),),
        {"kernel_shape": [2, 2], "storage_order": 1},
        outputs=2,
        kind="exact",
    )
    yield Case(
        "MaxPool", 12, (numbers(np.uint8, 1, 1, 5, 5),), {"kernel_shape": [2, 2]}, kind="exact"
    )
    yield Case(
        "MaxPool",
        12,
        (np.ones((1, 1, 4, 4), F32),),
        {"kernel_shape": [2, 2]},
        outputs=2,
        kind="exact",
    )
    yield Case(
        "AveragePool",
        19,
        ((1, 2, 8, 9),),
        {"kernel_shape": [2, 3], "dilations": [2, 2], "pads": [1, 1, 1, 1]},
        kind=R,
    )
    yield Case(
        "AveragePool", 7, ((1, 2, 5, 5),), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, kind=R
    )
    yield Case("LpPool", 18, ((1, 2, 6, 7),), {"kernel_shape": [2, 3], "p": 3}, kind=R)
    for shape in ((2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 4)):
        yield Case("GlobalAveragePool", 7, (shape,), kind=R)
        yield Case("GlobalMaxPool", 7, (shape,), kind="exact")


def spread() -> Iterator[Case]:
    for shapes, attributes in (
        (((1, 2, 5), (2, 3, 3), (3,)), {"strides": [2], "pads": [1, 0]}),
        (((1, 4, 4, 5), (4, 2, 3, 2)), {"group": 2, "strides": [2, 3], "output_padding": [1, 2]}),
        (((1, 2, 4, 5), (2, 3, 3, 2)), {"dilations": [2, 1], "kernel_shape": [3, 2]}),
        (((1, 2, 4, 5), (2, 3, 3, 3)), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        (((1, 2, 4, 5), (2, 3, 3, 3)), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        (((1, 2, 4, 5), (2, 3, 3, 3)), {"strides": [3, 2], "output_shape": [10, 11]}),
    ):
        yield Case("ConvTranspose", 11, shapes, attributes, kind="contraction")
    for size in (1, 3, 5):
        attributes = {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 2.0}
        yield Case("LRN", 13, ((2, 6, 3, 2),), attributes, kind="transcendental")
    for p in (1, 2):
        yield Case("LpNormalization", 7, ((3, 4),), {"axis": 0, "p": p}, kind="reduction")


def losses() -> Iterator[Case]:
    R = "reduction"
    labels = ints(0, 2, 1, 2)
    pixels = numbers(I64, 2, 3, 4, low=0, high=5)
    for op in ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"):
        for reduction in ("mean", "sum", "none"):
            for ignored in ({}, {"ignore_index": 2}, {"ignore_index": -1}):
                yield Case(op, 13, ((4, 3), labels), {"reduction": reduction, **ignored}, kind=R)
                yield Case(
                    op,
                    13,
                    ((2, 5, 3, 4), pixels, positive(5)),
                    {"reduction": reduction, **ignored},
                    kind=R,
                )
        yield Case(op, 12, ((4, 3), np.array([0, -7, 1, 2], I64)), {"ignore_index": -7}, kind=R)
        yield Case(op, 13, ((4, 3), labels.astype(np.int32)), kind=R)
    yield Case("SoftmaxCrossEntropyLoss", 13, ((4, 3), labels), outputs=2, kind=R)


Q3, K3, V3 = (2, 4, 12), (2, 6, 6), (2, 6, 4)
Q4, K4, V4 = (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)


def attention() -> Iterator[Case]:
    heads = {"q_num_heads": 4, "kv_num_heads": 2}
    lengths = ints(4, 6)
    for opset in (23, 24):
        yield Case("Attention", opset, (Q4, K4, V4), {"is_causal": 1}, kind="reduction")
        yield Case("Attention", opset, (Q3, K3, V3), {**heads, "scale": 0.3}, kind="reduction")
        masked = (Q4, K4, V4, positive(4, 6) > 1)
        yield Case("Attention", opset, masked, {"is_causal": 1}, kind="reduction")
        past = (Q4, K4, V4, (4, 9), (2, 3, 3, 5), (2, 3, 3, 2))
        yield Case("Attention", opset, past, {"softcap": 1.5}, outputs=3, kind="reduction")
    padded = (Q4, K4, V4, None, None, None, lengths)
    yield Case("Attention", 24, padded, kind="reduction")


CASES = [
    *attention(),
    *unary(), *binary(), *many(), *activations(), *movement(), *indices(), *constants(), *reductions(), *products(),
    *pools(), *losses(), *spread(),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_as_onnxruntime(case: Case) -> None:
    operands = case.draw()
    made = one_node(
        case.op,
        operands,
        opset=case.opset,
        outputs=case.outputs,
        stored=tuple(f"x{i}" for i in case.stored),
        **case.attributes,
    )
    feed = {n: a for n, a in operands.items() if a is not None}
    want = run_elsewhere(made, feed)
    got = run(
        made,
        feed,
        mode="as-exported",
        values={f"x{i}": operands[f"x{i}"] for i in case.values},
        # A size of 0 in a file means that it is not known.
        shapes={n: a.shape for n, a in feed.items() if 0 in a.shape},
    )
    assert list(got) == list(want)
    for name, array in want.items():
        close(got[name], array, case.kind, factor=4, reason="two implementations, both in f32")


ELSEWHERE = test_onnx_sequences.OPERATORS | test_onnx_random.OPERATORS
"""Operators that are no function of tensors; these files test them."""


def all_cases() -> list[Case]:
    """Return the rows of this file and of those that go on with it."""
    from tests.unit import (
        test_onnx_more_operators,
        test_onnx_norm_operators,
        test_onnx_recurrent_operators,
    )

    return [
        *CASES,
        *test_onnx_more_operators.CASES,
        *test_onnx_norm_operators.CASES,
        *test_onnx_recurrent_operators.CASES,
    ]


def test_every_operator_is_here() -> None:
    tested = {(c.op, c.opset) for c in all_cases()}
    names = {v.name for v in table()} - ELSEWHERE
    assert names == {op for op, _ in tested}


def test_every_version_is_here() -> None:
    """Each meaning of an operator is tested in an opset where it holds."""
    missing = []
    for version in (v for v in table() if v.name not in ELSEWHERE):
        later = [v.since for v in table() if v.name == version.name and v.since > version.since]
        until = min(later, default=99)
        if version.since >= 7 or until > 7:
            here = [
                c for c in all_cases() if c.op == version.name and version.since <= c.opset < until
            ]
            if not here:
                missing.append(f"{version.name}-{version.since}")
    assert not missing
