"""Contractions in blocks and warps: tiles of both operands in shared memory, a small tile of sums per thread."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import Numerics
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapeout.kernel.compute import ContractionKernel, Expr

Bind = dict[Axis, Affine]

ROWS, COLUMNS, STEPS = 4, 2, 8
"""Sums of one thread, and steps of k that a block stages at once."""


class GpuTiles:
    """Lowers one contraction.

    Args:
        kernel: None of its axes is empty.
        group: Warps of a block: they share out the rows of its tile.
        lane: Threads of a warp: they share out the columns.
    """

    def __init__(self, kernel: ContractionKernel, group: int, lane: int) -> None:
        self.kernel, self.group, self.lane = kernel, group, lane
        written = {s.buffer for s in kernel.stages}
        self.w = Writer([b.name for b in kernel.buffers if b.name not in written])
        self.values = Values(self.w, {b.name: b for b in kernel.buffers})
        self.rows = prod(a.extent for a in kernel.m)
        self.columns = prod(a.extent for a in kernel.n)
        self.steps = prod(a.extent for a in kernel.k)
        self.tall, self.wide = ROWS * group, COLUMNS * lane

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        w, k = self.w, self.kernel
        down, across = -(-self.rows // self.tall), -(-self.columns // self.wide)
        batch = prod(a.extent for a in k.batch)
        with w.loop(batch * down * across, "grid") as block:
            n0 = w.derive(block % across, across) * self.wide
            m0 = w.derive(block // across % down, down) * self.tall
            bind = self._at(block // (across * down), k.batch)
            a = w.alloc(k.accumulate, 1, self.tall * STEPS, "shared")
            b = w.alloc(k.accumulate, 1, self.wide * STEPS, "shared")
            with w.loop(self.group, "group") as warp, w.loop(self.lane, "lane") as lane:
                self._thread(bind, (m0, n0), (warp, lane), (a, b))
        numerics = Numerics(extra={"k_block": STEPS})
        return finish(w, k.buffers, numerics)

    def _thread(
        self,
        bind: Bind,
        corner: tuple[Affine, Affine],
        thread: tuple[Affine, Affine],
        shared: tuple[str, str],
    ) -> None:
        """Write what one thread does: stage, multiply, and the epilogue of its own sums."""
        w, k = self.w, self.kernel
        sums = w.alloc(k.accumulate, 1, ROWS * COLUMNS, "register")
        with w.loop(ROWS * COLUMNS, "unroll") as i:
            w.store(sums, w.index(i), w.const(0, k.accumulate))
        number = w.derive(thread[0] * self.lane + thread[1], self.group * self.lane)
        left = _Side(k.a, k.m, corner[0], self.rows, self.tall, shared[0])
        right = _Side(k.b, k.n, corner[1], self.columns, self.wide, shared[1])
        with w.loop(-(-self.steps // STEPS)) as block:
            for side in (left, right):
                self._stage(side, bind, block * STEPS, number)
            w.barrier("group")
            self._multiply(thread, shared, sums)
            w.barrier("group")
        self._epilogue(bind, corner, thread, sums)

    def _stage(self, side: _Side, bind: Bind, first: Affine, thread: Affine) -> None:
        """Evaluate this thread's share of a tile of an operand; zeros stand where the operand ends."""
        w, dtype = self.w, self.kernel.accumulate
        threads, total = self.group * self.lane, side.size * STEPS
        with w.loop(-(-total // threads)) as i:
            at = w.derive(i * threads + thread, _up(total, threads))
            step = w.derive(first + at % STEPS, _up(self.steps, STEPS))
            line = w.derive(side.start + at // STEPS, _up(side.extent, side.size))
            with self._below(((at, total),)):
                w.store(side.shared, w.index(at), w.const(0, dtype))
            limits = ((at, total), (line, side.extent), (step, self.steps))
            with self._below(limits):
                here = {**bind, **self._at(line, side.free), **self._at(step, self.kernel.k)}
                value = w.cast(self.values.value(side.operand, Place(here)), dtype)
                w.store(side.shared, w.index(at), value)

    def _multiply(self, thread: tuple[Affine, Affine], shared: tuple[str, str], sums: str) -> None:
        w, dtype = self.w, self.kernel.accumulate
        with (
            w.loop(STEPS) as step,
            w.loop(ROWS, "unroll") as r,
            w.loop(COLUMNS, "unroll") as c,
        ):
            row, column = thread[0] * ROWS + r, thread[1] * COLUMNS + c
            a = w.load(shared[0], dtype, w.index(row * STEPS + step))
            b = w.load(shared[1], dtype, w.index(column * STEPS + step))
            place = w.index(r * COLUMNS + c)
            old = w.load(sums, dtype, place)
            if dtype.is_float:
                w.store(sums, place, w.apply("fma", a, b, old))
            else:
                w.store(sums, place, w.apply("add", old, w.apply("mul", a, b)))

    def _epilogue(
        self,
        bind: Bind,
        corner: tuple[Affine, Affine],
        thread: tuple[Affine, Affine],
        sums: str,
    ) -> None:
        w, k = self.w, self.kernel
        with w.loop(ROWS, "unroll") as r, w.loop(COLUMNS, "unroll") as c:
            m = corner[0] + thread[0] * ROWS + r
            n = corner[1] + thread[1] * COLUMNS + c
            row = w.derive(m, _up(self.rows, self.tall))
            column = w.derive(n, _up(self.columns, self.wide))
            found = w.load(sums, k.accumulate, w.index(r * COLUMNS + c))
            with self._below(((row, self.rows), (column, self.columns))):
                here = {**bind, **self._at(row, k.m), **self._at(column, k.n)}
                self.values.store_all(k.stages, Place(here, temps={"acc": found}))

    def _at(self, point: Affine, axes: Sequence[Axis]) -> Bind:
        """Return the axes of a numbered point."""
        bind: Bind = {}
        for axis in reversed(axes):
            bind[axis] = self.w.derive(point % axis.extent, axis.extent)
            point = point // axis.extent
        return bind

    @contextmanager
    def _below(self, limits: Sequence[tuple[Affine, int]]) -> Iterator[None]:
        """Run the statements inside where every number is below its limit."""
        w = self.w
        tests = [
            w.apply("lt", w.named(w.index(at)), w.i64(limit))
            for at, limit in limits
            if at.range[1] >= limit
        ]
        if not tests:
            yield
            return
        found = tests[0]
        for t in tests[1:]:
            found = w.apply("and", found, t)
        with w.when(found):
            yield


def _up(extent: int, size: int) -> int:
    """Return an extent rounded up to whole tiles."""
    return -(-extent // size) * size


@dataclass(frozen=True)
class _Side:
    """One operand of a block's tile: lines `start ..` of `extent`, `size` of them staged."""

    operand: Expr
    free: Sequence[Axis]
    start: Affine
    extent: int
    size: int
    shared: str
