"""Kernels that share axes as one launch: what they compute, what stays with a task, and where no chain may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tapeout
from tapeout.api.stages import optimized
from tapeout.autodiff.reverse import backward
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bf16, f32, f64, i64, u32
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.kernel.program import Launch, Program
from tapeout.kernel.target import AVX2, AVX512, GENERIC
from tapeout.kernel.verify import verify_kernel
from tapeout.ops.composite import attention as whole
from tapeout.ops.composite import attention_blocks as cut
from tapeout.ops.composite.attention import attention
from tapeout.ops.sym import Sym, random_bits
from tapeout.oracle import graph as oracle
from tapeout.passes.cse import Cse
from tapeout.passes.dce import Dce
from tapeout.passes.decompose import Decompose
from tapeout.passes.fold import Fold
from tapeout.passes.simplify import Simplify
from tapeout.schedule import build
from tapeout.schedule import chain as chains
from tapeout.schedule.build import schedule
from tapeout.schedule.layout import plan_variables
from tapeout.schedule.lower.room import Wish, share_room
from tapeout.support.loc import AGAIN
from tests.schedule_programs import run_natively, run_program
from tests.tolerances import close

CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "causal": {"causal": True},
    "grouped": {"groups": 2, "causal": True},
    "window": {"left": 5, "right": 2},
    "softcap": {"softcap": 3.0},
    "heads by width": {"packed": True},
    "double": {"dtype": f64},
}
LONG = {"causal": True, "queries": 50, "keys": 50}


def graph_of(
    *,
    dtype: Any = f32,
    groups: int = 4,
    queries: int = 21,
    keys: int = 19,
    packed: bool = False,
    **options: Any,
) -> Graph:
    """Return attention of 2 sequences and 4 heads with the gradients of q, k and v."""
    b = Builder("attention")
    heads, size = 4, 8
    shapes = {"q": (heads, queries), "k": (groups, keys), "v": (groups, keys)}
    inputs, operands = [], []
    for name, (count, length) in shapes.items():
        shape = (2, length, count * size) if packed else (2, count, length, size)
        x = Sym(b, b.add_input(name, TensorType(dtype, shape)))
        inputs.append(x)
        apart = x.reshape((2, length, count, size)).transpose((0, 2, 1, 3)) if packed else x
        operands.append(apart)
    y = attention(*operands, **options)
    seed = Sym(b, b.add_input("dy", y.type))
    b.set_output("y", y.value)
    found = backward(b, list(b.nodes), {y.value: seed}, [x.value for x in inputs])
    for x in inputs:
        gradient = found[x.value]
        assert gradient is not None
        b.set_output(f"d{x.value.name}", gradient.value)
    return Decompose().run(b.graph())


def feed_of(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        v.name: rng.standard_normal(v.type.shape).astype(v.type.dtype.numpy) for v in graph.inputs
    }


def program_of(graph: Graph) -> Program:
    return schedule(graph, plan_variables(graph.variables), AVX2)


def chained(program: Program) -> list[str]:
    """Return the labels of the launches that are chains."""
    return [i.label for i in program.launches if ";" in i.label]


@pytest.fixture(autouse=True)
def _small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "LEAST_WORK", 1)


@pytest.fixture
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (whole, cut):
        monkeypatch.setattr(module, "LEAST_QUERIES", 32)


@pytest.mark.parametrize("name", CASES)
def test_chain_computes_what_the_graph_says(name: str) -> None:
    graph = graph_of(**CASES[name])
    feed = feed_of(graph)
    want = oracle.run(graph, feed).outputs
    assert chained(program_of(graph))
    _, got, _ = run_natively(graph, feed, {})
    for key, value in want.items():
        close(got[key], value, "contraction")


def test_the_oracle_of_programs_runs_chains() -> None:
    graph = graph_of(causal=True, queries=9, keys=9)
    feed = feed_of(graph)
    want = oracle.run(graph, feed).outputs
    program, code, got, _ = run_program(graph, feed, {})
    assert code == 0 and chained(program)
    for key, value in want.items():
        close(got[key], value, "contraction")


@pytest.mark.usefixtures("_short_blocks")
def test_long_attention_in_blocks_is_chained_too() -> None:
    graph = graph_of(**LONG)
    feed = feed_of(graph)
    want = oracle.run(graph, feed).outputs
    assert chained(program_of(graph))
    _, got, _ = run_natively(graph, feed, {})
    for key, value in want.items():
        close(got[key], value, "contraction")


@pytest.mark.parametrize("target", [AVX2, AVX512, GENERIC], ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [f32, bf16, f64], ids=lambda t: t.name)
def test_chains_are_kernels_like_others(target: Any, dtype: Any) -> None:
    graph = graph_of(dtype=dtype, causal=True)
    program = schedule(graph, plan_variables(graph.variables), target)
    assert chained(program)
    for kernel in program.kernels.values():
        verify_kernel(kernel, round_trip=True)


@pytest.mark.usefixtures("_short_blocks")
def test_scores_stay_with_the_task() -> None:
    graph = graph_of(**LONG)
    program = program_of(graph)
    scores = 2 * 4 * 16 * 50 * 4
    named = {a for i in program.launches for a in i.args}
    assert max(program.buffers[n].bytes for n in named) < scores


@pytest.mark.usefixtures("_short_blocks")
def test_what_is_not_kept_is_made_again() -> None:
    """Nothing merges what the gradient computes again with the forward pass, which would have to keep it."""
    graph = graph_of(**LONG)
    for step in (Fold(), Simplify(), Cse(), Simplify(), Dce()):
        graph = step.run(graph)
    again = [n for n in graph.nodes if n.loc.role == AGAIN]
    assert sum(n.op.name == "dot_general" for n in again) == 4
    program = program_of(graph)
    makers = [i for i in program.launches if "(again)" in i.label]
    assert makers and not any(i.loc.role == "forward" and "(again)" in i.label for i in makers)


@pytest.mark.parametrize("threads", [1, 3])
def test_dropout_draws_the_same_numbers(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn by position is what the whole tensor would draw, whichever task draws it."""
    b = Builder("dropped")
    q = Sym(b, b.add_input("q", TensorType(f32, (2, 3, 16, 8))))
    k = Sym(b, b.add_input("k", TensorType(f32, (2, 3, 16, 8))))
    seed, step = (Sym(b, b.add_input(n, TensorType(i64))) for n in ("seed", "step"))
    scores = q.dot_general(k, contract=([3], [3]), batch=([0, 1], [0, 1]))
    kept = random_bits(seed, step, 3, scores.shape) >= scores.constant(1 << 30, u32)
    share = kept.where(scores.exp(), 0)
    y = share.dot_general(k, contract=([3], [2]), batch=([0, 1], [0, 1]))
    b.set_output("y", y.value)
    graph = Decompose().run(b.graph())
    feed = {n: feed_of(graph)[n] for n in ("q", "k")}
    feed |= {"seed": np.array(11), "step": np.array(4)}
    assert chained(program_of(graph))
    _, got, _ = run_natively(graph, feed, {}, threads=threads)
    monkeypatch.setattr(build, "chained", lambda works, *_: list(works))
    assert not chained(program_of(graph))
    _, want, _ = run_natively(graph, feed, {})
    np.testing.assert_array_equal(got["y"], want["y"])


