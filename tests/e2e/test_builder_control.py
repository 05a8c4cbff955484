"""Loops and branches, written with the builder."""

from __future__ import annotations

import numpy as np
import pytest

import tapeout


def recurrence(reverse: bool) -> tapeout.Graph:
    with tapeout.Builder("recurrence") as g:
        x = g.input("x", (5, "N", 3), tapeout.f64)
        w = g.parameter("w", (3, 3), np.eye(3) * 0.5 + 0.1, tapeout.f64)

        def step(carries, slices, consts):
            h = (slices[0] + carries[0] @ consts[0]).tanh()
            return [h], [h * 2]

        (hs,), (ys,) = g.scan(step, [x[0] * 0], [x], [w], reverse=reverse)
        g.output("hs", hs)
        g.output("ys", ys)
        g.output("loss", (ys.square() * 0.5).sum())
    return g.graph()


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse: bool, rng: np.random.Generator) -> None:
    graph = recurrence(reverse)
    x, w = rng.standard_normal((5, 2, 3)), np.eye(3) * 0.5 + 0.1
    found = tapeout.compile(tapeout.gradients(graph, wrt=["x", "w"]))(x=x)
    h, want = np.zeros((2, 3)), []
    for t in reversed(range(5)) if reverse else range(5):
        h = np.tanh(x[t] + h @ w)
        want.append(h)
    if reverse:
        want.reverse()
    np.testing.assert_allclose(found["ys"], np.array(want) * 2, rtol=1e-12)
    np.testing.assert_allclose(found["hs"][:5] if reverse else found["hs"][1:], want, rtol=1e-12)
    report = tapeout.gradcheck(graph, "loss", {"x": x}, f32=False)
    assert report, str(report)


def test_a_branch(rng: np.random.Generator) -> None:
    with tapeout.Builder("branch") as g:
        x = g.input("x", (4,), tapeout.f64)
        w = g.parameter("w", (4,), np.ones(4), tapeout.f64)
        (y,) = g.cond(x.sum() > 0, lambda x, w: [x * w * 2], lambda x, w: [x - w.square()], [x, w])
        g.output("loss", y.sum())
    program = tapeout.compile(tapeout.gradients(g.graph(), wrt=["w"]))
    x = np.abs(rng.standard_normal(4))
    np.testing.assert_allclose(program(x=x)["grad/w"], x * 2)
    np.testing.assert_allclose(program(x=-x)["grad/w"], np.full(4, -2.0))


def test_a_body_reads_only_what_it_is_given() -> None:
    with tapeout.Builder("closed") as g:
        x = g.input("x", (5, 3))
        w = g.parameter("w", (3,), tapeout.init.ones())
        with pytest.raises(tapeout.ShapeError, match="belongs to another graph"):
            g.scan(lambda c, s, k: ([s[0] * w], []), [x[0]], [x])
        with pytest.raises(tapeout.ShapeError, match="declare them outside"):
            g.scan(lambda c, s, k: ([tapeout.nn.linear(s[0], 3, name="fc")], []), [x[0]], [x])
