"""Finds sums of products along windows that slide, and cuts them into register tiles.

    acc[lane, rows] = sum over k of a[lane, rows, k] * b[lane, k]

One index of `a` is the sum of an axis of the result and of one that is summed: neighbouring sums read the same elements. A depthwise
convolution is of this form in all three passes. Forward and in the data gradient, the rows are many (pixels) and the sums short (taps of the
kernel); in the weight gradient it is the other way round. So there is a long and a short axis of each pair: a tile is a piece of the
long one times all of the short one, unrolled, and what products share is loaded once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.kernel.compute import (
    Buffer,
    ContractionKernel,
    Expr,
    ExprBuilder,
    Load,
    LoopKernel,
    Reduce,
    Store,
)
from tapeout.schedule.lower.contract.product import Product, oriented
from tapeout.schedule.lower.contract.task import may_limit
from tapeout.schedule.lower.exprs import axes_of, widened
from tapeout.schedule.lower.partials import parts_of
from tapeout.schedule.lower.windows.tiles import Tiles, choose_tiles

if TYPE_CHECKING:
    from tapeout.kernel.target import Target

MOST_TAPS = 32
"""Points of the short axis of the pair, which are always unrolled."""
MOST_SUMS = 1024
"""Sums per lane that stay in memory while the long axes run."""
MOST_PARTS = 16
PART = 128 * 1024
"""Products that make a partial sum worth its place."""
PACKED, SUMS = "taps", "sums"


@dataclass(frozen=True)
class Windows:
    """How a contraction along windows runs.

    Attributes:
        product: Ready for the tiles: both operands load plainly; where a limit does not hold there is no element of `a`.
        lane: The axis that runs across lanes.
        tile: The long axis of the pair.
        taps: The short axis of the pair.
        long: The other long axes, outermost first.
        short: The other short axes, outermost first.
        summed: Whether the long axes are the summed ones: then sums lie in memory.
        tiles: Register tiles.
        before: Kernels that make `b` ready.
        after: Kernels that add up partial sums and run the epilogue.
        scratch: What lies between the launches.
        part: Steps of the first long axis that one partial sum takes, if summed.
        parts: Number of partial sums.
    """

    product: Product
    lane: Axis
    tile: Axis
    taps: Axis
    long: tuple[Axis, ...]
    short: tuple[Axis, ...]
    summed: bool
    tiles: Tiles
    before: tuple[LoopKernel, ...] = ()
    after: tuple[LoopKernel, ...] = ()
    scratch: tuple[Buffer, ...] = ()
    part: int = 1
    parts: int = 1

    @property
    def batch(self) -> tuple[Axis, ...]:
        """The axes of both operands that no lane runs along."""
        return tuple(a for a in self.product.batch if a != self.lane)


def plan_windows(kernel: ContractionKernel, target: Target) -> Windows | None:
    """Return how a contraction without columns runs as windows, None if it is none.

    Args:
        kernel: One of its sides has no axes, none of its axes is empty.
        target: The class of machines.
    """
    product = _plain(kernel)
    if product is None:
        return None
    for lane in _lanes(product, target):
        found = _paired(product, lane, target)
        if found is not None:
            return _with_parts(found) if found.summed else _with_taps(found)
    return None


def _plain(kernel: ContractionKernel) -> Product | None:
    """Return the contraction with plain loads, the border of `a` as limits; None if it cannot be."""
    if prod(a.extent for a in kernel.m) == prod(a.extent for a in kernel.n):
        return None
    p = oriented(kernel, prod(a.extent for a in kernel.m) == 1)
    # Loads of a narrower float are widened where they stand.
    p = replace(p, a=widened(p.a), b=widened(p.b))
    if not isinstance(p.a, Load) or not isinstance(p.b, Load) or p.b.where:
        return None
    if p.a.where and p.a.other != 0:
        return None
    if not all(isinstance(i, Affine) for e in (p.a, p.b) for i in e.index):
        return None
    if not p.place(p.a).is_linear or not p.place(p.b).is_linear:
        return None
    if not all(g.index.is_linear for g in p.a.where):
        return None
    return replace(p, a=replace(p.a, where=()), limits=p.a.where, exact=True)


def _lanes(p: Product, target: Target) -> list[Axis]:
    """Return the axes along which lanes may run, the longest first: `a` lies along them, and no limit speaks of them."""
    bound = {a for g in p.limits for a in g.index.axes}
    at = _place(p, p.a)
    least = max(2, target.lanes(p.accumulate.bytes) // 2)
    found = [
        x
        for x in (*p.batch, *p.rows)
        if at.coefficient(x) == 1 and x not in bound and x.extent >= least
    ]
    return sorted(found, key=lambda x: -x.extent)


def _place(p: Product, e: Expr) -> Affine:
    assert isinstance(e, Load)
    return p.place(e)


def _paired(p: Product, lane: Axis, target: Target) -> Windows | None:
    """Return the windows with a lane axis, before its operands are ready."""
    rows = tuple(a for a in p.rows if a != lane)
    summed = p.steps > prod(a.extent for a in rows)
    if summed and (lane in p.rows or _place(p, p.b).coefficient(lane) != 1):
        return None
    if not summed and p.store_place().coefficient(lane) != 1:
        return None
    pair = _pair(p, rows) or _alone(p, p.k if summed else rows)
    if pair is None:
        return None
    tile, taps = pair if pair[0] in (p.k if summed else rows) else pair[::-1]
    long, short = (p.k, rows) if summed else (rows, p.k)
    long, short = (tuple(a for a in x if a not in pair) for x in (long, short))
    few = prod(a.extent for a in (*short, taps)) <= MOST_SUMS or not summed
    if taps.extent > MOST_TAPS or not few or not _bounded(p.limits, long, short, pair):
        return None
    at = _place(p, p.a)
    steps = at.coefficient(tile), at.coefficient(taps)
    inside = tuple(g for g in p.limits if set(g.index.axes) <= set(pair))
    tiles = choose_tiles(
        (tile, taps), steps, inside, target, p.accumulate.bytes, lane.extent,
        prod(a.extent for a in short), summed,
    )  # fmt: skip
    return None if tiles is None else Windows(p, lane, tile, taps, long, short, summed, tiles)


def _pair(p: Product, rows: tuple[Axis, ...]) -> tuple[Axis, Axis] | None:
    """Return an axis of the rows and a summed one along which `a` slides, the closest in memory."""
    assert isinstance(p.a, Load)
    at = p.place(p.a)
    found: list[tuple[int, tuple[Axis, Axis]]] = []
    for entry in p.a.index:
        assert isinstance(entry, Affine)
        for r in (a for a in rows if entry.coefficient(a)):
            for q in (a for a in p.k if entry.coefficient(a)):
                step = min(abs(at.coefficient(r)), abs(at.coefficient(q)))
                found.append((step, (r, q)))
    return min(found, key=lambda f: f[0])[1] if found else None


def _alone(p: Product, long: tuple[Axis, ...]) -> tuple[Axis, Axis] | None:
    """Return the long axis that is the closest in memory, beside an axis of one tap: where no element is shared."""
    at = _place(p, p.a)
    moving = [a for a in long if at.coefficient(a)]
    if not moving:
        return None
    return min(moving, key=lambda a: abs(at.coefficient(a))), Axis("tap", 1)


def _bounded(
    limits: tuple[Guard, ...],
    long: tuple[Axis, ...],
    short: tuple[Axis, ...],
    pair: tuple[Axis, Axis],
) -> bool:
    """Whether the bounds of loops over short axes keep every limit that the pair does not keep alone."""
    for g in limits:
        axes = g.index.axes
        if set(axes) <= set(pair):
            continue
        inner = [a for a in axes if a in short]
        if len(inner) != 1 or not may_limit(g, inner[0]):
            return False
        if any(a not in long and a != inner[0] for a in axes):
            return False
    return True


# -- operands and results ---------------------------------------------------------------------------


def _with_taps(w: Windows) -> Windows:
    """Return windows whose `b` lies along the lanes: a copy of it, if it does not."""
    p = w.product
    at = _place(p, p.b)
    if w.lane not in axes_of([p.b]) or at.coefficient(w.lane) == 1:
        return w
    axes = (*w.batch, *p.k, w.lane)
    used = tuple(a for a in axes if a in axes_of([p.b]))
    buffer = _dense(PACKED, p, [a.extent for a in used])
    index = tuple(Affine.of(a) for a in used)
    store = Store(buffer.name, (), index, ExprBuilder().cast(p.b, p.accumulate))
    pack = LoopKernel(buffer.name, (*p.buffers, buffer), used, (store,))
    read = ExprBuilder().load(buffer, index)
    ready = replace(p, buffers=(*p.buffers, replace(buffer, access="r")), b=read)
    return replace(w, product=ready, before=(pack,), scratch=(buffer,))


def _with_parts(w: Windows) -> Windows:
    """Return windows that store partial sums, and the kernel that adds those up and runs the epilogue."""
    p = w.product
    total = p.steps * prod(a.extent for a in (*p.batch, *p.rows))
    wanted = max(1, min(MOST_PARTS, total // PART) // w.tiles.chunks)
    size, whole, rest = parts_of(w.long[0].extent, wanted) if w.long else (1, 1, 0)
    parts = whole + (rest > 0)
    free = (*w.batch, *w.short, w.taps, w.lane)
    sums = _dense(SUMS, p, [parts, *(a.extent for a in free)])
    s = ExprBuilder()
    part = Axis("part", parts)
    at = tuple(Affine.of(a) for a in free)
    read = s.load(sums, (Affine.of(part), *at))
    buffers = (*p.buffers, sums)
    add = Reduce("acc", "sum", (part,) if parts > 1 else (), read, p.accumulate)
    after = LoopKernel(p.name, buffers, free, (add, *p.stages))
    store = Store(sums.name, (), (Affine(), *at), s.temp("acc", p.accumulate))
    ready = replace(p, buffers=buffers, stages=(store,))
    return replace(w, product=ready, after=(after,), scratch=(sums,), part=size, parts=parts)


def _dense(name: str, p: Product, extents: list[int]) -> Buffer:
    strides = tuple(prod(extents[n + 1 :]) for n in range(len(extents)))
    return Buffer(name, p.accumulate, tuple(extents), strides, "rw")
