"""Guards around values that are evaluated where they are read."""

import numpy as np
import pytest

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f32, f64, i64
from tapeout.ir.type import TensorType
from tapeout.kernel.compute import Apply, Buffer, Expr, ExprBuilder, Index, Load
from tapeout.ops.sym import Sym, iota
from tapeout.oracle import graph as graph_oracle
from tapeout.schedule.element import Elements, holds
from tapeout.schedule.lower.exprs import postorder
from tapeout.support.errors import CompileError
from tests.schedule_programs import equal, run_works

x_axis = Axis("a0", 6)


def _read(make, other: float) -> Expr:
    """Return a guarded read of what `make` makes of a kept tensor of 4, at six places of which one each side is outside."""
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f64, (4,))))
    made = make(x)
    s = ExprBuilder()

    def leaf(value, index, where, fill):
        return s.load(Buffer(value.name, value.type.dtype, (4,), (1,)), index, where, fill)

    inlined = {n.results[0] for n in b.graph().nodes}
    at = Affine.of(x_axis) - 1
    return Elements(s, inlined, leaf).read(made.value, [at], [Guard(at, 0, 4)], other)


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda x: x.reverse([0]), 0.0),
        (lambda x: x.reverse([0]), -np.inf),
        (lambda x: x.relu(), 0.0),
        (lambda x: x * 2.0, 0.0),
        (lambda x: x > 0, False),
        (lambda x: x > 0, True),
        (lambda x: (x > 0).where(x, 0.0), 0.0),
        (lambda x: x.cast(f32).cast(f64), 0.0),
        (lambda x: x.abs() - x, 0.0),
        (lambda x: (x >= 0) & (x > 0.5), False),
    ],
)  # fmt: skip
def test_a_fill_that_the_expression_gives_anyway_needs_no_select(make, other) -> None:
    assert not any(isinstance(e, Index) for e in postorder(_read(make, other)))


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda x: x + 1.0, 0.0),
        (lambda x: x.exp(), 0.0),
        (lambda x: -x, 0.0),
        (lambda x: x.relu(), -1.0),
        (lambda x: x * np.nan, 0.0),
    ],
)
def test_another_fill_is_selected(make, other) -> None:
    element = _read(make, other)
    assert isinstance(element, Apply) and element.op == "select"
    assert element.args[2].value == other


def test_guards_go_down_to_every_load() -> None:
    element = _read(lambda x: x * x.reverse([0]), 0.0)
    assert isinstance(element, Apply) and element.op == "mul"
    assert all(isinstance(a, Load) and len(a.where) == 1 for a in element.args)


def test_nested_guards_keep_both_fills() -> None:
    element = _read(lambda x: x.pad([1], [-1], 7.0), 3.0)
    assert isinstance(element, Apply) and element.op == "select"
    inner = element.args[1]
    assert isinstance(inner, Load) and inner.other == 7.0 and len(inner.where) == 2


def test_a_gather_needs_a_kept_value() -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f64, (4,))))
    y = x * 2.0
    s = ExprBuilder()
    elements = Elements(s, {y.value}, lambda *_: s.const(0, f64))
    with pytest.raises(CompileError, match="a gather must read a value that is kept"):
        elements.read(y.value, [s.const(1, i64)])


def test_conditions_name_only_what_ranges_do_not_prove() -> None:
    s = ExprBuilder()
    low = holds(s, [Guard(Affine.of(x_axis) - 1, 0, 9)])
    assert isinstance(low, Apply) and low.op == "ge"
    both = holds(s, [Guard(Affine.of(x_axis) - 1, 0, 4)])
    assert isinstance(both, Apply) and both.op == "and" and both.dtype == bool_


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_padded_masks_and_numbers_compute_what_the_graph_says(fill: float) -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f64, (4, 3))))
    w = Sym(b, b.add_variable("w", TensorType(f64, (3, 2))))
    mask = (x > 0).pad([1, 0], [2, 1], fill)
    numbers = iota(b, (4, 3), 0, f64).pad([1, 0], [2, 1], fill)
    b.set_output("y", mask.where(numbers, -1.0).value)
    b.set_output("z", x.matmul(w).value)
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((4, 3))}
    variables = {"w": rng.standard_normal((3, 2))}
    outputs, _, _ = run_works(b.graph(), inputs, variables)
    equal(outputs, graph_oracle.run(b.graph(), inputs, variables).outputs)
