"""The step driver's text: symbols, order, and what it refuses."""

from dataclasses import replace

import pytest

from tapeout.codegen.build import build
from tapeout.codegen.driver import emit_driver, entry_symbol
from tapeout.codegen.machine import native
from tapeout.support.errors import CompileError
from tests.programs import buffer, launch, sample_program


def test_symbols_hold_no_character_of_a_users_name():
    assert entry_symbol("step") == "tapeout_step"
    assert entry_symbol('x"; ret') == "tapeout_x_22__3b__20_ret"
    assert entry_symbol("é") == "tapeout__e9_"


def test_text_is_the_same_every_time():
    program = sample_program()
    assert emit_driver(program, native()) == emit_driver(program, native())


def test_buffers_that_overlap_are_refused():
    """Kernels are compiled as if what they write overlapped nothing."""
    program = sample_program()
    moved = replace(program.buffers["o"], offset=program.buffers["w"].offset + 64)
    clash = replace(program, buffers={**program.buffers, "o": moved})
    with pytest.raises(
        CompileError, match=r"launch update: buffers 'w' \(rw\) and 'o' \(r\) overlap"
    ):
        emit_driver(clash, native())


def test_reading_one_buffer_twice_is_no_overlap():
    program = sample_program()
    twice = launch("k_sum", "o", "o", "p")
    buffers = {**program.buffers, "p": buffer("p", 64, "activation", program.arena)}
    items = (*program.items[:1], twice)
    emit_driver(replace(program, items=items, buffers=buffers), native())


def test_build_gives_kernels_driver_and_pool(empty_cache):
    program = sample_program()
    texts = {}
    objects, entry = build(program, native(), dump=lambda s, k, t: texts.update({f"{s}.{k}": t}))
    assert entry == "tapeout_step"
    assert set(objects) == {*program.kernels, "tapeout_step", "tapeout__pool"}
    assert set(texts) == {*(f"kernel-{k}.ll" for k in program.kernels), "driver.ll"}
    again, _ = build(program, native())
    assert again == objects
