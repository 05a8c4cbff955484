"""Models that break the rules: each gets an error of ours that names the place, soon and in little memory."""

import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper

from tapeout.frontend.onnx import load
from tapeout.support.errors import (
    BudgetError,
    OnnxImportError,
    ShapeError,
    TapeoutError,
    UnsupportedOperator,
)
from tests.onnx_models import Array, model, parsed

SECONDS = 5.0
X = "g (float[4] x) => (float[4] y) "
IMAGE = "g (float[1,1,4,4] x) => (float[1,1,1,1] y) "


def i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def body(text: str, signature: str = X, **arrays: Array) -> onnx.ModelProto:
    return parsed(f"{signature}{{{text}}}", **arrays)


def doubling() -> onnx.ModelProto:
    names = ["x", *(f"t{i}" for i in range(60)), "y"]
    steps = [f"{b} = Concat <axis=0> ({a}, {a})" for a, b in pairwise(names)]
    return body("; ".join(steps))


def calls(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    """Return a model that calls the first of some functions."""
    node = helper.make_node(functions[0].name, ["x"], ["y"], domain="f")
    value = [helper.make_tensor_value_info(n, 1, [2]) for n in ("x", "y")]
    made = model(helper.make_graph([node], "g", value[:1], value[1:]), functions=list(functions))
    made.opset_import.append(helper.make_opsetid("f", 1))
    return made


def function(name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a"], ["b"], nodes, opsets)


def laughs(levels: int) -> onnx.ModelProto:
    """Every function calls the next one twice."""
    made = [
        function(f"f{i}", [helper.make_node(f"f{i + 1}", ["a"], ["t"], domain="f"), helper.make_node(f"f{i + 1}", ["t"], ["b"], domain="f")])
        for i in range(levels)
    ]  # fmt: skip
    return calls(*made, function(f"f{levels}", [helper.make_node("Relu", ["a"], ["b"])]))


def deep(levels: int) -> onnx.ModelProto:
    made = [
        function(f"f{i}", [helper.make_node(f"f{i + 1}", ["a"], ["b"], domain="f")])
        for i in range(levels)
    ]
    return calls(*made, function(f"f{levels}", [helper.make_node("Relu", ["a"], ["b"])]))


def changed(made: onnx.ModelProto, change: object) -> onnx.ModelProto:
    change(made.graph)  # type: ignore[operator]
    return made


def twice(field: str, *path: int | str) -> object:
    def change(graph: onnx.GraphProto) -> None:
        where: object = graph
        for step in path:
            where = where[step] if isinstance(step, int) else getattr(where, step)  # type: ignore[index]
        items = getattr(where, field)
        items.append(items[0])

    return change


def negative(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = -7


def bytes_of(name: str) -> bytes:
    """Return a model whose name is no UTF-8."""
    data = body("y = Relu (x)").SerializeToString()
    return data.replace(b"Relu", name.encode("latin-1"))


HOSTILE: dict[str, tuple[onnx.ModelProto | bytes, type[TapeoutError], str]] = {
    # sizes
    "ConstantOfShape of 2^36": (body("y = ConstantOfShape (s)", s=i64(1 << 36)), BudgetError, "ConstantOfShape"),
    "ConstantOfShape of -1": (body("y = ConstantOfShape (s)", s=i64(-1)), OnnxImportError, "negative size"),
    "Range of 1e18": (body("y = Range (a, b, c)", a=np.array(0), b=np.array(10**18), c=np.array(1)), OnnxImportError, "would have"),
    "Range to NaN": (body("y = Range (a, b, c)", a=ones().reshape(()), b=np.array(np.nan, np.float32), c=ones()), OnnxImportError, "nan"),
    "Range by 0": (body("y = Range (a, b, c)", a=np.array(0), b=np.array(1), c=np.array(0)), OnnxImportError, "step is 0"),
    "OneHot of 2^40": (body("y = OneHot (i, d, v)", "g (int64[4] i) => (float[4,N] y)", d=np.array(1 << 40), v=ones(2)), BudgetError, "OneHot"),
    "EyeLike": (body("y = EyeLike (x)", "g (float[1048576,1048576] x) => (float y)"), BudgetError, "EyeLike"),
    "Concat doubling": (doubling(), BudgetError, "t32"),
    "Tile by 2^62": (body("y = Tile (x, r)", r=i64(1 << 62)), BudgetError, "Tile"),
    "Expand": (body("y = Expand (x, r)", r=i64(1 << 31, 1 << 31, 4)), BudgetError, "Expand"),
    "Pad by 2^62": (body("y = Pad (x, r)", r=i64(1 << 62, 1 << 62)), BudgetError, "Pad"),
    "Pad reflected": (body('y = Pad <mode="reflect"> (x, r)', r=i64(1 << 40, 1)), OnnxImportError, "would have size"),
    "Pad cropping all": (body("y = Pad (x, r)", r=i64(-9, 0)), OnnxImportError, "cropped"),
    "pool padding": (body("y = AveragePool <kernel_shape=[2,2], pads=[1073741824,1073741824,1073741824,1073741824]> (x)", IMAGE), BudgetError, "AveragePool"),
    "pool counts": (body("y = AveragePool <kernel_shape=[1,2], pads=[0,1,33554432,0]> (x)", IMAGE), OnnxImportError, "too many|too large"),
    "rank of 61": (body("y = Unsqueeze (x, a)", a=np.arange(60)), BudgetError, "rank 61"),
    "sums of shapes": (body("a = Expand (o, s); b = CumSum (a, z); c = CumSum (b, z); y = Reshape (x, c)", o=np.array([1]), s=i64(1 << 30), z=np.array(0)), OnnxImportError, "elements"),
    # shapes
    "two -1": (body("y = Reshape (x, r)", r=i64(-1, -1)), OnnxImportError, "more than one -1"),
    "-2": (body("y = Reshape (x, r)", r=i64(-2, 2)), OnnxImportError, "is -2"),
    "Reshape to 5": (body("y = Reshape (x, r)", r=i64(5)), ShapeError, "4 elements"),
    "shape from data": (body("y = Reshape (x, s)", "g (float[4] x, int64[1] s) => (float[4] y)"), OnnxImportError, r"content of 's'[\s\S]*values={'s'"),
    "shape from float": (body("y = Reshape (x, x)", "g (float[4] x) => (float[4] y)"), OnnxImportError, "shape"),
    "index beyond the shape": (body("s = Shape (x); i = Gather (s, k); y = Reshape (x, i)", k=i64(7)), OnnxImportError, "out of bounds"),
    "least integer by -1": (body("s = Div (a, b); y = Reshape (x, s)", a=i64(-(1 << 63)), b=i64(-1)), OnnxImportError, "size 0"),
    "matrix product": (body("y = MatMul (x, w)", w=ones(3, 3)), ShapeError, "MatMul"),
    "mixed types": (body("y = Concat <axis=0> (x, w)", w=i64(1)), ShapeError, "Concat"),
    "sum of bools": (body("y = Add (x, x)", "g (bool[4] x) => (bool[4] y)"), ShapeError, "Add"),
    "negative dimension": (changed(body("y = Relu (x)"), negative), OnnxImportError, "dimension 0 is -7"),
    # attributes
    "stride 0": (body("y = MaxPool <kernel_shape=[2,2], strides=[0,0]> (x)", IMAGE), OnnxImportError, "strides"),
    "no kernel": (body("y = MaxPool (x)", IMAGE), OnnxImportError, "kernel_shape"),
    "kernel of 2^30": (body("y = MaxPool <kernel_shape=[1073741824,1073741824]> (x)", IMAGE), OnnxImportError, "does not fit"),
    "kernel of rank 1": (body("y = MaxPool <kernel_shape=[2]> (x)", IMAGE), OnnxImportError, "kernel_shape"),
    "0 groups": (body("y = Conv <group=0> (x, w)", IMAGE, w=ones(1, 1, 2, 2)), OnnxImportError, "0 groups"),
    "-1 groups": (body("y = Conv <group=-1> (x, w)", IMAGE, w=ones(1, 1, 2, 2)), OnnxImportError, "-1 groups"),
    "axis 7": (body("y = Softmax <axis=7> (x)"), OnnxImportError, "axis 7"),
    "axis as float": (body("y = Softmax <axis=1.5> (x)"), OnnxImportError, "must be an int"),
    "unknown attribute": (body("y = Relu <foo=1> (x)"), UnsupportedOperator, "'foo'"),
    "attribute twice": (changed(body("y = Softmax <axis=0> (x)"), twice("attribute", "node", 0)), OnnxImportError, "given twice"),
    "no value": (body("c = Constant (); y = Add (x, c)"), OnnxImportError, "one value"),
    "Celu by 0": (body("y = Celu <alpha=0.0> (x)"), OnnxImportError, "alpha is 0"),
    "perm": (body("y = Transpose <perm=[0,0]> (x)"), OnnxImportError, "perm"),
    "0 parts": (body("y, z = Split <num_outputs=0> (x)"), OnnxImportError, "0 parts"),
    "1e9 parts": (body("y = Split <num_outputs=1000000000> (x)"), OnnxImportError, "parts"),
    "step 0": (body("y = Slice (x, a, b, c, d)", a=i64(0), b=i64(2), c=i64(0), d=i64(0)), OnnxImportError, "step is 0"),
    "strings": (body("y = Cast <to=8> (x)"), OnnxImportError, "string"),
    "no such type": (body("y = Cast <to=77> (x)"), OnnxImportError, "number 77"),
    "equation": (body('y = Einsum <equation="i,j->"> (x)'), OnnxImportError, "equation"),
    "odd equation": (body('y = Einsum <equation="(->)"> (x)'), OnnxImportError, "equation"),
    # names and order
    "unknown operator": (body("y = Nope (x)"), UnsupportedOperator, r"Nope \(opset 18\) \(1x\): Nope->y"),
    "missing operand": (body("y = Add (x)"), OnnxImportError, r"operand 1 \(b\) is missing"),
    "one operand too many": (body("y = Relu (x, x)"), OnnxImportError, "2 operands"),
    "nothing makes it": (body("y = Relu (q)"), OnnxImportError, "'q', which nothing makes"),
    "circle": (body("a = Relu (b); b = Relu (a); y = Relu (a)"), OnnxImportError, "own result"),
    "two results of one name": (body("y = Relu (x); y = Relu (x)"), OnnxImportError, "two results"),
    "a result like an input": (body("x = Relu (x); y = Relu (x)"), OnnxImportError, "name of an input"),
    "a result like a parameter": (body("w = Relu (x); y = Relu (w)", w=ones(4)), OnnxImportError, "name of a parameter"),
    "no such output": (body("z = Relu (x)"), OnnxImportError, "'y' is made by no node"),
    "initializer twice": (changed(body("y = Add (x, w)", w=ones(4)), twice("initializer")), OnnxImportError, "two initializers"),
    "input twice": (changed(body("y = Relu (x)"), twice("input")), OnnxImportError, "two inputs"),
    "output twice": (changed(body("y = Relu (x)"), twice("output")), OnnxImportError, "two outputs"),
    "no UTF-8": (bytes_of("Re\xff\xfe"), TapeoutError, "UTF-8|damaged"),
    # functions and branches
    "billion laughs": (laughs(40), OnnxImportError, "more than 1000000 nodes"),
    "a function that calls itself": (calls(function("f", [helper.make_node("f", ["a"], ["b"], domain="f")])), OnnxImportError, "calls itself"),
    "functions 100 deep": (deep(100), OnnxImportError, "deep"),
    "no result": (calls(function("f", [helper.make_node("Relu", ["a"], ["c"])])), OnnxImportError, "'b' is made by no node"),
    "endless loop": (
        parsed("g (int64 m, bool c, float[4] x) => (float[4] y) {y = Loop (m, c, x) <body = b (int64 i, bool cc, float[4] s) => (bool co, float[4] so) { co = Identity (cc)\n so = Identity (s)}>}"),
        OnnxImportError,
        "number of rounds",
    ),
    "sequences": (body("y = Identity (x)", "g (seq(float[4]) x) => (float[4] y)"), OnnxImportError, "sequence"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_is_refused(name: str) -> None:
    made, kind, message = HOSTILE[name]
    start = time.process_time()
    with pytest.raises(kind, match=message) as caught:
        load(made)
    assert time.process_time() - start < SECONDS
    assert caught.value.where or isinstance(caught.value, UnsupportedOperator)
    assert "<model>" in str(caught.value) or "<bytes>" in str(caught.value)


def test_in_little_memory() -> None:
    """All of them in one process that may not grow much beyond what Python and onnx take.

    The peak is read from /proc: `ru_maxrss` of a child begins at what its parent held when it was forked.
    """
    script = (
        "from pathlib import Path; from tests.unit.test_onnx_hostile import HOSTILE, load, TapeoutError\n"
        "import contextlib\n"
        "for made, _, _ in HOSTILE.values():\n"
        "    with contextlib.suppress(TapeoutError): load(made)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 600_000, "kilobytes at most"


def test_long_chains_are_legal() -> None:
    n = 20_000
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(n)]
    ends = [helper.make_tensor_value_info(t, 1, ["N"]) for t in ("t0", f"t{n}")]
    graph = load(model(helper.make_graph(nodes[::-1], "g", ends[:1], ends[1:])))
    assert len(graph.nodes) == n


def test_long_shape_arithmetic_is_legal() -> None:
    n = 5_000
    nodes = [helper.make_node("Add", [f"t{i}", "one"], [f"t{i + 1}"]) for i in range(n)]
    nodes.append(helper.make_node("Reshape", ["x", f"t{n}"], ["y"]))
    value = [helper.make_tensor_value_info(t, 1, [n]) for t in ("x", "y")]
    made = model(helper.make_graph(nodes, "g", value[:1], value[1:]))
    made.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array([i]), t) for i, t in enumerate(("t0", "one"))
    )
    assert len(load(made).nodes) == 0
