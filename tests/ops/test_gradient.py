"""Gradients against differences of fourth order in f64, and Hessians against differences of gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tapeout.autodiff.gradients import gradients, hvp
from tapeout.ir.build import Builder
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as graph_oracle
from tests.ops.cases import CASES, Case
from tests.tolerances import GRADCHECK_ERROR, GRADCHECK_ZERO_FLOOR

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array

FIRST = [c for c in CASES if c.differentiable]
SECOND = [c for c in FIRST if c.order >= 2 and not c.zero]
STEP = 1e-3


def loss_of(case: Case) -> tuple[Graph, list[str]]:
    """Return the graph of a scalar: the float results, each element with a weight of its own; and the float operands."""
    b = Builder("case")
    operands = [Sym(b, b.add_input(f"x{i}", t)) for i, t in enumerate(case.types)]
    total: Sym | None = None
    for y in operands[0].emit_all(case.op, *operands):
        if not y.dtype.is_float:
            continue
        weights = np.random.default_rng(y.type.size).uniform(0.5, 1.5, y.shape)
        part = (y * y.constant(weights)).sum()
        total = part if total is None else total + part
    assert total is not None
    b.set_output("loss", total.value)
    return b.graph(), [f"x{i}" for i, t in enumerate(case.types) if t.dtype.is_float]


def inputs_of(case: Case) -> dict[str, Array]:
    return {f"x{i}": a for i, a in enumerate(case.draw(special=False))}


def run(graph: Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    return graph_oracle.run(graph, inputs).outputs


def differences(graph: Graph, inputs: dict[str, Array], name: str) -> Array:
    """Return the gradient of the loss by differences of fourth order."""
    x = inputs[name]
    found = np.zeros_like(x)
    for at in np.ndindex(*x.shape):

        def loss(by: float, at: tuple[int, ...] = at) -> float:
            moved = x.copy()
            moved[at] += by * STEP
            return float(run(graph, {**inputs, name: moved})["loss"])

        found[at] = (8 * (loss(1) - loss(-1)) - (loss(2) - loss(-2))) / (12 * STEP)
    return found


def agree(got: Array, want: Array) -> None:
    """Fail unless both are equal up to what differences leave."""
    scale = np.abs(want).max(initial=0.0)
    assert (
        np.abs(got - want).max(initial=0.0) <= GRADCHECK_ERROR * scale + 100 * GRADCHECK_ZERO_FLOOR
    )


@pytest.mark.parametrize("case", FIRST, ids=lambda c: c.id)
def test_gradient(case: Case) -> None:
    graph, names = loss_of(case)
    inputs = inputs_of(case)
    found = run(gradients(graph, "loss", names), inputs)
    grads = [found[f"grad/{n}"] for n in names]
    for name, got in zip(names, grads, strict=True):
        agree(got, differences(graph, inputs, name))
    assert any(np.any(g) for g in grads) != case.zero, "all gradients are zero"


@pytest.mark.parametrize("case", SECOND, ids=lambda c: c.id)
def test_hessian(case: Case) -> None:
    graph, names = loss_of(case)
    inputs = inputs_of(case)
    rng = np.random.default_rng(7)
    tangents = {n: rng.uniform(-1, 1, inputs[n].shape) for n in names}
    found = run(
        hvp(graph, "loss", names), {**inputs, **{f"tangent/{n}": t for n, t in tangents.items()}}
    )
    first = gradients(graph, "loss", names)

    def moved(by: float) -> dict[str, Array]:
        return run(first, {**inputs, **{n: inputs[n] + by * STEP * t for n, t in tangents.items()}})

    steps = {by: moved(by) for by in (-2, -1, 1, 2)}
    for name in names:
        g = {by: step[f"grad/{name}"] for by, step in steps.items()}
        agree(found[f"hvp/{name}"], (8 * (g[1] - g[-1]) - (g[2] - g[-2])) / (12 * STEP))


def test_every_differentiable_operation_is_differentiated() -> None:
    """A rule of gradients without a row that tests it is a rule that nobody knows to be right."""
    from tapeout.ir.op import REGISTRY, Op

    tested = {type(c.op) for c in FIRST}
    for cls in REGISTRY.values():
        if not cls.__module__.startswith("tapeout.ops.") or cls in tested:
            continue
        has_rule = cls.pullback is not Op.pullback and "grad" not in dir(cls)
        own_rule = any("grad" in vars(k) for k in cls.__mro__ if k.__module__ != "tapeout.ir.op")
        assert not (has_rule or own_rule) or cls.name in ("bitcast", "random_bits"), cls.name
