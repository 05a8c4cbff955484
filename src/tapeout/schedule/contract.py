"""Contractions brought to plain loads: strided gradients split by parity, and read forward.

All on index maps. A read that exists only where `e mod s == 0` (the data gradient of a convolution of stride s) becomes s kernels
per such dimension, each with the steps of the kernel that hit. A read that is guarded by its own index (padding) stays one: lowering
copies it with a border into scratch, which lives for one kernel, or leaves the border out by the bounds of loops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import gcd
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard, Mod
from tapeout.kernel.compute import (
    ContractionKernel,
    ExprBuilder,
    Load,
    LoopKernel,
)
from tapeout.schedule.lower.exprs import Rewriter, widened
from tapeout.schedule.model import Work
from tapeout.schedule.rehome import rehomed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Bind = dict[Axis, Affine]


# -- parity -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hole:
    """A read that exists only where `a*x + b*y + const` is a multiple of `by`, x of the result and y (if any) summed."""

    result: Axis
    summed: Axis | None
    a: int
    b: int
    const: int
    by: int


def by_parity(kernel: ContractionKernel) -> list[ContractionKernel | LoopKernel]:
    """Return kernels without holes that together do the work of one."""
    holes = _holes(kernel)
    if not holes:
        return [kernel]
    choices = [range(h.by // gcd(h.a, h.by)) for h in holes]
    return [_part(kernel, holes, rests) for rests in product(*choices)]


def _holes(kernel: ContractionKernel) -> list[Hole]:
    """Return the holes of both factors; empty if one is of another form, which the kernel then keeps."""
    results = (*kernel.batch, *kernel.m, *kernel.n)
    found: dict[Axis, Hole] = {}
    for e in (kernel.a, kernel.b):
        read = widened(e)
        for guard in read.where if isinstance(read, Load) else ():
            hole = _hole(guard, results, kernel.k)
            if hole is None:
                continue
            if found.setdefault(hole.result, hole) != hole:
                return []
    summed = [h.summed for h in found.values() if h.summed is not None]
    return list(found.values()) if len(set(summed)) == len(summed) else []


def _hole(guard: Guard, results: Sequence[Axis], summed: Sequence[Axis]) -> Hole | None:
    terms = guard.index.terms
    if len(terms) != 1 or guard.index.const or (guard.lo, guard.hi) != (0, 1):
        return None
    atom, factor = terms[0]
    if not isinstance(atom, Mod) or factor != 1 or not atom.of.is_linear:
        return None
    x = [a for a in atom.of.axes if a in results]
    y = [a for a in atom.of.axes if a in summed]
    if len(x) != 1 or len(y) > 1 or len(atom.of.axes) != len(x) + len(y):
        return None
    a, b = atom.of.coefficient(x[0]), atom.of.coefficient(y[0]) if y else 0
    return Hole(x[0], y[0] if y else None, a, b, atom.of.const, atom.by)


def _part(
    kernel: ContractionKernel, holes: Sequence[Hole], rests: Sequence[int]
) -> ContractionKernel | LoopKernel:
    """Return the kernel of the points of the result whose axes leave the given rests."""
    bind: Bind = {}
    extents: dict[Axis, Axis] = {}
    empty = False
    for hole, rest in zip(holes, rests, strict=True):
        step = hole.by // gcd(hole.a, hole.by)
        count = -(-(hole.result.extent - rest) // step)
        _renamed(hole.result, max(count, 0), step, rest, bind, extents)
        steps = _hits(hole, rest)
        empty = empty or not steps
        stride = steps[1] - steps[0] if len(steps) > 1 else 1
        if hole.summed is not None:
            _renamed(hole.summed, len(steps), stride, steps[0] if steps else 0, bind, extents)
    return _zero(kernel, bind, extents) if empty else _rebound(kernel, bind, extents)


def _hits(hole: Hole, rest: int) -> list[int]:
    """Return the steps of the summed axis that hit elements, an arithmetic progression."""
    start = hole.a * rest + hole.const
    extent = 1 if hole.summed is None else hole.summed.extent
    return [y for y in range(extent) if (start + hole.b * y) % hole.by == 0]


def _renamed(
    axis: Axis, count: int, step: int, start: int, bind: Bind, extents: dict[Axis, Axis]
) -> None:
    new = Axis(f"{axis.name}p", count)
    extents[axis] = new
    bind[axis] = Affine.of(new) * step + start


def _rebound(
    kernel: ContractionKernel, bind: Bind, extents: Mapping[Axis, Axis]
) -> ContractionKernel:
    rewrite = Rewriter(ExprBuilder(), bind, {})

    def axes(old: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(new for a in old if (new := extents.get(a, a)).extent != 1)

    stages = tuple(
        replace(s, index=tuple(i.substitute(bind) for i in s.index), value=rewrite(s.value))
        for s in kernel.stages
    )
    return replace(
        kernel,
        batch=axes(kernel.batch),
        m=axes(kernel.m),
        n=axes(kernel.n),
        k=axes(kernel.k),
        a=rewrite(kernel.a),
        b=rewrite(kernel.b),
        stages=stages,
    )


def _zero(kernel: ContractionKernel, bind: Bind, extents: Mapping[Axis, Axis]) -> LoopKernel:
    """Return the epilogue on sums of nothing: where the kernel is smaller than the stride."""
    s = ExprBuilder()
    rewrite = Rewriter(s, bind, {"acc": s.const(0, kernel.accumulate)})
    stages = tuple(
        replace(t, index=tuple(i.substitute(bind) for i in t.index), value=rewrite(t.value))
        for t in kernel.stages
    )
    axes = tuple(extents.get(a, a) for a in (*kernel.batch, *kernel.m, *kernel.n))
    return LoopKernel(kernel.name, kernel.buffers, axes, stages, kernel.loc)


def _forward(kernel: ContractionKernel) -> ContractionKernel:
    """Return a contraction whose first factor moves forward in memory with every step of the sum.

    The data gradient reads the cotangent backwards; turned round, it is a convolution with the kernel reversed.
    """
    read = widened(kernel.a)
    if not isinstance(read, Load):
        return kernel
    entries = _affine(read)
    bind = {
        k: Affine.of(k) * -1 + (k.extent - 1)
        for k in kernel.k
        if any(i.coefficient(k) < 0 for i in entries)
        and all(i.coefficient(k) <= 0 for i in entries)
    }
    if not bind:
        return kernel
    rewrite = Rewriter(ExprBuilder(), bind, {})
    return replace(kernel, a=rewrite(kernel.a), b=rewrite(kernel.b))


def works_of(work: Work) -> list[Work]:
    """Return the works of a contraction, one kernel per parity; padding stays a guard, which lowering deals with."""
    assert isinstance(work.kernel, ContractionKernel)
    parts = by_parity(work.kernel)
    homes = dict(zip((b.name for b in work.kernel.buffers), work.homes, strict=True))
    turned = [_forward(p) if isinstance(p, ContractionKernel) else p for p in parts]
    if len(turned) == 1 and turned[0] is work.kernel:
        return [work]
    return [rehomed(p, homes, work) for p in turned]


def _affine(e: Load) -> tuple[Affine, ...]:
    return tuple(i for i in e.index if isinstance(i, Affine))
