"""Gradients of imported operators at corners, as the table of conventions has them, and against differences elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tapeout.autodiff.gradients import gradients
from tapeout.frontend.onnx import load
from tapeout.ir.build import rebuilder
from tapeout.ir.graph import Graph
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tests.onnx_models import Array, one_node
from tests.unit.test_onnx_more_operators import CASES, Case


def total(graph: Graph) -> Graph:
    """Return the sum of the first output, each element weighed, as a loss."""
    b = rebuilder(graph)
    for node in graph.nodes:
        b.keep(node)
    y = Sym(b, graph.outputs[0][1])
    weights = np.random.default_rng(1).uniform(0.5, 1.5, y.shape).astype(y.dtype.numpy)
    b.set_output("loss", (y * y.constant(weights)).sum().value)
    for check in graph.checks:
        b.add_check(check.bad, check.message)
    return b.graph()


def slopes(op: str, operands: dict[str, Array], wrt: list[str], **more: Any) -> list[Array]:
    """Return the gradients of the plain sum of a node's first result."""
    made = one_node(op, operands, opset=more.pop("opset", 18), **more)
    graph = load(made, mode="as-exported")
    b = rebuilder(graph)
    for node in graph.nodes:
        b.keep(node)
    b.set_output("loss", Sym(b, graph.outputs[0][1]).sum().value)
    feed = {n: a for n, a in operands.items() if n in graph.input}
    found = oracle.run(gradients(b.graph(), "loss", wrt), feed).outputs
    return [found[f"grad/{n}"] for n in wrt]


def f64(*values: float) -> Array:
    return np.array(values, np.float64)


CORNERS = [
    ("Max", {"a": f64(1), "b": f64(1), "c": f64(1)}, {}, [1 / 3, 1 / 3, 1 / 3]),
    ("Max", {"a": f64(1), "b": f64(1), "c": f64(0)}, {}, [0.5, 0.5, 0]),
    ("Min", {"a": f64(1), "b": f64(2), "c": f64(1), "d": f64(1)}, {}, [1 / 3, 0, 1 / 3, 1 / 3]),
    ("ReduceL2", {"a": f64(0, 0)}, {}, [[0, 0]]),
    ("ReduceL1", {"a": f64(0, -2)}, {}, [[0, -1]]),
    ("LpNormalization", {"a": f64(0, 0)}, {}, [[1, 1]]),
    ("GlobalLpPool", {"a": f64(0, 0).reshape(1, 1, 2)}, {}, [[[[0, 0]]]]),
    ("GlobalLpPool", {"a": f64(0, 0).reshape(1, 1, 2)}, {"p": 3}, [[[[0, 0]]]]),
    ("LpPool", {"a": f64(0, 0).reshape(1, 1, 2)}, {"kernel_shape": [2]}, [[[[0, 0]]]]),
    ("MaxPool", {"a": f64(1, 1).reshape(1, 1, 2)}, {"kernel_shape": [2]}, [[[[1, 0]]]]),
    ("PRelu", {"a": f64(0), "b": f64(0.25)}, {}, [0.25, 0]),
    ("Clip", {"a": f64(0, 1, 2)}, {}, [[1, 1, 1]]),
    ("HardSigmoid", {"a": f64(-2.5, 2.5)}, {}, [[0, 0]]),
    ("CumProd", {"a": f64(2, 0, 3), "axis": np.array(0)}, {"opset": 26, "stored": ("axis",)}, [[1, 8, 0]]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "operands", "more", "expected"), CORNERS)
def test_corners(op: str, operands: dict[str, Array], more: dict[str, Any], expected: Any) -> None:
    wrt = [n for n, a in operands.items() if a.dtype == np.float64]
    for got, want in zip(slopes(op, operands, wrt, **more), expected, strict=True):
        np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), rtol=1e-12)


SMOOTH = {
    "GatherND", "ScatterElements", "ScatterND", "CumProd", "Resize", "Upsample", "TopK", "ReverseSequence", "CenterCropPad",
    "TensorScatter", "Col2Im", "Compress", "RotaryEmbedding", "SwiGLU", "GlobalLpPool", "LpPool", "MaxUnpool", "Einsum",
    "DequantizeLinear", "DFT", "STFT", "GridSample", "AffineGrid",
}  # fmt: skip


def is_smooth(case: Case) -> bool:
    """Return whether a row has float operands that are drawn (and so far from every corner)."""
    return case.op in SMOOTH and any(
        isinstance(o, tuple) for i, o in enumerate(case.operands) if i not in case.stored
    )


@pytest.mark.parametrize("case", [c for c in CASES if is_smooth(c)], ids=lambda c: c.id)
def test_against_differences(case: Case) -> None:
    operands = {
        n: a.astype(np.float64) if a is not None and a.dtype == np.float32 else a
        for n, a in case.draw().items()
    }
    stored = tuple(f"x{i}" for i in case.stored)
    scales = {n: a.astype(np.float32) for n, a in operands.items() if n in stored and a is not None and a.dtype == np.float64}  # fmt: skip
    made = one_node(
        case.op,
        operands | scales,
        opset=case.opset,
        outputs=case.outputs,
        stored=stored,
        **case.attributes,
    )
    graph = total(
        load(made, mode="as-exported", values={f"x{i}": operands[f"x{i}"] for i in case.values})
    )
    feed = {n: a for n, a in operands.items() if n in graph.input}
    wrt = [n for n, a in feed.items() if a.dtype == np.float64]
    if case.op == "GridSample" and case.attributes.get("mode") == "nearest":
        wrt.remove("x1")  # jumps from element to element: the gradient is 0 and differences are not
    found = oracle.run(gradients(graph, "loss", wrt), feed).outputs

    def loss(**changed: Array) -> float:
        return float(oracle.run(graph, {**feed, **changed}).outputs["loss"])

    assert any(np.any(found[f"grad/{n}"]) for n in wrt)
    rng = np.random.default_rng(2)
    for name in wrt:
        x, step = feed[name], 1e-4
        towards = rng.uniform(-1, 1, x.shape)
        moved = [loss(**{name: x + k * step * towards}) for k in (1, -1, 2, -2)]
        slope = (8 * (moved[0] - moved[1]) - (moved[2] - moved[3])) / (12 * step)
        np.testing.assert_allclose(
            (found[f"grad/{name}"] * towards).sum(), slope, rtol=1e-6, atol=1e-8
        )
