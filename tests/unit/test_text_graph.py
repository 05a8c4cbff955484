"""Graphs as text: the form, odd names and numbers, unbound dimensions, side files, and errors."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tapeout.ir.attribute import spell_value
from tapeout.ir.build import Builder
from tapeout.ir.dtype import ALL, bf16, f16, f32, f64, i64
from tapeout.ir.graph import Graph, Module
from tapeout.ir.parse import parse_graph, parse_module, read_tape
from tapeout.ir.read import Reader
from tapeout.ir.same import same
from tapeout.ir.scan import Scanner
from tapeout.ir.tensor import Tensor
from tapeout.ir.text import print_graph, print_module, write_tape
from tapeout.ir.type import Dim, TensorType
from tapeout.ops import movement as mv
from tapeout.ops.sym import Sym, constant
from tapeout.support.errors import ParseError, TapeoutError
from tapeout.support.loc import Loc

TEXT = """\
tape 1
graph "my step" {
  dims N = 2
  input %x: f32[N=2,784]
  input %t: i32[N=2]
  parameter %fc1.weight: f32[784,10]
  frozen parameter %"fc 1.bias": f32[10] = 0.5
  state %step: i64[] = 0
  hyper %lr: f32[] = 0.1
  %0: f32[2,10] = dot_general{contract_a = [1], contract_b = [0]} %x, %fc1.weight @ mlp.onnx:/fc1/MatMul
  %1: f32[2,10] = broadcast{axes = [1], shape = [(N), 10]} %"fc 1.bias" @ "m p.onnx":"a:b" backward
  %2: f32[2,10] = add %0, %1
  %3: f32[20] = reshape{shape = [(N * 10)]} %2 @ :name
  %4: bool[2,10] = is_nan %2
  %5: bool[] = reduce_any{axes = [0, 1]} %4
  output logits = %2
  output "flat out" = %3
  update step = %step
  check %5 "the loss is \\"NaN\\""
}
"""


def test_text_is_what_it_says() -> None:
    graph = parse_graph(TEXT)
    assert print_graph(graph) == TEXT
    assert str(graph) == TEXT
    assert graph.name == "my step"
    assert [v.kind for v in graph.variables] == ["parameter", "parameter", "state", "hyper"]
    assert [v.trainable for v in graph.variables] == [True, False, True, True]
    assert graph.variable["fc1.weight"].initial is None
    np.testing.assert_array_equal(graph.variable["fc 1.bias"].initial, np.full(10, 0.5, np.float32))
    assert graph.nodes[1].loc == Loc("m p.onnx", "a:b", "backward")
    assert graph.nodes[3].loc == Loc("", "name")
    assert graph.checks[0].message == 'the loss is "NaN"'


def test_unbound_dimensions_bind_after_parsing() -> None:
    bound = parse_graph(TEXT).bind({"N": 5})
    assert bound.input["x"].type.shape == (5, 784)
    assert bound.output["flat out"].type.shape == (50,)
    assert not bound.dims
    assert same(parse_graph(print_graph(bound)), bound)


def test_dimensions_in_types_show_how_they_follow() -> None:
    n, s = Dim.named("N", 3), Dim.named("long name", 2)
    b = Builder("g")
    b.add_input("x", TensorType(f32, (n * 4 + 1, s, (n - 1) // 2)))
    graph = b.graph({"N": 3, "long name": 2})
    text = print_graph(graph)
    assert 'f32[((N * 4) + 1)=13,"long name"=2,((N - 1) / 2)=1]' in text
    assert same(parse_graph(text), graph)
    assert parse_graph(text).bind({"N": 5}).inputs[0].type.shape == (21, 2, 2)


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 1 << 62, True, 1.0, -0.0, 5e-324, math.inf, -math.inf, None, "", 'a "b"\n\\', "é"),
        *(f32, (), (1,), ((1, 2), (3.5, ("x", None))), Tensor.of(np.zeros((2, 0)))),
    ],
)  # fmt: skip
def test_attribute_reads_back(value: object) -> None:
    text = spell_value(value)
    s = Scanner(text)
    again = Reader(s, {}, None).value()
    s.expect_end()
    assert spell_value(again) == text
    assert type(again) is type(value)
    assert again == value


def test_nan_with_other_bits_reads_back() -> None:
    value = np.array([0x7FF8_0000_0000_0123], np.uint64).view(np.float64)[0].item()
    text = spell_value(value)
    again = Reader(Scanner(text), {}, None).value()
    assert text == "nan(0x7ff8000000000123)"
    assert np.float64(again).tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_tensor_reads_back_bit_by_bit(dtype, rng: np.random.Generator) -> None:
    bits = rng.integers(0, 256, (50, 7 * dtype.bytes), dtype=np.uint8)
    arrays = [row.view(dtype.numpy) for row in (bits % 2 if dtype.kind == "b" else bits)]
    arrays += [
        np.array(7, dtype.numpy),
        np.zeros((3, 3), dtype.numpy),
        np.ones((0, 2), dtype.numpy),
    ]
    if dtype.is_float:
        special = [np.inf, -np.inf, np.nan, -0.0, 0.1]
        arrays.append(np.array(special).astype(dtype.numpy))
    for array in arrays:
        text = spell_value(Tensor.of(array))
        again = Reader(Scanner(text), {}, None).value()
        assert isinstance(again, Tensor)
        assert again == Tensor.of(array), text


def test_narrow_floats_are_short() -> None:
    assert spell_value(Tensor.of(np.float32([0.1, 1e20]))) == "f32[2]: [0.1, 1e+20]"
    assert spell_value(Tensor.of(np.array(0.1).astype(bf16.numpy))).startswith("bf16[]: 0.100")
    assert spell_value(Tensor.of(np.float16([[0.1]]))) == f"{f16}[1,1]: 0.1"


def _with_data() -> Graph:
    b = Builder("g")
    w = np.arange(100, dtype=np.float32).reshape(10, 10)
    x = Sym(b, b.add_variable("w", TensorType(f32, (10, 10)), initial=w))
    y = x + constant(b, w[::-1].copy())
    b.set_output("y", y.value)
    return b.graph()


def test_files_hold_the_tensors_beside_the_text(tmp_path: Path) -> None:
    graph = _with_data()
    path = tmp_path / "a.tape"
    write_tape(path, graph)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tape", "a.tensors.safetensors"]
    again = read_tape(path)
    assert same(again, graph)
    module = Module(
        "m", graph.variables, (graph, replace(graph, name="h", variables=graph.variables))
    )
    write_tape(path, module)
    assert same(read_tape(path), module)


def test_side_file_is_a_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write_tape(tmp_path / "a.tape", _with_data())
    found = load_file(tmp_path / "a.tensors.safetensors")
    assert sorted(a.shape for a in found.values()) == [(10, 10), (10, 10)]


def test_damaged_side_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    write_tape(path, _with_data())
    side = tmp_path / "a.tensors.safetensors"
    data = bytearray(side.read_bytes())
    data[-1] ^= 1
    side.write_bytes(data)
    with pytest.raises(ParseError, match="damaged"):
        read_tape(path)
    for damage in (b"", data[:7], data[:40], data[:-8], b"\xff" * 64, b"\2\0\0\0\0\0\0\0[]"):
        side.write_bytes(damage)
        with pytest.raises(ParseError):
            read_tape(path)


def test_missing_side_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    write_tape(path, _with_data())
    (tmp_path / "a.tensors.safetensors").unlink()
    with pytest.raises(ParseError, match="tensor data of this text are needed"):
        read_tape(path)


def test_module_shares_its_variables() -> None:
    text = """\
