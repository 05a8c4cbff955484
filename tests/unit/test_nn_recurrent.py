"""Recurrent layers of the builder: names, shapes, dropout between layers, what is refused. Numbers: tests/e2e/test_nn_torch.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tapeout
from tapeout import nn
from tapeout.ops.control import Scan
from tapeout.oracle import graph as oracle
from tapeout.support.errors import OptionError, ShapeError


def built(layer: Callable[..., Any], shape: tuple[Any, ...] = (5, "N", 3), **options: Any) -> Any:
    with tapeout.Builder("layer") as g:
        y, *last = layer(g.input("x", shape), 4, name="m", **options)
        g.output("y", y)
        for i, v in enumerate(last):
            g.output(f"last{i}", v)
    return g.graph()


@pytest.mark.parametrize(("layer", "gates"), [(nn.lstm, 4), (nn.gru, 3), (nn.rnn, 1)])
def test_names_and_shapes(layer: Callable[..., Any], gates: int) -> None:
    graph = built(layer, layers=2, bidirectional=True)
    assert {n: v.type.shape for n, v in graph.parameters.items()} == {
        f"m.{what}_l{i}{way}": shape
        for i, inside in ((0, 3), (1, 8))
        for way in ("", "_reverse")
        for what, shape in {
            "weight_ih": (gates * 4, inside),
            "weight_hh": (gates * 4, 4),
            "bias_ih": (gates * 4,),
            "bias_hh": (gates * 4,),
        }.items()
    }
    bound = graph.bind({"N": 6})
    shapes = {n: v.type.shape for n, v in bound.outputs}
    last = {f"last{i}": (4, 6, 4) for i in range(2 if layer is nn.lstm else 1)}
    assert shapes == {"y": (5, 6, 8), **last}
    assert sum(isinstance(n.op, Scan) for n in bound.nodes) == 4
    first = built(layer, ("N", 5, 3), batch_first=True, bias=False).bind({"N": 6})
    assert first.output["y"].type.shape == (6, 5, 4)
    assert set(first.parameters) == {"m.weight_ih_l0", "m.weight_hh_l0"}


def test_dropout_lies_between_layers_and_only_in_training() -> None:
    graph = built(nn.gru, layers=3, dropout=0.5).bind({"N": 2})
    draws = [n for n in graph.nodes if n.op.name == "random_bits"]
    assert len(draws) == 2
    other = built(nn.gru, layers=3, dropout=0.5).evaluation()
    assert not any(n.op.name == "random_bits" for n in other.nodes)


def test_lengths() -> None:
    with tapeout.Builder("layer") as g:
        x, lengths = g.input("x", (5, 3, 2)), g.input("lengths", (3,), tapeout.i64)
        y, last = nn.gru(x, 4, name="m", lengths=lengths)
        g.output("y", y)
        g.output("last", last)
    rng = np.random.default_rng(0)
    feed = {"x": rng.normal(size=(5, 3, 2)).astype(np.float32), "lengths": np.array([5, 2, 3])}
    found = oracle.run(g.graph(), feed).outputs
    for row, n in enumerate(feed["lengths"]):
        assert not found["y"][n:, row].any()
        np.testing.assert_array_equal(found["last"][0, row], found["y"][n - 1, row])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shape": (3, 4)}, ShapeError, "is expected, got"),
        ({"layers": 0}, OptionError, "must be at least 1"),
        ({"dropout": 1.5}, OptionError, "dropout is 1.5"),
        ({"shape": (5, 2, "D")}, ShapeError, "has no number yet"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        built(nn.lstm, **options)


def test_a_state_of_another_shape_is_refused() -> None:
    with tapeout.Builder("layer") as g:
        x, state = g.input("x", (5, 2, 3)), g.input("h", (1, 2, 4))
        with pytest.raises(ShapeError, match=r"a first state is .*\[2, N, 4\] is expected"):
            nn.gru(x, 4, name="m", bidirectional=True, state=state)
