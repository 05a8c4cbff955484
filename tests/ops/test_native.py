"""Native code, built with its bounds tests, for every row of the table: all rows of an operation are one program."""

from itertools import groupby

import numpy as np
import pytest

import tapeout
from tapeout.ir.build import Builder
from tests.ops.cases import CASES, Case
from tests.ops.test_values import agree, results


def _is_short(case: Case) -> bool:
    """Return whether a row has floats of 16 bits."""
    return any(o.dtype.bits == 16 and o.dtype.is_float for o in case.operands)


def _programs(*, short: bool) -> dict[str, list[Case]]:
    """Return the rows of each operation."""
    rows = sorted((c for c in CASES if _is_short(c) == short), key=lambda c: c.op.name)
    return {name: list(found) for name, found in groupby(rows, lambda c: c.op.name)}


PROGRAMS, SHORT = _programs(short=False), _programs(short=True)


@pytest.mark.parametrize("name", PROGRAMS)
def test_native(name: str) -> None:
    run_and_compare(name, PROGRAMS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_native_short_floats(name: str) -> None:
    run_and_compare(name, SHORT[name])


def run_and_compare(name: str, rows: list[Case]) -> None:
    b = Builder(name)
    arrays: dict[str, np.ndarray] = {}
    made: list[tuple[Case, list[str]]] = []
    for n, case in enumerate(rows):
        operands = [b.add_input(f"x{n}.{i}", t) for i, t in enumerate(case.types)]
        arrays.update(zip((v.name for v in operands), case.draw(), strict=True))
        names = []
        for i, value in enumerate(b.emit(case.op, *operands)):
            names.append(f"y{n}.{i}")
            b.set_output(names[-1], value)
        made.append((case, names))
    found = tapeout.compile(b.graph(), checked=True)(arrays)
    for case, names in made:
        with np.errstate(all="ignore"):
            expected = results(case, case.draw())
        for got, want in zip((found[y] for y in names), expected, strict=True):
            assert got.dtype == want.dtype and got.shape == want.shape, case.id
            agree(got, want, case.kind, factor=4, reason="each operation rounds")
