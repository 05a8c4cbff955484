"""Rebuilding graphs, and rewriting them by rules."""

from dataclasses import replace

import pytest

from tapeout.ir.build import Builder
from tapeout.ir.dtype import f32
from tapeout.ir.graph import Graph, Node, Value
from tapeout.ir.rewrite import Anything, Attribute, RuleSet, match, rebuild, rewrite, rule
from tapeout.ir.type import Dim, TensorType
from tapeout.ir.verify import verify
from tapeout.ops import elementwise as ew
from tapeout.ops import movement as mv
from tapeout.ops.sym import Sym
from tapeout.passes import Simplify
from tapeout.support.errors import VerifyError
from tapeout.support.loc import Loc

X, Y, P = Anything("x"), Anything("y"), Attribute("p")
neg, add, transpose = match(ew.Neg), match(ew.Add), match(mv.Transpose)
F23 = TensorType(f32, (2, 3))


def _graph() -> Graph:
    b = Builder("g")
    x, y = (Sym(b, b.add_input(n, F23)) for n in ("x", "y"))
    with b.at(Loc("m.onnx", "outer")):
        z = -(x + y)
        z = -z
    b.set_output("z", z.value)
    b.set_output("x", x.value)
    return replace(b.graph(), origin=b"file")


def _sets(*rules: object) -> RuleSet:
    return RuleSet(*rules, lift=Sym, lower=lambda s: s.value)  # type: ignore[arg-type]


def test_nothing_to_do_gives_the_same_graph() -> None:
    graph = _graph()
    assert rebuild(graph, lambda b, node, operands: None) is graph
    assert rebuild(graph, lambda b, node, operands: (b.keep(node), node.results)[1]) is graph
    assert rewrite(graph, _sets()) is graph


def test_rebuilt_nodes_keep_what_is_around_them() -> None:
    graph = _graph()

    def doubled(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if not isinstance(node.op, ew.Add):
            return None
        return b.emit(ew.Mul(), *operands)

    after = rebuild(graph, doubled)
    verify(after)
    assert [n.op.name for n in after.nodes] == ["mul", "neg", "neg"]
    assert [n.loc for n in after.nodes] == [n.loc for n in graph.nodes]
    assert after.inputs == graph.inputs
    assert after.output["x"] is graph.output["x"]
    assert after.origin == b"file"
    assert [n.op.name for n in graph.nodes] == ["add", "neg", "neg"], "the old graph is untouched"


def test_replacement_of_another_type_is_refused() -> None:
    def flat(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        return b.emit(mv.Reshape(shape=(6,)), *operands[:1])

    with pytest.raises(VerifyError, match=r"m.onnx:outer: add is replaced by f32\[6\]"):
        rebuild(_graph(), flat)
    wrong = _sets(rule("wrong", neg(X), lambda x: x.reshape((6,))))
    with pytest.raises(VerifyError, match="rule wrong replaces"):
        rewrite(_graph(), wrong)


def test_rule_binds_values_and_attributes() -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f32, (2, 3, 4))))
    b.set_output("y", (-x.transpose((2, 0, 1))).value)
    moved = rule("move", neg(transpose(X, perm=P)), lambda x, p: (-x).transpose(p))
    fired: list[str] = []
    after = rewrite(b.graph(), _sets(moved), fired=lambda name, node: fired.append(name))
    verify(after)
    assert fired == ["move"]
    assert [n.op.name for n in after.nodes] == ["transpose", "neg", "transpose"]
    assert after.nodes[-1].op == mv.Transpose(perm=(2, 0, 1))


def test_one_name_stands_for_one_value() -> None:
    b = Builder("g")
    x, y = (Sym(b, b.add_input(n, F23)) for n in ("x", "y"))
    b.set_output("a", (x + x).value)
    b.set_output("b", (x + y).value)
    twice = _sets(rule("twice", add(X, X), lambda x: x * 2))
    after = rewrite(b.graph(), twice)
    assert after.output["a"].node is not None
    assert after.output["a"].node.op == ew.Mul()
    assert after.output["b"].node is not None
    assert after.output["b"].node.op == ew.Add()


def test_swapped_operands_match() -> None:
    b = Builder("g")
    x, y = (Sym(b, b.add_input(n, F23)) for n in ("x", "y"))
    b.set_output("a", (x + (-y)).value)
    b.set_output("b", ((-y) + x).value)
    plain, swaps = (match(ew.Add, swaps=s)(X, neg(Y)) for s in (False, True))
    for pattern, count in ((plain, 1), (swaps, 2)):
        fired: list[str] = []
        rules = _sets(rule("sub", pattern, lambda x, y: x - y))
        rewrite(b.graph(), rules, fired=lambda name, node, seen=fired: seen.append(name))
        assert len(fired) == count


def test_first_rule_that_fits_wins_and_none_passes_on() -> None:
    refuse = rule("refuse", neg(X), lambda x: None)
    first = rule("first", neg(X), lambda x: x)
    second = rule("second", neg(X), lambda x: x.abs())
    fired: list[str] = []
    rewrite(_graph(), _sets(refuse, first, second), fired=lambda n, _: fired.append(n))
    assert fired == ["first", "first"]


def test_rules_that_never_end_stop_at_the_limit() -> None:
    fired: list[str] = []
    endless = _sets(rule("abs", neg(X), lambda x: -x.abs()))
    rewrite(_graph(), endless, limit=3, fired=lambda n, _: fired.append(n))
    assert len(fired) == 6


def test_bad_tables_are_refused_when_they_are_made() -> None:
    with pytest.raises(ValueError, match="does not bind z"):
        rule("typo", neg(X), lambda z: z)
    one = rule("one", neg(X), lambda x: x)
    with pytest.raises(ValueError, match="two rules are called one"):
        RuleSet(one, one)


def test_passes_follow_a_binding() -> None:
    n = Dim.named("N", 2)
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f32, (n, 3))))
    y = -x
    b.set_output("y", (-y).value)

    def source(dims: object) -> Graph:
        from tapeout.ir.rebind import rebind

        return rebind(recorded, dims)  # type: ignore[arg-type]

    recorded = replace(b.graph({"N": 2}), source=source)
    bound = Simplify()(recorded).bind({"N": 7})
    verify(bound)
    assert bound.output["y"] is bound.inputs[0]
    assert bound.output["y"].type.shape == (7, 3)


def test_rewriting_needs_no_recursion_over_depth() -> None:
    b = Builder("deep")
    x = Sym(b, b.add_input("x", F23))
    for _ in range(10_000):
        x = x.transpose((1, 0))
    b.set_output("y", x.value)
    after = Simplify().run(b.graph())
    assert after.output["y"] is after.inputs[0]
