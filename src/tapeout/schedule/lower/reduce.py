"""Writes one reduction: accumulators, loops, and the tree at the end.

The rounding is a fixed function of the extents: `ACCUMULATORS` vectors take the steps in turn, are added as a balanced tree, and
the lanes of the result (if they hold parts of one sum) as the tree of `Lanes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.ir.dtype import DType, bool_
from tapeout.kernel import compute, loops
from tapeout.schedule.lower.exprs import loads
from tapeout.schedule.lower.grid import open_loops
from tapeout.schedule.lower.normal import offset_of
from tapeout.schedule.lower.values import Place, Values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.schedule.lower.writer import Writer

ACCUMULATORS = 4
UNROLLED = 9
"""A reduction of at most this many steps is written without loops."""

OPERATION = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


def neutral(combine: str, dtype: DType) -> float:
    """Return the value that changes nothing when combined."""
    if combine in ("sum", "any"):
        return 0
    if combine in ("prod", "all"):
        return 1
    if dtype.is_float:
        return float("-inf") if combine in ("max", "argmax") else float("inf")
    if dtype == bool_:
        return combine in ("min", "argmin")
    signed = dtype.kind == "i"
    lowest, highest = -(1 << dtype.bits - 1) if signed else 0, (1 << dtype.bits - signed) - 1
    return lowest if combine in ("max", "argmax") else highest


@dataclass(frozen=True)
class Steps:
    """The order in which a reduction takes its elements.

    Attributes:
        serial: Axes that loops run over, outermost first.
        vector: The axis that runs across lanes, if the lanes hold parts of one sum.
        lanes: How many lanes there are then.
    """

    serial: tuple[Axis, ...]
    vector: Axis | None = None
    lanes: int = 1


class Reducer:
    """Writes reductions of one kernel.

    Args:
        values: Evaluates the elements.
        fma: Whether sums of products use fused multiply-add.
    """

    def __init__(self, values: Values, fma: bool) -> None:
        self.values, self.w, self.fma = values, values.w, fma

    def __call__(
        self, stage: compute.Reduce, steps: Steps, places: Sequence[Place]
    ) -> list[loops.Expr]:
        """Return the combined value of each place: of all lanes if `steps.vector` runs across them, else one per lane."""
        return _Reduction(self, stage, steps, list(places)).write()


@dataclass
class _Reduction:
    """One reduction being written."""

    of: Reducer
    stage: compute.Reduce
    steps: Steps
    places: list[Place]

    def __post_init__(self) -> None:
        self.w: Writer = self.of.w
        self.arg = self.stage.combine.startswith("arg")
        serial = list(self.steps.serial)
        self.tail = 0
        if self.steps.vector is not None:
            self.run, self.tail = divmod(self.steps.vector.extent, self.steps.lanes)
            self.run_axis = self.steps.vector
        elif serial:
            self.run_axis = serial.pop()
            self.run = self.run_axis.extent
        else:
            self.run_axis, self.run = Axis("none", 1), 1
        self.outer = serial
        self.state: _Values | _Registers
        # Elements that lie apart are loaded one by one, in code of many lines that more accumulators would only repeat.
        self.scattered = self._is_scattered()
        self.count = 1
        if not (self.arg or self.scattered):
            self.count = min(max(1, ACCUMULATORS // len(self.places)), max(self.run, 1))

    def _is_scattered(self) -> bool:
        buffers = self.of.values.buffers
        across = self.steps.vector
        for e in loads(self.stage.value):
            place = offset_of(e, buffers)
            lane = self.places[0].lane
            if across is None and lane is not None:
                place = place.substitute(self.places[0].bind)
            axis = across if across is not None else lane
            if axis is not None and axis in place.axes and place.coefficient(axis) != 1:
                return True
        return False

    def _lanes(self, place: Place) -> int:
        return self.steps.lanes if self.steps.vector else place.lanes

    def write(self) -> list[loops.Expr]:
        around = 1
        for axis in self.outer:
            around *= axis.extent
        total = around * (self.run + (self.tail > 0))
        if total <= (UNROLLED // 2 if self.scattered else UNROLLED):
            self.count = self.count if total >= 2 * ACCUMULATORS else 1
            self.state = _Values(self.w, self._starts())
            self._unrolled()
        else:
            self.state = _Registers(self.w, self._starts())
            self._looped()
        return [self._combined(n) for n in range(len(self.places))]

    def _starts(self) -> list[loops.Expr]:
        kind, dtype, of = self.stage.combine, self.stage.dtype, self.stage.value.dtype
        found: list[loops.Expr] = []
        for place in self.places:
            lanes = self._lanes(place)
            if self.arg:
                found.append(self.w.const(neutral(kind, of), of, lanes))
                found.append(self.w.const(0, dtype, lanes))
            else:
                found += [self.w.const(neutral(kind, dtype), dtype, lanes)] * self.count
        return found

    # -- steps --------------------------------------------------------------------------------------

    def _unrolled(self) -> None:
        for at in product(*(range(a.extent) for a in self.outer)):
            bind = {a: Affine((), n) for a, n in zip(self.outer, at, strict=True)}
            for n in range(self.run):
                self._step(n % self.count, bind, Affine((), n))
            if self.tail:
                self._tail(bind)

    def _looped(self) -> None:
        with open_loops(self.w, self.outer) as bind:
            self._run(bind)

    def _run(self, bind: dict[Axis, Affine]) -> None:
        few = self.run <= 2 * ACCUMULATORS and not self.scattered
        whole = 0 if few else self.run // self.count
        if whole:
            with self.w.loop(whole) as i:
                for u in range(self.count):
                    self._step(u, bind, i * self.count + u)
        for n in range(whole * self.count, self.run):
            self._step(n % self.count, bind, Affine((), n))
        if self.tail:
            self._tail(bind)

    def _step(self, u: int, bind: dict[Axis, Affine], at: Affine) -> None:
        if self.steps.vector is not None:
            self._across(u, bind, at * self.steps.lanes, self.steps.lanes)
            return
        for n, place in enumerate(self.places):
            here = {**place.bind, **bind, self.run_axis: at}
            self._take(n, u, replace(place, bind=here))

    def _tail(self, bind: dict[Axis, Affine]) -> None:
        self._across(0, bind, Affine((), self.run * self.steps.lanes), self.tail)

    def _across(self, u: int, bind: dict[Axis, Affine], start: Affine, used: int) -> None:
        """Take the elements of one vector along the axis that lies across lanes."""
        lane = Axis("lane", used)
        for n, place in enumerate(self.places):
            here = {**place.bind, **bind, self.run_axis: start + lane}
            self._take(n, u, replace(place, bind=here, lanes=self.steps.lanes, lane=lane))

    def _take(self, n: int, u: int, place: Place) -> None:
        """Combine the element at a place into accumulator `u` of place `n`."""
        if self.arg:
            self._take_extreme(2 * n, place)
            return
        u += n * self.count
        stage, x = self.stage, self.stage.value
        if self.of.fma and stage.combine == "sum" and _is_product(x, stage.dtype):
            assert isinstance(x, compute.Apply)
            a, b = (self.of.values.value(e, place) for e in x.args)
            if self.state.fresh(u) and place.active is None:
                self.state.set(u, self.w.apply("mul", a, b))
                return
            self.state.set(u, self._fma(a, b, self.state.get(u), place))
            return
        value = self.w.cast(self._element(place), stage.dtype)
        if self.state.fresh(u):
            self.state.set(u, value)
            return
        self.state.set(u, self.w.apply(OPERATION[stage.combine], self.state.get(u), value))

    def _fma(self, a: loops.Expr, b: loops.Expr, acc: loops.Expr, place: Place) -> loops.Expr:
        total = self.w.apply("fma", a, b, acc)
        if self.steps.vector is None or place.active is None:
            return total
        return self.w.apply("select", self._used(place), total, acc)

    def _used(self, place: Place) -> loops.Expr:
        """Return which lanes are in use, as a constant vector."""
        assert place.active is not None
        ramp = self.w.ramp(self.w.i64(0), place.lanes)
        return self.w.apply("lt", ramp, self.w.i64(place.active))

    def _element(self, place: Place) -> loops.Expr:
        """Return the element to combine; lanes that are not in use give the neutral value."""
        value = self.of.values.value(self.stage.value, place)
        if self.steps.vector is None or place.active is None:
            return value
        rest = self.w.const(neutral(self.stage.combine, value.dtype), value.dtype)
        return self.w.apply("select", self._used(place), value, rest)

    # -- the end ------------------------------------------------------------------------------------

    def _combined(self, n: int) -> loops.Expr:
        if self.arg:
            return self._first_extreme(2 * n)
        parts = [self.state.get(n * self.count + u) for u in range(self.count)]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            odd = parts[len(parts) // 2 * 2 :]
            parts = [self.w.apply(OPERATION[self.stage.combine], a, b) for a, b in pairs] + odd
        if self.steps.vector is None:
            return parts[0]
        return self.w.lanes(self.stage.combine, parts[0])

    # -- the place of an extreme --------------------------------------------------------------------

    def _take_extreme(self, u: int, place: Place) -> None:
        """Combine an element and its number into the accumulators `u` and `u + 1`."""
        value = self._element(place)
        flat = Affine()
        for axis in self.stage.axes:
            flat = flat * axis.extent + place.bind.get(axis, Affine.of(axis))
        here = self.w.cast(self.of.values.index(flat, place), self.stage.dtype)
        sign = "gt" if self.stage.combine == "argmax" else "lt"

        if self.state.fresh(u):
            self.state.set(u, value)
            self.state.set(u + 1, here)
            return
        best, at = self.state.get(u), self.state.get(u + 1)
        better = self.w.apply(sign, value, best)
        if value.dtype.is_float:
            first = self.w.apply("not", self.w.apply("isnan", best))
            nan = self.w.apply("and", self.w.apply("isnan", value), first)
            better = self.w.apply("or", better, nan)
        self.state.set(u, self.w.apply("select", better, value, best))
        self.state.set(u + 1, self.w.apply("select", better, here, at))

    def _first_extreme(self, u: int) -> loops.Expr:
        best, at = self.state.get(u), self.state.get(u + 1)
        if self.steps.vector is None:
            return at
        top = self.w.lanes(self.stage.combine[3:], best)
        same = self.w.apply("eq", best, top)
        if best.dtype.is_float:
            same = self.w.apply("or", same, self.w.apply("isnan", best))
        far = self.w.const(neutral("min", at.dtype), at.dtype)
        return self.w.lanes("min", self.w.apply("select", same, at, far))


class _Values:
    """Accumulators as values: the steps stand one after the other."""

    def __init__(self, w: Writer, starts: list[loops.Expr]) -> None:
        self._w, self._starts = w, starts
        self._parts: dict[int, loops.Expr] = {}

    def fresh(self, u: int) -> bool:
        """Return whether accumulator `u` still holds the neutral value."""
        return u not in self._parts

    def get(self, u: int) -> loops.Expr:
        """Return accumulator `u`."""
        return self._parts.get(u, self._starts[u])

    def set(self, u: int, value: loops.Expr) -> None:
        """Change accumulator `u`. What is the same in all lanes counts once for each of them."""
        self._parts[u] = self._w.splat(value, self._starts[u].lanes)


class _Registers:
    """Accumulators as register buffers: loops change them."""

    def __init__(self, w: Writer, starts: list[loops.Expr]) -> None:
        self._w, self._starts = w, starts
        self._names = [w.alloc(x.dtype, x.lanes, 1, "register") for x in starts]
        for u, start in enumerate(starts):
            self.set(u, start)

    def fresh(self, u: int) -> bool:
        """Return False: a loop comes here more than once."""
        return False

    def get(self, u: int) -> loops.Expr:
        """Return accumulator `u`."""
        start = self._starts[u]
        return self._w.load(self._names[u], start.dtype, self._w.i64(0), start.lanes)

    def set(self, u: int, value: loops.Expr) -> None:
        """Change accumulator `u`."""
        value = self._w.splat(value, self._starts[u].lanes)
        self._w.store(self._names[u], self._w.i64(0), value)


def _is_product(x: compute.Expr, dtype: DType) -> bool:
    return isinstance(x, compute.Apply) and x.op == "mul" and x.dtype == dtype and dtype.is_float
