"""Contractions with few tiles and long sums, cut along k: partial sums into scratch, then their sum in order with the epilogue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import Buffer, ContractionKernel, ExprBuilder, LoopKernel, Reduce, Store
from tapeout.schedule.lower.domain import sort_axes
from tapeout.schedule.lower.exprs import Rewriter, loads
from tapeout.schedule.lower.normal import offset_of
from tapeout.schedule.lower.partials import FEW, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

LONG = 4 * 1024
PART = 1024
MOST_PARTS = 32
_ROWS, _COLUMNS = 8, 16
"""About a register tile of any machine: what rounding depends on must not differ between them."""


@dataclass(frozen=True)
class Split:
    """A contraction cut along k.

    Attributes:
        parts: Contractions that each store partial sums.
        total: Adds the partial sums in order and runs the epilogue.
        sums: The scratch buffer of partial sums.
        count: Number of partial sums per element.
    """

    parts: tuple[ContractionKernel, ...]
    total: LoopKernel
    sums: Buffer
    count: int


def split_k(kernel: ContractionKernel) -> Split | None:
    """Return the contraction cut along k, None if it has tiles enough or a short sum."""
    steps = prod(a.extent for a in kernel.k)
    if steps < LONG or _tiles(kernel) >= FEW:
        return None
    wanted = min(MOST_PARTS, steps // PART)
    axis = _axis_to_cut(kernel, wanted)
    if any(axis in g.index.axes for e in loads(kernel.a, kernel.b) for g in e.where):
        # What is left of the axis inside a part can leave out a border by the bounds of its loop.
        wanted = min(wanted, max(axis.extent // 2, 1))
    size, whole, rest = parts_of(axis.extent, wanted)
    free = (*kernel.batch, *kernel.m, *kernel.n)
    extents = [whole + (rest > 0), *(a.extent for a in free)]
    strides = tuple(prod(extents[n + 1 :]) for n in range(len(extents)))
    sums = Buffer("sums", kernel.accumulate, tuple(extents), strides, "rw")

    part, inner = Axis("part", whole), Axis(f"{axis.name}.part", size)
    at = Affine.of(part) * size + inner
    parts = [_part(kernel, sums, axis, at, inner, (part,), Affine.of(part))]
    if rest:
        left = Axis(f"{axis.name}.rest", rest)
        at = Affine.of(left) + whole * size
        parts.append(_part(kernel, sums, axis, at, left, (), Affine((), whole)))
    return Split(tuple(parts), _total(kernel, sums), sums, extents[0])


def _tiles(kernel: ContractionKernel) -> int:
    """Return the number of register tiles, with the shorter side as rows if that is a better fit."""
    m, n = (prod(a.extent for a in axes) for axes in (kernel.m, kernel.n))
    outer = prod(a.extent for a in kernel.batch)
    return outer * min(-(-m // _ROWS) * -(-n // _COLUMNS), -(-n // _ROWS) * -(-m // _COLUMNS))


def _axis_to_cut(kernel: ContractionKernel, wanted: int) -> Axis:
    """Return the slowest axis of k in memory that gives a fair number of parts, else the longest.

    An axis that is contiguous in an operand is left whole if another one will do: it may want to lie across lanes.
    """
    buffers = {b.name: b for b in kernel.buffers}
    places = [offset_of(e, buffers) for e in loads(kernel.a, kernel.b)]
    order = sort_axes([a for a in kernel.k if a.extent > 1], places)
    enough = [a for a in order if 4 * a.extent >= wanted]
    apart = [a for a in enough if all(p.coefficient(a) != 1 for p in places)]
    return (apart or enough or sorted(order, key=lambda a: -a.extent))[0]


def _part(
    kernel: ContractionKernel,
    sums: Buffer,
    axis: Axis,
    at: Affine,
    inner: Axis,
    extra: Sequence[Axis],
    number: Affine,
) -> ContractionKernel:
    """Return the contraction over a part of `axis`, whose result goes to the partial sums `number`."""
    s = ExprBuilder()
    rewrite = Rewriter(s, {axis: at}, {})
    free = (*kernel.batch, *kernel.m, *kernel.n)
    index = (number, *(Affine.of(a) for a in free))
    store = Store(sums.name, (), index, s.temp("acc", kernel.accumulate))
    return replace(
        kernel,
        buffers=(*kernel.buffers, sums),
        batch=(*extra, *kernel.batch),
        k=tuple(inner if a == axis else a for a in kernel.k),
        a=rewrite(kernel.a),
        b=rewrite(kernel.b),
        stages=(store,),
    )


def _total(kernel: ContractionKernel, sums: Buffer) -> LoopKernel:
    s = ExprBuilder()
    free = (*kernel.batch, *kernel.m, *kernel.n)
    part = Axis("part", sums.shape[0])
    index = (Affine.of(part), *(Affine.of(a) for a in free))
    total = Reduce("acc", "sum", (part,), s.load(sums, index), kernel.accumulate)
    buffers = (*kernel.buffers, sums)
    return LoopKernel(kernel.name, buffers, free, (total, *kernel.stages), kernel.loc)
