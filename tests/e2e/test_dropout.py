"""Dropout: the trainer's seed decides the draws, step by step, and evaluation draws nothing."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

import tapeout


def model() -> bytes:
    """Return x -> Gemm -> Dropout(0.5) -> Gemm as an ONNX file."""
    rng = np.random.default_rng(0)
    weights = {
        "a.weight": rng.standard_normal((16, 4)).astype(np.float32),
        "b.weight": rng.standard_normal((3, 16)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "a.weight"], ["h"], transB=1),
        helper.make_node("Dropout", ["h", "ratio", "training"], ["d"]),
        helper.make_node("Gemm", ["d", "b.weight"], ["logits"], transB=1),
    ]
    constants = [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()]
    constants.append(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "ratio"))
    constants.append(onnx.numpy_helper.from_array(np.array(True), "training"))
    graph = helper.make_graph(
        nodes,
        "dropout",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def losses(seed: int) -> tuple[list[float], dict[str, float]]:
    """Return the losses of five steps on one batch, and an evaluation at the end."""
    rng = np.random.default_rng(1)
    batch = {
        "x": rng.standard_normal((8, 4)).astype(np.float32),
        "labels": rng.integers(0, 3, 8),
    }
    trainer = tapeout.Trainer(
        tapeout.load_onnx(model()),
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.sgd(lr=0.0),
        seed=seed,
    )
    steps = [trainer.step(batch)["loss"] for _ in range(5)]
    first, second = trainer.evaluate(batch), trainer.evaluate(batch)
    assert first == second
    return steps, first


def test_the_seed_decides_what_is_dropped() -> None:
    steps, evaluated = losses(0)
    again, _ = losses(0)
    others, evaluated_too = losses(1)
    assert steps == again
    assert len(set(steps)) == 5, "each step draws anew"
    assert steps != others
    assert evaluated == evaluated_too, "evaluation does not depend on the seed"
