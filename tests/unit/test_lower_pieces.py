"""Concatenations are cut where one operand ends and the next begins; what they compute stays, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tapeout.ir.build import Builder
from tapeout.ir.dtype import f32
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.kernel.target import AVX2
from tapeout.kernel.text import print_kernel
from tapeout.ops.movement import Concat
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tapeout.schedule.build import schedule
from tapeout.schedule.layout import plan_variables
from tests.schedule_programs import run_natively

ROWS, WIDTH = 32, 64


def graph_of(make: Callable[[list[Sym]], Sym], width: int = WIDTH) -> Graph:
    b = Builder("g")
    xs = [Sym(b, b.add_input(f"x{n}", TensorType(f32, (ROWS, width)))) for n in range(3)]
    b.set_output("y", make(xs).value)
    return b.graph()


def concat(xs: list[Sym], axis: int) -> Sym:
    return xs[0].emit(Concat(axis=axis), *xs)


def joined(xs: list[Sym]) -> Sym:
    return concat(xs, 1)


def padded(xs: list[Sym]) -> Sym:
    """Gates as the derivative of slices leaves them: padded to full size, and added."""
    w = int(xs[0].shape[1])
    parts = [x.pad([0, n * w], [0, (2 - n) * w]) for n, x in enumerate(xs)]
    return parts[0] + parts[1] + parts[2]


def below(xs: list[Sym]) -> Sym:
    return concat([x.transpose((1, 0)) for x in xs], 0)


def shifted(xs: list[Sym]) -> Sym:
    return concat([xs[0], xs[1][:, 1:]], 1)


@pytest.mark.parametrize(
    ("make", "width", "launches"),
    [
        (joined, 64, 3),
        (padded, 64, 3),
        (padded, 128, 3),
        (below, 64, 3),
        (padded, 48, 1),  # pieces would be too small
        (shifted, 64, 1),  # or would begin anywhere
    ],
)
def test_pieces(make: Callable[[list[Sym]], Sym], width: int, launches: int) -> None:
    graph = graph_of(make, width)
    program = schedule(graph, plan_variables([]), AVX2)
    assert len(program.launches) == launches
    masked = [k for k in program.kernels.values() if "mask" in print_kernel(k)]
    assert len(masked) == (launches == 1)
    rng = np.random.default_rng(0)
    inputs = {v.name: rng.standard_normal(v.type.shape).astype(np.float32) for v in graph.inputs}
    np.testing.assert_array_equal(
        run_natively(graph, inputs, {})[1]["y"], oracle.run(graph, inputs).outputs["y"]
    )
