"""Derived graphs, compiled: gradients of gradients, and products with Jacobians and Hessians against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tapeout
from tapeout.passes.precision import widen
from tests.e2e.networks import MODELS

NETS = ("mlp", "conv", "tiny_lenet", "tiny_mlp")
STEP = 1e-4


def net(name: str) -> tapeout.Graph:
    """Return a small network in f64 with an output `y` of any shape and a scalar output `loss`."""
    if name.startswith("tiny"):
        return tapeout.load_onnx(MODELS / "matrix" / f"{name}_dynamo_opset20.onnx").then(_with_loss)
    with tapeout.Builder(name, seed=1) as g:
        if name == "mlp":
            x = g.input("x", ("N", 4), tapeout.f64)
            y = tapeout.nn.linear(tapeout.nn.tanh(tapeout.nn.linear(x, 5, name="a")), 3, name="b")
            y = tapeout.nn.log_softmax(y)
        else:
            x = g.input("x", ("N", 2, 6, 6), tapeout.f64)
            y = tapeout.nn.sigmoid(tapeout.nn.conv2d(x, 3, 3, name="a", strides=[2, 2], padding=1))
            y = tapeout.nn.conv2d(y, 2, 2, name="b").square()
        g.output("y", y)
        g.output("loss", (y.exp() * 0.3).sum())
    return g.graph()


def _with_loss(graph: tapeout.Graph) -> tapeout.Graph:
    """Widen, and name the outputs as the others do."""
    from tapeout.ir.build import rebuilder
    from tapeout.ops.sym import Sym

    graph = widen(graph)
    b = rebuilder(graph)
    for node in graph.nodes:
        b.keep(node)
    y = Sym(b, graph.output["logits"])
    b.set_output("y", y.value)
    b.set_output("loss", (y.exp() * 0.3).sum().value)
    return b.graph(graph.dims)


def draw(graph: tapeout.Graph, names: list[str], seed: int, rows: int = 3) -> dict[str, np.ndarray]:
    """Return an array for each parameter or input by name."""
    rng = np.random.default_rng(seed)
    bound = graph.bind(dict.fromkeys(graph.dims, rows))
    known = {**bound.input, **{n: v.value for n, v in bound.parameters.items()}}
    return {n: rng.standard_normal(known[n].type.shape) for n in names}


class Moved:
    """Runs a graph with its parameters moved along a direction."""

    def __init__(self, graph: tapeout.Graph, inputs: dict[str, np.ndarray]) -> None:
        self.run, self.inputs = tapeout.compile(graph), inputs
        self.session = self.run._session
        self.start = {n: self.session.read(n) for n in graph.parameters}

    def __call__(self, direction: dict[str, np.ndarray], by: float) -> dict[str, np.ndarray]:
        inputs = dict(self.inputs)
        for name, d in direction.items():
            if name in self.start:
                self.session.write(name, self.start[name] + by * d)
            else:
                inputs[name] = inputs[name] + by * d
        found = self.run(inputs)
        for name, a in self.start.items():
            self.session.write(name, a)
        return found

    def slope(self, direction: dict[str, np.ndarray], output: str) -> np.ndarray:
        """Return the derivative of an output along the direction, by differences of fourth order."""
        d1, d2 = (
            self(direction, h)[output] - self(direction, -h)[output] for h in (STEP, 2 * STEP)
        )
        return (8 * d1 - d2) / (12 * STEP)


def close(got: np.ndarray, want: np.ndarray, limit: float = 1e-6) -> None:
    assert got.shape == want.shape
    assert np.max(np.abs(got - want)) <= limit * max(1e-3, float(np.max(np.abs(want))))


def dot(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return float(sum(np.sum(a[n] * b[n]) for n in a))


@pytest.mark.parametrize("name", NETS)
def test_jvp_and_vjp(name: str) -> None:
    graph = net(name)
    wrt = [*graph.parameters, "x"]
    inputs, tangents = draw(graph, ["x"], 1), draw(graph, wrt, 2)

    found = tapeout.compile(tapeout.jvp(graph, of="y", wrt=wrt))(
        {**inputs, **{f"tangent/{n}": t for n, t in tangents.items()}}
    )
    close(found["jvp/y"], Moved(graph, inputs).slope(tangents, "y"))

    # <u, J v> = <J^T u, v>, to rounding: the two products are each other's transposes.
    u = np.random.default_rng(3).standard_normal(found["y"].shape)
    back = tapeout.compile(tapeout.vjp(graph, of="y", wrt=wrt))({**inputs, "cotangent/y": u})
    left = float(np.sum(u * found["jvp/y"]))
    assert dot({n: back[f"vjp/{n}"] for n in wrt}, tangents) == pytest.approx(left, rel=1e-11)


@pytest.mark.parametrize("name", NETS)
def test_hvp(name: str) -> None:
    graph = net(name)
    wrt = [*graph.parameters, "x"]
    inputs, u, v = draw(graph, ["x"], 1), draw(graph, wrt, 2), draw(graph, wrt, 3)
    product = tapeout.compile(tapeout.hvp(graph, of="loss", wrt=wrt))

    def times(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = product({**inputs, **{f"tangent/{n}": a for n, a in t.items()}})
        return {n: found[f"hvp/{n}"] for n in wrt}

    first = Moved(tapeout.gradients(graph, of="loss", wrt=wrt), inputs)
    hv = times(v)
    for n in wrt:
        close(hv[n], first.slope(v, f"grad/{n}"))
    # The Hessian is symmetric.
    assert dot(u, hv) == pytest.approx(dot(v, times(u)), rel=1e-10)


@pytest.mark.parametrize("name", NETS)
def test_gradients_of_a_graph_are_those_of_the_trainer(name: str) -> None:
    graph = net(name)
    inputs = draw(graph, ["x"], 1)
    found = tapeout.compile(tapeout.gradients(graph, of="loss", wrt="parameters"))(inputs)
    loss, gradients = tapeout.Trainer(graph, loss="loss", optimizer=None).gradients(inputs)
    assert found["loss"] == loss
    for n, g in gradients.items():
        np.testing.assert_allclose(found[f"grad/{n}"], g, rtol=1e-12, atol=1e-14)


def test_gradients_apply_to_their_own_result() -> None:
    """f(x) = sin(x) exp(x/2) and its first four derivatives."""
    with tapeout.Builder("scalar") as g:
        x = g.input("x", (), tapeout.f64)
        g.output("d0", x.sin() * (x * 0.5).exp())
    graph = g.graph()
    for order in range(4):
        graph = tapeout.gradients(graph, of=f"d{order}", wrt=["x"], prefix=f"d{order + 1}/")
        graph = _renamed(graph, f"d{order + 1}/x", f"d{order + 1}")
    at = 0.7
    found = tapeout.compile(graph)(x=np.array(at))
    # The n-th derivative is the imaginary part of (1/2 + i)^n exp((1/2 + i) x).
    for order in range(5):
        want = (complex(0.5, 1) ** order * np.exp(complex(0.5, 1) * at)).imag
        assert float(found[f"d{order}"]) == pytest.approx(want, rel=1e-13)


def _renamed(graph: tapeout.Graph, old: str, new: str) -> tapeout.Graph:
    from dataclasses import replace

    return replace(graph, outputs=tuple((new if n == old else n, v) for n, v in graph.outputs))


def test_a_gradient_as_part_of_a_loss() -> None:
    """A penalty on the gradient with respect to the input, as in gradient penalties of critics."""
    with tapeout.Builder("critic", seed=2) as g:
        x = g.input("x", ("N", 4), tapeout.f64)
        h = tapeout.nn.tanh(tapeout.nn.linear(x, 6, name="a"))
        g.output("score", tapeout.nn.linear(h, 1, name="b").sum())
    with_gradient = tapeout.gradients(g.graph(), of="score", wrt=["x"])

    def penalty(known: Any) -> Any:
        length = known["grad/x"].square().sum(1).sqrt()
        return (length - 1.0).square().mean() + known["score"] * 0.01

    report = tapeout.gradcheck(with_gradient, penalty, f32=False)
    assert report, f"\n{report}"
    trainer = tapeout.Trainer(with_gradient, loss=penalty, optimizer=tapeout.optimizers.adam(1e-2))
    batch = draw(g.graph(), ["x"], 5, rows=8)
    losses = [trainer.step(batch)["loss"] for _ in range(30)]
    assert losses[-1] < losses[0]


def test_unbound_dimensions_bind_at_the_call() -> None:
    run = tapeout.compile(tapeout.gradients(net("mlp"), of="loss", wrt=["x"]))
    whole = draw(net("mlp"), ["x"], 4, rows=7)
    found = run(whole)["grad/x"]
    parts = [run(x=whole["x"][i : i + 3])["grad/x"] for i in (0, 3, 6)]
    np.testing.assert_allclose(np.concatenate(parts), found, rtol=1e-13)


def test_what_does_not_depend_has_zeros_and_what_has_no_gradient_is_named() -> None:
    with tapeout.Builder("parts") as g:
        x = g.input("x", (3,), tapeout.f64)
        z = g.input("z", (2,), tapeout.f64)
        n = g.input("n", (3,), tapeout.i64)
        g.output("loss", (x * n.cast(tapeout.f64)).sum())
        g.output("other", z.sum())
    graph = g.graph()
    found = tapeout.compile(tapeout.gradients(graph, of="loss", wrt=["x", "z"]))(
        x=np.ones(3), z=np.ones(2), n=np.array([1, 2, 3])
    )
    np.testing.assert_array_equal(found["grad/x"], [1, 2, 3])
    np.testing.assert_array_equal(found["grad/z"], [0, 0])
    for wrong, words in [(["n"], "i64"), (["y"], "'x'")]:
        with pytest.raises(tapeout.TapeoutError, match=words):
            tapeout.gradients(graph, of="loss", wrt=wrong)
    with pytest.raises(tapeout.TapeoutError, match="'loss'"):
        tapeout.gradients(graph, of="lost", wrt=["x"])


def test_curvature_of_a_quadratic() -> None:
    """The Hessian of x A x / 2 is A + A^T over 2, to the last digits."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 4))
    with tapeout.Builder("quadratic") as g:
        x = g.input("x", (4,), tapeout.f64)
        g.output("loss", (x.reshape([1, 4]) @ g.constant(a) @ x.reshape([4, 1])).sum() * 0.5)
    product = tapeout.compile(tapeout.hvp(g.graph(), of="loss", wrt=["x"]))
    for i in range(4):
        e = np.eye(4)[i]
        column = product({"x": rng.standard_normal(4), "tangent/x": e})["hvp/x"]
        np.testing.assert_allclose(column, (a + a.T)[i] / 2, rtol=1e-14)
