"""Kernels in blocks and warps: the shape in which a GPU wants the same kernels of level T.

    map          one point per thread
    row          one outer point per warp, or per block if its rows are long: the threads take elements in turn, `Cross` combines
    contraction  one tile per block, operands staged in shared memory (see `gpu_tiles`)

What is written here knows nothing of any GPU; it runs in the oracle of level L and keeps that level honest.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel import loops
from tapeout.kernel.compute import ContractionKernel, LoopKernel, Numerics, Reduce, ScatterKernel
from tapeout.kernel.compute import Store as TStore
from tapeout.schedule.lower.cost import bytes_of, flops_of
from tapeout.schedule.lower.empty import is_empty, without_empty
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.gpu_tiles import GpuTiles
from tapeout.schedule.lower.lower import as_loop
from tapeout.schedule.lower.normal import normalise
from tapeout.schedule.lower.reduce import OPERATION, neutral
from tapeout.schedule.lower.result import Lowered, LoweredLaunch
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.writer import Writer
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapeout.kernel.compute import Kernel

Bind = dict[Axis, Affine]


def lower_gpu(kernel: Kernel, group: int = 2, lane: int = 4) -> Lowered:
    """Return a kernel as launches of blocks, warps and lanes.

    Args:
        kernel: What to compute.
        group: Warps of a block.
        lane: Threads of a warp; a power of two.

    Raises:
        CompileError: The kernel is a scatter, which has no such form yet.
    """
    if isinstance(kernel, ScatterKernel):
        raise CompileError(
            "scatter kernels have no form in blocks and warps", where=f"kernel {kernel.name}"
        )
    loop = as_loop(kernel) if isinstance(kernel, ContractionKernel) else kernel
    some = without_empty(loop)
    if some is None:
        return Lowered(())
    if isinstance(kernel, ContractionKernel) and not is_empty(kernel.k):
        done = GpuTiles(kernel, group, lane).lower()
    else:
        done = _GpuLoops(normalise(some), group, lane).lower()
    return Lowered((LoweredLaunch(done.kernel, done.args, flops_of(loop), bytes_of(loop)),))


class _GpuLoops:
    """Lowers one loop kernel in normal form."""

    def __init__(self, kernel: LoopKernel, group: int, lane: int) -> None:
        self.kernel, self.group, self.lane = kernel, group, lane
        written = {s.buffer for s in kernel.stages if isinstance(s, TStore)}
        self.w = Writer([b.name for b in kernel.buffers if b.name not in written])
        self.values = Values(self.w, {b.name: b for b in kernel.buffers})
        self.points = prod(a.extent for a in kernel.axes)

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        longest = max((prod(a.extent for a in s.axes) for s in self.kernel.stages), default=1)
        if all(isinstance(s, TStore) and not s.axes for s in self.kernel.stages):
            self._map()
            return finish(self.w, self.kernel.buffers, Numerics())
        block = longest > 2 * self.group * self.lane
        if block:
            self._row_per_block()
        else:
            self._row_per_warp()
        threads = self.lane * (self.group if block else 1)
        return finish(self.w, self.kernel.buffers, Numerics(threads))

    def _map(self) -> None:
        """Write one point per thread."""
        threads = self.group * self.lane
        with (
            self.w.loop(-(-self.points // threads), "grid") as block,
            self.w.loop(self.group, "group") as warp,
            self.w.loop(self.lane, "lane") as lane,
        ):
            thread = (block * self.group + warp) * self.lane + lane
            point = self.w.derive(thread, _up(self.points, threads))
            with self._inside(point, self.points):
                stages = [s for s in self.kernel.stages if isinstance(s, TStore)]
                self.values.store_all(stages, Place(self._at(point, self.kernel.axes)))

    def _row_per_warp(self) -> None:
        with (
            self.w.loop(-(-self.points // self.group), "grid") as block,
            self.w.loop(self.group, "group") as warp,
            self.w.loop(self.lane, "lane") as lane,
        ):
            point = self.w.derive(block * self.group + warp, _up(self.points, self.group))
            with self._inside(point, self.points):
                self._stages(self._at(point, self.kernel.axes), lane, self.lane, ("lane",))

    def _row_per_block(self) -> None:
        with (
            self.w.loop(self.points, "grid") as point,
            self.w.loop(self.group, "group") as warp,
            self.w.loop(self.lane, "lane") as lane,
        ):
            thread = self.w.derive(warp * self.lane + lane, self.group * self.lane)
            at = self._at(point, self.kernel.axes)
            self._stages(at, thread, self.group * self.lane, ("lane", "group"))

    @contextmanager
    def _inside(self, at: Affine, extent: int) -> Iterator[None]:
        """Run the statements inside where a number is below an extent."""
        if at.range[1] < extent:
            yield
            return
        here = self.w.named(self.w.index(at))
        with self.w.when(self.w.apply("lt", here, self.w.i64(extent))):
            yield

    def _at(self, point: Affine, axes: Sequence[Axis]) -> Bind:
        """Return the axes of a numbered point."""
        bind: Bind = {}
        for axis in reversed(axes):
            bind[axis] = self.w.derive(point % axis.extent, axis.extent)
            point = point // axis.extent
        return bind

    # -- rows ---------------------------------------------------------------------------------------

    def _stages(self, bind: Bind, thread: Affine, threads: int, levels: tuple[str, ...]) -> None:
        temps: dict[str, loops.Expr] = {}
        for stage in self.kernel.stages:
            place = Place(bind, temps=dict(temps))
            if isinstance(stage, Reduce):
                temps[stage.name] = self._reduce(stage, place, thread, threads, levels)
                continue
            if not stage.axes:
                # One thread writes what all of them know.
                with self.w.when(
                    self.w.apply("eq", self.w.named(self.w.index(thread)), self.w.i64(0))
                ):
                    self.values.store_all([stage], place)
                continue
            for here, _ in self._elements(stage.axes, place, thread, threads):
                self.values.store_all([stage], here)

    def _elements(
        self, axes: Sequence[Axis], place: Place, thread: Affine, threads: int
    ) -> Iterator[tuple[Place, Affine]]:
        """Run what follows for each element that falls to this thread; give its place and number."""
        total = prod(a.extent for a in axes)
        with self.w.loop(-(-total // threads)) as i:
            number = self.w.derive(i * threads + thread, _up(total, threads))
            with self._inside(number, total):
                yield replace(place, bind={**place.bind, **self._at(number, axes)}), number

    def _reduce(
        self, stage: Reduce, place: Place, thread: Affine, threads: int, levels: tuple[str, ...]
    ) -> loops.Expr:
        if stage.combine.startswith("arg"):
            return self._extreme(stage, place, thread, threads, levels)
        w, dtype = self.w, stage.dtype
        total = w.alloc(dtype, 1, 1, "register")
        w.store(total, w.i64(0), w.const(neutral(stage.combine, dtype), dtype))
        for here, _ in self._elements(stage.axes, place, thread, threads):
            value = w.cast(self.values.value(stage.value, here), dtype)
            old = w.load(total, dtype, w.i64(0))
            w.store(total, w.i64(0), w.apply(OPERATION[stage.combine], old, value))
        return self._across(stage.combine, w.load(total, dtype, w.i64(0)), levels)

    def _across(self, combine: str, value: loops.Expr, levels: tuple[str, ...]) -> loops.Expr:
        for level in levels:
            value = self.w.cross(combine, value, level)
        return value

    def _extreme(
        self, stage: Reduce, place: Place, thread: Affine, threads: int, levels: tuple[str, ...]
    ) -> loops.Expr:
        """Find the extreme of this thread's elements and where it stands, then the first among all threads."""
        w, dtype, of = self.w, stage.dtype, stage.value.dtype
        best, at = w.alloc(of, 1, 1, "register"), w.alloc(dtype, 1, 1, "register")
        far = w.const(neutral("min", dtype), dtype)
        w.store(best, w.i64(0), w.const(neutral(stage.combine, of), of))
        w.store(at, w.i64(0), far)
        for here, number in self._elements(stage.axes, place, thread, threads):
            value = self.values.value(stage.value, here)
            old, where = w.load(best, of, w.i64(0)), w.load(at, dtype, w.i64(0))
            better = w.apply("or", w.apply("eq", where, far), self._beats(stage, value, old))
            w.store(best, w.i64(0), w.apply("select", better, value, old))
            index = w.cast(w.named(w.index(number)), dtype)
            w.store(at, w.i64(0), w.apply("select", better, index, where))
        mine = w.load(best, of, w.i64(0))
        top = self._across(stage.combine[3:], mine, levels)
        same = w.apply("eq", mine, top)
        if of.is_float:
            same = w.apply("or", same, w.apply("isnan", mine))
        found = w.apply("select", same, w.load(at, dtype, w.i64(0)), far)
        return self._across("min", found, levels)

    def _beats(self, stage: Reduce, value: loops.Expr, old: loops.Expr) -> loops.Expr:
        sign = "gt" if stage.combine == "argmax" else "lt"
        better = self.w.apply(sign, value, old)
        if not value.dtype.is_float:
            return better
        first = self.w.apply("not", self.w.apply("isnan", old))
        return self.w.apply("or", better, self.w.apply("and", self.w.apply("isnan", value), first))


def _up(extent: int, size: int) -> int:
    """Return an extent rounded up to a multiple."""
    return -(-extent // size) * size
