"""What the verifier of graphs refuses, and what it shows."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f32, f64
from tapeout.ir.graph import Check, Graph, Module, Node, Value, Variable
from tapeout.ir.op import Op
from tapeout.ir.type import TensorType
from tapeout.ir.verify import verify, verify_module
from tapeout.ops.elementwise import Neg
from tapeout.ops.sym import Sym
from tapeout.support.errors import VerifyError
from tapeout.support.loc import Loc

F2 = TensorType(f32, (2,))


def _graph() -> Graph:
    b = Builder("g")
    b.loc = Loc("m.onnx", "node")
    x = Sym(b, b.add_input("x", F2))
    w = Sym(b, b.add_variable("w", F2, initial=np.zeros(2, np.float32)))
    y = x
    for _ in range(20):
        y = y + w
    b.set_output("y", y.value)
    b.set_update("w", y.value)
    b.add_check(y.is_nan().any().value, "NaN")
    return b.graph()


def _drop(g: Graph) -> Graph:
    return replace(g, nodes=g.nodes[:9] + g.nodes[10:])


def _swap(g: Graph) -> Graph:
    nodes = list(g.nodes)
    nodes[3], nodes[4] = nodes[4], nodes[3]
    return replace(g, nodes=tuple(nodes))


def _retype(g: Graph) -> Graph:
    g.nodes[4].results[0].type = TensorType(f64, (2,))
    return g


def _alien_output(g: Graph) -> Graph:
    return replace(g, outputs=(("y", Node(Neg(), (g.inputs[0],), (F2,)).results[0]),))


def _stolen_result(g: Graph) -> Graph:
    g.nodes[4].results = g.nodes[3].results
    return g


BAD: list[tuple[Callable[[Graph], Graph], str]] = [
    (_drop, "operand 0 (f32[2]) is not defined above"),
    (_swap, "operand 0 (f32[2]) is not defined above"),
    (_retype, "f64[2]"),
    (_alien_output, "output 'y' is not defined in this graph"),
    (_stolen_result, "result 0 belongs to another node"),
    (lambda g: replace(g, nodes=(*g.nodes, g.nodes[0])), "stands in the graph twice"),
    (
        lambda g: replace(g, inputs=(*g.inputs, Value(F2, "x"))),
        "two inputs or variables are called",
    ),
    (lambda g: replace(g, inputs=(*g.inputs, Value(F2))), "has no name"),
    (lambda g: replace(g, outputs=g.outputs * 2), "two outputs are called 'y'"),
    (lambda g: replace(g, updates=g.updates * 2), "'w' is updated twice"),
    (lambda g: replace(g, updates=(("v", g.outputs[0][1]),)), "update of 'v' has no variable"),
    (
        lambda g: replace(g, updates=(("w", g.checks[0].bad),)),
        "update of 'w' is bool[], not f32[2]",
    ),
    (lambda g: replace(g, checks=(Check(g.inputs[0], "m"),)), "a bool scalar is expected"),
    (lambda g: replace(g, inputs=(*g.inputs, Value(TensorType(f32, (-1,)), "z"))), "-1 is no size"),
    (
        lambda g: replace(g, inputs=(*g.inputs, Value(TensorType(f32, (1 << 40, 1 << 40)), "z"))),
        "too large",
    ),
    (
        lambda g: replace(g, variables=(*g.variables, Variable("v", F2, initial=np.zeros(3)))),
        "initial value of 'v' is float64[3], not f32[2]",
    ),
    (
        lambda g: replace(g, nodes=(*g.nodes, Node(Op(), (), (F2,)))),
        "no registered operation",
    ),
    (lambda g: replace(g, nodes=(*g.nodes, Node(Neg(), (), ()))), "the node has no result"),
]


def test_good_graph_passes() -> None:
    verify(_graph())


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_bad_graphs_are_told(spoil: Callable[[Graph], Graph], message: str) -> None:
    with pytest.raises(VerifyError) as e:
        verify(spoil(_graph()))
    assert message in e.value.message


def test_message_shows_five_lines_on_each_side() -> None:
    with pytest.raises(VerifyError) as e:
        verify(_drop(_graph()))
    assert e.value.where == "graph g, m.onnx:node"
    shown = e.value.message.splitlines()[1:]
    assert len(shown) == 11
    assert shown[5].startswith(">   %9: f32[2] = add %?, %w")
    assert all(line.startswith("    %") for line in (*shown[:5], *shown[6:]))


def test_modules_share_variables() -> None:
    g = _graph()
    verify_module(Module("m", g.variables, (g,)))
    with pytest.raises(VerifyError, match="two graphs are called 'g'"):
        verify_module(Module("m", g.variables, (g, g)))
    other = Variable("w", F2)
    with pytest.raises(VerifyError, match="not that of the module"):
        verify_module(Module("m", (other,), (g,)))
    with pytest.raises(VerifyError, match="two variables"):
        verify_module(Module("m", (*g.variables, other), (g,)))


def test_deep_graphs_need_no_recursion() -> None:
    b = Builder("deep")
    x = Sym(b, b.add_input("x", TensorType(bool_)))
    for _ in range(20_000):
        x = ~x
    b.set_output("y", x.value)
    verify(b.graph())
