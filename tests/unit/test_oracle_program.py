"""Programs as text, and their slow interpreter."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tapeout.kernel.parse_program import parse_program
from tapeout.kernel.program import Check, Launch, Program
from tapeout.kernel.text import print_program, program_data
from tapeout.oracle.program import run
from tapeout.support.errors import DataError, ParseError, VerifyError
from tapeout.support.loc import Loc

TEXT = """\
tape 1
program step arena 384 {
  layout 128 {
    parameter w: f32[4] at 0
    hyper "learning rate": f32[] at 64
  }
  data "0000803f00000040"
  buffer x: f32[2,2] order [1, 0] input at 0 live -1 0
  buffer w: f32[4] variable at 0 live -1 3
  buffer "learning rate": f32[] variable at 64 live -1 2
  buffer two: f32[2] constant at 0 live -1 0
  buffer "%0": f32[4] activation at 128 live 0 2
  buffer bad: bool[] activation at 192 live 1 1
  buffer "out 0": f32[4] output at 256 live 0 3
  input x
  takes x: f32[2,2]
  output y = "out 0"
  launch add(x, two, "%0") flops 4 bytes 40 "add fc1" @ m.onnx:/fc1/Add
  launch test("%0", bad)
  check bad code 3 "a number is \\"large\\""
  launch update("%0", w, "out 0") update @ :w update
  kernel add(in b0: f32[4] align 4, in b1: f32[2], out b2: f32[4]) {
    store b2[0] = b0[0 :4] + b1[ramp<4>(0) * 0:i64x4]
  }
  kernel test(in b0: f32[4], out b1: bool[1]) {
    store b1[0] = lanes<any>(gt(b0[0 :4], 100.0:f32x4))
  }
  symbol update
  kernel k_other(in b0: f32[4], inout b1: f32[4], out b2: f32[4]) {
    for %i in 0..4 grid {
      store b2[%i] = b0[%i] * b1[%i]
      store b1[%i] = b1[%i] - b0[%i]
    }
  }
}
"""


@pytest.fixture
def program() -> Program:
    return parse_program(TEXT)


def _arena(program: Program) -> np.ndarray:
    arena = np.zeros(program.arena, np.uint8)
    arena[:16] = np.array([1, 2, 3, 4], np.float32).view(np.uint8)
    return arena


def test_text_is_what_it_says(program: Program) -> None:
    assert print_program(program) == TEXT
    assert program.items[0] == Launch(
        "add", ("x", "two", "%0"), Loc("m.onnx", "/fc1/Add"), "add fc1", 4, 40
    )
    assert program.items[2] == Check("bad", 3, 'a number is "large"')
    assert program.kernels["update"].name == "k_other"
    assert program.buffers["x"].order == (1, 0)


def test_many_constants_stand_in_a_side_file(program: Program) -> None:
    large = replace(program, data=bytes(range(256)) * 10)
    text = print_program(large)
    assert len(text) < len(TEXT) + 100
    again = parse_program(text, program_data(large))
    assert again.data == large.data
    assert print_program(again) == text
    with pytest.raises(ParseError, match="side file"):
        parse_program(text)


def test_run_writes_outputs_and_variables(program: Program) -> None:
    arena = _arena(program)
    x = np.array([[1, 2], [3, 4]], np.float32)
    assert run(program, arena, {"x": x}) == 0
    np.testing.assert_array_equal(arena[256:272].view(np.float32), (x.ravel() + 1) * [1, 2, 3, 4])
    np.testing.assert_array_equal(arena[:16].view(np.float32), [1 - 2, 2 - 3, 3 - 4, 4 - 5])


def test_failed_check_updates_nothing(program: Program) -> None:
    arena = _arena(program)
    assert run(program, arena, {"x": np.full((2, 2), 200, np.float32)}) == 3
    np.testing.assert_array_equal(arena[:16].view(np.float32), [1, 2, 3, 4])


def test_bytearray_is_an_arena(program: Program) -> None:
    arena = bytearray(_arena(program).tobytes())
    assert run(program, arena, {"x": np.ones((2, 2), np.float32)}) == 0
    assert arena[256:260] == np.float32(2).tobytes()


def test_transient_memory_is_poisoned(program: Program) -> None:
    program = replace(program, items=program.items[3:])
    arena = _arena(program)
    run(program, arena, {"x": np.zeros((2, 2), np.float32)})
    assert np.isnan(arena[256:272].view(np.float32)).all()


@pytest.mark.parametrize(
    "inputs",
    [{}, {"x": np.zeros((2, 2))}, {"x": np.zeros(4, np.float32)}],
    ids=["none", "dtype", "shape"],
)
def test_inputs_must_fit(program: Program, inputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="input 'x'"):
        run(program, _arena(program), inputs)


def test_arena_must_fit(program: Program) -> None:
    with pytest.raises(DataError, match="383 bytes, step needs 384"):
        run(program, _arena(program)[:383], {})


def _item(number: int, **changes: object) -> Callable[[Program], Program]:
    def spoil(p: Program) -> Program:
        items = list(p.items)
        items[number] = replace(items[number], **changes)  # type: ignore[arg-type]
        return replace(p, items=tuple(items))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_item(3, update=False), "writes variable 'w' in a launch that is no update"),
        (_item(0, args=("x", "two")), "takes 3 buffers, 2 are passed"),
        (_item(0, args=("w", "two", "x")), "writes 'x', an input"),
        (lambda p: replace(p, arena=256), "past the end"),
        (lambda p: replace(p, data=b""), "past the end"),
    ],
)
def test_broken_programs_are_told(
    program: Program, spoil: Callable[[Program], Program], message: str
) -> None:
    with pytest.raises(VerifyError, match=message):
        run(spoil(program), _arena(program), {"x": np.ones((2, 2), np.float32)})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arena 384", "arena x", "bytes is expected"),
        ("order [1, 0]", "order 3", "list of dimensions"),
        ("input at", "inpt at", "'input' or 'variable'"),
        ("buffer two:", "buffer x:", "two buffers are called"),
        ("symbol update", "symbol test", "two kernels"),
        ("  launch test", "  lunch test", "'launch'"),
        ('data "0000', 'data "000', "bytes is expected"),
    ],
)
def test_errors_name_the_place(old: str, new: str, message: str) -> None:
    with pytest.raises(ParseError, match=r"line .*column") as e:
        parse_program(TEXT.replace(old, new))
    assert message in str(e.value)
