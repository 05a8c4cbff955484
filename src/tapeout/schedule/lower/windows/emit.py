"""Writes a contraction along windows as loops.

    sums short:  for task: for tile: for vector of lanes: sums := 0; for short axes: tile of products; epilogue
    sums long:   for task: sums := 0; for long axes: for tile: for short axes: for vector of lanes: sums += tile of products

In the second form the sums of a task, one per lane and short point, lie in memory, close enough to stay in the first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import Load, Numerics
from tapeout.kernel.loops import Expr
from tapeout.schedule.lower.choose import lanes_for
from tapeout.schedule.lower.contract.task import bounds_of
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.grid import Grid, Task, open_chunk, open_grid, plan_grid
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.windows.plan import Windows
from tapeout.schedule.lower.windows.tiles import Run, holds, offset
from tapeout.schedule.lower.writer import Writer

Bind = dict[Axis, Affine]

_LEAST_WORK = 64 * 1024
_TASKS = 32


@dataclass(frozen=True)
class _Vector:
    """Neighbouring points of the lane axis: where they start, the lanes of the vector, how many are in use."""

    start: Affine
    lanes: int
    used: int


@dataclass(frozen=True)
class _Tile:
    """A tile of the long axis: its first point, and its form."""

    start: Affine
    run: Run


class WindowLowering:
    """Lowers one contraction along windows.

    Args:
        windows: How it runs.
        fma: Whether to fuse multiply and add.
    """

    def __init__(self, windows: Windows, fma: bool) -> None:
        self.x, self.p, self.t, self.fma = windows, windows.product, windows.tiles, fma
        written = {s.buffer for s in self.p.stages}
        self.w = Writer([b.name for b in self.p.buffers if b.name not in written])
        self.values = Values(self.w, self.p.by_name)
        assert isinstance(self.p.a, Load) and isinstance(self.p.b, Load)
        self.a, self.b = self.p.a, self.p.b
        self.a_place, self.b_place = self.p.place(self.a), self.p.place(self.b)
        self.pair = (windows.tile, windows.taps)
        self.inside = [g for g in self.p.limits if set(g.index.axes) <= set(self.pair)]
        self.chunk_axis = Axis("chunk", self.t.chunks)

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        (self._parts if self.x.summed else self._rows)()
        return finish(self.w, self.p.buffers, Numerics(partials=self.x.parts))

    # -- short sums ---------------------------------------------------------------------------------

    def _rows(self) -> None:
        """Write sums that end in registers."""
        long, batch = self.x.long, self.x.batch
        axes = [*batch, *long[:-1], self.chunk_axis, *long[-1:]]
        if len(long) < 2:
            axes = [*batch, *long, self.chunk_axis]
        grid = self._grid(axes)
        with open_grid(self.w, axes, grid) as task, ExitStack() as stack:
            bind = dict(task.bind)
            for n in range(grid.axis, len(axes)):
                cut = n == grid.axis
                loop = open_chunk(self.w, axes[n], task) if cut else self.w.loop(axes[n].extent)
                bind[axes[n]] = stack.enter_context(loop)
            chunk = bind.pop(self.chunk_axis)
            self._tiles(lambda tile: self._lanes(chunk, lambda v: self._row(bind, tile, v)))

    def _grid(self, axes: list[Axis]) -> Grid:
        lanes = self.t.vectors * self.t.lanes or self.x.lane.extent
        work = float(self.p.steps * self.x.tile.extent * lanes)
        total = work * prod(a.extent for a in axes)
        return plan_grid([a.extent for a in axes], work, max(total / _TASKS, _LEAST_WORK))

    def _row(self, bind: Bind, tile: _Tile, v: _Vector) -> None:
        """Write one tile of sums and its epilogue."""
        size, dtype = tile.run.size, self.p.accumulate
        sums = self.w.alloc(dtype, v.lanes, size, "register")
        for t in range(size):
            self.w.store(sums, self.w.i64(t), self.w.const(0, dtype, v.lanes))

        def visit(here: Bind) -> None:
            got = {t: self.w.load(sums, dtype, self.w.i64(t), v.lanes) for t in range(size)}
            for t, value in self._products(here, tile, v, got).items():
                self.w.store(sums, self.w.i64(t), value)

        self._short(bind, visit)
        for t in range(size):
            temps = {"acc": self.w.load(sums, dtype, self.w.i64(t), v.lanes)}
            at = {**bind, self.x.tile: tile.start + t}
            self.values.store_all(self.p.stages, self._place(at, v, temps))

    def _place(self, bind: Bind, v: _Vector, temps: dict[str, Expr]) -> Place:
        if v.lanes == 1:
            return Place({**bind, self.x.lane: v.start}, temps=temps)
        lane = Axis("lane", v.used)
        return Place({**bind, self.x.lane: v.start + lane}, v.lanes, lane, temps)

    # -- long sums ----------------------------------------------------------------------------------

    def _parts(self) -> None:
        """Write sums that grow in memory."""
        part = Axis("part", self.x.parts)
        axes = [*self.x.batch, part, self.chunk_axis]
        grid = Grid(len(axes) - 1, 1, self.t.chunks, prod(a.extent for a in axes))
        with open_grid(self.w, axes, grid) as task:
            bind = dict(task.bind)
            number = bind.pop(part)
            self._clear(bind, number, task)
            with ExitStack() as stack:
                for n, axis in enumerate(self.x.long):
                    bind[axis] = (
                        self._steps(stack, axis, number)
                        if n == 0
                        else (stack.enter_context(self.w.loop(axis.extent)))
                    )
                self._tiles(lambda tile: self._add_tile(bind, tile, number, task.chunk))

    def _steps(self, stack: ExitStack, axis: Axis, number: Affine) -> Affine:
        """Open the loop over the steps of the first long axis that belong to a part."""
        size, base = self.x.part, number * self.x.part
        stop = None
        if axis.extent % size:
            left = self.w.named(self.w.index(Affine((), axis.extent) - base))
            stop = self.w.apply("min", left, self.w.i64(size))
        return base + stack.enter_context(self.w.loop(size, stop=stop))

    def _clear(self, bind: Bind, number: Affine, task: Task) -> None:
        with ExitStack() as stack:
            here = dict(bind)
            for axis in (*self.x.short, self.x.taps):
                here[axis] = stack.enter_context(self.w.loop(axis.extent))

            def visit(v: _Vector) -> None:
                zero = self.w.const(0, self.p.accumulate, v.lanes)
                self._store_sum(here, number, v, zero)

            self._lanes(task.chunk, visit)

    def _add_tile(self, bind: Bind, tile: _Tile, number: Affine, chunk: Affine) -> None:
        def at(here: Bind) -> None:
            def visit(v: _Vector) -> None:
                taps = {s: {**here, self.x.taps: Affine((), s)} for s in range(self.x.taps.extent)}
                got = {s: self._load_sum(b, number, v) for s, b in taps.items()}
                for s, value in self._products(here, tile, v, got).items():
                    self._store_sum(taps[s], number, v, value)

            self._lanes(chunk, visit)

        self._short(bind, at)

    def _sum_place(self, bind: Bind, number: Affine, v: _Vector) -> Expr:
        stage = self.p.stages[0]
        buffer = self.p.by_name[stage.buffer]
        part = number * buffer.strides[0]
        return self.w.index(part + self.p.store_place().substitute({**bind, self.x.lane: v.start}))

    def _load_sum(self, bind: Bind, number: Affine, v: _Vector) -> Expr:
        at = self._sum_place(bind, number, v)
        return self.w.load(self.p.stages[0].buffer, self.p.accumulate, at, v.lanes, v.used)

    def _store_sum(self, bind: Bind, number: Affine, v: _Vector, value: Expr) -> None:
        at = self._sum_place(bind, number, v)
        self.w.store(self.p.stages[0].buffer, at, value, v.used)

    # -- loops --------------------------------------------------------------------------------------

    def _tiles(self, visit: Callable[[_Tile], None]) -> None:
        """Write all tiles of the long axis."""
        for run in self.t.runs:
            with self.w.loop(run.count) as i:
                visit(_Tile(i * run.size + run.start, run))

    def _lanes(self, chunk: Affine, visit: Callable[[_Vector], None]) -> None:
        """Write the vectors of one block of lanes; what is left over belongs to the last one."""
        t, extent = self.t, self.x.lane.extent
        whole = extent // t.lanes
        if whole:
            stop = None
            if whole % t.vectors:
                left = self.w.named(self.w.index(Affine((), whole) - chunk * t.vectors))
                stop = self.w.apply("min", left, self.w.i64(t.vectors))
            with self.w.loop(t.vectors, stop=stop) as i:
                visit(_Vector((chunk * t.vectors + i) * t.lanes, t.lanes, t.lanes))
        if not t.rest:
            return
        with ExitStack() as stack:
            if t.chunks > 1:
                end = self.w.i64(t.chunks - 1)
                last = self.w.apply("eq", self.w.named(self.w.index(chunk)), end)
                stack.enter_context(self.w.when(last))
            lanes = lanes_for(t.rest, t.lanes)
            visit(_Vector(Affine((), whole * t.lanes), lanes, t.rest))

    def _short(self, bind: Bind, visit: Callable[[Bind], None]) -> None:
        """Write the loops over the short axes, without the points of the border."""
        with ExitStack() as stack:
            here = dict(bind)
            for axis in self.x.short:
                start, stop = bounds_of(self.w, self.p, axis, here)
                loop = self.w.loop(axis.extent, start=start, stop=stop)
                here[axis] = stack.enter_context(loop)
            visit(here)

    # -- one tile -----------------------------------------------------------------------------------

    def _products(
        self, bind: Bind, tile: _Tile, v: _Vector, sums: dict[int, Expr]
    ) -> dict[int, Expr]:
        """Return sums with the products of a tile added; those that read one element follow each other."""
        sums = dict(sums)
        base = self.a_place.substitute({**bind, self.x.lane: v.start, self.x.tile: tile.start})
        base = base.substitute({self.x.taps: Affine()})
        for first in range(0, self.x.taps.extent, self.t.taps):
            some = range(first, min(first + self.t.taps, self.x.taps.extent))
            places: dict[int, list[tuple[int, int]]] = {}
            for t in range(tile.run.size):
                for s in some:
                    if tile.run.whole or self._exists(tile.run.start + t, s):
                        at = offset(self.a_place, self.pair, t, s)
                        places.setdefault(at, []).append((t, s))
            for at in sorted(places):
                a = self._load(self.a, base + at, v)
                for t, s in places[at]:
                    n = s if self.x.summed else t
                    sums[n] = self._multiply_add(a, self._b(bind, tile, v, t, s), sums[n])
        return sums

    def _exists(self, t: int, s: int) -> bool:
        return all(holds(g, self.pair, t, s) for g in self.inside)

    def _b(self, bind: Bind, tile: _Tile, v: _Vector, t: int, s: int) -> Expr:
        here = {**bind, self.x.lane: v.start}
        here[self.x.tile], here[self.x.taps] = tile.start + t, Affine((), s)
        at = self.b_place.substitute(here)
        if not self.b_place.coefficient(self.x.lane):
            one = self.w.load(self.b.buffer, self.b.dtype, self.w.index(at))
            return self.w.splat(self.w.cast(one, self.p.accumulate), v.lanes)
        return self._load(self.b, at, v)

    def _load(self, e: Load, at: Affine, v: _Vector) -> Expr:
        found = self.w.load(e.buffer, e.dtype, self.w.index(at), v.lanes, v.used)
        return self.w.cast(found, self.p.accumulate)

    def _multiply_add(self, a: Expr, b: Expr, total: Expr) -> Expr:
        if self.fma and self.p.accumulate.is_float:
            return self.w.apply("fma", a, b, total)
        return self.w.apply("add", total, self.w.apply("mul", a, b))
