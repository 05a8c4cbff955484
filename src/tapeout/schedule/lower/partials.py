"""Kernels with few outer points and long rows, cut into several kernels that have enough tasks. Level T to level T.

A long reduction becomes a kernel that reduces parts of it, each to a place of its own in a scratch buffer, and a reduction of
those in order; a store over long rows becomes a map. The number of parts is a function of the shape, never of threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import Buffer, ExprBuilder, LoopKernel, Reduce, Store, Temp
from tapeout.schedule.lower.choose import choose, lanes_for, width
from tapeout.schedule.lower.domain import sort_axes
from tapeout.schedule.lower.exprs import Rewriter, postorder
from tapeout.schedule.lower.normal import normalise, offsets
from tapeout.schedule.lower.reduce import OPERATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.kernel.compute import Expr, Stage

FEW = 16
"""Fewer independent vectors (or rows) than this do not fill the machines that we know."""

LONG = 8 * 1024
PART = 4 * 1024
MOST_PARTS = 64


@dataclass(frozen=True)
class Parts:
    """What a kernel was cut into: kernels in order, and the scratch buffers between them."""

    kernels: tuple[LoopKernel, ...]
    scratch: tuple[Buffer, ...] = ()
    partials: int = 1


def cut(kernel: LoopKernel) -> Parts:
    """Return the kernel cut where its stages are long and its outer points few; otherwise the kernel as it is."""
    if not any(_is_long(s) for s in kernel.stages) or _independent(kernel) >= FEW:
        return Parts((kernel,))
    return _Cutter(kernel).cut()


def parts_of(extent: int, wanted: int) -> tuple[int, int, int]:
    """Return (steps of a part, whole parts, steps left over): parts of one size if a suitable one divides the extent."""
    wanted = max(1, min(wanted, extent))
    for count in range(wanted, max(wanted // 2, 1), -1):
        if extent % count == 0:
            return extent // count, count, 0
    steps = -(-extent // wanted)
    # Whole vectors on four accumulators, if the parts are long enough for that to matter.
    steps = -(-steps // 256) * 256 if steps >= 1024 else steps
    return steps, extent // steps, extent % steps


def _is_long(stage: Stage) -> bool:
    points = prod(a.extent for a in stage.axes)
    return points >= LONG and not (isinstance(stage, Reduce) and stage.combine.startswith("arg"))


def _independent(kernel: LoopKernel) -> int:
    """Return how many independent vectors or rows the outer points are."""
    normal = normalise(kernel)
    across = choose(normal).outer
    points = prod(a.extent for a in normal.axes)
    if across is None:
        return points
    lanes = lanes_for(across.extent, width(normal))
    return points // across.extent * -(-across.extent // lanes)


@dataclass
class _Cutter:
    """Cuts one kernel."""

    kernel: LoopKernel
    done: list[LoopKernel] = field(default_factory=list)
    scratch: list[Buffer] = field(default_factory=list)
    pending: list[Stage] = field(default_factory=list)
    known: dict[str, Expr] = field(default_factory=dict)
    partials: int = 1

    def __post_init__(self) -> None:
        self.s = ExprBuilder()
        buffers = {b.name: b for b in self.kernel.buffers}
        order = sort_axes(self.kernel.axes, list(reversed(offsets(self.kernel.stages, buffers))))
        self.outer = tuple(order)
        self.at = tuple(Affine.of(a) for a in order)

    def cut(self) -> Parts:
        """Return the parts."""
        stages = list(self.kernel.stages)
        while stages:
            group = [stages.pop(0)]
            if not _is_long(group[0]):
                self.pending += self._settled(group)
                continue
            while stages and self._beside(group, stages[0]):
                group.append(stages.pop(0))
            self._flush([*group, *stages])
            if isinstance(group[0], Store):
                self._map(self._settled(group))
            else:
                self._reduce([r for r in self._settled(group) if isinstance(r, Reduce)])
        self._flush([])
        return Parts(tuple(self.done), tuple(self.scratch), self.partials)

    def _beside(self, group: Sequence[Stage], stage: Stage) -> bool:
        """Return whether a stage can share the loops of a group."""
        same = stage.axes == group[0].axes and type(stage) is type(group[0]) and _is_long(stage)
        made = {g.name for g in group if isinstance(g, Reduce)}
        return same and not any(t in made for t in _temps([stage]))

    def _settled(self, stages: Sequence[Stage]) -> list[Stage]:
        """Return stages with the temporaries of earlier kernels replaced by loads."""
        rewrite = Rewriter(self.s, {}, self.known)
        return [replace(s, value=rewrite(s.value)) for s in stages]

    def _buffer(self, like: Reduce, extents: Sequence[int]) -> Buffer:
        strides = tuple(prod(extents[n + 1 :]) for n in range(len(extents)))
        name = f"part{len(self.scratch)}"
        buffer = Buffer(name, like.dtype, tuple(extents), strides, "rw")
        self.scratch.append(buffer)
        return buffer

    def _emit(self, axes: Sequence[Axis], stages: Sequence[Stage]) -> None:
        buffers = (*self.kernel.buffers, *self.scratch)
        kernel = LoopKernel(self.kernel.name, buffers, tuple(axes), tuple(stages), self.kernel.loc)
        self.done.append(kernel)

    def _flush(self, later: Sequence[Stage]) -> None:
        """Make a kernel of the pending stages; it stores the temporaries that later ones read."""
        if not self.pending:
            return
        needed = _temps(later)
        made = [s for s in self.pending if isinstance(s, Reduce) and s.name in needed]
        stages = list(self.pending)
        for r in made:
            buffer = self._buffer(r, [a.extent for a in self.outer])
            stages.append(Store(buffer.name, (), self.at, self.s.temp(r.name, r.dtype)))
            self.known[r.name] = self.s.load(buffer, self.at)
        self._emit(self.outer, stages)
        self.pending = []

    def _map(self, stages: Sequence[Stage]) -> None:
        axes = stages[0].axes
        self._emit((*self.outer, *axes), [replace(s, axes=()) for s in stages])

    def _reduce(self, group: list[Reduce]) -> None:
        """Reduce parts in a kernel of their own; what remains to be combined is pending."""
        first = group[0]
        buffers = {b.name: b for b in (*self.kernel.buffers, *self.scratch)}
        axis = _axis_to_cut(first, sort_axes(first.axes, offsets([first], buffers)))
        points = prod(a.extent for a in first.axes)
        steps, whole, rest = parts_of(axis.extent, min(MOST_PARTS, points // PART))
        self.partials = max(self.partials, whole + (rest > 0))
        part, inner = Axis("part", whole), Axis(f"{axis.name}.part", steps)
        moved = self._moved(group, axis, Affine.of(part) * steps + inner, inner)
        outputs = [self._buffer(r, [whole, *(a.extent for a in self.outer)]) for r in group]
        index = (Affine.of(part), *self.at)
        stores = [
            Store(b.name, (), index, self.s.temp(r.name, r.dtype))
            for b, r in zip(outputs, group, strict=True)
        ]
        self._emit((part, *self.outer), [*moved, *stores])
        self.pending += [
            Reduce(r.name, r.combine, (part,), self.s.load(b, index), r.dtype)
            for b, r in zip(outputs, group, strict=True)
        ]
        if rest:
            left = Axis(f"{axis.name}.rest", rest)
            self._add_rest(self._moved(group, axis, Affine.of(left) + whole * steps, left))

    def _moved(self, group: Sequence[Reduce], axis: Axis, at: Affine, inner: Axis) -> list[Reduce]:
        rewrite = Rewriter(self.s, {axis: at}, {})
        return [
            replace(
                r, axes=tuple(inner if a == axis else a for a in r.axes), value=rewrite(r.value)
            )
            for r in group
        ]

    def _add_rest(self, group: Sequence[Reduce]) -> None:
        """Combine the parts with the steps that are left over."""
        names = {r.name for r in group}
        self.pending = [
            replace(s, name=f"{s.name}.parts") if isinstance(s, Reduce) and s.name in names else s
            for s in self.pending
        ]
        for r in group:
            self.pending.append(replace(r, name=f"{r.name}.rest"))
            both = [self.s.temp(f"{r.name}.{x}", r.dtype) for x in ("parts", "rest")]
            total = self.s.apply(OPERATION[r.combine], *both)
            self.pending.append(Reduce(r.name, r.combine, (), total, r.dtype))


def _axis_to_cut(stage: Reduce, order: Sequence[Axis]) -> Axis:
    """Return the slowest axis that is long enough to be cut, else the longest."""
    wanted = min(MOST_PARTS, prod(a.extent for a in stage.axes) // PART)
    enough = [a for a in order if a.extent >= wanted]
    return enough[0] if enough else max(order, key=lambda a: a.extent)


def _temps(stages: Sequence[Stage]) -> set[str]:
    return {e.name for e in postorder(*(s.value for s in stages)) if isinstance(e, Temp)}
