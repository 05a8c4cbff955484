"""Attention in blocks of queries equals attention at once, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tapeout.autodiff.gradients import gradients
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f64
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.ops.composite import attention as whole
from tapeout.ops.composite import attention_blocks as cut
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tapeout.passes.decompose import Decompose

WINDOWS: list[dict[str, Any]] = [
    {"causal": True},
    {"causal": True, "offset": 7},
    {"causal": True, "offset": -40},
    {"left": 5, "right": 3},
    {"left": 9, "offset": 2},
    {"causal": True, "softcap": 3.0},
]
SHAPES = [((1, 2, 70, 3), (1, 2, 70, 3)), ((4, 64, 2), (2, 50, 2)), ((1, 1, 65, 2), (1, 1, 90, 2))]


def graph_of(q: tuple[int, ...], k: tuple[int, ...], masked: bool, options: Any) -> Graph:
    b = Builder("g")
    types = {"q": q, "k": k, "v": k}
    xs = [Sym(b, b.add_input(n, TensorType(f64, s))) for n, s in types.items()]
    mask = None
    if masked:
        mask = Sym(b, b.add_input("mask", TensorType(bool_, (q[-2], k[-2]))))
    y = whole.attention(*xs, mask, **options)
    b.set_output("y", y.value)
    b.set_output("loss", (y * y).sum().value)
    return Decompose().run(gradients(b.graph(), "loss", ["q", "k", "v"]))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize(("q", "k"), SHAPES)
def test_blocks_equal_the_whole(
    q: tuple[int, ...],
    k: tuple[int, ...],
    options: dict[str, Any],
    masked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    feed = {n: rng.standard_normal(s) for n, s in (("q", q), ("k", k), ("v", k))}
    if masked:
        feed["mask"] = rng.random((q[-2], k[-2])) > 0.3
    want = oracle.run(graph_of(q, k, masked, options), feed).outputs
    for module in (whole, cut):
        monkeypatch.setattr(module, "LEAST_QUERIES", 32)
    graph = graph_of(q, k, masked, options)
    assert sum(n.op.name == "dot_general" for n in graph.nodes) > 14
    got = oracle.run(graph, feed).outputs
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-9, atol=1e-11, err_msg=name)


def test_a_block_reads_the_keys_that_it_sees() -> None:
    found = cut.blocks_of(512, 512, -1, 0, 0)
    assert [(b.start, b.stop, b.first, b.last) for b in found] == [
        (0, 128, 0, 128), (128, 256, 0, 256), (256, 384, 0, 384), (384, 512, 0, 512),
    ]  # fmt: skip
    near = cut.blocks_of(512, 512, 16, 0, 0)
    assert [(b.first, b.last) for b in near] == [(0, 128), (112, 256), (240, 384), (368, 512)]
    assert cut.blocks_of(512, 512, -1, -1, 0) == [cut.Block(0, 512, 0, 512)]
