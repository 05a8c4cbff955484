"""Index expressions: every simplification against evaluation on all points."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.ir.affine import (
    Affine,
    Axis,
    FloorDiv,
    Guard,
    Mod,
    delinearize,
    guards,
    index_of,
    linearize,
)

A, J, K = Axis("i", 4), Axis("j", 6), Axis("k", 1)


def everywhere(*axes: Axis):
    """Yield every assignment of the axes."""
    for point in itertools.product(*(range(a.extent) for a in axes)):
        yield dict(zip(axes, point, strict=True))


@st.composite
def linear(draw: st.DrawFn) -> Affine:
    """Draw a linear expression of i and j."""
    numbers = st.integers(-7, 7)
    return Affine.of(A) * draw(numbers) + Affine.of(J) * draw(numbers) + draw(st.integers(-20, 20))


@given(linear(), linear(), st.integers(1, 8))
def test_arithmetic_is_that_of_numbers(a: Affine, b: Affine, by: int) -> None:
    for point in everywhere(A, J):
        x, y = a.evaluate(point.__getitem__), b.evaluate(point.__getitem__)
        assert (a + b).evaluate(point.__getitem__) == x + y
        assert (a - b).evaluate(point.__getitem__) == x - y
        assert (a * by).evaluate(point.__getitem__) == x * by
        assert (a // by).evaluate(point.__getitem__) == x // by
        assert (a % by).evaluate(point.__getitem__) == x % by
        assert ((a // by) * by + a % by) == a


@given(linear(), st.integers(1, 8))
def test_ranges_hold_every_value(a: Affine, by: int) -> None:
    for e in (a, a // by, a % by):
        lo, hi = e.range
        assert all(lo <= e.evaluate(p.__getitem__) <= hi for p in everywhere(A, J))


@given(linear(), linear())
def test_substitution_commutes_with_evaluation(a: Affine, b: Affine) -> None:
    bound = (a // 3 + a % 5).substitute({A: b})
    for point in everywhere(A, J):
        inner = {**point, A: b.evaluate(point.__getitem__)}
        assert bound.evaluate(point.__getitem__) == (a // 3 + a % 5).evaluate(inner.__getitem__)


def test_ranges_undo_divisions() -> None:
    flat = Affine.of(A) * 6 + J
    assert flat // 6 == Affine.of(A)
    assert flat % 6 == Affine.of(J)
    assert linearize(delinearize(Affine.of(J), (2, 3)), (2, 3)) == Affine.of(J)


def test_an_axis_of_one_step_stands_at_zero() -> None:
    assert Affine.of(K) == Affine()


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (Affine.of(A) * 3 + J + 1, "3*i + j + 1"),
        (Affine.of(3), "3"),
        (Affine(((FloorDiv(Affine.of(J), 4), 2),)), "2*(j)//4"),
        (Affine(((Mod(Affine.of(J), 4), 1),)), "(j)%4"),
    ],
)
def test_text(expression: Affine, text: str) -> None:
    assert str(expression) == text


def test_guards_that_ranges_prove_are_dropped() -> None:
    always, never = Guard(Affine.of(A), 0, 4), Guard(Affine.of(A) - 1, 0, 4)
    assert always.always
    assert guards(always, never, never) == (never,)
    assert str(never.substitute({A: Affine.of(J)})) == "0 <= j + -1 < 4"


def test_facts_of_an_expression() -> None:
    e = Affine.of(A) * 2 + Affine.of(J) // 4
    assert e.axes == (A, J)
    assert e.coefficient(A) == 2
    assert not e.is_linear
    assert not e.is_constant
    assert index_of((A, J)) == (Affine.of(A), Affine.of(J))
