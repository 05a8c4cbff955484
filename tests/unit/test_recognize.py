"""Attention in the forms in which exporters spell it becomes the operation, with the same values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tapeout.autodiff.gradients import gradients
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f64
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.ops.composite.attention import Attention
from tapeout.ops.composite.softmax import softmax
from tapeout.ops.sym import Sym, iota
from tapeout.oracle import graph as oracle
from tapeout.passes.recognize import Recognize

Q, K, V = (2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7)
Form = Callable[[Sym, Sym, Sym, Sym], Sym]


def flipped(x: Sym) -> Sym:
    return x.transpose((*range(x.rank - 2), x.rank - 1, x.rank - 2))


def never(x: Sym) -> Sym:
    """Return the usual mask of scores: -inf behind the diagonal."""
    rows, columns = x.shape[-2:]
    ahead = iota(x.builder, (rows, columns), 1) > iota(x.builder, (rows, columns), 0)
    zero = x.constant(0.0, x.dtype).broadcast_to((rows, columns))
    return ahead.where(zero.like(-math.inf), zero)


def plain(q: Sym, k: Sym, v: Sym, mask: Sym) -> Sym:
    return softmax(q @ flipped(k), -1) @ v


def scaled_scores(q: Sym, k: Sym, v: Sym, mask: Sym) -> Sym:
    return softmax((q @ flipped(k)) / 2.0, -1) @ v


def scaled_operands(q: Sym, k: Sym, v: Sym, mask: Sym) -> Sym:
    return softmax((q * 0.7) @ (flipped(k) * 0.7), -1) @ v


def causal(q: Sym, k: Sym, v: Sym, mask: Sym) -> Sym:
    z = (q * 0.5) @ flipped(k)
    return softmax(z + never(z), -1) @ v


def added(q: Sym, k: Sym, v: Sym, mask: Sym) -> Sym:
    return softmax(mask + (q @ flipped(k)) * 0.5, -1) @ v


def selected(q: Sym, k: Sym, v: Sym, mask: Sym) -> Sym:
    return (
        softmax((mask > -1.0).broadcast_to((2, 3, 5, 6)).where(q @ flipped(k), -math.inf), -1) @ v
    )


def shared_softmax(q: Sym, k: Sym, v: Sym, mask: Sym) -> Sym:
    share = softmax(q @ flipped(k), -1)
    return share @ v + share.sum() * 0.1


def over_queries(q: Sym, k: Sym, v: Sym, mask: Sym) -> Sym:
    return softmax(q @ flipped(k), -2) @ v


FORMS: list[tuple[Form, dict[str, object]]] = [
    (plain, {"scale": 1.0}),
    (scaled_scores, {"scale": 0.5}),
    (scaled_operands, {"scale": 0.7 * 0.7}),
    (causal, {"scale": 0.5, "right": 0}),
    (added, {"scale": 0.5}),
    (selected, {"scale": 1.0}),
]


def graph_of(form: Form) -> Graph:
    b = Builder("g")
    shapes = {"q": Q, "k": K, "v": V, "mask": (2, 1, 5, 6)}
    xs = [Sym(b, b.add_input(n, TensorType(f64, s))) for n, s in shapes.items()]
    y = form(*xs)
    b.set_output("y", y.value)
    weights = np.random.default_rng(1).uniform(0.5, 1.5, y.shape)
    b.set_output("loss", (y * y.constant(weights)).sum().value)
    return b.graph()


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    shapes = {"q": Q, "k": K, "v": V, "mask": (2, 1, 5, 6)}
    return {n: rng.standard_normal(s) for n, s in shapes.items()}


@pytest.mark.parametrize(("form", "wanted"), FORMS, ids=lambda x: getattr(x, "__name__", ""))
def test_attention_is_recognised(form: Form, wanted: dict[str, object]) -> None:
    graph = graph_of(form)
    found = Recognize().run(graph)
    (op,) = [n.op for n in found.nodes if isinstance(n.op, Attention)]
    for name, value in wanted.items():
        assert getattr(op, name) == pytest.approx(value)
    wrt = ["q", "k", "v", "mask"] if form is added else ["q", "k", "v"]
    want = oracle.run(gradients(graph, "loss", wrt), arrays()).outputs
    got = oracle.run(gradients(found, "loss", wrt), arrays()).outputs
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-10, atol=1e-12, err_msg=name)


def test_a_mask_stands_at_its_own_size() -> None:
    found = Recognize().run(graph_of(added))
    (node,) = [n for n in found.nodes if isinstance(n.op, Attention)]
    assert node.operands[3].type.shape == (2, 1, 5, 6)
    assert node.operands[3].type.dtype != bool_


@pytest.mark.parametrize("form", [shared_softmax, over_queries])
def test_what_is_no_attention_stays(form: Form) -> None:
    graph = graph_of(form)
    assert Recognize().run(graph) is graph
