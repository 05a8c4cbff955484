"""The loops of one task of a contraction: row tiles, panels, blocks and steps of the sum."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from math import prod

from tapeout.ir.affine import Affine, Axis, Guard, Mod
from tapeout.kernel.loops import Expr, LoopKind
from tapeout.schedule.lower.contract.blocks import Blocks
from tapeout.schedule.lower.contract.product import Product
from tapeout.schedule.lower.contract.tiles import Tiling, Vector
from tapeout.schedule.lower.grid import Task, open_chunk, open_loops
from tapeout.schedule.lower.writer import Writer

Bind = dict[Axis, Affine]

UNROLLED_STEPS = 8
"""Innermost axes of k with at most this many points together are written without a loop."""


@dataclass(frozen=True)
class Tile:
    """One row tile: rows `start .. start+size-1` of the last row axis, the `number`th of its task."""

    bind: Bind
    start: Affine
    size: int
    number: Affine


@dataclass(frozen=True)
class Panel:
    """One panel: columns `start ..` of the last column axis, the `number`th of its block."""

    bind: Bind
    start: Affine
    vectors: tuple[Vector, ...]
    number: Affine


@dataclass(frozen=True)
class KBlock:
    """One block of the sum: the axes outside it, where the cut axis starts, and how many steps of that it has."""

    bind: Bind
    base: Affine
    stop: Expr | None


@dataclass
class TaskLoops:
    """Writes the loops of one task.

    Attributes:
        w: Where statements go.
        p: The contraction.
        t: Its register tiles.
        blocks: Its tasks.
        a_place: Where the row operand is loaded, in elements; empty if it is in a local buffer.
        crossing: Whether row tiles cross lines, so that only constants tell where their rows are.
        task: The open grid loop.
        bind: What the grid and the loops around row tiles have bound.
    """

    w: Writer
    p: Product
    t: Tiling
    blocks: Blocks
    a_place: Affine
    crossing: bool
    task: Task
    bind: Bind

    def tiles_in_task(self) -> int:
        """Return how many row tiles a task has, at most."""
        grid, first = self.blocks.grid, self.blocks.row_axes
        axes = self.blocks.axes
        windows = prod(a.extent for a in self.blocks.windows)
        tiles = self.t.rows.tiles * windows
        for n in range(first, len(axes)):
            if axes[n] == self.blocks.tile_axis:
                some = (grid.chunk + len(self.t.rows.rest)) * windows
                return some if n == grid.axis else tiles
            if n >= grid.axis:
                tiles *= grid.chunk if n == grid.axis else axes[n].extent
        return tiles

    # -- loops --------------------------------------------------------------------------------------

    def rows(self, visit: Callable[[Tile], None]) -> None:
        """Write the row tiles of a task."""
        grid, axes = self.blocks.grid, self.blocks.axes
        bind = dict(self.bind)
        number = Affine()
        with ExitStack() as stack:
            for n, axis in enumerate(axes):
                if n < self.blocks.row_axes or n < grid.axis or axis == self.blocks.tile_axis:
                    continue
                number, bind[axis] = self._open(stack, n, number)
            self._tiles(bind, number, lambda tile: self._windows(tile, visit))

    def _windows(self, tile: Tile, visit: Callable[[Tile], None]) -> None:
        """Write a tile at each point of the row axes that read overlapping parts of its panel."""
        number = tile.number
        with ExitStack() as stack:
            bind = dict(tile.bind)
            for axis in self.blocks.windows:
                bind[axis] = stack.enter_context(self.w.loop(axis.extent))
                number = number * axis.extent + bind[axis]
            visit(replace(tile, bind=bind, number=number))

    def _open(self, stack: ExitStack, n: int, number: Affine) -> tuple[Affine, Affine]:
        """Open the loop over row axis `n` in a task; return the number of the present point in it, and the point."""
        axis, grid = self.blocks.axes[n], self.blocks.grid
        if n == grid.axis:
            at = stack.enter_context(open_chunk(self.w, axis, self.task))
            return number * grid.chunk + (at - self.task.base), at
        at = stack.enter_context(self.w.loop(axis.extent))
        return number * axis.extent + at, at

    def _tiles(self, bind: Bind, number: Affine, visit: Callable[[Tile], None]) -> None:
        """Write the tiles along the last row axis: whole ones, then the rest."""
        rows, axis = self.t.rows, self.blocks.tile_axis
        last_axis = len(self.blocks.axes) - 1
        in_grid = rows.whole > 0 and not self.crossing
        if in_grid and self.blocks.grid.axis == last_axis:
            in_task, last = self.blocks.grid.chunk, self.task.last(self.w)
            first = number * (in_task + len(rows.rest))
            with open_chunk(self.w, axis, self.task) as t:
                visit(Tile(bind, t * rows.size, rows.size, first + (t - self.task.base)))
        else:
            in_task, last = rows.whole, None
            first = number * rows.tiles
            if rows.whole:
                kind: LoopKind = "unroll" if self.crossing else "serial"
                with self.w.loop(rows.whole, kind) as t:
                    visit(Tile(bind, t * rows.size, rows.size, first + t))
        with ExitStack() as stack:
            if rows.rest and last is not None:
                stack.enter_context(self.w.when(last))
            start = rows.whole * rows.size
            for n, size in enumerate(rows.rest):
                visit(Tile(bind, Affine((), start), size, first + in_task + n))
                start += size

    def panels(self, visit: Callable[[Panel], None]) -> None:
        """Write the panels of a block: whole ones, then the narrower one at the very end."""
        t, many = self.t, self.blocks.panels
        block = self.bind[self.blocks.panel_axis]
        if t.panels:
            stop = None
            if t.panels % many and t.panels > many:
                left = self.w.named(self.w.index(Affine((), t.panels) - block * many))
                stop = self.w.apply("min", left, self.w.i64(many))
            with self.w.loop(min(many, t.panels), stop=stop) as i:
                start = (block * many + i) * t.panel
                visit(Panel(self.bind, start, t.vectors(t.panel), i))
        if not t.rest:
            return
        with ExitStack() as stack:
            if not block.is_constant:
                end = self.w.i64(self.blocks.panel_axis.extent - 1)
                last = self.w.apply("eq", self.w.named(self.w.index(block)), end)
                stack.enter_context(self.w.when(last))
            start = Affine((), t.panels * t.panel)
            visit(Panel(self.bind, start, t.vectors(t.rest), Affine((), many)))

    def k(self, tile: Bind, visit: Callable[[KBlock], None]) -> None:
        """Write the blocks of the sum."""
        k = self.blocks.k
        with ExitStack() as stack:
            bind: Bind = {}
            for axis in k.outer:
                bind[axis] = stack.enter_context(self._k_loop(axis, {**tile, **bind}))
            if k.cut is None:
                visit(KBlock(bind, Affine(), None))
                return
            i = stack.enter_context(self.w.loop(-(-k.cut.extent // k.chunk)))
            stop = None
            if k.cut.extent % k.chunk:
                left = self.w.named(self.w.index(Affine((), k.cut.extent) - i * k.chunk))
                stop = self.w.apply("min", left, self.w.i64(k.chunk))
            visit(KBlock(bind, i * k.chunk, stop))

    def steps(self, tile: Tile, k: KBlock, visit: Callable[[Bind], None]) -> None:
        """Write the steps of one block of the sum; the innermost ones without a loop if they are few."""
        axes = list(self.blocks.k.inner)
        few = 1
        unrolled: list[Axis] = []
        while axes and few * axes[-1].extent <= UNROLLED_STEPS and self._may_unroll(axes[-1]):
            few *= axes[-1].extent
            unrolled.insert(0, axes.pop())
        with ExitStack() as stack:
            bind = dict(k.bind)
            if self.blocks.k.cut is not None:
                at = stack.enter_context(self.w.loop(self.blocks.k.chunk, stop=k.stop))
                bind[self.blocks.k.cut] = k.base + at
            for axis in axes:
                bind[axis] = stack.enter_context(self._k_loop(axis, {**tile.bind, **bind}))
            bind |= stack.enter_context(open_loops(self.w, unrolled, "unroll"))
            visit(bind)

    def _k_loop(self, axis: Axis, bind: Bind) -> AbstractContextManager[Affine]:
        start, stop = bounds_of(self.w, self.p, axis, bind)
        return self.w.loop(axis.extent, start=start, stop=stop)

    def _may_unroll(self, axis: Axis) -> bool:
        """Return whether steps along an axis of k may stand side by side.

        Not if rows then read what other rows just read: the back end would share such loads, which would stay alive and push
        accumulators out of registers.
        """
        if axis in self.p.limited:
            return False
        step = self.a_place.coefficient(axis)
        rows = [
            c
            for atom, c in self.a_place.terms
            if atom == self.p.rows[-1]
            or (isinstance(atom, Mod) and self.p.rows[-1] in atom.of.axes)
        ]
        return all(step % row for row in rows)


def bounds_of(w: Writer, p: Product, axis: Axis, bind: Bind) -> tuple[Expr | None, Expr | None]:
    """Return from where and up to where the steps along an axis of k are not known to be zero for a whole tile."""
    start: Expr | None = None
    stop: Expr | None = None
    for g in p.limits:
        step = g.index.coefficient(axis)
        rest = g.index - Affine.of(axis) * step
        if not may_limit(g, axis) or any(a not in bind for a in rest.axes):
            assert not (p.exact and step), "a limit that must hold is not known here"
            continue
        rest = rest.substitute(bind)
        # Where step * axis reaches lo, and where hi; backwards if the step is -1.
        first = Affine((), g.lo) - rest if step > 0 else rest - (g.hi - 1)
        beyond = Affine((), g.hi) - rest if step > 0 else rest - (g.lo - 1)
        if first.range[1] > 0:
            start = w.apply("max", _steps_to(w, first, step), start or w.i64(0))
        if beyond.range[0] < axis.extent * abs(step):
            stop = w.apply("min", _steps_to(w, beyond, step), stop or w.i64(axis.extent))
    return start, stop


def may_limit(limit: Guard, axis: Axis) -> bool:
    """Whether a limit can be kept by the bounds of the loop over an axis of k."""
    step = limit.index.coefficient(axis)
    return limit.index.is_linear and (step == -1 or step > 0)


def _steps_to(w: Writer, at: Affine, step: int) -> Expr:
    """Return after how many steps along an axis, each `step` long, `at` is reached."""
    value = w.named(w.index(at))
    if step <= 1:
        return value
    value = w.apply("add", w.apply("max", value, w.i64(0)), w.i64(step - 1))
    return w.divide(value, step)
