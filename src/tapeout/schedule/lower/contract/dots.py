"""Contractions as dot products: the innermost axis of k lies across lanes, every accumulator is a vector of partial sums.

Where both operands are contiguous along k, nothing is packed and nothing is broadcast: a tile of r x c accumulators takes r + c vector
loads per step. It pays where sums are long and results few, such as the weight gradient of a convolution.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import Load, Numerics
from tapeout.schedule.lower.contract.costs import copying, fetch
from tapeout.schedule.lower.contract.prepare import Step, as_load, halo, is_plain
from tapeout.schedule.lower.contract.product import ROLES, Product, merge
from tapeout.schedule.lower.contract.task import bounds_of, may_limit
from tapeout.schedule.lower.contract.tiles import LATENCY, LOADS, Rows, divide
from tapeout.schedule.lower.cost import touched
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.grid import open_chunk, open_grid, open_loops, plan_grid
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapeout.kernel.loops import Expr
    from tapeout.kernel.target import Target

Bind = dict[Axis, Affine]

_END = 14.0
"""Estimated cycles to add up one accumulator's lanes and store the result."""
_LEAST_WORK = 64 * 1024
_MOST = 6


@dataclass(frozen=True)
class Dots:
    """Tiles of dot products.

    Attributes:
        product: What to compute; `k[-1]` is contiguous in both operands.
        rows: The last row axis in tiles.
        cols: The last column axis in tiles.
        lanes: Lanes of an accumulator: those of a register.
        cycles: Estimated cost.
        steps: Launches that make the operands ready, in order.
    """

    product: Product
    rows: Rows
    cols: Rows
    lanes: int
    cycles: float
    steps: tuple[Step, ...] = ()

    @property
    def choice(self) -> str:
        """What to call these tiles."""
        return f"dots {self.rows.size}x{self.cols.size}"

    @property
    def bits(self) -> object:
        """What decides the bits of the result."""
        p = self.product
        return "dots", self.lanes, p.k, p.limits, p.exact

    def lower(self, target: Target, partials: int) -> Finished:
        """Return the kernel in loops."""
        return _DotLowering(self, target.fma, partials).lower()


def plan_dots(product: Product, target: Target, prefix: str) -> Dots | None:
    """Return the cheapest tiles over all axes of k that may lie across lanes, None if none may.

    An operand that is not contiguous along such an axis, or has a border, is copied so that it is.
    """
    lanes = target.lanes(product.accumulate.bytes)
    found = []
    for axis in product.k:
        ready = _along(product, axis, prefix, target) if axis.extent >= lanes else None
        if ready is not None:
            found.append(_best_tiles(*ready, target))
    return min(found, key=lambda d: d.cycles, default=None)


def _along(
    product: Product, axis: Axis, prefix: str, target: Target
) -> tuple[Product, list[Step], float] | None:
    """Return the contraction with both operands contiguous along an axis of k, the copies for that, and their cost."""
    steps: list[Step] = []
    p, cycles = product, 0.0
    for side in ("a", "b"):
        p = _without_border(p, axis, side)
        operand = p.a if side == "a" else p.b
        if is_plain(operand, p.accumulate):
            at = p.place(as_load(operand))
            if at.is_linear and at.coefficient(axis) == 1:
                continue
        step = halo(p, operand, f"{prefix}{len(steps)}", last=axis, reuse=1)
        if step is None:
            return None
        steps.append(step)
        cycles += copying(prod(step.buffer.shape), p.accumulate.bytes, target, across=True)
        a, b = (step.read, p.b) if side == "a" else (p.a, step.read)
        buffers = (*p.buffers, replace(step.buffer, access="r"))
        p = replace(p, buffers=buffers, a=a, b=b)
    p = replace(p, k=(*(a for a in p.k if a != axis), axis))
    # Tiles run along axes that no limit speaks of, which are last.
    return merge(p, ("batch", "k") if p.exact else ROLES), steps, cycles


def _without_border(p: Product, axis: Axis, side: str) -> Product:
    """Leave the border of an operand out by the bounds of loops, if it is the same for whole tiles; `axis` lies across lanes."""
    operand = p.a if side == "a" else p.b
    if not isinstance(operand, Load) or not operand.where or operand.other != 0:
        return p
    plain = replace(operand, where=())
    if not is_plain(plain, p.accumulate) or p.place(plain).coefficient(axis) != 1:
        return p
    bound = {a for g in operand.where for a in g.index.axes}
    rows, cols = (tuple(sorted(axes, key=lambda a: a not in bound)) for axes in (p.rows, p.cols))
    for g in operand.where:
        steps = [a for a in g.index.axes if a in p.k]
        if len(steps) != 1 or not may_limit(g, steps[0]):
            return p
    if axis in bound or rows[-1] in bound or cols[-1] in bound:
        return p
    a, b = (plain, p.b) if side == "a" else (p.a, plain)
    limits = (*p.limits, *operand.where)
    return replace(p, a=a, b=b, rows=rows, cols=cols, limits=limits, exact=True)


