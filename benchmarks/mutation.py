"""Would a wrong gradient rule be noticed? Break each in turn and run the tests of gradients.

    python benchmarks/mutation.py            every rule, prints what was caught and what survived
    python benchmarks/mutation.py relu conv  only the rules of these operations

A rule is what one operation class says about one of its operands. It is negated, scaled by 1.01 and dropped, one at a
time, in this process; the tests are those of tests/ops/test_gradient.py for the rows of that operation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tapeout.ir.op import REGISTRY, Op
from tests.ops import test_gradient
from tests.ops.cases import Case

LIMIT = 0.95
"""Share of mutants that must be caught."""

MUTATIONS: dict[str, Callable[[Any], Any]] = {
    "negated": lambda cotangent: -cotangent,
    "scaled": lambda cotangent: cotangent * 1.01,
    "dropped": lambda cotangent: None,
}


@dataclass(frozen=True)
class Mutant:
    """One broken rule: of which operation, for which operand, how."""

    cls: type[Op]
    operand: int
    how: str

    def __str__(self) -> str:
        return f"{self.cls.name}, operand {self.operand}, {self.how}"


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Break the rule inside a `with` block."""
    cls, own = mutant.cls, "pullback" in vars(mutant.cls)
    right = cls.pullback

    def wrong(self: Op, cotangents: Any, operands: Any, results: Any) -> tuple[Any, ...]:
        out = list(right(self, cotangents, operands, results))
        if mutant.operand < len(out) and out[mutant.operand] is not None:
            out[mutant.operand] = MUTATIONS[mutant.how](out[mutant.operand])
        return tuple(out)

    cls.pullback = wrong  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        if own:
            cls.pullback = right  # type: ignore[method-assign]
        else:
            del cls.pullback


def rows(cls: type[Op]) -> list[Case]:
    """Return the rows of the table that test gradients of an operation, the quick ones first."""
    found = [c for c in test_gradient.FIRST if type(c.op) is cls]
    return sorted(found, key=lambda c: sum(t.size for t in c.types))


def rules() -> Iterator[tuple[type[Op], int]]:
    """Yield every (operation, operand) for which some row gets a cotangent, in order of name."""
    for _, cls in sorted(REGISTRY.items()):
        if cls.pullback is Op.pullback:  # a composite that is differentiated through its formula
            continue
        seen: set[int] = set()
        for case in rows(cls):
            seen |= _operands_with_a_rule(case)
        yield from ((cls, operand) for operand in sorted(seen))


def _operands_with_a_rule(case: Case) -> set[int]:
    """Return which operands of a row get a cotangent from the rule of its operation."""
    cls, own, seen = type(case.op), "pullback" in vars(type(case.op)), set()
    right = cls.pullback

    def watch(self: Op, cotangents: Any, operands: Any, results: Any) -> tuple[Any, ...]:
        out = right(self, cotangents, operands, results)
        seen.update(i for i, c in enumerate(out) if c is not None)
        return out

    cls.pullback = watch  # type: ignore[method-assign, assignment]
    try:
        graph, names = test_gradient.loss_of(case)
        test_gradient.gradients(graph, "loss", names)
    finally:
        if own:
            cls.pullback = right  # type: ignore[method-assign]
        else:
            del cls.pullback
    return seen


def mutants(names: list[str] | None = None) -> list[Mutant]:
    """Return all mutants, or those of the operations named."""
    return [
        Mutant(cls, operand, how)
        for cls, operand in rules()
        if not names or cls.name in names
        for how in MUTATIONS
    ]


def is_caught(mutant: Mutant) -> bool:
    """Return whether some test of gradients fails while the rule is broken."""
    with applied(mutant):
        return any(_fails(test_gradient.test_gradient, case) for case in rows(mutant.cls))


def _fails(test: Callable[[Case], None], case: Case) -> bool:
    try:
        test(case)
    except AssertionError:
        return True
    return False


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("operations", nargs="*", help="only these")
    start = time.perf_counter()
    found = mutants(parser.parse_args().operations)
    survivors = [m for m in found if not is_caught(m)]
    for m in survivors:
        print(f"survived: {m}: no row of its operation notices it")
    caught = len(found) - len(survivors)
    share = caught / max(len(found), 1)
    operations = len({m.cls for m in found})
    print(
        f"{caught} of {len(found)} mutants of {len(found) // len(MUTATIONS)} rules of {operations} "
        f"operations caught ({share:.1%}) in {time.perf_counter() - start:.0f} s"
    )
    return 0 if share >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
