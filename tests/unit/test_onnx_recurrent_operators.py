"""LSTM, GRU and RNN against onnxruntime: every attribute, every optional operand, both directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.onnx_models import Array, one_node, run, run_elsewhere
from tests.tolerances import close
from tests.unit.test_onnx_operators import Case

T, N, X, H = 4, 3, 2, 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
LENGTHS = np.array([4, 1, 2], np.int32)


def layer(op: str, *more: Any, opset: int = 14, direction: str = "forward", **rest: Any) -> Case:
    """Return a row with biases, then the operands of `more`, all results asked for."""
    d, g = DIRECTIONS[direction], GATES[op]
    operands = ((T, N, X), (d, g * H, X), (d, g * H, H), (d, 2 * g * H), *more)
    attributes = {"hidden_size": H, "direction": direction, **rest}
    outputs = 3 if op == "LSTM" else 2
    return Case(op, opset, operands, attributes, outputs, kind="reduction")


def layers() -> Iterator[Case]:
    for op in GATES:
        cell = [(2, N, H)] if op == "LSTM" else []
        one = [(1, N, H)] * (1 + len(cell))
        for direction in DIRECTIONS:
            yield layer(op, direction=direction)
        yield layer(op, LENGTHS, (2, N, H), *cell, direction="bidirectional")
        yield layer(op, np.full(N, T, np.int32), *one, opset=7)
        yield layer(op, None, *one, clip=0.3)
        yield layer(op, None, *one, opset=22)
        for names, more in (
            (["Relu"], {}),
            (["Softsign"], {}),
            (["Softplus"], {}),
            (["HardSigmoid"], {}),
            (["Affine"], {"activation_alpha": [0.5], "activation_beta": [0.1]}),
            (["LeakyRelu"], {"activation_alpha": [0.2]}),
            (["ScaledTanh"], {"activation_alpha": [1.5], "activation_beta": [0.7]}),
            (["Elu"], {"activation_alpha": [0.5]}),
            (["ThresholdedRelu"], {"activation_alpha": [0.1]}),
        ):
            chosen = [*names, "Tanh", "Sigmoid"][: ACTIVATIONS[op]]
            yield layer(op, activations=chosen, **more)
    both = ["Tanh", "Relu", "Sigmoid", "Softsign"]
    yield layer("GRU", activations=both, direction="bidirectional")
    for direction in DIRECTIONS:
        yield layer("GRU", LENGTHS, linear_before_reset=1, direction=direction)
    state, peephole = (1, N, H), (1, 3 * H)
    yield layer("LSTM", None, state, state, peephole)
    yield layer("LSTM", LENGTHS, state, state, peephole, clip=0.5, direction="reverse")
    yield layer("LSTM", None, state, state, input_forget=1)
    yield layer("LSTM", None, None, None, (2, 3 * H), direction="bidirectional", input_forget=1)


CASES = list(layers())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_as_onnxruntime(case: Case) -> None:
    operands = case.draw()
    made = one_node(case.op, operands, opset=case.opset, outputs=case.outputs, **case.attributes)
    feed = {n: a for n, a in operands.items() if a is not None}
    want = run_elsewhere(made, feed)
    got = run(made, feed)
    assert list(got) == list(want)
    for name, array in want.items():
        close(got[name], array, case.kind, factor=8, reason="two implementations, both in f32")


@pytest.mark.parametrize("op", GATES)
def test_the_batch_may_come_first(op: str) -> None:
    """What onnxruntime does not do: the same numbers as with time first, transposed."""
    row = layer(op, LENGTHS, *[(2, N, H)] * (2 if op == "LSTM" else 1), direction="bidirectional")
    operands = row.draw()
    time_first = dict(operands)
    swapped = {
        n: np.ascontiguousarray(a.swapaxes(0, 1))
        if n in ("x0", "x5", "x6") and a is not None
        else a
        for n, a in operands.items()
    }
    want = run(node(row, time_first), drawn(time_first))
    got = run(node(row, swapped, layout=1), drawn(swapped))
    np.testing.assert_array_equal(got["y0"], want["y0"].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(got["y1"], want["y1"].swapaxes(0, 1))


def node(row: Case, operands: dict[str, Array | None], **more: int) -> Any:
    return one_node(row.op, operands, opset=14, outputs=row.outputs, **row.attributes, **more)


def drawn(operands: dict[str, Array | None]) -> dict[str, Array]:
    return {n: a for n, a in operands.items() if a is not None}
