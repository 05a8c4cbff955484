"""Random loops and branches, and their derivatives: text, passes, programs and native code agree with the graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.autodiff.gradients import gradients
from tapeout.driver.pipeline import OPTIMIZE
from tapeout.export.onnx.save import model
from tapeout.ir.build import Builder
from tapeout.ir.dtype import f64
from tapeout.ir.graph import Graph
from tapeout.ir.parse import parse_graph
from tapeout.ir.same import same
from tapeout.ir.text import print_graph, tensors_of
from tapeout.ir.type import TensorType
from tapeout.ir.verify import verify
from tapeout.kernel.parse_program import parse_program
from tapeout.kernel.text import print_program
from tapeout.ops.control import cond, scan
from tapeout.ops.sym import Sym
from tapeout.oracle.graph import run
from tapeout.passes import loop as loop_rules
from tests.onnx_models import run_elsewhere
from tests.schedule_programs import equal, run_natively, run_program

ROWS, WIDTH = 2, 3
LEAST = st.sampled_from([0, 1 << 18])
Draw = st.DrawFn


@dataclass
class Sample:
    """A graph with a loss, and values of its inputs."""

    graph: Graph
    inputs: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)


def formula(draw: Draw, given_: list[Sym], depth: int) -> list[Sym]:
    """Return a few values [ROWS, WIDTH] made of others, loops and branches among them."""
    pool = [x for x in given_ if x.shape == (ROWS, WIDTH)]
    weights = [x for x in given_ if x.shape == (WIDTH, WIDTH)]
    for _ in range(draw(st.integers(1, 4))):
        x, y = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        kind = draw(
            st.sampled_from(
                ["mul", "add", "tanh", "sin", "matmul", "sum", "cut", "where", "loop", "branch"]
            )
        )
        if kind == "matmul" and weights:
            pool.append(x @ draw(st.sampled_from(weights)) * 0.5)
        elif kind == "loop" and depth:
            pool += loop(draw, pool, weights, depth - 1)
        elif kind == "branch" and depth:
            pool += branch(draw, pool, depth - 1)
        else:
            pool.append(simple(kind, x, y))
    return pool


def simple(kind: str, x: Sym, y: Sym) -> Sym:
    if kind == "mul":
        return (x * y).tanh()
    if kind == "add":
        return x + y * 0.5
    if kind == "sum":
        return x + y.mean([0], keepdims=True).broadcast_to((ROWS, WIDTH)).sin()
    if kind == "cut":
        return x[:, 1:].concat([y[:, :1]], 1)
    if kind == "where":
        return (x > y).where(x, y * 2.0)
    return x.sin() if kind == "sin" else x.tanh()


def loop(draw: Draw, pool: list[Sym], weights: list[Sym], depth: int) -> list[Sym]:
    length, reverse = draw(st.integers(0, 3)), draw(st.booleans())
    init = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=2))
    stacks = [x.expand_dims([0]) for x in pool]
    count = draw(st.integers(0, 2)) if length else 0
    xs = [
        draw(st.sampled_from(stacks)).concat([draw(st.sampled_from(stacks))] * (length - 1), 0)
        for _ in range(count)
    ]
    if xs and draw(st.booleans()):
        xs.append(xs[0].reverse([0]))
    consts = [*draw(st.lists(st.sampled_from(pool), max_size=2)), *weights[:1]]

    def step(carries: list[Sym], slices: list[Sym], rest: list[Sym]) -> tuple[list[Sym], list[Sym]]:
        found = formula(draw, [*carries, *slices, *rest], depth)
        after = [draw(st.sampled_from(found)) for _ in carries]
        return after, draw(st.lists(st.sampled_from(found), max_size=2))

    histories, ys = scan(step, init, xs, consts, length, reverse=reverse)
    slots = [h[draw(st.integers(0, length))] for h in histories]
    sums = [h.sum([0]) for h in histories[:1]]
    return [*slots, *sums, *(y.sum([0]) for y in ys)]


def branch(draw: Draw, pool: list[Sym], depth: int) -> list[Sym]:
    operands = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=2))
    predicate = draw(st.sampled_from(pool)).sum() > 0
    count = draw(st.integers(1, 2))

    def side(*given_: Sym) -> list[Sym]:
        found = formula(draw, list(given_), depth)
        return [draw(st.sampled_from(found)) for _ in range(count)]

    return cond(predicate, side, side, operands)


@st.composite
def samples(draw: Draw) -> Sample:
    """Draw a graph of a loss and its gradients."""
    b = Builder("sample")
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shapes = {"a": (ROWS, WIDTH), "b": (ROWS, WIDTH), "w": (WIDTH, WIDTH)}
    inputs = {n: rng.standard_normal(s) for n, s in shapes.items()}
    given_ = [Sym(b, b.add_input(n, TensorType(f64, s))) for n, s in shapes.items()]
    pool = [x for x in given_ if x.shape == (ROWS, WIDTH)]
    found = [*pool, *loop(draw, pool, given_[2:], 1), *branch(draw, pool, 1)]
    found = formula(draw, [*found, given_[2]], 1)
    total = found[0].sum()
    for x in found[1:]:
        total = total + x.sin().sum()
    b.set_output("loss", total.value)
    return Sample(gradients(b.graph(), "loss", list(shapes)), inputs)


def optimized(graph: Graph, least: int) -> Graph:
    """Return the graph after the passes; histories of fewer than `least` bytes are kept whole."""
    with patch.object(loop_rules, "LEAST_HISTORY", least):
        for step in OPTIMIZE:
            graph = step.run(graph)
            verify(graph)
    return graph


@settings(max_examples=25)
@given(samples(), LEAST)
def test_text_and_passes(sample: Sample, least: int) -> None:
    verify(sample.graph)
    text = print_graph(sample.graph)
    again = parse_graph(text, tensors_of([sample.graph], ()))
    assert same(sample.graph, again) and print_graph(again) == text
    equal(
        run(optimized(sample.graph, least), sample.inputs).outputs,
        run(again, sample.inputs).outputs,
    )


@settings(max_examples=8)
@given(samples(), LEAST)
def test_programs(sample: Sample, least: int) -> None:
    graph = optimized(sample.graph, least)
    program, code, outputs, _ = run_program(graph, sample.inputs, {})
    assert code == 0
    equal(outputs, run(graph, sample.inputs).outputs)
    text = print_program(program)
    assert print_program(parse_program(text)) == text


@settings(max_examples=4)
@given(samples(), LEAST)
def test_native(sample: Sample, least: int) -> None:
    graph = optimized(sample.graph, least)
    want = run(graph, sample.inputs).outputs
    found = [run_natively(graph, sample.inputs, {}, threads) for threads in (1, 2, 3)]
    assert [code for code, *_ in found] == [0, 0, 0]
    equal(found[0][1], want)
    for _, outputs, _ in found[1:]:
        for name, array in found[0][1].items():
            assert array.tobytes() == outputs[name].tobytes(), name


@settings(max_examples=8)
@given(samples(), LEAST)
def test_as_onnx(sample: Sample, least: int) -> None:
    made = model(optimized(sample.graph, least))
    onnx.checker.check_model(made, full_check=True)
    equal(run_elsewhere(made, sample.inputs), run(sample.graph, sample.inputs).outputs)
