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
from tapeout.schedule.lower.values import Place, Values

if TYPE_CHECKING:
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

    def __call__(self, stage: compute.Reduce, steps: Steps, place: Place) -> loops.Expr:
        """Return the combined value: of all lanes if `steps.vector` runs across them, else one per lane."""
        lanes = steps.lanes if steps.vector else place.lanes
        one = _Reduction(self, stage, steps, place, lanes)
        return one.write()


@dataclass
class _Reduction:
    """One reduction being written."""

    of: Reducer
    stage: compute.Reduce
    steps: Steps
    place: Place
    lanes: int

    def __post_init__(self) -> None:
        self.w: Writer = self.of.w
        self.arg = self.stage.combine.startswith("arg")
        serial = list(self.steps.serial)
        self.tail = 0
        if self.steps.vector is not None:
            self.run, self.tail = divmod(self.steps.vector.extent, self.lanes)
            self.run_axis = self.steps.vector
        elif serial:
            self.run_axis = serial.pop()
            self.run = self.run_axis.extent
        else:
            self.run_axis, self.run = Axis("none", 1), 1
        self.outer = serial
        self.state: _Values | _Registers
        self.count = 1 if self.arg else min(ACCUMULATORS, max(self.run, 1))

    def write(self) -> loops.Expr:
        around = 1
        for axis in self.outer:
            around *= axis.extent
        total = around * (self.run + (self.tail > 0))
        if total <= UNROLLED:
            self.count = self.count if total >= 2 * ACCUMULATORS else 1
            self.state = _Values(self._starts())
            self._unrolled()
        else:
            self.state = _Registers(self.w, self._starts())
            self._looped()
        return self._combined()

    def _starts(self) -> list[loops.Expr]:
        kind, dtype = self.stage.combine, self.stage.dtype
        if not self.arg:
            return [self.w.const(neutral(kind, dtype), dtype, self.lanes)] * self.count
        of = self.stage.value.dtype
        best = self.w.const(neutral(kind, of), of, self.lanes)
        return [best, self.w.const(0, dtype, self.lanes)]

    # -- steps --------------------------------------------------------------------------------------

    def _unrolled(self) -> None:
        for at in product(*(range(a.extent) for a in self.outer)):
            bind = {a: Affine((), n) for a, n in zip(self.outer, at, strict=True)}
            for n in range(self.run):
                self._step(n % self.count, bind, Affine((), n))
            if self.tail:
                self._tail(bind)

    def _looped(self) -> None:
        opened = []
        bind: dict[Axis, Affine] = {}
        for axis in self.outer:
            loop = self.w.loop(axis.extent)
            bind[axis] = loop.__enter__()
            opened.append(loop)
        self._run(bind)
        for loop in reversed(opened):
            loop.__exit__(None, None, None)

    def _run(self, bind: dict[Axis, Affine]) -> None:
        whole = self.run // self.count if self.run > 2 * ACCUMULATORS else 0
        if whole:
            with self.w.loop(whole) as i:
                for u in range(self.count):
                    self._step(u, bind, i * self.count + u)
        for n in range(whole * self.count, self.run):
            self._step(n % self.count, bind, Affine((), n))
        if self.tail:
            self._tail(bind)

    def _step(self, u: int, bind: dict[Axis, Affine], at: Affine) -> None:
        place = self.place
        if self.steps.vector is None:
            place = replace(place, bind={**place.bind, **bind, self.run_axis: at})
            self._take(u, place)
            return
        lane = Axis("lane", self.lanes)
        bind = {**bind, self.run_axis: at * self.lanes + lane}
        self._take(u, replace(place, bind={**place.bind, **bind}, lanes=self.lanes, lane=lane))

    def _tail(self, bind: dict[Axis, Affine]) -> None:
        lane = Axis("lane", self.tail)
        at = Affine.of(lane) + self.run * self.lanes
        bind = {**self.place.bind, **bind, self.run_axis: at}
        place = replace(self.place, bind=bind, lanes=self.lanes, lane=lane)
        self._take(0, place)

    def _take(self, u: int, place: Place) -> None:
        if self.arg:
            self._take_extreme(place)
            return
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

    def _combined(self) -> loops.Expr:
        if self.arg:
            return self._first_extreme()
        parts = [self.state.get(u) for u in range(self.count)]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            odd = parts[len(parts) // 2 * 2 :]
            parts = [self.w.apply(OPERATION[self.stage.combine], a, b) for a, b in pairs] + odd
        if self.steps.vector is None:
            return parts[0]
        return self.w.lanes(self.stage.combine, parts[0])

    # -- the place of an extreme --------------------------------------------------------------------

    def _take_extreme(self, place: Place) -> None:
        value = self._element(place)
        flat = Affine()
        for axis in self.stage.axes:
            flat = flat * axis.extent + place.bind.get(axis, Affine.of(axis))
        here = self.w.cast(self.of.values.index(flat, place), self.stage.dtype)
        sign = "gt" if self.stage.combine == "argmax" else "lt"

        if self.state.fresh(0):
            self.state.set(0, value)
            self.state.set(1, here)
            return
        best, at = self.state.get(0), self.state.get(1)
        better = self.w.apply(sign, value, best)
        if value.dtype.is_float:
            first = self.w.apply("not", self.w.apply("isnan", best))
            nan = self.w.apply("and", self.w.apply("isnan", value), first)
            better = self.w.apply("or", better, nan)
        self.state.set(0, self.w.apply("select", better, value, best))
        self.state.set(1, self.w.apply("select", better, here, at))

    def _first_extreme(self) -> loops.Expr:
        best, at = (self.state.get(n) for n in (0, 1))
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

    def __init__(self, starts: list[loops.Expr]) -> None:
        self._starts = starts
        self._parts: dict[int, loops.Expr] = {}

    def fresh(self, u: int) -> bool:
        """Return whether accumulator `u` still holds the neutral value."""
        return u not in self._parts

    def get(self, u: int) -> loops.Expr:
        """Return accumulator `u`."""
        return self._parts.get(u, self._starts[u])

    def set(self, u: int, value: loops.Expr) -> None:
        """Change accumulator `u`."""
        self._parts[u] = value


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
