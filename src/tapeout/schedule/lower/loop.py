"""Loop kernels as loops: maps, rows and reductions."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel import loops
from tapeout.kernel.compute import LoopKernel, Numerics, Reduce, Store
from tapeout.schedule.lower.choose import choose, lanes_for, stage_work, width
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.grid import Task, open_chunk, open_grid, open_loops, plan_grid
from tapeout.schedule.lower.normal import normalise
from tapeout.schedule.lower.reduce import ACCUMULATORS, UNROLLED, Reducer, Steps
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from tapeout.kernel.target import Target

Bind = dict[Axis, Affine]


def lower_loop(kernel: LoopKernel, target: Target, partials: int = 1) -> Finished:
    """Return a loop kernel as loops. None of its axes is empty."""
    return _LoopLowering(normalise(kernel), target, partials).lower()


class _LoopLowering:
    """Lowers one kernel in normal form."""

    def __init__(self, kernel: LoopKernel, target: Target, partials: int) -> None:
        self.kernel, self.partials = kernel, partials
        written = {s.buffer for s in kernel.stages if isinstance(s, Store)}
        self.w = Writer([b.name for b in kernel.buffers if b.name not in written])
        self.values = Values(self.w, {b.name: b for b in kernel.buffers})
        self.reducer = Reducer(self.values, target.fma)
        self.choice = choose(kernel)
        self.most = width(kernel)
        self.vector = self.choice.outer
        self.lanes = lanes_for(self.vector.extent, self.most) if self.vector else 1
        self.outer = [a for a in kernel.axes if a != self.vector]

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        blocks, tail = divmod(self.vector.extent, self.lanes) if self.vector else (0, 0)
        axes = list(self.outer)
        whole = Axis("whole", blocks)
        if blocks:
            axes.append(whole)
        work = stage_work(self.kernel.stages) * self.lanes
        grid = plan_grid([a.extent for a in axes], work)
        with open_grid(self.w, axes, grid) as task, ExitStack() as stack:
            bind = dict(task.bind)
            cut = axes[grid.axis] if axes else None
            if cut is not None and cut != whole:
                bind[cut] = stack.enter_context(open_chunk(self.w, cut, task))
            bind |= stack.enter_context(open_loops(self.w, self.outer[grid.axis + 1 :]))
            if self.vector is None:
                self._stages(Place(bind))
            else:
                self._line(bind, task, whole, cut == whole, tail)
        return finish(self.w, self.kernel.buffers, self._numerics())

    def _line(self, bind: Bind, task: Task, whole: Axis, cut: bool, tail: int) -> None:
        """Write the points along the vector axis: whole vectors, then the rest."""
        assert self.vector is not None
        if whole.extent:
            loop = open_chunk(self.w, whole, task) if cut else self.w.loop(whole.extent)
            with loop as i:
                self._vector(bind, i * self.lanes, self.lanes)
        if not tail:
            return
        start = Affine((), whole.extent * self.lanes)
        last = task.last(self.w) if cut else None
        if last is not None:
            with self.w.when(last):
                self._vector(bind, start, tail)
            return
        self._vector(bind, start, tail)

    def _vector(self, bind: Bind, start: Affine, used: int) -> None:
        assert self.vector is not None
        lanes = lanes_for(used, self.lanes)
        if lanes == 1:
            self._stages(Place({**bind, self.vector: start}))
            return
        lane = Axis("lane", used)
        self._stages(Place({**bind, self.vector: start + lane}, lanes, lane))

    def _stages(self, place: Place) -> None:
        """Write all stages at one outer point, or at those of one vector; neighbouring stores of one element together."""
        temps: dict[str, loops.Expr] = {}
        together: list[Store] = []
        for stage, own in zip(self.kernel.stages, self.choice.own, strict=True):
            here = replace(place, temps=temps)
            if isinstance(stage, Store) and not stage.axes:
                together.append(stage)
                continue
            self.values.store_all(together, here)
            together = []
            if isinstance(stage, Reduce):
                serial = tuple(a for a in stage.axes if a != own)
                lanes = lanes_for(own.extent, self.most) if own else 1
                temps[stage.name] = self.reducer(stage, Steps(serial, own, lanes), here)
            else:
                self._store(stage, own, here)
        self.values.store_all(together, replace(place, temps=temps))

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
