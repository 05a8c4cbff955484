"""A wrong gradient rule is noticed: each one in turn negated, scaled by 1.01 and dropped."""

from __future__ import annotations

import pytest

from benchmarks import mutation
from tests.ops import test_gradient


def test_broken_rules_are_caught() -> None:
    mutants = mutation.mutants()
    assert len(mutants) > 200
    survivors = [str(m) for m in mutants if not mutation.is_caught(m)]
    caught = 1 - len(survivors) / len(mutants)
    assert caught >= mutation.LIMIT, "survived:\n" + "\n".join(survivors)


def test_whole_rules_pass_again_afterwards() -> None:
    """The catch is the mutation's doing: the same rows pass before and after it."""
    mutant = next(m for m in mutation.mutants() if m.cls.name == "mul" and m.how == "scaled")
    case = mutation.rows(mutant.cls)[0]
    test_gradient.test_gradient(case)
    with mutation.applied(mutant), pytest.raises(AssertionError):
        test_gradient.test_gradient(case)
    test_gradient.test_gradient(case)
    assert "pullback" not in vars(mutant.cls)
