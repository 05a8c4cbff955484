"""Products with looked up rows become looked up products where that spares work, with the same values and gradients."""

from __future__ import annotations

import numpy as np
import pytest

from tapeout.autodiff.gradients import gradients
from tapeout.ir.build import Builder
from tapeout.ir.dtype import f64, i64
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tapeout.passes.tables import Tables

WIDTH, GATES = 64, 5


def build(
    shape: tuple[int, ...],
    rows: int,
    *,
    perm: tuple[int, ...] | None = None,
    contract: int = -1,
    twice: bool = False,
    side: str = "left",
) -> Graph:
    """Return a graph that looks up rows of a table, moves their dimensions, and multiplies by a matrix."""
    b = Builder("g")
    table = Sym(b, b.add_input("table", TensorType(f64, (rows, WIDTH))))
    index = Sym(b, b.add_input("index", TensorType(i64, shape)))
    x = table.take(index, 0)
    if perm is not None:
        x = x.transpose(perm)
    axis = contract % x.rank
    w = Sym(b, b.add_input("w", TensorType(f64, (GATES, x.shape[axis]))))
    if side == "left":
        y = x.dot_general(w, contract=((axis,), (1,)))
    else:
        y = w.dot_general(x, contract=((1,), (axis,)))
    total = (y * y).sum()
    if twice:
        total = total + x.sum()
    b.set_output("y", y.value)
    b.set_output("loss", total.value)
    return b.graph()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((40,), {}),
        ((5, 8), {}),
        ((5, 8), {"perm": (1, 0, 2)}),
        ((5, 8), {"perm": (2, 0, 1), "contract": 0}),
        ((2, 4, 5), {"perm": (2, 3, 0, 1), "contract": 1}),
    ],
)
def test_the_product_is_looked_up(shape: tuple[int, ...], options: dict[str, object]) -> None:
    graph = build(shape, 11, **options)  # type: ignore[arg-type]
    changed = Tables().run(graph)
    product = next(n for n in changed.nodes if n.op.name == "dot_general")
    assert product.results[0].type.shape == (11, GATES)
    compare(graph, changed, shape, 11)


@pytest.mark.parametrize(
    ("shape", "rows", "options"),
    [
        ((40,), 30, {}),  # too little to spare
        ((5, 8), 50, {}),  # the table is larger
        ((5, 8), 11, {"twice": True}),  # the rows are needed anyway
        ((5, 8), 11, {"contract": 1}),  # not along the rows
        ((40,), 11, {"side": "right"}),
    ],
)
def test_others_are_left(shape: tuple[int, ...], rows: int, options: dict[str, object]) -> None:
    graph = build(shape, rows, **options)  # type: ignore[arg-type]
    assert Tables().run(graph) is graph


def compare(graph: Graph, changed: Graph, shape: tuple[int, ...], rows: int) -> None:
    rng = np.random.default_rng(0)
    inputs = {
        v.name: rng.integers(-rows, rows, shape)
        if v.name == "index"
        else rng.standard_normal(v.type.shape)
        for v in graph.inputs
    }
    want, got = (
        oracle.run(gradients(g, "loss", ["table", "w"]), inputs).outputs for g in (graph, changed)
    )
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-12, atol=1e-12, err_msg=name)
