"""Orders the loops of a copy into panels: a few far lines at a time, read whole.

A panel takes few elements from each of many lines that lie far apart. Panel by panel, every line would come from memory once per
panel, and lines at a power of two from each other drive each other out of the caches. So the loop over lines is cut into blocks,
and all panels of a block come before the next one. Level T to level T, order alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import ExprBuilder, LoopKernel, Store
from tapeout.schedule.lower.exprs import Rewriter, loads
from tapeout.schedule.lower.normal import offset_of

if TYPE_CHECKING:
    from tapeout.kernel.compute import Buffer

LINE = 64
FAR = 1024
"""Bytes between lines that count as far."""

BLOCKS = (8, 4, 6, 7, 5)
"""Lines of a block, the best first: as many as a set of the first-level cache holds."""


def in_blocks(kernel: LoopKernel, vector: Axis | None) -> LoopKernel:
    """Return a map in normal form with its loops in a better order, or as it is.

    Args:
        kernel: The map.
        vector: The axis across lanes.
    """
    if vector is None or not all(isinstance(s, Store) and not s.axes for s in kernel.stages):
        return kernel
    outer = [a for a in kernel.axes if a != vector]
    if len(outer) < 2:
        return kernel
    panel, line = outer[-2:]
    size = next((n for n in BLOCKS if line.extent % n == 0 and line.extent > n), 0)
    if not size or not _goes_far(kernel, panel, line, vector):
        return kernel
    return _cut(kernel, outer[:-2], panel, line, size, vector)


def _goes_far(kernel: LoopKernel, panel: Axis, line: Axis, vector: Axis) -> bool:
    """Whether what a panel reads are short pieces of lines far from each other, and the next panel goes on with them."""
    buffers: dict[str, Buffer] = {b.name: b for b in kernel.buffers}
    for e in loads(*(s.value for s in kernel.stages)):
        at = offset_of(e, buffers)
        step = e.dtype.bytes
        near = 0 < at.coefficient(panel) * step <= LINE
        if near and at.coefficient(vector) == 1 and abs(at.coefficient(line)) * step >= FAR:
            return True
    return False


def _cut(
    kernel: LoopKernel, before: list[Axis], panel: Axis, line: Axis, size: int, vector: Axis
) -> LoopKernel:
    block, inside = Axis(f"{line.name}.0", line.extent // size), Axis(f"{line.name}.1", size)
    rewrite = Rewriter(ExprBuilder(), {line: Affine.of(block) * size + inside}, {})
    stages = tuple(
        replace(
            s,
            index=tuple(i.substitute(rewrite.axes) for i in s.index),
            value=rewrite(s.value),
        )
        for s in kernel.stages
        if isinstance(s, Store)
    )
    return replace(kernel, axes=(*before, block, panel, inside, vector), stages=stages)