def _best_tiles(p: Product, steps: list[Step], copies: float, target: Target) -> Dots:
    return min(_all_tiles(p, steps, copies, target), key=lambda d: d.cycles)


def dots_like(dots: Dots, target: Target) -> list[Dots]:
    """Return the same dot products in all other tiles, the cheapest first; the bits are the same."""
    found = _all_tiles(dots.product, dots.steps, 0.0, target)
    return sorted(found, key=lambda d: d.cycles)


def _all_tiles(p: Product, steps: Sequence[Step], copies: float, target: Target) -> list[Dots]:
    lanes = target.lanes(p.accumulate.bytes)
    outer = prod(a.extent for a in (*p.batch, *p.rows[:-1], *p.cols[:-1]))
    vectors = p.steps // p.k[-1].extent * -(-p.k[-1].extent // lanes)
    spare = 1 if target.fma else 2
    all_rows, line = _rows_bytes(p), p.steps * p.accumulate.bytes
    found: list[Dots] = []
    for r in range(1, min(_MOST, p.rows[-1].extent) + 1):
        for c in range(1, min(_MOST, p.cols[-1].extent) + 1):
            if r * c + c + spare > target.registers:
                continue
            rows, cols = divide(p.rows[-1].extent, r), divide(p.cols[-1].extent, c)
            lines = (target.vector_bytes * x for x in _distances(all_rows, r, c, line, target))
            cycles = copies + outer * _cycles(rows, cols, vectors, target.fma, *lines)
            found.append(Dots(p, rows, cols, lanes, cycles, tuple(steps)))
    return found


def _rows_bytes(p: Product) -> int:
    """Return the bytes of all rows of one batch."""
    once = touched(as_load(p.a), p.by_name) // prod(a.extent for a in p.batch)
    return min(prod(a.extent for a in p.rows) * p.steps, once) * p.accumulate.bytes


def _distances(rows: int, r: int, c: int, line: int, target: Target) -> tuple[float, float]:
    """Return the cycles per byte that rows and columns of a tile take to come from the cache that holds them.

    All rows pass by for each tile of columns; these stay, if the first-level cache holds them.

    Args:
        rows: Bytes of all rows.
        r: Rows of the tile.
        c: Its columns.
        line: Bytes of one row, or column.
        target: The machine.
    """
    tile = (r + c) * line
    if rows + c * line <= target.l1:
        return 0.0, 0.0
    return fetch(rows, target), fetch(tile, target) if tile > target.l1 else 0.0


def _sizes(rows: Rows) -> list[tuple[int, int]]:
    """Return (how many, size) of all tiles."""
    return [(rows.whole, rows.size), *((1, r) for r in rows.rest)]


def _cycles(rows: Rows, cols: Rows, steps: int, fma: bool, of_rows: float, of_cols: float) -> float:
    """Return the estimated cycles of all tiles; a load takes at least as many as it takes to come near."""
    total = 0.0
    for many, r in _sizes(rows):
        for more, c in _sizes(cols):
            busy = r * c / (2 if fma else 1)
            near = r * of_rows + c * of_cols
            # Rows pass by, columns stay.
            step = max(busy, (r + c) / LOADS, near, LATENCY / 2) + 0.12 * r + 0.08 * c
            total += many * more * (step * steps + _END * r * c)
    return total


