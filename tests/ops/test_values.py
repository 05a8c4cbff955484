"""Types, references, and one element at a time, for every row of the table."""

import dataclasses

import numpy as np
import pytest

from tapeout.autodiff.gradients import expand
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bf16, from_numpy
from tapeout.ir.op import REGISTRY, Composite
from tapeout.ir.type import TensorType
from tapeout.ops import composite, sym
from tapeout.oracle import graph as graph_oracle
from tests.ops.cases import CASES, Case
from tests.ops.lanes import evaluate
from tests.tolerances import close

WITH_ORACLE = [c for c in CASES if c.expected is not None]
POINTS = [
    c for c in CASES if c.at and all(o.dtype.bits != 16 or not o.dtype.is_float for o in c.operands)
]


def results(case: Case, arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Run the one node of a row through the oracle of graphs, which checks the types."""
    b = Builder("case")
    inputs = [b.add_input(f"x{i}", t) for i, t in enumerate(case.types)]
    for i, value in enumerate(b.emit(case.op, *inputs)):
        b.set_output(f"y{i}", value)
    found = graph_oracle.run(b.graph(), {v.name: a for v, a in zip(inputs, arrays, strict=True)})
    return tuple(found.outputs.values())


def agree(got: np.ndarray, want: np.ndarray, kind: str, **wider: object) -> None:
    """Compare; numpy does not know that one NaN of bf16 is as good as another."""
    if got.dtype == want.dtype == bf16.numpy and kind == "exact":
        got, want = got.astype(np.float32), want.astype(np.float32)
    close(got, want, kind, **wider)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", WITH_ORACLE, ids=lambda c: c.id)
def test_value(case: Case) -> None:
    arrays = case.draw()
    found = results(case, arrays)
    with np.errstate(all="ignore"):
        expected = case.expected(*arrays)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        agree(got, want, case.kind)


@pytest.mark.parametrize("case", POINTS, ids=lambda c: c.id)
def test_one_element_at_a_time(case: Case) -> None:
    arrays = case.draw()
    with np.errstate(all="ignore"):
        want = case.op.reference(*arrays)
    # A body of several operations cancels where the reference, in f64, does not.
    agree(evaluate(case.op, arrays), want, case.kind, factor=4, reason="each operation rounds")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_types_of_the_reference(case: Case) -> None:
    if case.op.reference.__qualname__.startswith("Op."):
        pytest.skip("has no reference of its own")
    arrays = case.draw()
    with np.errstate(all="ignore"):
        made = case.op.reference(*arrays)
    made = made if isinstance(made, tuple) else (made,)
    assert tuple(TensorType(from_numpy(a.dtype), a.shape) for a in made) == case.op.infer(
        *case.types
    )


def test_every_operation_has_rows() -> None:
    assert sym and composite and expand  # the modules that register operations
    ours = {n for n, c in REGISTRY.items() if c.__module__.startswith("tapeout.ops.")}
    assert ours - {c.op.name for c in CASES} == set()


def test_rows_differ() -> None:
    ids = [c.id for c in CASES]
    assert sorted(i for i in set(ids) if ids.count(i) > 1) == []


def test_equal_attributes_make_equal_operations() -> None:
    for case in CASES:
        again = dataclasses.replace(case.op)
        assert again == case.op and hash(again) == hash(case.op)


def test_composites_decompose_to_the_types_they_promise() -> None:
    for case in (c for c in CASES if isinstance(c.op, Composite)):
        b = Builder("case")
        operands = [sym.Sym(b, b.add_input(f"x{i}", t)) for i, t in enumerate(case.types)]
        made = tuple(s.type for s in case.op.decompose(*operands))
        assert made == case.op.infer(*case.types), case.id
