"""Places of transient buffers, and the checks of a finished program."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f32
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.kernel.program import Launch, Program
from tapeout.kernel.target import AVX2
from tapeout.ops.sym import Sym
from tapeout.schedule.build import schedule
from tapeout.schedule.layout import plan_variables
from tapeout.schedule.memory import Demand, plan
from tapeout.schedule.verify import verify
from tapeout.support.errors import VerifyError

demands = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 20)), max_size=25
)


@given(demands, st.integers(0, 3))
def test_blocks_alive_together_never_overlap(drawn: list[tuple[int, int, int]], start: int) -> None:
    blocks = [Demand(f"d{i}", size, min(a, b), max(a, b)) for i, (size, a, b) in enumerate(drawn)]
    offsets, end = plan(blocks, 64 * start)
    assert list(offsets) == [d.name for d in blocks]
    for i, a in enumerate(blocks):
        at = offsets[a.name]
        assert at % 64 == 0 and 64 * start <= at and at + a.bytes <= end
        for b in blocks[:i]:
            if a.bytes and b.bytes and a.first <= b.last and b.first <= a.last:
                assert at + a.bytes <= offsets[b.name] or offsets[b.name] + b.bytes <= at


def test_what_dies_makes_room() -> None:
    blocks = [Demand("a", 640, 0, 1), Demand("b", 640, 1, 2), Demand("c", 640, 2, 3)]
    offsets, end = plan(blocks)
    assert offsets["a"] == offsets["c"] and end == 1280


def test_the_tightest_gap_is_taken() -> None:
    blocks = [
        Demand("low", 6400, 0, 9),
        Demand("wide", 3200, 0, 1),
        Demand("mid", 1600, 0, 9),
        Demand("narrow", 800, 0, 1),
        Demand("high", 400, 0, 9),
        Demand("late", 300, 5, 9),
    ]
    offsets, _ = plan(blocks)
    assert offsets["late"] == offsets["narrow"]


# -- verify -----------------------------------------------------------------------------------------


def _program() -> Program:
    b = Builder("step")
    x = Sym(b, b.add_input("x", TensorType(f32, (64, 8))))
    w = Sym(b, b.add_variable("w", TensorType(f32, (8, 8))))
    h = x.matmul(w).relu()
    y = h.matmul(w).sum([0])
    b.set_output("y", y.value)
    b.set_update("w", (w * 0.5).value)
    b.add_check((y.sum() > 1e9).value, "y is large")
    graph = b.graph()
    return schedule(graph, plan_variables(graph.variables), AVX2)


def _changed(program: Program, name: str, **fields: object) -> Program:
    buffers = dict(program.buffers)
    buffers[name] = replace(buffers[name], **fields)
    return replace(program, buffers=buffers)


def _transient(program: Program) -> list[str]:
    alive = [b for b in program.buffers.values() if b.space in ("activation", "output")]
    return [b.name for b in sorted(alive, key=lambda b: (b.first, b.name)) if b.bytes]


def test_a_program_passes() -> None:
    verify(_program())


def test_overlap_is_told() -> None:
    program = _program()
    first, second = _transient(program)[:2]
    broken = _changed(program, second, offset=program.buffers[first].offset, first=0)
    with pytest.raises(VerifyError, match="alive at once and overlap"):
        verify(broken)


def test_a_place_outside_the_arena_is_told() -> None:
    program = _program()
    broken = _changed(program, _transient(program)[0], offset=program.arena)
    with pytest.raises(VerifyError, match="outside the arena"):
        verify(broken)


def test_a_read_before_the_write_is_told() -> None:
    program = _program()
    launches = [i for i in program.items if isinstance(i, Launch) and not i.update]
    broken = replace(program, items=(launches[-1], *program.items))
    with pytest.raises(VerifyError, match="read before it is written"):
        verify(broken)


def test_an_output_that_nothing_writes_is_told() -> None:
    program = _program()
    kept = tuple(
        i for i in program.items
        if not isinstance(i, Launch) or program.outputs["y"] not in i.args
    )  # fmt: skip
    with pytest.raises(VerifyError, match=r"never written|read before"):
        verify(replace(program, items=kept))


def test_an_update_before_a_check_is_told() -> None:
    program = _program()
    updates = tuple(i for i in program.items if isinstance(i, Launch) and i.update)
    others = tuple(i for i in program.items if i not in updates)
    with pytest.raises(VerifyError, match="check stands after an update"):
        verify(replace(program, items=(*updates, *others)))


def test_a_write_to_a_variable_that_is_no_update_is_told() -> None:
    program = _program()
    items = tuple(replace(i, update=False) if isinstance(i, Launch) else i for i in program.items)
    with pytest.raises(VerifyError, match="is no update"):
        verify(replace(program, items=items))


# -- the edge of nothing ----------------------------------------------------------------------------


def _empty() -> Graph:
    b = Builder("empty")
    x = Sym(b, b.add_input("x", TensorType(f32, (0, 3))))
    b.set_output("same", x.value)
    b.set_output("doubled", (x + x).value)
    b.set_output("total", x.sum([0]).value)
    b.set_output("any", (x > 0).any([0, 1]).value)
    return b.graph()


def test_empty_tensors_are_scheduled() -> None:
    from tests.schedule_programs import run_program

    program, code, outputs, _ = run_program(_empty(), {"x": np.zeros((0, 3), np.float32)}, {})
    assert code == 0
    assert outputs["same"].shape == outputs["doubled"].shape == (0, 3)
    np.testing.assert_array_equal(outputs["total"], np.zeros(3, np.float32))
    assert not outputs["any"]
    assert program.buffers[program.outputs["any"]].type.dtype == bool_
