"""Writes a contraction as loops: blocks of tasks, panels, row tiles, and the tile itself.

    for task (grid): for panel of the task: for row tile of the task:      accumulators := 0
        for step of k: vectors of b; for row: accumulators += a * b        the tile
        for row: stages of the epilogue on the accumulators

A sum that is cut into blocks keeps its accumulators in a local buffer between them; a row operand that cannot be loaded plainly is
evaluated into a local buffer, tile by tile.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import Numerics
from tapeout.kernel.loops import DOT2
from tapeout.schedule.lower.choose import VECTOR_BYTES, lanes_for
from tapeout.schedule.lower.contract.blocks import Blocks
from tapeout.schedule.lower.contract.prepare import as_load, flat
from tapeout.schedule.lower.contract.task import KBlock, Panel, TaskLoops, Tile
from tapeout.schedule.lower.contract.tiles import Tiling, Vector
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.grid import Task, open_chunk, open_grid, open_loops
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from tapeout.kernel.loops import Expr
    from tapeout.schedule.lower.contract.product import Product

Bind = dict[Axis, Affine]


class ContractionLowering:
    """Lowers one contraction that is ready: `b` loads plainly; `a` does, or is evaluated into a local buffer.

    Args:
        product: What to compute.
        tiling: Its register tiles.
        blocks: Its tasks.
        local: Whether `a` goes through a local buffer.
        packed: Whether `b` is in panels, filled up to whole vectors.
        crossing: Whether row tiles cross lines, so that only constants tell where their rows are.
        fma: Whether to fuse multiply and add.
        partials: Parts into which sums are cut, of which this computes one or more.
        writer: Of a kernel that this is a part of; None if it is a kernel of its own.
    """

    def __init__(
        self,
        product: Product,
        tiling: Tiling,
        blocks: Blocks,
        *,
        local: bool,
        packed: bool,
        crossing: bool,
        fma: bool,
        partials: int,
        writer: Writer | None = None,
    ) -> None:
        self.partials, self.crossing = partials, crossing
        self.p, self.t, self.blocks = product, tiling, blocks
        self.local, self.packed, self.fma = local, packed, fma
        written = {s.buffer for s in product.stages}
        readonly = [b.name for b in product.buffers if b.name not in written]
        self.w = Writer(readonly) if writer is None else writer
        self.values = Values(self.w, product.by_name)
        self.element = product.accumulate.bytes
        self.row, self.column = product.rows[-1], product.cols[-1]
        self.b = as_load(product.b)
        self.b_place = product.place(self.b)
        self.a_place = Affine() if local else product.place(as_load(product.a))
        self.wide = tiling.widest
        self.a_panel = self.sums = ""

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        blocks = self.blocks
        with open_grid(self.w, blocks.axes, blocks.grid) as task:
            self.inside(task)
        extra = {} if blocks.k.whole else {"k_block": blocks.k.steps}
        return finish(self.w, self.p.buffers, Numerics(partials=self.partials, extra=extra))

    def inside(self, task: Task) -> None:
        """Write one task: in the grid of this kernel, or in a task of a larger one."""
        blocks = self.blocks
        with ExitStack() as stack:
            bind = dict(task.bind)
            first = blocks.row_axes
            for n in range(blocks.grid.axis, first):
                axis = blocks.axes[n]
                cut = n == blocks.grid.axis
                loop = open_chunk(self.w, axis, task) if cut else self.w.loop(axis.extent)
                bind[axis] = stack.enter_context(loop)
            self.loops = TaskLoops(
                self.w, self.p, self.t, blocks, self.a_place, self.crossing, task, bind
            )
            self._allocate()
            self._task()

    # -- one task -----------------------------------------------------------------------------------

    def _task(self) -> None:
        if self._tile_by_tile:
            self.loops.rows(self._tile_of_all_panels)
        elif self.blocks.k.whole:
            self.loops.panels(
                lambda p: self.loops.rows(lambda t: self._at_once(t, p, KBlock({}, Affine(), None)))
            )
        else:
            self.loops.panels(lambda p: self.loops.rows(lambda t: self._clear(t, p)))
            self.loops.k(
                {},
                lambda k: self.loops.panels(
                    lambda p: self.loops.rows(lambda t: self._part(t, p, k))
                ),
            )
            self.loops.panels(lambda p: self.loops.rows(lambda t: self._end(t, p)))

    @property
    def _tile_by_tile(self) -> bool:
        """Whether all panels of a row tile come before the next one.

        So it must be if its rows are evaluated, or say which steps there are.
        """
        return self.local or self.blocks.by_tile or (self.p.exact and not self.blocks.k.whole)

    def _tile_of_all_panels(self, tile: Tile) -> None:
        if self.blocks.k.whole:
            block = KBlock({}, Affine(), None)
            if self.local:
                self._evaluate_rows(tile, block)
            self.loops.panels(lambda p: self._at_once(tile, p, block))
            return
        here = replace(tile, number=Affine())
        self.loops.panels(lambda p: self._clear(here, p))

        def block_of_k(k: KBlock) -> None:
            if self.local:
                self._evaluate_rows(tile, k)
            self.loops.panels(lambda p: self._part(here, p, k))

        self.loops.k(tile.bind, block_of_k)
        self.loops.panels(lambda p: self._end(here, p))

    def _allocate(self) -> None:
        """Make the local buffers of a task."""
        k = self.blocks.k
        size = self.t.rows.size if self.t.rows.whole else max(self.t.rows.rest)
        if self.local:
            steps = k.steps if not k.whole else self.p.steps
            self.a_panel = self.w.alloc(self.p.element, 1, size * steps, "local")
        if not k.whole:
            panels = self.blocks.panels + (self.t.rest > 0)
            tiles = 1 if self._tile_by_tile else self.loops.tiles_in_task()
            count = tiles * panels * size * self.wide
            self.sums = self.w.alloc(self.p.accumulate, 1, count, "local")
            self.sum_strides = (panels * size * self.wide, size * self.wide)

    # -- one tile -----------------------------------------------------------------------------------

    def _at_once(self, tile: Tile, panel: Panel, k: KBlock) -> None:
        sums = self._registers(tile, panel)
        self._zero(tile, panel, sums)
        self._add(tile, panel, k, sums)
        self._epilogue(tile, panel, sums)

    def _clear(self, tile: Tile, panel: Panel) -> None:
        with self.w.loop(tile.size) as r:
            for v in panel.vectors:
                zero = self.w.const(0, self.p.accumulate, v.lanes)
                self.w.store(self.sums, self._sum_index(tile, panel, v, r), zero)

    def _part(self, tile: Tile, panel: Panel, k: KBlock) -> None:
        sums = self._registers(tile, panel)
        self._fetch(tile, panel, sums)
        self._add(tile, panel, k, sums)
        with self.w.loop(tile.size, "unroll") as r:
            for name, v in zip(sums, panel.vectors, strict=True):
                found = self._get(name, r, v)
                self.w.store(self.sums, self._sum_index(tile, panel, v, r), found)

    def _end(self, tile: Tile, panel: Panel) -> None:
        sums = self._registers(tile, panel)
        self._fetch(tile, panel, sums)
        self._epilogue(tile, panel, sums)

    def _registers(self, tile: Tile, panel: Panel) -> list[str]:
        return [
            self.w.alloc(self.p.accumulate, v.lanes, tile.size, "register") for v in panel.vectors
        ]

    def _zero(self, tile: Tile, panel: Panel, sums: list[str]) -> None:
        with self.w.loop(tile.size, "unroll") as r:
            for name, v in zip(sums, panel.vectors, strict=True):
                self.w.store(name, self.w.index(r), self.w.const(0, self.p.accumulate, v.lanes))

    def _fetch(self, tile: Tile, panel: Panel, sums: list[str]) -> None:
        with self.w.loop(tile.size, "unroll") as r:
            for name, v in zip(sums, panel.vectors, strict=True):
                at = self._sum_index(tile, panel, v, r)
                found = self.w.load(self.sums, self.p.accumulate, at, v.lanes)
                self.w.store(name, self.w.index(r), found)

    def _sum_index(self, tile: Tile, panel: Panel, v: Vector, r: Affine) -> Expr:
        by_tile, by_panel = self.sum_strides
        at = tile.number * by_tile + panel.number * by_panel + r * self.wide + v.start
        return self.w.index(at)

    def _get(self, name: str, r: Affine, v: Vector) -> Expr:
        return self.w.load(name, self.p.accumulate, self.w.index(r), v.lanes)

    def _add(self, tile: Tile, panel: Panel, k: KBlock, sums: list[str]) -> None:
        """Add the products of one block of the sum to the accumulators."""

        def step(bind: Bind) -> None:
            columns = [self._b(panel, v, bind) for v in panel.vectors]
            with self.w.loop(tile.size, "unroll") as r:
                a = self._a(tile, r, k, bind)
                for name, v, b in zip(sums, panel.vectors, columns, strict=True):
                    total = self._multiply_add(a, b, self._get(name, r, v))
                    self.w.store(name, self.w.index(r), total)

        self.loops.steps(tile, k, step)

    def _multiply_add(self, a: Expr, b: Expr, total: Expr) -> Expr:
        if self.p.pairs:
            return self.w.apply(DOT2, a, b, total)
        if self.fma and self.p.accumulate.is_float:
            return self.w.apply("fma", a, b, total)
        return self.w.apply("add", total, self.w.apply("mul", a, b))

    def _b(self, panel: Panel, v: Vector, k: Bind) -> Expr:
        at = self.b_place.substitute({**panel.bind, **k, self.column: panel.start + v.start})
        # Packed panels are filled up; elsewhere, lanes beyond the columns may lie outside the buffer.
        used = None if self.packed else v.used
        return self.w.load(self.b.buffer, self.b.dtype, self.w.index(at), v.lanes, used)

    def _a(self, tile: Tile, r: Affine, k: KBlock, bind: Bind) -> Expr:
        if self.local:
            at = r * self._local_steps() + self._local_step(k, bind)
            return self.w.load(self.a_panel, self.p.element, self.w.index(at))
        load = as_load(self.p.a)
        at = self.a_place.substitute({**tile.bind, **bind, self.row: tile.start + r})
        return self.w.load(load.buffer, load.dtype, self.w.index(at))

    # -- the local row operand ----------------------------------------------------------------------

    def _local_steps(self) -> int:
        return self.p.steps if self.blocks.k.whole else self.blocks.k.steps

    def _local_step(self, k: KBlock, bind: Bind) -> Affine:
        """Return the number of a step in its block."""
        cut = self.blocks.k.cut
        axes = self.blocks.k.inner
        at = flat(axes).substitute(bind)
        if cut is not None:
            at = at + (bind[cut] - k.base) * prod(a.extent for a in axes)
        return at

    def _evaluate_rows(self, tile: Tile, k: KBlock) -> None:
        """Evaluate the rows of a tile for one block of the sum into the local buffer."""
        axes = list(self.blocks.k.inner)
        with self.w.loop(tile.size) as r, ExitStack() as stack:
            bind = {**tile.bind, **k.bind, self.row: tile.start + r}
            if self.blocks.k.cut is not None:
                at = stack.enter_context(self.w.loop(self.blocks.k.chunk, stop=k.stop))
                bind[self.blocks.k.cut] = k.base + at
            across = axes.pop() if axes else None
            bind |= stack.enter_context(open_loops(self.w, axes))
            self._evaluate_line(r, k, bind, across)

    def _evaluate_line(self, r: Affine, k: KBlock, bind: Bind, across: Axis | None) -> None:
        if across is None:
            self._evaluate(r, k, Place(bind))
            return
        most = lanes_for(across.extent, VECTOR_BYTES // self.element)
        whole, rest = divmod(across.extent, most)
        if whole:
            with self.w.loop(whole) as i:
                self._evaluate_vector(r, k, bind, across, i * most, most)
        if rest:
            self._evaluate_vector(r, k, bind, across, Affine((), whole * most), rest)

    def _evaluate_vector(
        self, r: Affine, k: KBlock, bind: Bind, across: Axis, start: Affine, used: int
    ) -> None:
        lanes = 1 << (used - 1).bit_length()
        if lanes == 1:
            self._evaluate(r, k, Place({**bind, across: start}))
            return
        lane = Axis("lane", used)
        self._evaluate(r, k, Place({**bind, across: start + lane}, lanes, lane))

    def _evaluate(self, r: Affine, k: KBlock, place: Place) -> None:
        value = self.w.cast(self.values.value(self.p.a, place), self.p.element)
        bind = dict(place.bind)
        at = r * self._local_steps() + self._local_step(k, bind)
        if place.lane is not None:
            at = at - Affine.of(place.lane)
        value = self.w.splat(value, place.lanes)
        self.w.store(self.a_panel, self.w.index(at), value, place.active)

    # -- the epilogue -------------------------------------------------------------------------------

    def _epilogue(self, tile: Tile, panel: Panel, sums: list[str]) -> None:
        named = list(zip(sums, panel.vectors, strict=True))
        if rows_lie_together(self.p):
            for name, v in named:
                self._store_lines(tile, panel, name, v)
            return
        with self.w.loop(tile.size, "unroll") as r:
            for name, v in named:
                self.values.store_all(self.p.stages, self._place(tile, panel, name, v, r))

    def _place(self, tile: Tile, panel: Panel, name: str, v: Vector, r: Affine) -> Place:
        """Return where the results of one vector of a row stand."""
        temps = {"acc": self._get(name, r, v)}
        bind = {**panel.bind, **tile.bind, self.row: tile.start + r}
        column = panel.start + v.start
        if v.lanes == 1:
            return Place({**bind, self.column: column}, temps=temps)
        lane = Axis("lane", v.used)
        return Place({**bind, self.column: column + lane}, v.lanes, lane, temps)

    def _store_lines(self, tile: Tile, panel: Panel, name: str, v: Vector) -> None:
        """Write one vector of columns of all rows, which lie together in memory: every line once, through a buffer."""
        stages, of = self.p.stages, self.p.by_name
        types = [of[s.buffer].dtype for s in stages]
        staged = [self.w.alloc(t, 1, tile.size * v.lanes, "local") for t in types]
        with self.w.loop(tile.size, "unroll") as r:
            found = self.values.all([s.value for s in stages], self._place(tile, panel, name, v, r))
            for buffer, dtype, x in zip(staged, types, found, strict=True):
                value = self.w.splat(self.w.cast(x, dtype), v.lanes)
                self.w.store(buffer, self.w.index(r * v.lanes), value)
        with self.w.loop(v.used) as n, self.w.loop(tile.size, "unroll") as r:
            bind = {**panel.bind, **tile.bind, self.row: tile.start + r}
            bind[self.column] = panel.start + v.start + n
            for buffer, dtype, s in zip(staged, types, stages, strict=True):
                one = self.w.load(buffer, dtype, self.w.index(r * v.lanes + n))
                at = of[s.buffer].offset(s.index).substitute(bind)
                self.w.store(s.buffer, self.w.index(at), one)


def rows_lie_together(p: Product) -> bool:
    """Whether all results lie next to each other along the rows of a tile, and apart along its columns."""
    row, column = p.rows[-1], p.cols[-1]
    places = [p.by_name[s.buffer].offset(s.index) for s in p.stages]
    return all(
        at.is_linear and at.coefficient(row) == 1 and abs(at.coefficient(column)) > 1
        for at in places
    )
