"""Scatter kernels as loops: the points in order, the independent axes across lanes and tasks.

Where no axis lies across lanes and places are known, several rows take each point in turn: a point that waits for the one before it
(a running sum) leaves the processor free for the other rows.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import Numerics, ScatterKernel
from tapeout.schedule.lower.choose import VECTOR_BYTES, lanes_for
from tapeout.schedule.lower.exprs import postorder
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.grid import open_chunk, open_grid, open_loops, plan_grid
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from tapeout.kernel import loops
    from tapeout.kernel.compute import Expr


_TOGETHER = 8
"""Rows that take each point in turn."""


def lower_scatter(kernel: ScatterKernel) -> Finished:
    """Return a scatter kernel as loops. None of its axes is empty."""
    return _Scatter(kernel).lower()


class _Scatter:
    """Lowers one kernel."""

    def __init__(self, kernel: ScatterKernel) -> None:
        self.kernel = kernel
        self.buffers = {b.name: b for b in kernel.buffers}
        self.target = self.buffers[kernel.target]
        self.w = Writer([b.name for b in kernel.buffers if b.name != kernel.target])
        self.values = Values(self.w, self.buffers)
        self.points = [a for a in kernel.points if a.extent > 1]
        self.axes = [a for a in kernel.axes if a.extent > 1]
        self.vector = self._contiguous()
        most = VECTOR_BYTES // self.target.dtype.bytes
        self.lanes = lanes_for(self.vector.extent, most) if self.vector else 1

    def _contiguous(self) -> Axis | None:
        """Return the axis along which target elements follow each other; its lanes never meet."""
        flat = Affine()
        gathered: list[Expr] = []
        for i, s in zip(self.kernel.index, self.target.strides, strict=True):
            if isinstance(i, Affine):
                flat = flat + i * s
            else:
                gathered.append(i)
        moving = {a for e in postorder(*gathered) for a in _axes(e)}
        fit = [a for a in self.axes if flat.coefficient(a) == 1 and a not in moving]
        return fit[0] if fit and flat.is_linear else None

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        # Places that data choose are kept in the cache row by row instead.
        known = all(isinstance(i, Affine) for i in self.kernel.index)
        if self.vector is None and self.axes and known:
            return self._in_rows(self.axes[-1])
        free = [a for a in self.axes if a != self.vector]
        blocks, tail = divmod(self.vector.extent, self.lanes) if self.vector else (1, 0)
        whole = Axis("whole", blocks + (tail > 0))
        axes = [*free, whole]
        work = 4.0 * self.lanes * prod(a.extent for a in self.points)
        grid = plan_grid([a.extent for a in axes], work)
        with open_grid(self.w, axes, grid) as task, ExitStack() as stack:
            bind = dict(task.bind)
            cut = axes[grid.axis]
            bind[cut] = stack.enter_context(open_chunk(self.w, cut, task))
            bind |= stack.enter_context(open_loops(self.w, axes[grid.axis + 1 :]))
            self._vectors(bind, bind.pop(whole), blocks, tail)
        return finish(self.w, self.kernel.buffers, Numerics())

    def _in_rows(self, rows: Axis) -> Finished:
        """Return the kernel with several rows together, none of its axes across lanes."""
        count = min(_TOGETHER, rows.extent)
        blocks, tail = divmod(rows.extent, count)
        block = Axis("block", blocks + (tail > 0))
        axes = [*(a for a in self.axes if a != rows), block]
        work = 4.0 * count * prod(a.extent for a in self.points)
        grid = plan_grid([a.extent for a in axes], work)
        with open_grid(self.w, axes, grid) as task, ExitStack() as stack:
            bind = dict(task.bind)
            cut = axes[grid.axis]
            bind[cut] = stack.enter_context(open_chunk(self.w, cut, task))
            bind |= stack.enter_context(open_loops(self.w, axes[grid.axis + 1 :]))
            at = bind.pop(block)
            if tail:
                here = self.w.named(self.w.index(at))
                with self.w.when(self.w.apply("lt", here, self.w.i64(blocks))):
                    self._together(bind, rows, at * count, count)
                with self.w.when(self.w.apply("eq", here, self.w.i64(blocks))):
                    self._together(bind, rows, Affine((), blocks * count), tail)
            else:
                self._together(bind, rows, at * count, count)
        return finish(self.w, self.kernel.buffers, Numerics())

    def _together(self, bind: dict[Axis, Affine], rows: Axis, start: Affine, count: int) -> None:
        with open_loops(self.w, self.points) as inner:
            for row in range(count):
                self._add(Place({**bind, rows: start + row, **inner}))

    def _vectors(self, bind: dict[Axis, Affine], at: Affine, blocks: int, tail: int) -> None:
        """Write the points for one vector, which is a whole one or the rest."""
        if self.vector is None:
            self._points(Place(bind))
            return
        if blocks and tail:
            here = self.w.named(self.w.index(at))
            with self.w.when(self.w.apply("lt", here, self.w.i64(blocks))):
                self._vector(bind, at * self.lanes, self.lanes)
            with self.w.when(self.w.apply("eq", here, self.w.i64(blocks))):
                self._vector(bind, Affine((), blocks * self.lanes), tail)
            return
        self._vector(bind, at * self.lanes, tail or self.lanes)

    def _vector(self, bind: dict[Axis, Affine], start: Affine, used: int) -> None:
        assert self.vector is not None
        lanes = lanes_for(used, self.lanes)
        if lanes == 1:
            self._points(Place({**bind, self.vector: start}))
            return
        lane = Axis("lane", used)
        self._points(Place({**bind, self.vector: start + lane}, lanes, lane))

    def _points(self, place: Place) -> None:
        with open_loops(self.w, self.points) as inner:
            self._add(Place({**place.bind, **inner}, place.lanes, place.lane))

    def _add(self, place: Place) -> None:
        k, w = self.kernel, self.w
        made: dict[int, loops.Expr] = {}
        for i in k.index:
            if not isinstance(i, Affine):
                made[id(i)] = self.values.value(i, place)
        value = w.cast(self.values.value(k.value, place), self.target.dtype)
        start, flat = self.values.address(self.target, k.index, place, made)
        if place.lane is not None:
            flat = flat - Affine.of(place.lane)
        rest = w.index(flat)
        at = rest if start is None else w.apply("add", start, rest)
        if k.combine == "set":
            w.store(k.target, at, w.splat(value, place.lanes), place.active)
            return
        old = w.load(k.target, self.target.dtype, at, place.lanes, place.active)
        w.store(k.target, at, w.apply(k.combine, old, value), place.active)


def _axes(e: Expr) -> tuple[Axis, ...]:
    from tapeout.schedule.lower.exprs import indices

    return tuple(a for i in indices(e) for a in i.axes)
