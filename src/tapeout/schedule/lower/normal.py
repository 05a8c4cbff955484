"""Loop kernels brought to a simple form, level T to level T, with the same meaning.

Axes of one step vanish, axes that indices divide are split, outer and reduced axes stand in the order of memory, neighbours that
are contiguous everywhere become one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import ExprBuilder, Load, LoopKernel, Reduce, Store
from tapeout.schedule.lower.domain import Domain, sort_axes
from tapeout.schedule.lower.exprs import Rewriter, indices, loads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.kernel.compute import Buffer, Expr, Stage


def offset_of(load: Load, buffers: Mapping[str, Buffer]) -> Affine:
    """Return the affine part of where a load reads, in elements."""
    buffer = buffers[load.buffer]
    flat = Affine()
    for i, s in zip(load.index, buffer.strides, strict=True):
        if isinstance(i, Affine):
            flat = flat + i * s
    return flat


def offsets(stages: Sequence[Stage], buffers: Mapping[str, Buffer]) -> list[Affine]:
    """Return where the stages read and write: stores first, then loads."""
    stores = [buffers[s.buffer].offset(s.index) for s in stages if isinstance(s, Store)]
    return stores + [offset_of(e, buffers) for e in loads(*(s.value for s in stages))]


def normalise(kernel: LoopKernel) -> LoopKernel:
    """Return the kernel in simple form."""
    kernel = _with_own_axes(_hoist_axes(kernel))
    buffers = {b.name: b for b in kernel.buffers}
    places = offsets(kernel.stages, buffers)
    inside = [i for e in (s.value for s in kernel.stages) for i in _beside_offsets(e)]
    domain = Domain([*places, *inside])
    outer = _simplify(domain, kernel.axes, kernel.axes, kernel.stages, buffers, keep=False)
    own = [
        _simplify(domain, s.axes, s.axes, [s], buffers, keep=_keeps_order(s)) for s in kernel.stages
    ]
    before = [list(kernel.axes), *(list(s.axes) for s in kernel.stages)]
    if not domain.bind and before == [outer, *own]:
        return kernel
    rewrite = Rewriter(ExprBuilder(), domain.bind, {})
    stages = tuple(_rewrite(s, tuple(a), rewrite) for s, a in zip(kernel.stages, own, strict=True))
    return replace(kernel, axes=tuple(outer), stages=stages)


def _beside_offsets(expr: Expr) -> list[Affine]:
    """Return the index expressions that are no part of an address: guards and index values."""
    inside = {id(i) for e in loads(expr) for i in e.index}
    return [i for i in indices(expr) if id(i) not in inside]


def _simplify(
    domain: Domain,
    axes: Sequence[Axis],
    originals: Sequence[Axis],
    stages: Sequence[Stage],
    buffers: Mapping[str, Buffer],
    keep: bool,
) -> list[Axis]:
    simple = domain.split([a for a in axes if a.extent > 1], originals)
    if not keep:
        places = [o.substitute(domain.bind) for o in offsets(stages, buffers)]
        simple = sort_axes(simple, places)
    return domain.merge(simple, originals)


def _keeps_order(stage: Stage) -> bool:
    return isinstance(stage, Reduce) and stage.combine.startswith("arg")


def _hoist_axes(kernel: LoopKernel) -> LoopKernel:
    """Make the axes of a lone store axes of the kernel: its points are independent too."""
    if len(kernel.stages) != 1:
        return kernel
    (stage,) = kernel.stages
    if not isinstance(stage, Store) or not stage.axes:
        return kernel
    return replace(kernel, axes=kernel.axes + stage.axes, stages=(replace(stage, axes=()),))


def _with_own_axes(kernel: LoopKernel) -> LoopKernel:
    """Give each stage axes of its own, so that they can be sorted, split and merged apart from those of other stages."""
    taken: set[Axis] = set()
    stages: list[Stage] = []
    for n, stage in enumerate(kernel.stages):
        shared = [a for a in stage.axes if a in taken]
        taken.update(stage.axes)
        if not shared:
            stages.append(stage)
            continue
        renamed = {a: Axis(f"{a.name}@{n}", a.extent) for a in shared}
        rewrite = Rewriter(ExprBuilder(), {a: Affine.of(b) for a, b in renamed.items()}, {})
        stages.append(_rewrite(stage, tuple(renamed.get(a, a) for a in stage.axes), rewrite))
    return replace(kernel, stages=tuple(stages))


def _rewrite(stage: Stage, axes: tuple[Axis, ...], rewrite: Rewriter) -> Stage:
    value = rewrite(stage.value)
    if isinstance(stage, Reduce):
        return replace(stage, axes=axes, value=value)
    index = tuple(i.substitute(rewrite.axes) for i in stage.index)
    return replace(stage, axes=axes, index=index, value=value)
