"""Writes expressions of level T down at level L: at one point, or at the points of a vector."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, FloorDiv, Guard, Mod
from tapeout.kernel import compute, loops
from tapeout.schedule.lower.exprs import postorder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.schedule.lower.writer import Writer


@dataclass(frozen=True)
class Place:
    """Where an expression is evaluated.

    Attributes:
        bind: Each axis of T as an expression of loop variables and the lane axis.
        lanes: Elements of a vector, 1 for a scalar.
        lane: The axis that runs over the lanes in use (its extent is how many those are), None for a scalar.
        temps: Results of stages and accumulators.
    """

    bind: Mapping[Axis, Affine]
    lanes: int = 1
    lane: Axis | None = None
    temps: Mapping[str, loops.Expr] = field(default_factory=dict)

    @property
    def active(self) -> int | None:
        """How many lanes are in use; None for all."""
        return None if self.lane is None or self.lane.extent == self.lanes else self.lane.extent


class Values:
    """Evaluates expressions and writes stores.

    Args:
        writer: Where statements go.
        buffers: The kernel's buffers by name.
    """

    def __init__(self, writer: Writer, buffers: Mapping[str, compute.Buffer]) -> None:
        self.w, self.buffers = writer, buffers

    def value(self, root: compute.Expr, place: Place) -> loops.Expr:
        """Return the value of an expression: one lane if it is the same in all, else `place.lanes`."""
        return self.all((root,), place)[0]

    def all(self, roots: Sequence[compute.Expr], place: Place) -> list[loops.Expr]:
        """Return the values of several expressions; what they share is evaluated once."""
        made: dict[int, loops.Expr] = {}
        for e in postorder(*roots):
            made[id(e)] = self._one(e, place, made)
        return [made[id(r)] for r in roots]

    def store_all(self, stages: Sequence[compute.Store], place: Place) -> None:
        """Write the stores of one point (or vector of points): all values are made before the first is written."""
        values = self.all([s.value for s in stages], place)
        for stage, value in zip(stages, values, strict=True):
            self.store(stage, value, place)

    def _one(self, e: compute.Expr, place: Place, made: Mapping[int, loops.Expr]) -> loops.Expr:
        if isinstance(e, compute.Apply):
            return self.w.apply(e.op, *(made[id(a)] for a in e.args))
        if isinstance(e, compute.Cast):
            return self.w.cast(made[id(e.arg)], e.dtype)
        if isinstance(e, compute.Bitcast):
            return self.w.bitcast(made[id(e.arg)], e.dtype)
        if isinstance(e, compute.Index):
            return self.index(e.index.substitute(place.bind), place)
        if isinstance(e, compute.Temp):
            return place.temps[e.name]
        if isinstance(e, compute.Load):
            return self._load(e, place, made)
        assert isinstance(e, compute.Const)
        return self.w.const(e.value, e.dtype)

    # -- indices ------------------------------------------------------------------------------------

    def index(self, at: Affine, place: Place) -> loops.Expr:
        """Return an index as a value: a vector where it differs between lanes."""
        if place.lane is None or place.lane not in at.axes:
            return self.w.named(self.w.index(at))
        lane = place.lane
        varying = {a: c for a, c in at.terms if lane in (a,) or (a != lane and _inside(lane, a))}
        rest = Affine.make({a: c for a, c in at.terms if a not in varying}, at.const)
        total = None
        for atom, c in varying.items():
            part = self._lane_atom(atom, place)
            part = part if c == 1 else self.w.apply("mul", part, self.w.i64(c))
            total = part if total is None else self.w.apply("add", total, part)
        assert total is not None
        if rest == Affine():
            return total
        if list(varying.items()) == [(lane, 1)]:
            return self.w.ramp(self.w.index(rest), place.lanes)
        return self.w.apply("add", self.w.named(self.w.index(rest)), total)

    def _lane_atom(self, atom: Axis | FloorDiv | Mod, place: Place) -> loops.Expr:
        if isinstance(atom, Axis):
            return self.w.ramp(self.w.i64(0), place.lanes)
        lo, _ = atom.of.range
        shift = max(0, -(lo // atom.by))
        x = self.index(atom.of + shift * atom.by, place)
        if isinstance(atom, Mod):
            return self.w.modulo(x, atom.by)
        whole = self.w.divide(x, atom.by)
        return self.w.apply("sub", whole, self.w.i64(shift)) if shift else whole

    # -- loads --------------------------------------------------------------------------------------

    def _load(self, e: compute.Load, place: Place, made: Mapping[int, loops.Expr]) -> loops.Expr:
        where = [h for g in e.where if not (h := g.substitute(place.bind)).always]
        same = [g for g in where if place.lane is None or place.lane not in g.index.axes]
        differ = [g for g in where if g not in same]
        active, differ = _prefix(differ, place)
        start, flat = self.address(self.buffers[e.buffer], e.index, place, made)
        if start is None or start.lanes == 1:
            if place.lane is None or place.lane not in flat.axes:
                at = self._sum(start, self.w.index(flat))
                if active is None and not differ:
                    return self._guarded(e, at, same, 1, None)
                return self._gather(e, self.w.named(at), same, differ, place, active)
            if _unit(flat, place.lane):
                at = self._sum(start, self.w.index(flat - Affine.of(place.lane)))
                return self._row(e, at, same, differ, place, active)
        at = self._sum(start, self.index(flat, place))
        return self._gather(e, at, same, differ, place, active)

    def address(
        self,
        buffer: compute.Buffer,
        index: Sequence[Affine | compute.Expr],
        place: Place,
        made: Mapping[int, loops.Expr],
    ) -> tuple[loops.Expr | None, Affine]:
        """Return where an index points as a sum: of its gathered entries (None if there are none), and of all others."""
        flat = Affine()
        gathered: loops.Expr | None = None
        for i, n, s in zip(index, buffer.shape, buffer.strides, strict=True):
            if isinstance(i, Affine):
                flat = flat + i.substitute(place.bind) * s
                continue
            inside = self.w.apply("max", made[id(i)], self.w.i64(0))
            inside = self.w.apply("min", inside, self.w.i64(max(n - 1, 0)))
            part = self.w.apply("mul", inside, self.w.i64(s)) if s != 1 else inside
            gathered = part if gathered is None else self.w.apply("add", gathered, part)
        return gathered, flat

    def _sum(self, start: loops.Expr | None, rest: loops.Expr) -> loops.Expr:
        if start is None:
            return rest
        if isinstance(rest, loops.Const) and rest.value == 0:
            return start
        return self.w.apply("add", start, rest)

    def _guarded(
        self,
        e: compute.Load,
        at: loops.Expr,
        same: Sequence[Guard],
        lanes: int,
        active: int | None,
    ) -> loops.Expr:
        """Load where guards that are the same in all lanes hold: outside them element 0 is read and not used."""
        if not same:
            return self.w.load(e.buffer, e.dtype, at, lanes, active, other=e.other)
        holds = self.holds(same, Place({}))
        safe = self.w.apply("select", holds, self.w.named(at), self.w.i64(0))
        found = self.w.load(e.buffer, e.dtype, safe, lanes, active, other=e.other)
        return self.w.apply("select", holds, found, self.w.const(e.other, e.dtype))

    def _row(
        self,
        e: compute.Load,
        start: loops.Expr,
        same: Sequence[Guard],
        differ: Sequence[Guard],
        place: Place,
        active: int | None,
    ) -> loops.Expr:
        """Load elements that follow each other."""
        active = place.active if active is None else active
        if not differ:
            return self._guarded(e, start, same, place.lanes, active)
        mask = self.holds([*same, *differ], place)
        return self.w.load(e.buffer, e.dtype, start, place.lanes, active, mask, e.other)

    def _gather(
        self,
        e: compute.Load,
        at: loops.Expr,
        same: Sequence[Guard],
        differ: Sequence[Guard],
        place: Place,
        active: int | None,
    ) -> loops.Expr:
        """Load elements from anywhere, one per lane (or the same one in all)."""
        active = place.active if active is None else active
        if at.lanes == 1 and not differ and active == place.active:
            return self._guarded(e, at, same, 1, None)
        at = self.w.splat(at, place.lanes)
        if not (same or differ):
            return self.w.load(e.buffer, e.dtype, at, place.lanes, active, other=e.other)
        mask = self.w.splat(self.holds([*same, *differ], place), place.lanes)
        return self.w.load(e.buffer, e.dtype, at, place.lanes, active, mask, e.other)

    def holds(self, where: Sequence[Guard], place: Place) -> loops.Expr:
        """Return the condition that all guards hold (at least one, none of them provable)."""
        found: loops.Expr | None = None
        for g in where:
            lo, hi = g.index.range
            index = self.index(g.index, place)
            tests = [self.w.apply("ge", index, self.w.i64(g.lo))] if lo < g.lo else []
            tests += [self.w.apply("lt", index, self.w.i64(g.hi))] if hi >= g.hi else []
            for t in tests:
                found = t if found is None else self.w.apply("and", found, t)
        assert found is not None
        return found

    # -- stores -------------------------------------------------------------------------------------

    def store(self, stage: compute.Store, value: loops.Expr, place: Place) -> None:
        """Write a value to its place in a buffer: as a vector, or lane by lane if its elements lie apart."""
        buffer = self.buffers[stage.buffer]
        value = self.w.cast(value, buffer.dtype)
        at = buffer.offset(stage.index).substitute(place.bind)
        if place.lane is None:
            self.w.store(stage.buffer, self.w.index(at), value)
        elif place.lane not in at.axes:
            # All lanes write one element: the last one stays, as it would in order.
            assert value.lanes == 1, "a store that does not move along its vector axis"
            self.w.store(stage.buffer, self.w.index(at), value)
        elif _unit(at, place.lane):
            start = self.w.index(at - Affine.of(place.lane))
            value = self.w.splat(value, place.lanes)
            self.w.store(stage.buffer, start, value, place.active)
        else:
            self._scatter(stage.buffer, at, value, place)

    def _scatter(self, buffer: str, at: Affine, value: loops.Expr, place: Place) -> None:
        """Write the lanes of a vector apart from each other, through a buffer of their own."""
        assert place.lane is not None
        lane = place.lane
        staged: str | None = None
        if value.lanes > 1:
            staged = self.w.alloc(value.dtype, 1, place.lanes, "local")
            self.w.store(staged, self.w.i64(0), value)
        with self.w.loop(lane.extent) as n:
            one = value
            if staged is not None:
                one = self.w.load(staged, value.dtype, self.w.index(n))
            self.w.store(buffer, self.w.index(at.substitute({lane: n})), one)


def _inside(lane: Axis, atom: Axis | FloorDiv | Mod) -> bool:
    return lane == atom if isinstance(atom, Axis) else lane in atom.of.axes


def _unit(at: Affine, lane: Axis) -> bool:
    """Return whether neighbouring lanes are neighbours in memory."""
    return at.coefficient(lane) == 1 and not any(
        _inside(lane, a) for a, _ in at.terms if not isinstance(a, Axis)
    )


def _prefix(differ: Sequence[Guard], place: Place) -> tuple[int | None, list[Guard]]:
    """Return the guards that hold for just the first lanes as a number of lanes, and the others."""
    active: int | None = None
    rest: list[Guard] = []
    for g in differ:
        assert place.lane is not None
        offset = g.index.const
        plain = g.index.terms == ((place.lane, 1),) and g.lo <= offset
        if not plain or g.hi <= offset:
            rest.append(g)
            continue
        active = min(g.hi - offset, place.lane.extent if active is None else active)
    return active, rest
