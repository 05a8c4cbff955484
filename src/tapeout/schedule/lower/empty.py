"""Kernels over nothing: no store runs over an empty axis, and nothing combined is the neutral value."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.kernel.compute import ExprBuilder, LoopKernel, Reduce
from tapeout.schedule.lower.exprs import Rewriter
from tapeout.schedule.lower.reduce import neutral

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.affine import Axis
    from tapeout.kernel.compute import Expr, Stage


def is_empty(axes: Sequence[Axis]) -> bool:
    """Return whether there is no point."""
    return any(a.extent == 0 for a in axes)


def without_empty(kernel: LoopKernel) -> LoopKernel | None:
    """Return the kernel without stages over empty axes, None if nothing is left to store."""
    if is_empty(kernel.axes):
        return None
    if not any(is_empty(s.axes) for s in kernel.stages):
        return kernel
    s = ExprBuilder()
    known: dict[str, Expr] = {}
    stages: list[Stage] = []
    for stage in kernel.stages:
        if not is_empty(stage.axes):
            stages.append(replace(stage, value=Rewriter(s, {}, known)(stage.value)))
        elif isinstance(stage, Reduce):
            arg = stage.combine.startswith("arg")
            start = 0 if arg else neutral(stage.combine, stage.dtype)
            known[stage.name] = s.const(start, stage.dtype)
    if all(isinstance(stage, Reduce) for stage in stages):
        return None
    return replace(kernel, stages=tuple(stages))
