"""Which numbers an index may be: linear forms over loop variables where possible, intervals elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapeout.kernel import loops
from tapeout.kernel.walk import parts, postorder

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT = 1 << 63


@dataclass(frozen=True, slots=True)
class Range:
    """The values of an i64 scalar.

    Attributes:
        lo: Least value, or a bound of it.
        hi: Greatest value, or a bound of it.
        linear: `const + sum(factor * variable)` as factors by loop variable (the constant under the empty name); None if the value
            is no such sum.
        exact: Whether `lo` and `hi` are reached, each loop variable running over constants.
    """

    lo: int
    hi: int
    linear: Mapping[str, int] | None = None
    exact: bool = False


UNKNOWN = Range(-_LIMIT, _LIMIT - 1)


@dataclass
class Ranges:
    """Ranges of the variables that are visible at a statement."""

    vars: dict[str, Range] = field(default_factory=dict)

    def of(self, root: loops.Expr) -> Range:
        """Return the range of an i64 scalar expression."""
        known: dict[int, Range] = {}
        for expr in postorder(root, set()):
            known[id(expr)] = self._one(expr, [known[id(p)] for p in parts(expr)])
        return known[id(root)]

    def loop(self, s: loops.For) -> tuple[Range, bool]:
        """Return the range of a loop's variable, and whether the loop runs at least once for sure."""
        start, stop = self.of(s.start), self.of(s.stop)
        if start.hi == _LIMIT - 1 or stop.lo == -_LIMIT:
            return UNKNOWN, False
        fixed = start.lo == start.hi and stop.lo == stop.hi
        last = start.lo + max(0, stop.hi - 1 - start.lo) // s.step * s.step
        linear = {s.var: 1} if fixed else None
        return Range(start.lo, max(last, start.lo), linear, fixed), stop.lo > start.hi

    def _one(self, expr: loops.Expr, args: list[Range]) -> Range:
        if isinstance(expr, loops.Const) and isinstance(expr.value, int):
            number = int(expr.value)
            return Range(number, number, {"": number}, True)
        if isinstance(expr, loops.Var):
            return self.vars.get(expr.name, UNKNOWN)
        if isinstance(expr, loops.Apply) and len(args) == 2:
            return self._apply(expr.op, *args)
        return UNKNOWN

    def _apply(self, op: str, a: Range, b: Range) -> Range:
        linear = _combined(op, a, b)
        if linear is not None:
            return self._sum(linear)
        lo, hi = _interval(op, a, b)
        return Range(lo, hi) if -_LIMIT <= lo <= hi < _LIMIT else UNKNOWN

    def _sum(self, linear: dict[str, int]) -> Range:
        lo = hi = linear.get("", 0)
        for name, factor in linear.items():
            if name:
                ends = (self.vars[name].lo * factor, self.vars[name].hi * factor)
                lo, hi = lo + min(ends), hi + max(ends)
        return Range(lo, hi, linear, True)


def _combined(op: str, a: Range, b: Range) -> dict[str, int] | None:
    if a.linear is None or b.linear is None:
        return None
    if op in ("add", "sub"):
        sign = 1 if op == "add" else -1
        names = dict.fromkeys((*a.linear, *b.linear))
        sums = {n: a.linear.get(n, 0) + sign * b.linear.get(n, 0) for n in names}
        return {n: f for n, f in sums.items() if f}
    if op != "mul":
        return None
    for x, y in ((a, b), (b, a)):
        if x.lo == x.hi and y.linear is not None:
            return {n: f * x.lo for n, f in y.linear.items() if f * x.lo}
    return None


def _interval(op: str, a: Range, b: Range) -> tuple[int, int]:
    """Return bounds of an operation; an empty interval if nothing is known."""
    if op == "add":
        return a.lo + b.lo, a.hi + b.hi
    if op == "sub":
        return a.lo - b.hi, a.hi - b.lo
    if op == "mul":
        ends = (a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi)
        return min(ends), max(ends)
    if op == "max":
        return max(a.lo, b.lo), max(a.hi, b.hi)
    if op == "min":
        return min(a.lo, b.lo), min(a.hi, b.hi)
    if op == "div" and b.lo > 0 and a.lo >= 0:
        return a.lo // b.hi, a.hi // b.lo
    if op == "rem" and b.lo > 0 and a.lo >= 0:
        return 0, min(a.hi, b.hi - 1)
    return 1, 0
