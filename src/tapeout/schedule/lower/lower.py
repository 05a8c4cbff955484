"""Lowers any kernel of level T for a CPU."""

from __future__ import annotations

from tapeout.kernel.compute import (
    ContractionKernel,
    ExprBuilder,
    Kernel,
    LoopKernel,
    Reduce,
    ScatterKernel,
)
from tapeout.kernel.target import Target
from tapeout.schedule.lower.contract.lower import no_columns, plan_contraction
from tapeout.schedule.lower.cost import bytes_of, flops_of, scatter_cost
from tapeout.schedule.lower.empty import is_empty, without_empty
from tapeout.schedule.lower.loop import lower_loop
from tapeout.schedule.lower.result import Lowered, LoweredLaunch, Scratch
from tapeout.schedule.lower.scatter import lower_scatter


def lower(kernel: Kernel, target: Target) -> Lowered:
    """Return a kernel as launches of loops.

    Args:
        kernel: What to compute.
        target: The class of machine; rounding depends on it, on shapes and on types, never on threads.

    Returns:
        Launches in order, and the scratch buffers between them.
    """
    if isinstance(kernel, ScatterKernel):
        return _scatter(kernel)
    if isinstance(kernel, LoopKernel):
        return _loop(kernel, target)
    if is_empty((*kernel.batch, *kernel.m, *kernel.n, *kernel.k)) or no_columns(kernel):
        return _loop(as_loop(kernel), target)
    return _contraction(kernel, target)


def _contraction(kernel: ContractionKernel, target: Target) -> Lowered:
    plan = plan_contraction(kernel, target, "scratch")
    launches: list[LoweredLaunch] = []
    for step in plan.steps:
        for before in step.kernels:
            launches += _loop(before, target).launches
    done = plan.lower(target)
    loop = as_loop(kernel)
    launches.append(LoweredLaunch(done.kernel, done.args, flops_of(loop), bytes_of(loop)))
    scratch = (Scratch(s.buffer.name, s.buffer.dtype, s.buffer.span) for s in plan.steps)
    return Lowered(tuple(launches), tuple(scratch))


def _scatter(kernel: ScatterKernel) -> Lowered:
    if is_empty((*kernel.axes, *kernel.points)):
        return Lowered(())
    done = lower_scatter(kernel)
    return Lowered((LoweredLaunch(done.kernel, done.args, *scatter_cost(kernel)),))


def _loop(kernel: LoopKernel, target: Target) -> Lowered:
    some = without_empty(kernel)
    if some is None:
        return Lowered(())
    done = lower_loop(some, target)
    return Lowered((LoweredLaunch(done.kernel, done.args, flops_of(some), bytes_of(some)),))


def as_loop(kernel: ContractionKernel) -> LoopKernel:
    """Return a contraction as a plain reduction."""
    s = ExprBuilder()
    product = s.mul(s.cast(kernel.a, kernel.accumulate), s.cast(kernel.b, kernel.accumulate))
    total = Reduce("acc", "sum", kernel.k, product, kernel.accumulate)
    return LoopKernel(
        kernel.name,
        kernel.buffers,
        kernel.batch + kernel.m + kernel.n,
        (total, *kernel.stages),
        kernel.loc,
    )