class _DotLowering:
    """Lowers one contraction."""

    def __init__(self, dots: Dots, fma: bool, partials: int) -> None:
        self.d, self.p, self.fma, self.partials = dots, dots.product, fma, partials
        written = {s.buffer for s in self.p.stages}
        self.w = Writer([b.name for b in self.p.buffers if b.name not in written])
        self.values = Values(self.w, self.p.by_name)
        self.a, self.b = as_load(self.p.a), as_load(self.p.b)
        self.a_place, self.b_place = self.p.place(self.a), self.p.place(self.b)
        self.row, self.col, self.across = self.p.rows[-1], self.p.cols[-1], self.p.k[-1]
        self.row_tiles = Axis("row.tiles", dots.rows.tiles)
        self.col_tiles = Axis("col.tiles", dots.cols.tiles)

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        p = self.p
        axes = [*p.batch, *p.cols[:-1], self.col_tiles, *p.rows[:-1], self.row_tiles]
        work = float(p.steps * self.d.rows.size * self.d.cols.size)
        total = work * prod(a.extent for a in axes)
        grid = plan_grid([a.extent for a in axes], work, max(total / 16, _LEAST_WORK))
        with open_grid(self.w, axes, grid) as task, ExitStack() as stack:
            bind = dict(task.bind)
            cut = axes[grid.axis]
            bind[cut] = stack.enter_context(open_chunk(self.w, cut, task))
            bind |= stack.enter_context(open_loops(self.w, axes[grid.axis + 1 :]))
            self._row_variants(bind)
        numerics = Numerics(self.d.lanes, 1, self.partials)
        return finish(self.w, p.buffers, numerics)

    def _row_variants(self, bind: Bind) -> None:
        for rows in _variants(self.d.rows, bind[self.row_tiles]):
            with self._when(rows):
                for cols in _variants(self.d.cols, bind[self.col_tiles]):
                    with self._when(cols):
                        self._tile(bind, rows, cols)

    @contextmanager
    def _when(self, span: _Span) -> Iterator[None]:
        """Run the statements inside if the present tile is of this form."""
        if span.sign is None:
            yield
            return
        at = self.w.named(self.w.index(span.tile))
        with self.w.when(self.w.apply(span.sign, at, self.w.i64(span.number))):
            yield

    def _tile(self, bind: Bind, rows: _Span, cols: _Span) -> None:
        """Write one tile of dot products."""
        dtype, lanes = self.p.accumulate, self.d.lanes
        sums = self.w.alloc(dtype, lanes, rows.size * cols.size, "register")
        zero = self.w.const(0, dtype, lanes)
        with self.w.loop(rows.size * cols.size, "unroll") as n:
            self.w.store(sums, self.w.index(n), zero)
        whole, rest = divmod(self.across.extent, lanes)
        with ExitStack() as stack:
            here = dict(bind)
            for k in self.p.k[:-1]:
                start, stop = bounds_of(self.w, self.p, k, here)
                here[k] = stack.enter_context(self.w.loop(k.extent, start=start, stop=stop))
            with self.w.loop(whole) as i:
                self._step({**here, self.across: i * lanes}, rows, cols, sums, None)
            if rest:
                at = Affine((), whole * lanes)
                self._step({**here, self.across: at}, rows, cols, sums, rest)
        self._end(bind, rows, cols, sums)

    def _step(self, bind: Bind, rows: _Span, cols: _Span, sums: str, active: int | None) -> None:
        """Add one vector of products to each accumulator; lanes beyond the end load zeros."""
        dtype, lanes = self.p.accumulate, self.d.lanes
        columns = []
        for c in range(cols.size):
            at = self.b_place.substitute({**bind, self.col: cols.start + c})
            columns.append(self.w.load(self.b.buffer, dtype, self.w.index(at), lanes, active))
        with self.w.loop(rows.size, "unroll") as r:
            at = self.a_place.substitute({**bind, self.row: rows.start + r})
            a = self.w.load(self.a.buffer, dtype, self.w.index(at), lanes, active)
            for c, b in enumerate(columns):
                place = self.w.index(r * cols.size + c)
                total = self._multiply_add(a, b, self.w.load(sums, dtype, place, lanes))
                self.w.store(sums, place, total)

    def _multiply_add(self, a: Expr, b: Expr, total: Expr) -> Expr:
        if self.fma and self.p.accumulate.is_float:
            return self.w.apply("fma", a, b, total)
        return self.w.apply("add", total, self.w.apply("mul", a, b))

    def _end(self, bind: Bind, rows: _Span, cols: _Span, sums: str) -> None:
        """Add up the lanes of each accumulator and run the epilogue on the result."""
        with self.w.loop(rows.size, "unroll") as r, self.w.loop(cols.size, "unroll") as c:
            at = self.w.index(r * cols.size + c)
            found = self.w.load(sums, self.p.accumulate, at, self.d.lanes)
            temps = {"acc": self.w.lanes("sum", found)}
            here = {**bind, self.row: rows.start + r, self.col: cols.start + c}
            place = Place(here, temps=temps)
            self.values.store_all(self.p.stages, place)


@dataclass(frozen=True)
class _Span:
    """Tiles of one form along an axis.

    Attributes:
        tile: The number of the present tile.
        start: Its first row (or column).
        size: How many it has.
        sign: How its number compares with `number` (`lt` or `eq`) if it is of this form; None if all are.
        number: See `sign`.
    """

    tile: Affine
    start: Affine
    size: int
    sign: str | None
    number: int


def _variants(rows: Rows, tile: Affine) -> list[_Span]:
    """Return the forms of tiles along an axis."""
    found: list[_Span] = []
    if rows.whole:
        sign = "lt" if rows.rest else None
        found.append(_Span(tile, tile * rows.size, rows.size, sign, rows.whole))
    start = rows.whole * rows.size
    for n, size in enumerate(rows.rest):
        sign = "eq" if rows.tiles > 1 else None
        found.append(_Span(tile, Affine((), start), size, sign, rows.whole + n))
        start += size
    return found
