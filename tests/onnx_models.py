"""Small ONNX models for tests, built in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tapeout.frontend.onnx import load
from tapeout.ir.verify import verify
from tapeout.oracle import graph as oracle

Array = np.ndarray[Any, Any]
IR_VERSION = 10


def tensor_type(name: str, array: Array) -> onnx.ValueInfoProto:
    """Declare a value of an array's type."""
    code = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, code, array.shape)


def one_node(
    op: str,
    inputs: dict[str, Array | None],
    *,
    opset: int,
    outputs: int | list[str] = 1,
    stored: tuple[str, ...] = (),
    **attributes: object,
) -> onnx.ModelProto:
    """Return a model of one node; inputs named in `stored` are initializers, None ones are left out."""
    names = outputs if isinstance(outputs, list) else [f"y{i}" for i in range(outputs)]
    operands = [name if a is not None else "" for name, a in inputs.items()]
    node = helper.make_node(op, operands, names, name="node", **attributes)
    there = {n: a for n, a in inputs.items() if a is not None}
    graph = helper.make_graph(
        [node],
        "g",
        [tensor_type(n, a) for n, a in there.items() if n not in stored],
        [onnx.ValueInfoProto(name=n) for n in names if n],
        [numpy_helper.from_array(a, n) for n, a in there.items() if n in stored],
    )
    return with_outputs_typed(model(graph, opset))


def with_outputs_typed(made: onnx.ModelProto) -> onnx.ModelProto:
    """Fill in the types of outputs, which onnxruntime wants to know."""
    inferred = onnx.shape_inference.infer_shapes(made)
    known = {v.name: v for v in (*inferred.graph.value_info, *inferred.graph.output)}
    for output in made.graph.output:
        if output.name in known:
            output.CopyFrom(known[output.name])
    return made


def model(graph: onnx.GraphProto, opset: int = 18, **more: object) -> onnx.ModelProto:
    """Return a graph as a model."""
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, **more)


def parsed(text: str, opset: int = 18, **arrays: Array) -> onnx.ModelProto:
    """Return a model from ONNX text, with arrays as initializers."""
    text = text.replace("; ", "\n")
    made = onnx.parser.parse_model(
        f'<ir_version: {IR_VERSION}, opset_import: ["": {opset}]>\n{text}'
    )
    made.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    return made


def stored(name: str, array: Array) -> onnx.TensorProto:
    """Return an array as a stored tensor."""
    return numpy_helper.from_array(array, name)


def bad_tensor(
    name: str, dims: list[int], data_type: int = TensorProto.FLOAT, **fields: object
) -> onnx.TensorProto:
    """Return a tensor whose fields may contradict each other."""
    made = onnx.TensorProto(name=name, dims=dims, data_type=data_type)
    for field, value in fields.items():
        if isinstance(value, list):
            getattr(made, field).extend(value)
        else:
            setattr(made, field, value)
    return made


def run(made: onnx.ModelProto, feed: dict[str, Array], **options: Any) -> dict[str, Array]:
    """Import a model and run it through the oracle of graphs."""
    graph = load(made, **options)
    verify(graph)
    bound = {n: a for n, a in feed.items() if n in graph.input}
    result = oracle.run(graph, bound)
    assert not result.failed, result.failed
    return result.outputs


def run_elsewhere(made: onnx.ModelProto, feed: dict[str, Array]) -> dict[str, Array]:
    """Run a model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = (*session.get_inputs(), *session.get_overridable_initializers())
    names = [i.name for i in inputs]
    outputs = [o.name for o in session.get_outputs()]
    found = session.run(outputs, {n: a for n, a in feed.items() if n in names})
    return dict(zip(outputs, map(np.asarray, found), strict=True))
