"""What is the same in every round of a loop is made once before it: weights are packed for the products of all rounds."""

from __future__ import annotations

import numpy as np
import pytest

from tapeout.ir.build import Builder
from tapeout.ir.dtype import f32
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.kernel.program import Launch, Loop, Program
from tapeout.kernel.target import AVX2, AVX512, GENERIC, Target
from tapeout.ops.control import cond, scan
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tapeout.schedule.build import schedule
from tapeout.schedule.layout import plan_variables
from tests.schedule_programs import run_natively

ROWS, WIDTH, STEPS = 8, 64, 3


def recurrence(transposed: bool, branch: bool = False) -> Graph:
    """Return `h = tanh(h W)`, or with W transposed, or inside of a branch."""
    b = Builder("g")
    h = Sym(b, b.add_input("h", TensorType(f32, (ROWS, WIDTH))))
    w = Sym(b, b.add_input("w", TensorType(f32, (WIDTH, WIDTH))))

    def product(x: Sym, w: Sym) -> Sym:
        return x.dot_general(w, contract=((1,), (int(transposed),))).tanh()

    def step(carries: list[Sym], _: list[Sym], rest: list[Sym]) -> tuple[list[Sym], list[Sym]]:
        (x,), (w,) = carries, rest
        if not branch:
            return [product(x, w)], []
        positive = x.sum() > 0
        (y,) = cond(positive, lambda x, w: [product(x, w)], lambda x, _: [x], [x, w])
        return [y], []

    (hs,), _ = scan(step, [h], [], [w], length=STEPS)
    b.set_output("y", hs.value)
    return b.graph()


def compiled(graph: Graph, target: Target, choices: dict[str, str] | None = None) -> Program:
    from tapeout.passes.decompose import Decompose

    plain = Decompose().run(graph)
    return schedule(plain, plan_variables(graph.variables), target, choices=choices)


@pytest.mark.parametrize("target", [GENERIC, AVX2, AVX512], ids=lambda t: t.name)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_weight_is_packed_once(target: Target, transposed: bool) -> None:
    program = compiled(recurrence(transposed), target)
    loop = next(i for i in program.items if isinstance(i, Loop))
    before = program.items[: program.items.index(loop)]
    packs = [i for i in before if isinstance(i, Launch) and i.args[0] == "w"]
    assert len(packs) == 1
    inside = [i for i in loop.items if isinstance(i, Launch)]
    assert all("w" not in i.args for i in inside)
    assert any(packs[0].args[-1] in i.args for i in inside)
    product = next(i for i in inside if packs[0].args[-1] in i.args)
    assert len(product.args) == 3, "carry, panels, result: nothing is copied in a round"


def test_choices_of_other_kernels_change_nothing() -> None:
    plain = compiled(recurrence(transposed=True), AVX2)
    chosen = compiled(recurrence(transposed=True), AVX2, {"another": "tiles"})
    assert chosen.kernels.keys() == plain.kernels.keys()


@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_values(transposed: bool, branch: bool) -> None:
    graph = recurrence(transposed, branch)
    rng = np.random.default_rng(0)
    inputs = {
        "h": rng.standard_normal((ROWS, WIDTH)).astype(np.float32),
        "w": (rng.standard_normal((WIDTH, WIDTH)) / 8).astype(np.float32),
    }
    want = oracle.run(graph, inputs).outputs["y"]
    got = run_natively(graph, inputs, {})[1]["y"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
