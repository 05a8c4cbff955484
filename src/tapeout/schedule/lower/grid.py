"""Deals the outer points of a kernel to tasks: a grid loop over chunks of one axis, and of all axes outside it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapeout.kernel.loops import Expr, LoopKind
    from tapeout.schedule.lower.writer import Writer

TASK_WORK = 32 * 1024
"""Element operations of one task: some microseconds, so that dealing it out costs little and small kernels stay whole."""


@dataclass(frozen=True)
class Grid:
    """How the loops over `extents` (outermost first) are dealt to tasks.

    Attributes:
        axis: The number of the axis that is cut into chunks; all axes before it belong to the grid alone.
        chunk: Steps of that axis in one task.
        chunks: Tasks along that axis.
        tasks: All tasks.
    """

    axis: int
    chunk: int
    chunks: int
    tasks: int


def plan_grid(extents: Sequence[int], work: float, least: float = TASK_WORK) -> Grid:
    """Return the grid for loops of given extents.

    Args:
        extents: Outermost first; may be empty.
        work: Element operations of one point.
        least: Element operations that make a task worth its while.
    """
    if not extents:
        return Grid(0, 1, 1, 1)
    inside = work * prod(extents)
    for n, extent in enumerate(extents):
        inside /= extent
        if inside <= least or n == len(extents) - 1:
            chunk = max(1, min(extent, int(least // inside) if inside else extent))
            # As even as can be.
            chunks = -(-extent // chunk)
            chunk = -(-extent // chunks)
            chunks = -(-extent // chunk)
            return Grid(n, chunk, chunks, prod(extents[:n]) * chunks)
    raise AssertionError


@dataclass
class Task:
    """The open grid loop.

    Attributes:
        bind: The axes that belong to the grid alone, as loop variables.
        base: The first step of this task along the axis that is cut into chunks.
        chunk: The number of this task's chunk.
    """

    grid: Grid
    bind: dict[Axis, Affine]
    base: Affine
    chunk: Affine

    def last(self, w: Writer) -> Expr | None:
        """Return whether this is the last chunk; None if there is only one."""
        if self.grid.chunks == 1:
            return None
        return w.apply("eq", w.named(w.index(self.chunk)), w.i64(self.grid.chunks - 1))


@contextmanager
def open_grid(w: Writer, axes: Sequence[Axis], grid: Grid) -> Iterator[Task]:
    """Open the grid loop over the first axes."""
    with w.loop(grid.tasks, "grid") as task:
        g = task if grid.tasks > 1 else Affine()
        chunk = w.derive(g % grid.chunks, grid.chunks)
        rest = g // grid.chunks
        bind: dict[Axis, Affine] = {}
        for axis in reversed(axes[: grid.axis]):
            bind[axis] = w.derive(rest % axis.extent, axis.extent)
            rest = rest // axis.extent
        yield Task(grid, bind, chunk * grid.chunk, chunk)


@contextmanager
def open_chunk(w: Writer, axis: Axis, task: Task) -> Iterator[Affine]:
    """Open the loop over this task's steps of the axis that is cut into chunks."""
    grid = task.grid
    stop = None
    if axis.extent % grid.chunk and grid.chunks > 1:
        left = w.named(w.index(Affine((), axis.extent) - task.base))
        stop = w.apply("min", left, w.i64(grid.chunk))
    with w.loop(grid.chunk, stop=stop) as i:
        yield task.base + i


@contextmanager
def open_loops(
    w: Writer, axes: Sequence[Axis], kind: LoopKind = "serial"
) -> Iterator[dict[Axis, Affine]]:
    """Open plain loops, outermost first."""
    with ExitStack() as stack:
        yield {a: stack.enter_context(w.loop(a.extent, kind)) for a in axes}
