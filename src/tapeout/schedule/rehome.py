"""Rebuilds a kernel whose buffers stand for other homes; those that stand for one home become one buffer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.kernel.compute import ContractionKernel, Load, LoopKernel, Store
from tapeout.schedule.lower.exprs import Rewriter, shared_load
from tapeout.schedule.model import Home, Scope, Work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.kernel.compute import Kernel, Stage


def rehomed(kernel: Kernel, homes: Mapping[str, Home], work: Work) -> Work:
    """Return a work with a kernel whose buffers are called b0, b1, … again, those that are not used left out.

    Args:
        kernel: A loop or contraction kernel.
        homes: What each buffer of the kernel stands for.
        work: Says where the kernel came from.
    """
    assert isinstance(kernel, LoopKernel | ContractionKernel)
    scope = Scope()

    def load(e: Load) -> Load:
        buffer = scope.buffer(homes[e.buffer], "r")
        found = shared_load(scope.s, replace(e, buffer=buffer.name))
        assert isinstance(found, Load)
        return found

    rewrite = Rewriter(scope.s, {}, {}, load)
    # The factors first, so that buffers are numbered in the order of the text.
    factors = [kernel.a, kernel.b] if isinstance(kernel, ContractionKernel) else []
    factors = [rewrite(e) for e in factors]
    stages: list[Stage] = []
    for t in kernel.stages:
        value = rewrite(t.value)
        if isinstance(t, Store):
            name = scope.buffer(homes[t.buffer], "w").name
            stages.append(replace(t, buffer=name, value=value))
        else:
            stages.append(replace(t, value=value))
    if isinstance(kernel, LoopKernel):
        looped = replace(kernel, buffers=scope.buffers, stages=tuple(stages))
        return replace(work, kernel=looped, homes=scope.homes)
    stores = tuple(s for s in stages if isinstance(s, Store))
    a, b = factors
    contracted = replace(kernel, buffers=scope.buffers, a=a, b=b, stages=stores)
    return replace(work, kernel=contracted, homes=scope.homes)
