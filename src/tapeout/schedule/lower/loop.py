"""Loop kernels as loops: maps, rows and reductions."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel import loops
from tapeout.kernel.compute import LoopKernel, Numerics, Reduce, Store
from tapeout.schedule.lower.blocked import in_blocks
from tapeout.schedule.lower.choose import Choice, choose, lanes_for, stage_work, width
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.grid import open_chunk, open_grid, open_loops, plan_grid
from tapeout.schedule.lower.normal import normalise, offsets
from tapeout.schedule.lower.reduce import ACCUMULATORS, UNROLLED, Reducer, Steps
from tapeout.schedule.lower.rows import keep_rows, local_buffers
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.kernel.target import Target

Bind = dict[Axis, Affine]


def lower_loop(kernel: LoopKernel, target: Target, partials: int = 1) -> Finished:
    """Return a loop kernel as loops. None of its axes is empty."""
    normal = normalise(kernel)
    choice = choose(normal)
    if choice.outer is None:
        kept = keep_rows(kernel)
        if kept is not kernel:
            again = normalise(kept)
            other = choose(again)
            if other.outer is None:  # a row has no lanes of its own for several rows at once
                normal, choice = again, other
    normal = in_blocks(normal, choice.outer)
    return _LoopLowering(normal, choice, target, partials).lower()


class _LoopLowering:
    """Lowers one kernel in normal form."""

    def __init__(self, kernel: LoopKernel, choice: Choice, target: Target, partials: int) -> None:
        self.kernel, self.partials = kernel, partials
        written = {s.buffer for s in kernel.stages if isinstance(s, Store)}
        self.w = Writer([b.name for b in kernel.buffers if b.name not in written])
        self.values = Values(self.w, {b.name: b for b in kernel.buffers})
        self.reducer = Reducer(self.values, target.fma)
        self.choice = choice
        self.most = width(kernel)
        self.vector = self.choice.outer
        self.lanes = lanes_for(self.vector.extent, self.most) if self.vector else 1
        outer = [a for a in kernel.axes if a != self.vector]
        self.inside = [a for a in outer if self._crosses(a)]
        self.before = [a for a in outer if a not in self.inside]
        self.beside = self._vectors_beside()

    def _crosses(self, axis: Axis) -> bool:
        """Return whether an axis is contiguous where the vector axis is not: it then runs inside, over few lines at a time."""
        if self.vector is None or self.choice.reduces:
            return False
        places = offsets(self.kernel.stages, self.values.buffers)
        return any(o.coefficient(axis) == 1 and abs(o.coefficient(self.vector)) > 1 for o in places)

    def _vectors_beside(self) -> int:
        """Return how many vectors go down a long reduction together: neighbours in memory, a row of them at every step."""
        if self.vector is None or not self.choice.reduces:
            return 1
        longest = max(prod(a.extent for a in s.axes) for s in self.kernel.stages)
        vectors = self.vector.extent // self.lanes
        return min(ACCUMULATORS, vectors) if longest >= 16 and vectors > 1 else 1

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        span = self.lanes * self.beside
        blocks, rest = divmod(self.vector.extent, span) if self.vector else (0, 0)
        whole = Axis("whole", blocks)
        axes = [*self.before, *([whole] if blocks else []), *self.inside]
        work = stage_work(self.kernel.stages) * span
        grid = plan_grid([a.extent for a in axes], work)
        with open_grid(self.w, axes, grid) as task, ExitStack() as stack:
            self.task, self.cut = task, axes[grid.axis] if axes else None
            self._allocate()
            bind = self._open(stack, self.before)
            if self.vector is None:
                self._stages([Place(bind)])
            if blocks:
                with ExitStack() as inner:
                    here = bind | self._open(inner, [whole, *self.inside])
                    self._vectors(here, here.pop(whole) * span, span)
            if rest:
                with ExitStack() as inner:
                    self._only_last(inner, whole)
                    here = bind | self._open(inner, self.inside)
                    self._vectors(here, Affine((), blocks * span), rest)
        made = [b.name for b in local_buffers(self.kernel)]
        params = [b for b in self.kernel.buffers if b.name not in made]
        return finish(self.w, params, self._numerics())

    def _allocate(self) -> None:
        """Make the local buffers, under names that no param has."""
        for b in local_buffers(self.kernel):
            self.w.alloc(b.dtype, 1, b.span, "local", b.name)

    def _open(self, stack: ExitStack, axes: Sequence[Axis]) -> Bind:
        """Open the loops of a task over axes, as far as the grid has left them to it."""
        bind: Bind = {}
        for axis in axes:
            if axis in self.task.bind:
                bind[axis] = self.task.bind[axis]
            elif axis == self.cut:
                bind[axis] = stack.enter_context(open_chunk(self.w, axis, self.task))
            else:
                bind[axis] = stack.enter_context(self.w.loop(axis.extent))
        return bind

    def _only_last(self, stack: ExitStack, whole: Axis) -> None:
        """Enter a condition, if one is needed, that gives the rest of a line to the task with its last block."""
        last = None
        if whole == self.cut:
            last = self.task.last(self.w)
        elif whole in self.task.bind and whole.extent > 1:
            at = self.w.named(self.w.index(self.task.bind[whole]))
            last = self.w.apply("eq", at, self.w.i64(whole.extent - 1))
        if last is not None:
            stack.enter_context(self.w.when(last))

    def _vectors(self, bind: Bind, start: Affine, used: int) -> None:
        """Write so many points along the vector axis, in one vector or several beside each other."""
        assert self.vector is not None
        places = []
        for first in range(0, used, self.lanes):
            count = min(self.lanes, used - first)
            lanes = lanes_for(count, self.lanes)
            at = start + first
            if lanes == 1:
                places.append(Place({**bind, self.vector: at}))
                continue
            lane = Axis("lane", count)
            places.append(Place({**bind, self.vector: at + lane}, lanes, lane))
        self._stages(places)

    def _stages(self, places: Sequence[Place]) -> None:
        """Write all stages at some outer points; neighbouring stores of one element together."""
        temps: list[dict[str, loops.Expr]] = [{} for _ in places]
        together: list[Store] = []
        for stage, own in zip(self.kernel.stages, self.choice.own, strict=True):
            here = [replace(p, temps=t) for p, t in zip(places, temps, strict=True)]
            if isinstance(stage, Store) and not stage.axes:
                together.append(stage)
                continue
            self._points(together, here)
            together = []
            if isinstance(stage, Reduce):
                serial = tuple(a for a in stage.axes if a != own)
                lanes = lanes_for(own.extent, self.most) if own else 1
                found = self.reducer(stage, Steps(serial, own, lanes), here)
                for t, value in zip(temps, found, strict=True):
                    t[stage.name] = value
            elif own is None and len(here) > 1:
                self._down_together(stage, here)
            else:
                for place in here:
                    self._store(stage, own, place)
        here = [replace(p, temps=t) for p, t in zip(places, temps, strict=True)]
        self._points(together, here)

    def _points(self, stages: Sequence[Store], places: Sequence[Place]) -> None:
        for place in places:
            self.values.store_all(stages, place)

    def _down_together(self, stage: Store, places: Sequence[Place]) -> None:
        """Write a store over axes of its own for several vectors: neighbours in memory, a row of them at every step."""
        with open_loops(self.w, stage.axes) as inner:
            for place in places:
                self.values.store_all([stage], replace(place, bind={**place.bind, **inner}))

    def _store(self, stage: Store, own: Axis | None, place: Place) -> None:
        serial = [a for a in stage.axes if a != own]
        with open_loops(self.w, serial) as inner:
            bind = {**place.bind, **inner}
            if own is None:
                self.values.store_all([stage], replace(place, bind=bind))
                return
            self._row(stage, own, replace(place, bind=bind))

    def _row(self, stage: Store, axis: Axis, place: Place) -> None:
        """Write a store along its own vector axis.

        The rest gets the lanes of the others and short rows no loop: they share loads and values with the stages before.
        """
        lanes = lanes_for(axis.extent, self.most)
        whole, tail = divmod(axis.extent, lanes)

        def put(start: Affine, used: int) -> None:
            self.values.store_all([stage], _across(place, axis, start, used, lanes))

        if whole + (tail > 0) <= UNROLLED:
            for n in range(whole):
                put(Affine((), n * lanes), lanes)
        elif whole:
            with self.w.loop(whole) as i:
                put(i * lanes, lanes)
        if tail:
            put(Affine((), whole * lanes), tail)

    def _numerics(self) -> Numerics:
        reductions = [s for s in self.kernel.stages if isinstance(s, Reduce)]
        if not reductions:
            return Numerics()
        own = [c.extent for c in self.choice.own if c is not None]
        lanes = lanes_for(max(own), self.most) if own else 1
        return Numerics(lanes, ACCUMULATORS, self.partials)


def _across(place: Place, axis: Axis, start: Affine, used: int, lanes: int) -> Place:
    """Return the place of a vector along one axis of a stage."""
    if lanes == 1:
        return replace(place, bind={**place.bind, axis: start})
    lane = Axis("lane", used)
    return replace(place, bind={**place.bind, axis: start + lane}, lanes=lanes, lane=lane)
