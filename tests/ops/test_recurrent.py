"""Recurrent layers: their gradients against differences, PyTorch's order of gates, and what is computed inside of the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tapeout.autodiff.gradients import gradients
from tapeout.ir.build import Builder
from tapeout.ir.dtype import f64, from_numpy
from tapeout.ir.type import TensorType
from tapeout.ops.composite import recurrent
from tapeout.ops.composite.recurrent import Layer
from tapeout.ops.control import Scan
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array

T, N, X, H = 4, 3, 2, 3
LENGTHS = np.array([4, 0, 2])
Formula = Callable[[Layer, dict[str, Sym]], tuple[Sym, ...]]

FORMS: dict[str, tuple[int, Formula]] = {
    "lstm": (4, lambda layer, v: recurrent.lstm(layer, v["cell"])),
    "lstm-peephole": (
        4,
        lambda layer, v: recurrent.lstm(layer, v["cell"], peephole=[v["p0"], v["p1"], v["p2"]]),
    ),
    "lstm-coupled": (4, lambda layer, v: recurrent.lstm(layer, v["cell"], couple=True)),
    "gru": (3, lambda layer, v: recurrent.gru(layer)),
    "gru-before": (3, lambda layer, v: recurrent.gru(layer, reset_after=False)),
    "rnn": (1, lambda layer, v: recurrent.rnn(layer)),
}


def operands(gates: int, *more: str) -> dict[str, Array]:
    """Return operands of a layer, always the same."""
    rng = np.random.default_rng(gates)
    shapes = {
        "x": (T, N, X),
        "weight": (gates * H, X),
        "recurrent": (gates * H, H),
        "bias": (gates * H,),
        "recurrent_bias": (gates * H,),
        "state": (N, H),
        "cell": (N, H),
        "p0": (H,),
        "p1": (H,),
        "p2": (H,),
    }
    made = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    return {n: a for n, a in made.items() if not more or n in more}


def graph_of(formula: Formula, arrays: dict[str, Array], **options: Any) -> Graph:
    """Return the graph of a layer, with the output `loss`, a weighted sum of all results."""
    b = Builder("layer")
    v = {n: Sym(b, b.add_input(n, TensorType(f64, a.shape))) for n, a in arrays.items()}
    fields = ("x", "weight", "recurrent", "bias", "recurrent_bias", "state")
    lengths = options.pop("lengths", None)
    if lengths is not None:
        given = b.add_input("lengths", TensorType(from_numpy(lengths.dtype), lengths.shape))
        lengths = Sym(b, given)
    layer = Layer(**{n: v[n] for n in fields if n in v}, lengths=lengths, **options)
    results = formula(layer, v)
    loss = None
    for i, y in enumerate(results):
        factors = np.random.default_rng(i).normal(size=tuple(map(int, y.shape)))
        part = (y * y.constant(factors)).sum()
        loss = part if loss is None else loss + part
        b.set_output(f"y{i}", y.value)
    assert loss is not None
    b.set_output("loss", loss.value)
    return b.graph()


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"lengths": LENGTHS}, {"clip": 0.4}])
@pytest.mark.parametrize("form", FORMS)
def test_gradients(form: str, options: dict[str, Any]) -> None:
    gates, formula = FORMS[form]
    arrays = operands(gates)
    graph = graph_of(formula, arrays, **options)
    names = [n for n in arrays if n in graph.input]
    feed = arrays | ({"lengths": LENGTHS} if "lengths" in options else {})
    found = oracle.run(gradients(graph, "loss", names), feed).outputs
    rng = np.random.default_rng(0)
    for name in names:
        way = rng.normal(size=arrays[name].shape)
        ends = [
            oracle.run(graph, {**feed, name: arrays[name] + s * 1e-6 * way}).outputs["loss"]
            for s in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose((found[f"grad/{name}"] * way).sum(), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("form", "order", "torch", "run"),
    [
        ("lstm", "iofc", recurrent.TORCH_LSTM, recurrent.lstm),
        ("gru", "zrh", recurrent.TORCH_GRU, recurrent.gru),
    ],
)
def test_the_order_of_gates(form: str, order: str, torch: str, run: Callable[..., Any]) -> None:
    gates = len(order)
    arrays = operands(gates, "x", "weight", "recurrent", "bias", "recurrent_bias")
    rows = np.concatenate([np.arange(H) + order.index(g) * H for g in torch])
    moved = {n: a if n == "x" else a[rows] for n, a in arrays.items()}
    want = oracle.run(graph_of(lambda layer, _: run(layer), arrays), arrays).outputs
    other = graph_of(lambda layer, _: run(layer, order=torch), moved)
    np.testing.assert_allclose(oracle.run(other, moved).outputs["y0"], want["y0"], rtol=1e-12)


def test_invalid_times_give_zeros_and_keep_the_state() -> None:
    for form, (gates, formula) in FORMS.items():
        arrays = operands(gates)
        for reverse in (False, True):
            graph = graph_of(formula, arrays, lengths=LENGTHS, reverse=reverse)
            got = oracle.run(graph, {**arrays, "lengths": LENGTHS}).outputs
            for row, length in enumerate(LENGTHS):
                assert not got["y0"][length:, row].any(), form
                if not length:
                    np.testing.assert_array_equal(got["y1"][row], arrays["state"][row])
                    continue
                cut = arrays | {"x": arrays["x"][:length]}
                alone = oracle.run(graph_of(formula, cut, reverse=reverse), cut).outputs
                np.testing.assert_allclose(got["y0"][:length, row], alone["y0"][:, row], rtol=1e-12)
                np.testing.assert_allclose(got["y1"][row], alone["y1"][row], rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_one_product_for_all_times_and_one_in_the_loop(form: str) -> None:
    gates, formula = FORMS[form]
    graph = graph_of(formula, operands(gates))
    (scan,) = (n.op for n in graph.nodes if isinstance(n.op, Scan))
    inside = [n for n in scan.body.nodes if n.op.name == "dot_general"]
    outside = [n for n in graph.nodes if n.op.name == "dot_general"]
    assert len(outside) == 1
    assert len(inside) == (2 if form == "gru-before" else 1)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("weight", (3 * H, X)), ("recurrent", (4 * H, H + 1)), ("bias", (H,)), ("state", (H, N + 1))],
)
def test_what_does_not_fit_is_told(name: str, shape: tuple[int, ...]) -> None:
    arrays = operands(4) | {name: np.zeros(shape)}
    with pytest.raises(ShapeError, match=r"lstm: the .* expected"):
        graph_of(FORMS["lstm"][1], arrays)
