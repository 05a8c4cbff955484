"""Keeps what several passes over a row need, where it is costly to make again: level T to level T.

Softmax sums `exp(x - max)` along a row and then divides the same values by the sum. Short rows share them as values in registers; a
long row keeps them in a local buffer, which the kernel has beside its params.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine
from tapeout.kernel.compute import Apply, Buffer, ExprBuilder, LoopKernel, Store
from tapeout.schedule.lower.choose import COSTLY
from tapeout.schedule.lower.exprs import Rewriter, axes_of, loads, parts, postorder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.affine import Axis
    from tapeout.kernel.compute import Expr, Stage

LOCAL = "row"
"""Prefix of the names of local buffers."""

MOST_BYTES = 256 * 1024
SHORT = 128
"""Rows of at most this many elements share values without a buffer, unless the kernel overwrites what they are made from."""


def keep_rows(kernel: LoopKernel) -> LoopKernel:
    """Return the kernel with costly values that several stages over the same axes share stored in local buffers."""
    groups: dict[tuple[Axis, ...], list[int]] = {}
    for n, stage in enumerate(kernel.stages):
        points = prod(a.extent for a in stage.axes)
        if 1 < points <= MOST_BYTES // stage.value.dtype.bytes:
            groups.setdefault(stage.axes, []).append(n)
    written = {s.buffer for s in kernel.stages if isinstance(s, Store)}
    for axes, numbers in groups.items():
        shared = _shared([kernel.stages[n] for n in numbers], axes)
        if prod(a.extent for a in axes) <= SHORT:
            shared = [e for e in shared if any(x.buffer in written for x in loads(e))]
        if shared:
            return _kept(kernel, axes, numbers, shared[0])
    return kernel


def local_buffers(kernel: LoopKernel) -> list[Buffer]:
    """Return the buffers that the kernel makes itself."""
    return [b for b in kernel.buffers if b.name.startswith(LOCAL)]


def _shared(stages: Sequence[Stage], axes: Sequence[Axis]) -> list[Expr]:
    """Return the largest costly expressions that two of the stages have in common and that move along the row."""
    seen: dict[int, Expr] = {}
    common: dict[int, Expr] = {}
    for stage in stages:
        for e in postorder(stage.value):
            if id(e) in seen:
                common[id(e)] = e
        seen.update((id(e), e) for e in postorder(stage.value))
    fit = [e for e in common.values() if _is_costly(e) and axes_of([e]) & set(axes)]
    inside = {id(p) for e in fit for x in postorder(e) for p in parts(x)}
    return [e for e in fit if id(e) not in inside]


def _is_costly(e: Expr) -> bool:
    return any(isinstance(x, Apply) and x.op in COSTLY for x in postorder(e))


def _kept(
    kernel: LoopKernel, axes: tuple[Axis, ...], numbers: Sequence[int], value: Expr
) -> LoopKernel:
    """Return the kernel with one value stored before its first use and loaded at each use."""
    extents = [a.extent for a in axes]
    strides = tuple(prod(extents[n + 1 :]) for n in range(len(extents)))
    buffer = Buffer(f"{LOCAL}0", value.dtype, tuple(extents), strides, "rw")
    index = tuple(Affine.of(a) for a in axes)
    s = ExprBuilder()
    rewrite = Rewriter(s, {}, {}, whole={id(value): s.load(buffer, index)})
    first = next(n for n in numbers if value in postorder(kernel.stages[n].value))
    stages: list[Stage] = []
    for n, stage in enumerate(kernel.stages):
        if n == first:
            stages.append(Store(buffer.name, axes, index, Rewriter(s, {}, {})(value)))
        stages.append(replace(stage, value=rewrite(stage.value)) if n in numbers else stage)
    return replace(kernel, buffers=(*kernel.buffers, buffer), stages=tuple(stages))
