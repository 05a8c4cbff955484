"""Norms written as ONNX's own operators: which ones, that onnxruntime agrees, and that they come back as they were."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tapeout.export.onnx.save import model
from tapeout.frontend.onnx import load
from tapeout.ir.build import Builder
from tapeout.ir.dtype import DType, f32, f64
from tapeout.ir.graph import Graph, Kind
from tapeout.ir.type import TensorType
from tapeout.ops.composite.norm import Normalize, batch_norm_inference
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tests.onnx_models import run_elsewhere
from tests.tolerances import close

SHAPE = (2, 3, 4, 5)


def graph_of(op: Normalize, operands: int = 3, dtype: DType = f32, *, outputs: int = 1) -> Graph:
    b = Builder("norm")
    affine = tuple(SHAPE[d] for d in op.places)
    types = [TensorType(dtype, SHAPE), *[TensorType(dtype, affine)] * (operands - 1)]
    xs = [Sym(b, b.add_input(f"x{i}", t)) for i, t in enumerate(types)]
    for i, y in enumerate(xs[0].emit_all(op, *xs)[:outputs]):
        b.set_output(f"y{i}", (y + 1.0).value)
    return b.graph()


def operators(made: onnx.ModelProto) -> set[str]:
    return {n.op_type for n in made.graph.node}


LAYER, LAST = Normalize(axes=(2, 3), places=(2, 3), epsilon=0.01), Normalize(axes=(3,), places=(3,))
INSTANCE = Normalize(axes=(2, 3), places=(1,))


@pytest.mark.parametrize(
    ("op", "operands", "name"),
    [
        (LAYER, 3, "LayerNormalization"),
        (LAST, 2, "LayerNormalization"),
        (INSTANCE, 3, "InstanceNormalization"),
    ],
)
def test_what_onnx_has_itself(op: Normalize, operands: int, name: str) -> None:
    graph = graph_of(op, operands)
    made = model(graph)
    onnx.checker.check_model(made, full_check=True)
    assert name in operators(made)
    rng = np.random.default_rng(0)
    feed = {v.name: rng.normal(1, 2, v.type.shape).astype(np.float32) for v in graph.inputs}
    want = oracle.run(graph, feed).outputs["y0"]
    close(run_elsewhere(made, feed)["y0"], want, "reduction", factor=4, reason="another order")
    again = load(made)
    assert next(n.op for n in again.nodes if isinstance(n.op, Normalize)).axes == op.axes
    close(oracle.run(again, feed).outputs["y0"], want, "reduction", factor=4, reason="reshaped")


@pytest.mark.parametrize(
    "graph",
    [
        graph_of(LAYER, 1),
        graph_of(LAYER, outputs=3),
        graph_of(LAYER, dtype=f64),
        graph_of(INSTANCE, 2),
        graph_of(Normalize(axes=(1,), places=(1,))),
        graph_of(Normalize(axes=(2, 3), places=(1, 2))),
    ],
)
def test_the_others_are_written_out(graph: Graph) -> None:
    found = operators(model(graph))
    assert "Sqrt" in found
    assert not found & {"LayerNormalization", "InstanceNormalization"}


def test_given_statistics_come_back_to_be_trained() -> None:
    b = Builder("norm")
    x = Sym(b, b.add_input("x", TensorType(f32, (2, 3, 4))))
    rng = np.random.default_rng(0)
    kinds: dict[str, Kind] = {"s": "parameter", "b": "parameter", "m": "state", "v": "state"}
    tensors = []
    for name, kind in kinds.items():
        start = rng.uniform(0.5, 2, 3).astype(np.float32)
        made = b.add_variable(name, TensorType(f32, (3,)), kind, initial=start)
        tensors.append(Sym(b, made))
    b.set_output("y", batch_norm_inference(x, *tensors, 0.01).value)
    graph = b.graph()
    written = model(graph, feed_parameters=False)
    onnx.checker.check_model(written, full_check=True)
    assert operators(written) <= {"BatchNormalization", "Identity"}
    assert [v.name for v in written.graph.input] == ["x"]
    feed = {"x": rng.normal(1, 2, (2, 3, 4)).astype(np.float32)}
    want = oracle.run(graph, feed).outputs["y"]
    close(run_elsewhere(written, feed)["y"], want, "reduction", factor=4, reason="another order")
    again = load(written)
    assert {v.name: v.kind for v in again.variables} == kinds
    assert {n for n, _ in again.updates} == {"m", "v"}