@pytest.mark.parametrize("name", ["causal", "grouped"])
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    graph = graph_of(**CASES[name])
    feed = feed_of(graph)
    _, want, _ = run_natively(graph, feed, {}, threads=1)
    for threads in (2, 3):
        _, got, _ = run_natively(graph, feed, {}, threads=threads)
        for key, value in want.items():
            np.testing.assert_array_equal(got[key], value)


@pytest.mark.parametrize("change", ["LEAST_TASKS", "LEAST_WORK"])
def test_small_work_is_left_alone(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, change, 1 << 40)
    graph = graph_of()
    assert not chained(program_of(graph))


def test_what_does_not_fit_stays_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CHAIN_BYTES", 64)
    graph = graph_of()
    feed = feed_of(graph)
    assert not chained(program_of(graph))
    _, got, _ = run_natively(graph, feed, {})
    for key, value in oracle.run(graph, feed).outputs.items():
        close(got[key], value, "contraction")


def test_searching_for_nan_looks_at_every_kernel() -> None:
    graph = graph_of()
    layout = plan_variables(graph.variables)
    assert not chained(schedule(graph, layout, AVX2, check_nans=True))


def test_room_is_shared_by_what_is_not_needed_at_once() -> None:
    wishes = [
        Wish("a", f32, 100, 0, 1),
        Wish("b", f32, 100, 2, 3),
        Wish("c", f32, 20, 1, 2),
        Wish("n", u32, 7, 0, 3),
    ]
    room, size = share_room(wishes)
    assert room.places["a"] == room.places["b"] == 0
    assert room.places["c"] >= 100
    assert dict(room.sizes)[f32] == room.places["c"] + 32
    assert size == 4 * (room.places["c"] + 32) + 64


def test_neighbours_in_memory_stay_together() -> None:
    with tapeout.Builder("net") as g:
        x = g.input("x", (16, 48, 40, 40)).tanh()
        w = g.parameter("w", (48, 1, 3, 3), init=np.zeros((48, 1, 3, 3), np.float32))
        y = x.conv(w, strides=(1, 1), low=(1, 1), high=(1, 1), groups=48).relu()
        y = y.conv(w, strides=(1, 1), low=(1, 1), high=(1, 1), groups=48)
        g.output("logits", y.relu().mean((2, 3)))
    step = tapeout.training_step(
        g.graph(), tapeout.losses.cross_entropy(), tapeout.optimizers.sgd(lr=0.5)
    )
    graph = optimized(step, "avx2")
    program = schedule(graph, plan_variables(graph.variables), AVX2)
    labels = [i.label for i in program.items if isinstance(i, Launch)]
    assert not [n for n in labels if n.count("conv") > 1], "a task would take every 48th element"
