"""Functions with gradient rules of their own: the rule is the gradient, once and twice, through text and ONNX."""

from __future__ import annotations

import numpy as np
import pytest

import tapeout
from tapeout.ops.sym import Sym
from tapeout.passes.precision import widen


@tapeout.custom_gradient
def bent(x: Sym, y: Sym, slope: float = 2.0) -> tuple[Sym, Sym]:
    """Return a step times y, and the sum of both."""
    return (x > 0).cast(x.dtype) * y, x + y


@bent.backward
def _(cotangents, operands, results, slope=2.0):
    (da, db), (x, _), (_, b) = cotangents, operands, results
    return da * x * slope + db * b, da * (x > 0).cast(x.dtype) + db


def bending() -> tapeout.Graph:
    with tapeout.Builder("bend") as g:
        x = g.input("x", ("N", 3))
        w = g.parameter("w", (3,), np.array([0.5, -1, 2], np.float32))
        a, b = bent(x, w.broadcast_to(x.shape), slope=3.0)
        g.output("a", a)
        g.output("b", b)
        g.output("loss", a.square().sum() + (b * 2).sum())
    return g.graph()


def test_the_rule_is_the_gradient(rng: np.random.Generator) -> None:
    graph = tapeout.gradients(bending(), of="loss", wrt=["x", "w"])
    x = rng.standard_normal((4, 3)).astype(np.float32)
    w = np.array([0.5, -1, 2], np.float32)
    found = tapeout.compile(graph)(x=x)
    on = x > 0
    np.testing.assert_allclose(found["a"], on * w, rtol=1e-6)
    np.testing.assert_allclose(found["grad/x"], 2 * on * w * x * 3 + 2 * (x + w), rtol=1e-5)
    want = (2 * on * w * on + 2).sum(0)
    np.testing.assert_allclose(found["grad/w"], want, rtol=1e-5)


def test_the_rule_is_differentiated_again(rng: np.random.Generator) -> None:
    """d²loss/dx² by the rule: of `6 on w x + 2 (x + w)`, where the rule says d on·w / dx = 3 x."""
    once = tapeout.gradients(bending().then(widen), of="loss", wrt=["x"])
    with_sum = once.then(lambda g: _summed(g, "grad/x"))
    twice = tapeout.gradients(with_sum, of="total", wrt=["x"], prefix="grad2/")
    x, w = rng.standard_normal((4, 3)), np.array([0.5, -1, 2])
    found = tapeout.compile(twice)(x=x)["grad2/x"]
    on = (x > 0) * 1.0
    # grad/x = da x 3 + db b with da = 2 a: 6 (a x), whose a has the rule 3 x; and 2 b, whose b has the rule b.
    want = 6 * (on * w + x * 3 * x) + 2 * (x + w)
    np.testing.assert_allclose(found, want, rtol=1e-9)


def _summed(graph: tapeout.Graph, name: str) -> tapeout.Graph:
    from tapeout.ir.build import rebuilder
    from tapeout.ir.rewrite import finish

    b = rebuilder(graph)
    for node in graph.nodes:
        b.keep(node)
    total = Sym(b, graph.output[name]).sum()
    made = finish(graph, b, {})
    from dataclasses import replace

    return replace(made, outputs=(*made.outputs, ("total", total.value)))


def test_text_and_binding() -> None:
    graph = bending()
    assert str(tapeout.Graph.parse(str(graph))) == str(graph)
    assert "custom" in str(graph.bind({"N": 7}))


def test_through_onnx(tmp_path, rng: np.random.Generator) -> None:
    tapeout.save_onnx(bending(), tmp_path / "bend.onnx")
    x = rng.standard_normal((4, 3)).astype(np.float32)
    again = tapeout.compile(tapeout.load_onnx(tmp_path / "bend.onnx"))(x=x)
    np.testing.assert_array_equal(again["a"], tapeout.compile(bending())(x=x)["a"])


def test_rules_that_do_not_fit() -> None:
    @tapeout.custom_gradient
    def bare(x):
        return x * 2

    with tapeout.Builder("wrong") as g:
        x = g.input("x", (2, 3))
        with pytest.raises(tapeout.OptionError, match=r"'bare' has no gradient rule"):
            bare(x)
        bare.backward(lambda cotangents, operands, results: cotangents[0].sum())
        with pytest.raises(tapeout.ShapeError, match=r"gives f32\[\] as cotangent of operand 0"):
            bare(x)
        bare.backward(lambda cotangents, operands, results: x)
        with pytest.raises(tapeout.ShapeError, match="reads only what it is given"):
            bare(x)
        bare.backward(lambda cotangents, operands, results: (None, None))
        with pytest.raises(tapeout.ShapeError, match="2 cotangents for 1 operands"):
            bare(x)
        with pytest.raises(tapeout.OptionError, match="takes Syms"):
            bare(3.0)
