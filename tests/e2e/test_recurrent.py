"""Recurrent layers in native code: what the oracle says, the same for any number of threads, and it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tapeout
from tapeout.driver.step import GRAD, gradient_entry
from tapeout.oracle import graph as oracle

T, N, X, H, CLASSES = 6, 5, 4, 7, 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
LENGTHS = np.array([6, 1, 4, 2, 3], np.int32)


def model(op: str, **attributes: Any) -> bytes:
    """Return x [T, N, X], lengths [N] -> two directions -> the last states -> scores."""
    rng = np.random.default_rng(1)
    g = GATES[op]
    shapes = {
        "w": (2, g * H, X),
        "r": (2, g * H, H),
        "b": (2, 2 * g * H),
        "head.weight": (CLASSES, 2 * H),
        "head.bias": (CLASSES,),
    }
    weights = {n: rng.normal(0, 0.4, s).astype(np.float32) for n, s in shapes.items()}
    more = {"direction": "bidirectional", "hidden_size": H, **attributes}
    nodes = [
        helper.make_node(op, ["x", "w", "r", "b", "lengths"], ["", "last"], name="layer", **more),
        helper.make_node("Transpose", ["last"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("Flatten", ["turned"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [T, "N", X]),
            helper.make_tensor_value_info("lengths", onnx.TensorProto.INT32, ["N"]),
        ],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def batch() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(T, N, X)).astype(np.float32)
    return {"x": x, "lengths": LENGTHS, "labels": np.arange(N) % CLASSES}


def trainer(op: str, threads: int = 2, **attributes: Any) -> tapeout.Trainer:
    return tapeout.Trainer(
        tapeout.load_onnx(model(op, **attributes)),
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.adam(lr=0.05),
        threads=threads,
    )


FORMS = [("LSTM", {}), ("GRU", {"linear_before_reset": 1}), ("GRU", {}), ("RNN", {})]


@pytest.mark.parametrize(("op", "attributes"), FORMS)
def test_native_gradients_are_those_of_the_oracle(op: str, attributes: dict[str, Any]) -> None:
    found, data = trainer(op, **attributes), batch()
    loss, gradients = found.gradients(data)
    graph = gradient_entry(found.model.bind({"N": N}), found.loss, None, None)
    want = oracle.run(graph, data).outputs
    assert loss == pytest.approx(float(want["loss"]), rel=1e-5)
    for name, gradient in gradients.items():
        largest = np.abs(want[GRAD + name]).max()
        assert largest > 0, name
        assert np.abs(gradient - want[GRAD + name]).max() <= 2e-5 * largest, name


@pytest.mark.parametrize("op", GATES)
def test_it_learns_with_the_same_bits_for_any_number_of_threads(op: str) -> None:
    data, runs = batch(), []
    for threads in (1, 2, 3):
        run = trainer(op, threads)
        losses = [run.step(data)["loss"] for _ in range(25)]
        assert losses[-1] < 0.3 * losses[0]
        runs.append((losses, {n: run.parameters[n].tobytes() for n in run.parameters}))
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("op", GATES)
def test_what_lies_behind_a_sequence_has_no_say(op: str) -> None:
    run, data = trainer(op), batch()
    want = run.predict({"x": data["x"], "lengths": LENGTHS})["logits"]
    other = data["x"].copy()
    for row, length in enumerate(LENGTHS):
        other[length:, row] = 1e6
    got = run.predict({"x": other, "lengths": LENGTHS})["logits"]
    np.testing.assert_array_equal(got, want)
    # Alone, a sample gets what it gets in the batch.
    for row in range(N):
        one = {"x": data["x"][:, row : row + 1], "lengths": LENGTHS[row : row + 1]}
        np.testing.assert_allclose(run.predict(one)["logits"][0], want[row], rtol=1e-5, atol=1e-6)
