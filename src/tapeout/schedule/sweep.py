"""Merges maps of equal form over neighbouring variables into one map over all of them: the optimiser as one sweep.

Nothing here knows of optimisers. Maps are merged when their expressions are equal, when what they read per point and what they
read once correspond, and when their operands lie at the same distances from each other in memory. Operands whose place is
still open (gradients, that is) are put into a region of their own so that they do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, linearize
from tapeout.ir.type import TensorType
from tapeout.kernel.compute import (
    Buffer,
    Expr,
    ExprBuilder,
    Index,
    Load,
    LoopKernel,
    Store,
)
from tapeout.schedule.form import form
from tapeout.schedule.layout import align
from tapeout.schedule.lower.exprs import Rewriter, postorder, shared_load
from tapeout.schedule.model import Home, Region, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.kernel.program import Layout
    from tapeout.schedule.nest import AnyWork


@dataclass(frozen=True, eq=False)
class Flat:
    """A map that reads and writes each operand from first to last, or one element of it.

    Attributes:
        work: The map.
        axes: Its axes; the row-major number of their point is the place in every whole operand.
        size: Number of points.
        whole: Numbers of the buffers with one element per point.
    """

    work: Work
    axes: tuple[Axis, ...]
    size: int
    whole: tuple[int, ...]

    def home(self, n: int) -> Home:
        """Return what a buffer stands for."""
        return self.work.homes[n]

    def stages(self, size: int) -> tuple[Store, ...]:
        """Return the stages over one axis of a size."""
        kernel = self.work.kernel
        assert isinstance(kernel, LoopKernel)
        whole = {kernel.buffers[n].name for n in self.whole}
        s, at = ExprBuilder(), (Affine.of(Axis("a0", size)),)

        def load(e: Load) -> Expr:
            return shared_load(s, replace(e, index=at)) if e.buffer in whole else shared_load(s, e)

        rewrite = Rewriter(s, {}, {}, load)
        return tuple(
            Store(t.buffer, (), at, rewrite(t.value)) for t in kernel.stages if isinstance(t, Store)
        )

    @property
    def key(self) -> tuple[object, ...]:
        """What must be equal for two maps to become one: form, types, and the homes of single elements."""
        operands = tuple(
            (b.dtype.name, b.access, "" if n in self.whole else self.home(n).name)
            for n, b in enumerate(self.work.kernel.buffers)
        )
        # The size takes no part in the form: every map is written over an axis of two points.
        return tuple((t.buffer, form(t.value)) for t in self.stages(2)), operands


def merge_sweeps(
    works: Sequence[AnyWork], layout: Layout, kept: Mapping[str, None]
) -> tuple[tuple[AnyWork, ...], tuple[Region, ...]]:
    """Return the kernels with maps over neighbouring variables merged, and the regions that this asks for.

    Args:
        works: In order.
        layout: Where variables live.
        kept: Homes that must not move into a region: checks.
    """
    last_use = {name: i for i, work in enumerate(works) for name in work.args}
    alike: dict[tuple[object, ...], list[Flat]] = {}
    for number, work in enumerate(works):
        flat = flatten(work) if isinstance(work, Work) and work.late else None
        if flat is not None and _is_movable(flat, number, last_use, kept):
            alike.setdefault(flat.key, []).append(flat)
    instead: dict[AnyWork, Work | None] = {}
    regions: list[Region] = []
    for found in alike.values():
        for run in _runs(found, layout):
            sweep, parts = _merge(run, layout, f"%sweep{len(regions)}")
            regions += parts
            numbers = {f.work: works.index(f.work) for f in run}
            instead.update(dict.fromkeys(numbers))
            instead[max(numbers, key=lambda w: numbers[w])] = sweep
    merged = (instead.get(w, w) for w in works)
    return tuple(w for w in merged if w is not None), tuple(regions)


def flatten(work: Work) -> Flat | None:
    """Return a map as flat, None if it is no map or touches an operand in another way."""
    kernel = work.kernel
    if not isinstance(kernel, LoopKernel):
        return None
    stages = [s for s in kernel.stages if isinstance(s, Store) and not s.axes]
    size = prod(a.extent for a in kernel.axes)
    inside = postorder(*(s.value for s in stages))
    if len(stages) < len(kernel.stages) or size < 2 or any(isinstance(e, Index) for e in inside):
        return None
    places = [(s.buffer, s.index) for s in stages]
    for e in inside:
        if isinstance(e, Load):
            affine = tuple(i for i in e.index if isinstance(i, Affine))
            if e.where or len(affine) < len(e.index):
                return None
            places.append((e.buffer, affine))
    whole = _whole(kernel, places, size)
    if whole is None or any(
        kernel.buffers[n].access != "r" and n not in whole for n in range(len(kernel.buffers))
    ):
        return None
    return Flat(work, kernel.axes, size, whole)


def _whole(
    kernel: LoopKernel, places: Sequence[tuple[str, tuple[Affine, ...]]], size: int
) -> tuple[int, ...] | None:
    """Return which buffers have one element per point; None if one has neither that nor a single element."""
    flat = linearize([Affine.of(a) for a in kernel.axes], [a.extent for a in kernel.axes])
    offsets = {
        b.name: [b.offset(i) for name, i in places if name == b.name] for b in kernel.buffers
    }
    whole: list[int] = []
    for n, b in enumerate(kernel.buffers):
        if prod(b.shape) == size and all(o == flat for o in offsets[b.name]):
            whole.append(n)
        elif any(o != Affine() for o in offsets[b.name]):
            return None
    return tuple(whole)


def _is_movable(
    f: Flat, number: int, last_use: Mapping[str, int], kept: Mapping[str, None]
) -> bool:
    """Whether a map writes variables only, nothing after it touches what it does, and its other operands may be placed at will."""
    homes = [f.home(n) for n in f.whole]
    written = f.work.writes
    if any(h.space not in ("variable", "activation") for h in homes):
        return False
    if any(h.space != "variable" for h in f.work.homes if h.name in written) or not written:
        return False
    free = [h.name for h in homes if h.space == "activation"]
    if any(name in kept for name in free):
        return False
    return all(last_use[name] == number for name in (*written, *free))


def _runs(found: Sequence[Flat], layout: Layout) -> list[list[Flat]]:
    """Return the longest sequences of two or more maps whose operands follow each other in memory."""
    slots = layout.slot

    def start(f: Flat) -> int:
        return slots[f.home(_anchor(f)).name].offset

    runs: list[list[Flat]] = []
    for f in sorted(found, key=start):
        if runs and _follows(runs[-1][-1], f, layout):
            runs[-1].append(f)
        else:
            runs.append([f])
    return [r for r in runs if len(r) > 1]


def _anchor(f: Flat) -> int:
    """Return the number of the first operand whose place is given."""
    return next(n for n in f.whole if f.home(n).space == "variable")


def _follows(a: Flat, b: Flat, layout: Layout) -> bool:
    """Whether each operand of `b` is the next variable behind that of `a`, all at the same distance."""
    slots = layout.slot
    gaps: dict[int, None] = {}
    for n in a.whole:
        x, y = a.home(n), b.home(n)
        if x.space != y.space:
            return False
        if x.space == "variable":
            start, end = slots[x.name].offset, slots[y.name].offset
            if align(start + x.type.bytes) != end or (end - start) % x.type.dtype.bytes:
                return False
            gaps[(end - start) // x.type.dtype.bytes] = None
    return len(gaps) == 1


def _merge(run: Sequence[Flat], layout: Layout, name: str) -> tuple[Work, list[Region]]:
    """Return one map in place of several, and where each of its whole operands lies."""
    slots, first = layout.slot, run[0]
    anchor = first.home(_anchor(first))
    starts = [slots[f.home(_anchor(f)).name].offset for f in run]
    distance = [(at - starts[0]) // anchor.type.dtype.bytes for at in starts]
    size = distance[-1] + run[-1].size
    homes = list(first.work.homes)
    regions: list[Region] = []
    for n in first.whole:
        home = homes[n]
        view = replace(
            home, name=f"{name}.{n}", type=TensorType(home.type.dtype, (size,)), order=(0,)
        )
        if home.space == "activation":
            view = replace(view, space="gradient")
        step = home.type.dtype.bytes
        parts = tuple((f.home(n).name, d * step) for f, d in zip(run, distance, strict=True))
        regions.append(Region(view, parts))
        homes[n] = view
    return _sweep(run, homes, regions, size), regions


def _sweep(
    run: Sequence[Flat], homes: Sequence[Home], regions: Sequence[Region], size: int
) -> Work:
    work, whole = run[0].work, run[0].whole
    buffers = tuple(
        Buffer(b.name, b.dtype, (size,), (1,), b.access) if n in whole else b
        for n, b in enumerate(work.kernel.buffers)
    )
    axes = (Axis("a0", size),)
    kernel = LoopKernel("", buffers, axes, run[0].stages(size), work.loc)
    parts = {r.home.name: tuple(name for name, _ in r.parts) for r in regions}
    label = f"{work.label.split(' ')[0]} of {len(run)} (update)"
    sources = tuple(dict.fromkeys(loc for f in run for loc in f.work.sources))
    return Work(kernel, tuple(homes), work.loc, label, late=True, parts=parts, sources=sources)
