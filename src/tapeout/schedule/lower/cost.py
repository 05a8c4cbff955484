"""The analytic model of a launch: floating-point operations and bytes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine
from tapeout.kernel.compute import Load, LoopKernel, Reduce, ScatterKernel, Store
from tapeout.schedule.lower.exprs import loads, operations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.ir.affine import Axis
    from tapeout.kernel.compute import Buffer


def flops_of(kernel: LoopKernel) -> int:
    """Return the floating-point operations of a loop kernel, those of its reductions included."""
    points = prod(a.extent for a in kernel.axes)
    total = 0
    for s in kernel.stages:
        once = operations(s.value) + (isinstance(s, Reduce) and s.value.dtype.is_float)
        total += points * prod(a.extent for a in s.axes) * once
    return total


def bytes_of(kernel: LoopKernel) -> int:
    """Return the bytes that a loop kernel reads and writes, each touched element once."""
    buffers = {b.name: b for b in kernel.buffers}
    read: dict[str, int] = {}
    wrote: dict[str, int] = {}
    for s in kernel.stages:
        for e in loads(s.value):
            count = touched(e, buffers)
            read[e.buffer] = max(read.get(e.buffer, 0), count)
        if isinstance(s, Store):
            count = _points(s.index)
            wrote[s.buffer] = max(wrote.get(s.buffer, 0), count)
    return sum(n * buffers[b].dtype.bytes for found in (read, wrote) for b, n in found.items())


def scatter_cost(kernel: ScatterKernel) -> tuple[int, int]:
    """Return the floating-point operations and the bytes of a scatter kernel."""
    buffers = {b.name: b for b in kernel.buffers}
    points = prod(a.extent for a in (*kernel.axes, *kernel.points))
    exprs = [kernel.value, *(i for i in kernel.index if not isinstance(i, Affine))]
    read = sum(touched(e, buffers) * e.dtype.bytes for e in loads(*exprs))
    target = buffers[kernel.target].dtype.bytes
    return points * (1 + operations(kernel.value)), read + 2 * points * target


def touched(load: Load, buffers: Mapping[str, Buffer]) -> int:
    """Return how many elements a load touches over all points, at most."""
    whole = prod(buffers[load.buffer].shape)
    if not all(isinstance(i, Affine) for i in load.index):
        return whole
    return min(whole, _points([i for i in load.index if isinstance(i, Affine)]))


def _points(index: Sequence[Affine]) -> int:
    axes: dict[Axis, None] = {a: None for i in index for a in i.axes}
    return prod(a.extent for a in axes)
