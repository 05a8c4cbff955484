"""Lowers any kernel of level T for a CPU."""

from __future__ import annotations

from tapeout.kernel.compute import (
    Buffer,
    ContractionKernel,
    ExprBuilder,
    Kernel,
    LoopKernel,
    Reduce,
    ScatterKernel,
)
from tapeout.kernel.target import Target
from tapeout.schedule.lower.contract.lower import (
    alternatives,
    no_columns,
    plan_contraction,
)
from tapeout.schedule.lower.contract.split import Split, split_k
from tapeout.schedule.lower.contract.winograd_plan import Fewer, plan_winograd
from tapeout.schedule.lower.cost import bytes_of, flops_of, scatter_cost
from tapeout.schedule.lower.empty import is_empty, without_empty
from tapeout.schedule.lower.loop import lower_loop
from tapeout.schedule.lower.partials import cut
from tapeout.schedule.lower.pieces import pieces
from tapeout.schedule.lower.result import Lowered, LoweredLaunch, Scratch
from tapeout.schedule.lower.scatter import lower_scatter
from tapeout.schedule.lower.windows.emit import WindowLowering
from tapeout.schedule.lower.windows.plan import Windows, plan_windows


def lower(kernel: Kernel, target: Target, choice: str | None = None) -> Lowered:
    """Return a kernel as launches of loops.

    Args:
        kernel: What to compute.
        target: The class of machine; rounding depends on it, on shapes and on types, never on threads.
        choice: One of `choices(kernel, target)`; it changes no bit of the result.

    Returns:
        Launches in order, and the scratch buffers between them.
    """
    if isinstance(kernel, ScatterKernel):
        return _scatter(kernel)
    if isinstance(kernel, LoopKernel):
        return _loop(kernel, target)
    if is_empty((*kernel.batch, *kernel.m, *kernel.n, *kernel.k)):
        return _loop(as_loop(kernel), target)
    if no_columns(kernel):
        windows = plan_windows(kernel, target)
        if windows is None:
            return _loop(as_loop(kernel), target)
        return _windows(kernel, windows, target)
    fewer = plan_winograd(kernel, target, "scratch.")
    if fewer is not None:
        return _by_fewer(fewer, kernel, target)
    split = split_k(kernel)
    if split is None:
        return _whole(kernel, target, choice)
    return _in_parts(split, target, choice)


def choices(kernel: Kernel, target: Target) -> list[str]:
    """Return names of ways to lower a kernel that give the same bits, the default first; empty if there is but one."""
    if not isinstance(kernel, ContractionKernel):
        return []
    if is_empty((*kernel.batch, *kernel.m, *kernel.n, *kernel.k)) or no_columns(kernel):
        return []
    if plan_winograd(kernel, target, "scratch.") is not None:
        return []
    split = split_k(kernel)
    found = alternatives(kernel if split is None else split.parts[0], target, "scratch")
    return [plan.choice for plan in found] if len(found) > 1 else []


def _whole(
    kernel: ContractionKernel,
    target: Target,
    choice: str | None,
    prefix: str = "",
    partials: int = 1,
) -> Lowered:
    """Lower a contraction whose sums are not cut."""
    plan = plan_contraction(kernel, target, f"{prefix}scratch", choice)
    launches: list[LoweredLaunch] = []
    for step in plan.steps:
        for before in step.kernels:
            launches += _loop(before, target).launches
    done = plan.lower(target, partials)
    loop = as_loop(kernel)
    launches.append(LoweredLaunch(done.kernel, done.args, flops_of(loop), bytes_of(loop)))
    return Lowered(tuple(launches), tuple(_scratch(s.buffer) for s in plan.steps))


def _by_fewer(plan: Fewer, kernel: ContractionKernel, target: Target) -> Lowered:
    """Lower a contraction over windows that runs by fewer products."""
    done = plan.lower(target)
    # Most of the work, and what it takes from memory, is in the launch that multiplies.
    cost = {len(done) // 2: (plan.flops, bytes_of(as_loop(kernel)))}
    made = [LoweredLaunch(d.kernel, d.args, *cost.get(n, ())) for n, d in enumerate(done)]
    before = [c for k in plan.before for c in _loop(k, target).launches]
    after = [c for k in plan.after for c in _loop(k, target).launches]
    return Lowered((*before, *made, *after), tuple(map(_scratch, plan.scratch)))


def _in_parts(split: Split, target: Target, choice: str | None) -> Lowered:
    """Lower a contraction that is cut along k."""
    launches: list[LoweredLaunch] = []
    scratch = [_scratch(split.sums)]
    for n, part in enumerate(split.parts):
        done = _whole(part, target, choice, f"part{n}.", split.count)
        launches += done.launches
        scratch += done.scratch
    launches += _loop(split.total, target).launches
    return Lowered(tuple(launches), tuple(scratch))


def _windows(kernel: ContractionKernel, windows: Windows, target: Target) -> Lowered:
    """Lower a contraction along windows."""
    launches = [n for k in windows.before for n in _loop(k, target).launches]
    done = WindowLowering(windows, target.fma).lower()
    loop = as_loop(kernel)
    launches.append(LoweredLaunch(done.kernel, done.args, flops_of(loop), bytes_of(loop)))
    launches += [n for k in windows.after for n in _loop(k, target).launches]
    return Lowered(tuple(launches), tuple(map(_scratch, windows.scratch)))


def _scratch(buffer: Buffer) -> Scratch:
    return Scratch(buffer.name, buffer.dtype, buffer.span)


def _scatter(kernel: ScatterKernel) -> Lowered:
    if is_empty((*kernel.axes, *kernel.points)):
        return Lowered(())
    done = lower_scatter(kernel)
    return Lowered((LoweredLaunch(done.kernel, done.args, *scatter_cost(kernel)),))


def _loop(kernel: LoopKernel, target: Target) -> Lowered:
    some = without_empty(kernel)
    if some is None:
        return Lowered(())
    apart = pieces(some)
    if len(apart) > 1:
        return Lowered(tuple(n for piece in apart for n in _loop(piece, target).launches))
    parts = cut(some)
    launches = []
    for k in parts.kernels:
        done = lower_loop(k, target, parts.partials)
        launches.append(LoweredLaunch(done.kernel, done.args, flops_of(k), bytes_of(k)))
    return Lowered(tuple(launches), tuple(_scratch(b) for b in parts.scratch))


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