tape 1
module m {
  parameter %w: f32[2]
  state %s: i64[]
  graph both {
    output w = %w
  }
  graph one {
    uses %s
    output s = %s
  }
  graph none {
    input %x: f32[]
    without variables
    output x = %x
  }
}
"""
    module = parse_module(text)
    assert print_module(module) == text
    both, one, none = module.graphs
    assert both.variables == module.variables
    assert one.variables == module.variables[1:]
    assert none.variables == ()


def test_text_needs_no_recursion_over_depth() -> None:
    b = Builder("deep")
    x = Sym(b, b.add_input("x", TensorType(f64, ())))
    for _ in range(20_000):
        x = -x
    b.set_output("y", x.value)
    graph = b.graph()
    assert same(parse_graph(print_graph(graph)), graph)


BAD = [
    ("", "line 1, column 1", "'tape'"),
    ("tape 2\n", "line 1, column 6", "version 2"),
    ("tape 1\ngraph g {\n", "line 3, column 1", "'}' is expected"),
    ("tape 1\ngraph g {\n}\nx", "line 4, column 1", "nothing more"),
    ("tape 1\ngraph g {\n  output y = %x\n}", "line 3, column 14", "no value is called 'x'"),
    ("tape 1\ngraph g {\n  output y = %0\n}", "line 3, column 14", "%0 is not defined"),
    ("tape 1\ngraph g {\n  input %x: f33[2]\n}", "line 3, column 13", "f33"),
    ("tape 1\ngraph g {\n  input %x: f32[N=2]\n}", "line 3, column 17", "no dimension"),
    ("tape 1\ngraph g {\n  input %x: f32[-1]\n}", "line 3, column 17", "63 bits"),
    ("tape 1\ngraph g {\n  input %x: f32[2\n}", "line 3, column 18", "']' is expected"),
    ("tape 1\ngraph g {\n  input %x: f32[]\n  input %x: f32[]\n}", "line 4, column 9", "two inputs"),
    ("tape 1\ngraph g {\n  update w = %0\n}", "line 3, column 10", "no variable"),
    ("tape 1\ngraph g {\n  hyper %h: f32[] = [1.0]\n  check %h 5\n}", "line 4, column 12", "quotes"),
    ("tape 1\ngraph g {\n  state %s: f32[2] = [1.0]\n}", "line 3, column 22", "2 elements, 1"),
    ("tape 1\ngraph g {\n  state %s: i8[] = 300\n}", "line 3, column 20", "does not make sense"),
    ("tape 1\ngraph g {\n  state %s: f32[99999999999] = 1.0\n}", "line 3, column 32", "more than"),
    ("tape 1\ngraph g {\n  %1: f32[] = neg\n}", "line 3, column 3", "%0 is expected"),
    ("tape 1\ngraph g {\n  %0: f32[] = frob\n}", "line 3, column 15", "'frob'"),
    ("tape 1\ngraph g {\n  %0: f32[] = neg{x = 1}\n}", "line 3, column 19", "no attribute of neg"),
    ("tape 1\ngraph g {\n  %0: f32[] = reshape\n}", "line 3, column 15", "lacks shape"),
    ("tape 1\ngraph g {\n  %0: f32[] = reshape{shape = \"x\"} %0\n}", "line 3, column 36", "not defined"),
    (
        "tape 1\ngraph g {\n  input %x: f32[2]\n  %0: f32[3] = neg %x\n}",
        "line 4, column 3",
        "the result is f32[2], f32[3] is written",
    ),
    (
        "tape 1\ngraph g {\n  input %x: f32[2]\n  %0: f32[2] = transpose{perm = 5} %x\n}",
        "line 4, column 16",
        "does not make sense",
    ),
    (
        "tape 1\ngraph g {\n  input %x: f32[2]\n  %0: f32[2] = transpose{perm = [1]} %x\n}",
        "line 4, column 16",
        "no permutation",
    ),
    ("tape 1\ngraph g {\n  %0: f32[] = neg{a = " + "[" * 9000, "line 3, column 19", "no attribute"),
    ("tape 1\ngraph g {\n  %0: f32[] = reshape{shape = " + "[" * 9000, "line 3, column 132", "deep"),
    ("tape 1\ngraph g {\n  %0: f32[] = reshape{shape = [" + "9" * 9000, "line 3, column 32", "expected"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "message"), BAD)
def test_errors_name_the_place(text: str, place: str, message: str) -> None:
    with pytest.raises(ParseError) as e:
        parse_graph(text)
    assert message in e.value.message
    assert e.value.where == place


def test_error_shows_the_line() -> None:
    with pytest.raises(ParseError) as e:
        parse_graph("tape 1\ngraph g {\n  output y = %x\n}", file="a.tape")
    assert str(e.value) == (
        "a.tape, line 3, column 14: no value is called 'x'\n    output y = %x\n               ^\n"
        "  hint: there are none"
    )


def test_attribute_of_unknown_type_cannot_be_written() -> None:
    with pytest.raises(TapeoutError, match="type object"):
        spell_value(object())


def test_equality_sees_every_part() -> None:
    graph = parse_graph(TEXT)
    for old, new in [
        ("my step", "mystep"),
        ("N = 2", "M = 2"),
        ("0.5", "0.25"),
        ("frozen ", ""),
        ("backward", "loss"),
        ("axes = [0, 1]", "axes = [0]"),
        ("output logits = %2", "output logits = %0"),
        ("update step = %step\n", "\n"),
        ("NaN", "inf"),
    ]:
        changed = TEXT.replace(old, new)
        if old == "N = 2":
            changed = changed.replace("N=2", "M=2").replace("(N", "(M")
        if old == "axes = [0, 1]":
            changed = changed.replace("%5: bool[]", "%5: bool[10]")
        assert not same(graph, parse_graph(changed)), old
    assert same(graph, parse_graph(TEXT))
    assert mv.Pad(low=(), high=(), interior=(), value=0.0) == mv.Pad((), (), (), -0.0)
    assert spell_value(0.0) != spell_value(-0.0)
    assert i64 in ALL
