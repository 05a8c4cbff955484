"""Kernels whose operands lie side by side along an axis, such as gates that become one tensor, are cut where one ends and the next begins.

In each piece it is known which operand is read: no mask is left, and nothing is read in vain. The arithmetic of an element stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import ExprBuilder, Load, LoopKernel, Store
from tapeout.schedule.lower.exprs import Rewriter, loads, shared_load

if TYPE_CHECKING:
    from tapeout.ir.affine import Guard
    from tapeout.kernel.compute import Expr

LEAST, MOST = 64, 8
"""Least steps of a piece along the axis, most pieces."""
LEAST_POINTS = 4096
_ALIGN = 16


def pieces(kernel: LoopKernel) -> tuple[LoopKernel, ...]:
    """Return the kernel cut along the one axis whose guards change along it, the kernel itself if it is not worth it."""
    found = _cuts(kernel)
    if found is None:
        return (kernel,)
    axis, cuts = found
    return tuple(_piece(kernel, axis, lo, hi) for lo, hi in pairwise((0, *cuts, axis.extent)))


def _cuts(kernel: LoopKernel) -> tuple[Axis, list[int]] | None:
    """Return the axis, and where it is cut; None if there is no such axis, or there are pieces too small."""
    if not all(isinstance(s, Store) and not s.axes for s in kernel.stages):
        return None
    written = {s.buffer for s in kernel.stages if isinstance(s, Store)}
    if any(e.buffer in written for s in kernel.stages for e in loads(s.value)):
        return None  # in place: all values are made before the first is written
    guards = dict.fromkeys(g for s in kernel.stages for e in loads(s.value) for g in e.where)
    where = [_interval(g) for g in guards]
    axes = dict.fromkeys(w[0] for w in where if w is not None)
    if None in where or len(axes) != 1:
        return None
    (axis,) = axes
    ends = {end for w in where if w is not None for end in w[1:]}
    cuts = sorted(end for end in ends if 0 < end < axis.extent)
    sizes = [b - a for a, b in pairwise((0, *cuts, axis.extent))]
    points = prod(a.extent for a in kernel.axes)
    if axis not in kernel.axes or not cuts or len(sizes) > MOST or points < LEAST_POINTS:
        return None
    even = all(c % _ALIGN == 0 for c in cuts)
    return (axis, cuts) if even and min(sizes) >= LEAST else None


def _interval(guard: Guard) -> tuple[Axis, int, int] | None:
    """Return the axis that a guard bounds, and from where up to where it holds; None if it is another kind of guard."""
    index = guard.index
    if not index.is_linear or len(index.axes) != 1:
        return None
    (axis,) = index.axes
    if index.coefficient(axis) != 1:
        return None
    return axis, guard.lo - index.const, guard.hi - index.const


def _piece(kernel: LoopKernel, axis: Axis, lo: int, hi: int) -> LoopKernel:
    part = Axis(f"{axis.name}.from{lo}", hi - lo)
    moved = {axis: Affine.of(part) + lo}
    s = ExprBuilder()
    rewrite = Rewriter(s, moved, {}, load=lambda e: _known(s, e))
    stages = tuple(
        replace(
            stage,
            index=tuple(i.substitute(moved) for i in stage.index),
            value=rewrite(stage.value),
        )
        for stage in kernel.stages
        if isinstance(stage, Store)
    )
    axes = tuple(part if a == axis else a for a in kernel.axes)
    used = {st.buffer for st in stages} | {e.buffer for st in stages for e in loads(st.value)}
    buffers = tuple(b for b in kernel.buffers if b.name in used)
    return replace(kernel, buffers=buffers, axes=axes, stages=stages)


def _known(s: ExprBuilder, load: Load) -> Expr:
    """Return a load without guards that always hold, or what stands for it where one never does."""
    for g in load.where:
        low, high = g.index.range
        if high < g.lo or low >= g.hi:
            return s.const(load.other, load.dtype)
    return shared_load(s, replace(load, where=tuple(g for g in load.where if not g.always)))
