"""Derivatives of loops against those of the same loop written out, first and second order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tapeout.autodiff.gradients import gradients, hvp, jvp
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f64
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.ir.verify import verify
from tapeout.ops.contraction import Conv, DotGeneral
from tapeout.ops.control import Scan, cond, scan
from tapeout.ops.sym import Sym
from tapeout.oracle.graph import run
from tests.tolerances import close

T, B, D, H = 4, 2, 3, 3
Loss = Callable[[list[Sym], list[Sym]], Sym]


def lstm(c: Any, x: Any, k: Any) -> Any:
    (h, cell), (wx, wh, b) = c, k
    z = x[0] @ wx + h @ wh + b
    i, f, g, o = (z[:, n * H : (n + 1) * H] for n in range(4))
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    new = o.sigmoid() * cell.tanh()
    return [new, cell], [new * 1.5]


def peephole(c: Any, x: Any, k: Any) -> Any:
    """A weight that is used elementwise, and a skip."""
    p, w = k
    return [(x[0] @ w * p + c[0] * p).tanh() * 0.5 + c[0]], []


def nested(c: Any, x: Any, k: Any) -> Any:
    """A loop inside of a loop, and a branch."""
    inner, _ = scan(lambda c, _, k: ([(c[0] @ k[0]).tanh()], []), [c[0]], [], [k[0]], length=2)
    new = inner[0][2] + x[0]
    (y,) = cond(new.sum() > 0, lambda a: [a * a], lambda a: [a.sin()], [new])
    return [new * 0.5], [y]


def convolution(c: Any, x: Any, k: Any) -> Any:
    """A recurrence of pictures: time joins the batch in the gradients of its weights."""
    sizes: Any = {"strides": [1, 1], "low": [1, 1], "high": [1, 1]}
    wx, wh = k
    return [(x[0].conv(wx, **sizes) + c[0].conv(wh, **sizes)).tanh()], []


MODELS: dict[str, tuple[Any, list[tuple[int, ...]], int]] = {
    "lstm": (lstm, [(B, H), (B, H), (T, B, D), (D, 4 * H), (H, 4 * H), (4 * H,)], 2),
    "peephole": (peephole, [(B, H), (T, B, D), (H,), (D, H)], 1),
    "convolution": (convolution, [(B, 2, 3, 3), (T, B, 1, 3, 3), (2, 1, 3, 3), (2, 2, 3, 3)], 1),
    "nested": (nested, [(B, H), (T, B, H), (H, H)], 1),
}


def weighted(x: Sym, seed: int) -> Sym:
    return (x * x.constant(np.random.default_rng(seed).standard_normal(x.shape))).sum()


def everything(hs: list[Sym], ys: list[Sym]) -> Sym:
    total = weighted(hs[0], 0)
    for n, x in enumerate([*hs[1:], *ys], 1):
        total = total + weighted(x, n)
    return total


LOSSES: dict[str, Loss] = {
    "everything": everything,
    "last": lambda hs, ys: weighted(hs[0][T].tanh(), 1),
    "tail": lambda hs, ys: weighted(hs[0][1:], 1) + weighted(hs[0][T], 2),
    "start": lambda hs, ys: weighted(hs[0][0], 1) + weighted(hs[0][:T], 2),
}


def unrolled(
    step: Any,
    init: Sequence[Sym],
    xs: Sequence[Sym],
    consts: Sequence[Sym],
    length: int,
    *,
    reverse: bool,
) -> tuple[list[Sym], list[Sym]]:
    carries, ys = list(init), []
    histories = [[x] for x in init]
    for t in range(length)[:: -1 if reverse else 1]:
        carries, made = step(carries, [x[t] for x in xs], list(consts))
        ys.append(made)
        for history, x in zip(histories, carries, strict=True):
            history.append(x)

    def stack(parts: list[Sym]) -> Sym:
        ordered = parts[::-1] if reverse else parts
        first, *more = (p.expand_dims([0]) for p in ordered)
        return first.concat(more, 0)

    return [stack(h) for h in histories], [stack([y[i] for y in ys]) for i in range(len(ys[0]))]


def graph_of(model: str, make: Any, loss: Loss, *, reverse: bool) -> Graph:
    step, shapes, carries = MODELS[model]
    b = Builder(model)
    v = [Sym(b, b.add_input(f"v{i}", TensorType(f64, s))) for i, s in enumerate(shapes)]
    hs, ys = make(
        step, v[:carries], v[carries : carries + 1], v[carries + 1 :], length=T, reverse=reverse
    )
    b.set_output("loss", loss(hs, ys).value)
    return b.graph()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_first_and_second_order(model: str, loss: str, reverse: bool) -> None:
    shapes = MODELS[model][1]
    rng = np.random.default_rng(3)
    values = {f"v{i}": rng.standard_normal(s) * 0.5 for i, s in enumerate(shapes)}
    tangents = {f"tangent/{k}": rng.standard_normal(v.shape) for k, v in values.items()}
    looped, plain = (
        graph_of(model, make, LOSSES[loss], reverse=reverse) for make in (scan, unrolled)
    )
    for derive, given in ((gradients, values), (hvp, {**values, **tangents})):
        found = derive(looped, "loss", list(values))
        verify(found)
        expected = run(derive(plain, "loss", list(values)), given).outputs
        got = run(found, given).outputs
        for name, want in expected.items():
            close(got[name], want, "network")


@pytest.mark.parametrize("model", ["lstm", "nested"])
def test_forward_mode(model: str) -> None:
    shapes = MODELS[model][1]
    rng = np.random.default_rng(3)
    values = {f"v{i}": rng.standard_normal(s) * 0.5 for i, s in enumerate(shapes)}
    tangents = {f"tangent/{k}": rng.standard_normal(v.shape) for k, v in values.items()}
    looped, plain = (graph_of(model, make, everything, reverse=True) for make in (scan, unrolled))
    got, want = (
        run(jvp(g, "loss", list(values)), {**values, **tangents}).outputs["jvp/loss"]
        for g in (looped, plain)
    )
    close(got, want, "network")


def loops(graph: Graph) -> list[Scan]:
    return [n.op for n in graph.nodes if isinstance(n.op, Scan)]


def test_weight_gradients_are_one_product_after_the_loop() -> None:
    graph = gradients(graph_of("lstm", scan, LOSSES["last"], reverse=False), "loss", ["v3", "v4"])
    backward = loops(graph)[-1]
    assert backward.reverse
    # Inside: only the product that carries the cotangent to the step before (that of x is not asked for).
    inside = [n for n in backward.body.nodes if isinstance(n.op, DotGeneral)]
    outside = [n for n in graph.nodes if isinstance(n.op, DotGeneral)]
    assert len(inside) == 1 and len(outside) == 2
    assert all(n.op.contract_a[0] == 0 and n.operands[0].type.rank == 3 for n in outside)


def test_weight_gradients_of_convolutions_are_one_convolution() -> None:
    graph = gradients(graph_of("convolution", scan, LOSSES["tail"], reverse=False), "loss", ["v3"])
    outside = [n.op for n in graph.nodes if isinstance(n.op, Conv)]
    assert [op.out for op in outside] == ["w"]


def test_gates_are_kept_and_sums_are_computed_anew() -> None:
    graph = gradients(graph_of("lstm", scan, LOSSES["last"], reverse=False), "loss", ["v4"])
    forward = loops(graph)[0]
    kept = [v.node.op.name for _, v in forward.body.outputs[3:] if v.node is not None]
    assert sorted(kept) == ["sigmoid", "sigmoid", "sigmoid", "tanh", "tanh"]


def test_a_branch_that_is_not_taken_leaves_no_nan() -> None:
    b = Builder("guarded")
    x = Sym(b, b.add_input("x", TensorType(f64, (2,))))
    p = Sym(b, b.add_input("p", TensorType(bool_)))
    (y,) = cond(p, lambda x: [x.sqrt().log()], lambda x: [x * 3.0], [x])
    b.set_output("loss", y.sum().value)
    graph = gradients(b.graph(), "loss", ["x"])
    given = {"x": np.array([-1.0, 0.0]), "p": np.array(False)}
    found = run(graph, given).outputs["grad/x"]
    np.testing.assert_array_equal(found, [3.0, 3.0])


@pytest.mark.parametrize("length", [0, 1])
def test_no_step_and_one(length: int) -> None:
    b = Builder("short")
    h = Sym(b, b.add_input("h", TensorType(f64, (2,))))
    w = Sym(b, b.add_input("w", TensorType(f64, (2,))))
    (hs,), _ = scan(lambda c, _, k: ([c[0] * k[0]], []), [h], [], [w], length=length)
    b.set_output("loss", hs[length].sum().value)
    graph = gradients(b.graph(), "loss", ["h", "w"])
    given = {"h": np.array([2.0, 3.0]), "w": np.array([5.0, 7.0])}
    found = run(graph, given).outputs
    np.testing.assert_array_equal(found["grad/h"], given["w"] ** length)
    np.testing.assert_array_equal(found["grad/w"], given["h"] * length)


def test_a_large_sum_is_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapeout.autodiff.over_time.LARGEST", 0)
    test_first_and_second_order("peephole", "everything", reverse=False)
    graph = gradients(graph_of("peephole", scan, LOSSES["last"], reverse=False), "loss", ["v2"])
    assert loops(graph)[-1].carries == 3  # a term each for what x and what the carry gives
