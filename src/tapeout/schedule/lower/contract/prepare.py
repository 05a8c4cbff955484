"""Operands made ready for the tiles by launches of their own: halos, evaluated prologues, packed panels.

Each of these is a loop kernel that writes a scratch buffer; the contraction then loads plainly from that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard, guards
from tapeout.kernel.compute import Buffer, Expr, ExprBuilder, Index, Load, LoopKernel, Store
from tapeout.schedule.lower.contract.tiles import Tiling
from tapeout.schedule.lower.exprs import (
    Rewriter,
    axes_of,
    loads,
    postorder,
    shared_load,
    widened,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.dtype import DType
    from tapeout.schedule.lower.contract.product import Product


@dataclass(frozen=True)
class Step:
    """A scratch buffer, the kernels that fill it, and the expression that reads it."""

    buffer: Buffer
    kernels: tuple[LoopKernel, ...]
    read: Expr


def is_plain(e: Expr, dtype: DType) -> bool:
    """Return whether an operand is a load of the right type that always succeeds."""
    return (
        isinstance(e, Load)
        and not e.where
        and e.dtype == dtype
        and all(isinstance(i, Affine) for i in e.index)
    )


def as_load(e: Expr) -> Load:
    """Return a plain operand."""
    assert isinstance(e, Load)
    return e


# -- halos ------------------------------------------------------------------------------------------


def halo(
    product: Product,
    operand: Expr,
    name: str,
    last: Axis | None = None,
    reuse: int = 2,
    panel: int = 0,
    dtype: DType | None = None,
) -> Step | None:
    """Return an operand evaluated once per element, padding included, instead of once per product.

    This needs all its loads to read one index (of several buffers), and guards to speak of that index alone; a convolution's
    padded input is such an operand.

    Args:
        product: The contraction.
        operand: One of its operands.
        name: What to call the copy.
        last: An axis along which the copy is to be contiguous; None: in the order of the original.
        reuse: How often an element must be read at least.
        dtype: Element type of the copy; None: that of the tiles.
        panel: If given, the copy lies in panels of so many points of `last`, each panel in the order of the original.

    Returns:
        None if the operand is of another kind, or used too rarely, or does not move with `last` alone in some dimension.
    """
    found = loads(operand)
    axes = (*product.batch, *product.rows, *product.cols, *product.k)
    index = _common_index(operand, found)
    if index is None:
        return None
    used = axes_of([operand])
    products = prod(a.extent for a in axes if a in used)
    moving = [i for i in index if not i.is_constant]
    ranges = {i: _read(product, i) for i in moving}
    extents = [hi - lo + 1 for lo, hi in ranges.values()]
    if reuse * prod(extents) > products:
        return None
    order = _memory_order(product, found, moving)
    if last is not None:
        fast = [n for n, i in enumerate(moving) if i.is_linear and i.coefficient(last) == 1]
        if len(fast) != 1:
            return None
        order = [*(n for n in order if n != fast[0]), fast[0]]
    if panel:
        ordered = {moving[n]: ranges[moving[n]] for n in order}
        return _halo_in_panels(product, operand, name, ordered, panel)
    strides = [prod(extents[m] for m in order[order.index(n) + 1 :]) for n in range(len(moving))]
    buffer = Buffer(name, dtype or product.element, tuple(extents), tuple(strides), "w")
    own = [Axis(f"h{n}", e) for n, e in enumerate(extents)]
    at = {i: Affine.of(x) + lo for (i, (lo, _)), x in zip(ranges.items(), own, strict=True)}
    kernel = _halo_kernel(product, operand, buffer, own, [Affine.of(x) for x in own], at)
    read = ExprBuilder().load(buffer, [i - lo for i, (lo, _) in ranges.items()])
    return Step(buffer, (kernel,), read)


def _read(product: Product, index: Affine) -> tuple[int, int]:
    """Return the least and the greatest place that an index of an operand is read at."""
    lo, hi = index.range
    for g in product.limits if product.exact else ():
        if g.index == index:
            lo, hi = max(lo, g.lo), min(hi, g.hi - 1)
    return lo, hi


def _halo_in_panels(
    product: Product, operand: Expr, name: str, moving: dict[Affine, tuple[int, int]], size: int
) -> Step:
    """Return the copy of an operand, its last moving entry in panels of `size`; the last panel may have fewer."""
    *outer, last = moving
    extents = [hi - lo + 1 for lo, hi in moving.values()]
    whole, rest = divmod(extents[-1], size)
    shape = (whole + (rest > 0), *extents[:-1], size)
    strides = tuple(prod(shape[n + 1 :]) for n in range(len(shape)))
    buffer = Buffer(name, product.element, shape, strides, "w")
    own = [Axis(f"h{n}", e) for n, e in enumerate(extents[:-1])]
    points = [Affine.of(x) for x in own]
    at = {i: x + moving[i][0] for i, x in zip(outer, points, strict=True)}
    kernels = []
    for panel, first, lanes in ((Axis("panel", whole), 0, size), (Axis("panel", 1), whole, rest)):
        if not panel.extent or not lanes:
            continue
        lane, number = Axis("lane", lanes), Affine.of(panel) + first
        here = {**at, last: number * size + lane + moving[last][0]}
        index = [number, *points, Affine.of(lane)]
        # Whole lines are read, and a few of their elements go to each panel.
        axes = [*own, panel, lane]
        kernels.append(_halo_kernel(product, operand, buffer, axes, index, here))
    column = last - moving[last][0]
    index = [column // size, *(i - moving[i][0] for i in outer), column % size]
    return Step(buffer, tuple(kernels), ExprBuilder().load(buffer, index))


def _halo_kernel(
    product: Product,
    operand: Expr,
    buffer: Buffer,
    axes: Sequence[Axis],
    index: Sequence[Affine],
    at: dict[Affine, Affine],
) -> LoopKernel:
    """Return the kernel that stores an operand at `index` of a buffer, its moving entries replaced by `at`."""
    s = ExprBuilder()
    value = s.cast(Rewriter(s, {}, {}, lambda e: _moved(s, e, at))(operand), buffer.dtype)
    store = Store(buffer.name, (), tuple(index), value)
    return LoopKernel(buffer.name, (*product.buffers, buffer), tuple(axes), (store,))


def _common_index(operand: Expr, found: Sequence[Load]) -> tuple[Affine, ...] | None:
    """Return the index entries by which all loads move and all guards speak, None if there are no such."""
    if not found or any(isinstance(e, Index) for e in postorder(operand)):
        return None
    entries: dict[Affine, None] = {}
    for e in found:
        for i in e.index:
            if not isinstance(i, Affine):
                return None
            if not i.is_constant:
                entries[i] = None
    if any(g.index not in entries for e in found for g in e.where):
        return None
    # Entries that share an axis would make one point of the halo stand for several elements.
    axes = [a for i in entries for a in i.axes]
    return tuple(entries) if len(axes) == len(set(axes)) else None


def _memory_order(product: Product, found: Sequence[Load], moving: Sequence[Affine]) -> list[int]:
    """Return the numbers of the moving entries from the slowest to the fastest in memory."""
    widest = max(found, key=lambda e: len(e.index))
    strides = dict(zip(widest.index, product.by_name[widest.buffer].strides, strict=True))
    return sorted(range(len(moving)), key=lambda n: -strides.get(moving[n], 0))


def _moved(s: ExprBuilder, e: Load, at: dict[Affine, Affine]) -> Expr:
    index = tuple(at.get(i, i) if isinstance(i, Affine) else i for i in e.index)
    where = guards(*(Guard(at[g.index], g.lo, g.hi) for g in e.where))
    return shared_load(s, replace(e, index=index, where=where))


# -- panels -----------------------------------------------------------------------------------------


def pack_columns(product: Product, tiling: Tiling, name: str) -> Step:
    """Return the column operand in panels: for each panel, step of k by step of k, its columns side by side.

    The last panel is filled up with zeros to whole vectors.
    """
    rest = tiling.width(tiling.rest) if tiling.rest else 0
    return _pack(product, product.b, product.cols, tiling.panel, rest, name)


def pack_rows(product: Product, size: int, name: str) -> Step:
    """Return the row operand in panels of `size` rows; the last one may have fewer."""
    return _pack(product, product.a, product.rows, size, product.rows[-1].extent % size, name)


def evaluate_rows(product: Product, name: str) -> Step:
    """Return the row operand evaluated once per element, a row after the other along k.

    Rows get a line more than they need where they would otherwise all fall into the same set of a cache.
    """
    outer = [*product.batch, *product.rows]
    extents = [*(a.extent for a in outer), product.steps]
    row = product.steps
    if row * product.element.bytes % 2048 == 0:
        row += 64 // product.element.bytes
    strides = [row * prod(extents[n + 1 : -1]) for n in range(len(outer))] + [1]
    buffer = Buffer(name, product.element, tuple(extents), tuple(strides), "w")
    index = (*(Affine.of(a) for a in outer), flat(product.k))
    value = ExprBuilder().cast(product.a, product.element)
    axes = (*outer, *product.k)
    kernel = LoopKernel(name, (*product.buffers, buffer), axes, (Store(name, (), index, value),))
    return Step(buffer, (kernel,), ExprBuilder().load(buffer, index))


def _pack(
    product: Product, operand: Expr, free: Sequence[Axis], size: int, rest: int, name: str
) -> Step:
    *outer, last = [*product.batch, *free]
    whole = last.extent // size
    panels = whole + (rest > 0)
    extents = [*(a.extent for a in outer), panels, product.steps, size]
    strides = [prod(extents[n + 1 :]) for n in range(len(extents))]
    buffer = Buffer(name, product.element, tuple(extents), tuple(strides), "w")
    step = flat(product.k)
    operand = _within_limits(product, operand, (*outer, last, *product.k))
    kernels = []
    for panel, first, lanes in ((Axis("panel", whole), 0, size), (Axis("panel", 1), whole, rest)):
        if not panel.extent or not lanes:
            continue
        lane = Axis("lane", lanes)
        at = (Affine.of(panel) + first) * size + lane
        value = _bounded(product, operand, last, at)
        place = [*(Affine.of(a) for a in outer), Affine.of(panel) + first, step, Affine.of(lane)]
        axes = (*outer, panel, *product.k, lane)
        store = Store(name, (), tuple(place), value)
        kernels.append(LoopKernel(name, (*product.buffers, buffer), axes, (store,)))
    column = Affine.of(last)
    index = [*(Affine.of(a) for a in outer), column // size, step, column % size]
    return Step(buffer, tuple(kernels), ExprBuilder().load(buffer, index))


def _within_limits(product: Product, operand: Expr, axes: Sequence[Axis]) -> Expr:
    """Return an operand that is 0 where loops leave its products out: without its border, such elements lie outside of it."""
    limits = [g for g in product.limits if set(g.index.axes) <= set(axes)] if product.exact else []
    if not limits:
        return operand
    s = ExprBuilder()

    def guarded(e: Load) -> Expr:
        return shared_load(s, replace(e, where=guards(*e.where, *limits)))

    return Rewriter(s, {}, {}, guarded)(operand)


def _bounded(product: Product, operand: Expr, axis: Axis, at: Affine) -> Expr:
    """Return the operand where an axis stands at `at`, 0 beyond its extent."""
    s = ExprBuilder()
    inside = Guard(at, 0, axis.extent)
    if inside.always:
        return s.cast(Rewriter(s, {axis: at}, {})(operand), product.element)

    def guarded(e: Load) -> Expr:
        return shared_load(s, replace(e, where=(*e.where, inside)))

    value = Rewriter(s, {axis: at}, {}, guarded)(operand)
    read = widened(value)
    if isinstance(read, Load) and read.other == 0:
        return s.cast(value, product.element)
    holds = s.compare("lt", s.index(at), s.const(axis.extent, s.index(at).dtype))
    value = s.cast(value, product.element)
    return s.select(holds, value, s.const(0, product.element))


def flat(axes: Sequence[Axis]) -> Affine:
    """Return the number of a point among those of axes, the last one fastest."""
    total = Affine()
    for a in axes:
        total = total * a.extent + a
    return total
