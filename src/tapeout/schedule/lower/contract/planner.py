"""Plans one way to run a contraction: which operand lies across lanes, how operands are made ready, which tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.kernel.compute import Expr, Load
from tapeout.schedule.lower.choose import VECTOR_BYTES
from tapeout.schedule.lower.contract.blocks import PANELS, most_steps, plan_blocks
from tapeout.schedule.lower.contract.costs import copying, lines_held, scattering
from tapeout.schedule.lower.contract.emit import ContractionLowering, rows_lie_together
from tapeout.schedule.lower.contract.form import Columns, Form, Rows
from tapeout.schedule.lower.contract.pairs import paired
from tapeout.schedule.lower.contract.prepare import (
    Step,
    as_load,
    evaluate_rows,
    halo,
    is_plain,
    pack_columns,
    pack_rows,
)
from tapeout.schedule.lower.contract.product import ROLES, Product, flatten_rows, merge, sort_roles
from tapeout.schedule.lower.contract.task import may_limit
from tapeout.schedule.lower.contract.tiles import Tiling, choose_tiling
from tapeout.schedule.lower.cost import touched
from tapeout.schedule.lower.exprs import loads, widened
from tapeout.schedule.lower.finish import Finished
from tapeout.schedule.lower.normal import offset_of

if TYPE_CHECKING:
    from tapeout.kernel.target import Target

_EVALUATE = 1.5
"""Estimated cycles per element of evaluating locally."""

_DIRECT_STEPS = 512
_FEWEST_COLUMNS = 48
"""From so many columns on, a copy of the rows is read often enough to pay."""
_FAR_APART, _NEAR_ROWS = 256, 16
_MOST_CROSSING, _MOST_TILES = 64, 4
_SPARING, _MOST_POINTS = 0.75, 1 << 20


@dataclass(frozen=True)
class Plan:
    """One way to run a contraction.

    Attributes:
        product: Ready for the tiles: `b` loads plainly, `a` does unless `local`.
        tiling: Its tiles.
        steps: Launches that make the operands ready, in order.
        crossing: Whether row tiles cross from line to line; they are then written one by one.
        cycles: Estimated cost.
        form: What was chosen.
        order: The axes of k in the order of the sum, before neighbours were merged.
    """

    product: Product
    tiling: Tiling
    steps: tuple[Step, ...]
    crossing: bool
    cycles: float
    form: Form
    order: tuple[Axis, ...]

    @property
    def windows(self) -> bool:
        """Whether `a` is in panels of which the outer row axes read overlapping parts."""
        return self.form.a == "windows"

    @property
    def choice(self) -> str:
        """What to call the form."""
        return str(self.form)

    @property
    def bits(self) -> object:
        """What decides the bits of the result: equal for two plans of a contraction only if they are the same."""
        return "tiles", self.order, self.product.limits, self.product.exact

    def lower(self, target: Target, partials: int) -> Finished:
        """Return the last kernel in loops; its sums are one of so many partial ones."""
        blocks = plan_blocks(
            self.product,
            self.tiling,
            self.crossing,
            target,
            windows=self.windows,
            most_panels=self.form.panels,
            most_steps=self.form.steps,
        )
        return ContractionLowering(
            self.product,
            self.tiling,
            blocks,
            local=self.form.a == "local",
            packed=self.form.b == "panels",
            crossing=self.crossing,
            fma=target.fma,
            partials=partials,
        ).lower()


class Planner:
    """Plans one orientation.

    Args:
        product: The contraction.
        swap: Whether its n axes are the rows.
        target: The machine.
        prefix: Begins the names of scratch buffers.
        form: What to do where that is possible; None: what is cheapest.
    """

    def __init__(
        self, product: Product, swap: bool, target: Target, prefix: str, form: Form | None = None
    ) -> None:
        ready = paired(product, target, prefix)
        self.product, self.target, self.prefix = ready.product, target, prefix
        self.swap, self.form = swap, form
        self.steps: list[Step] = list(ready.steps)
        self.cycles = 0.0
        for step in ready.steps:
            self._charge(step, across=False)

    def plan(self) -> Plan:
        """Return the plan."""
        overlaps = self._overlaps()
        if not overlaps:
            self._pad_a()
        self._pad_b()
        # A copy in panels has the dimensions of the original, which k moves along one by one.
        roles = ("batch", "rows", "cols") if overlaps else ROLES
        ordered = sort_roles(self.product)
        self.product = merge(ordered, roles)
        tiling, cycles = self._tiling(self.product)
        rows = self.product.rows
        crossing = False
        exact = self.product.exact
        if (
            self._plain_a
            and not exact
            and len(rows) > 1
            and rows[-1].extent * rows[-2].extent <= _MOST_CROSSING
        ):
            crossed = flatten_rows(self.product)
            other, fewer = self._tiling(crossed)
            if other.rows.tiles <= _MOST_TILES and fewer < 0.9 * cycles:
                self.product, tiling, cycles, crossing = crossed, other, fewer, True
        self.cycles += cycles
        self._count_stores()
        how = self._ready_a(tiling)
        columns = self._ready_b(tiling)
        if how == "local":
            axes = (*self.product.batch, *self.product.rows)
            self.cycles += _EVALUATE * self.product.steps * prod(a.extent for a in axes)
        # Rows and columns stay as the tiles were chosen for them; k may have become simpler.
        ready = merge(self.product, ("batch", "k"))
        shared = how == "windows" or bool(ready.limits)
        form = Form(
            self.swap,
            tiling.rows.size,
            tiling.registers,
            how,
            columns,
            self.form.panels if self.form else PANELS,
            self.form.steps if self.form else most_steps(ready.steps, shared),
        )
        return Plan(ready, tiling, tuple(self.steps), crossing, self.cycles, form, ordered.k)

    def _tiling(self, p: Product) -> tuple[Tiling, float]:
        """Return the tiles of the last axes, and the estimated cycles of the whole."""
        rows, columns = p.rows[-1].extent, p.cols[-1].extent
        only = (self.form.rows, self.form.registers) if self.form else None
        tiling = choose_tiling(rows, columns, p.steps, self.target, p.accumulate.bytes, only)
        outer = prod(a.extent for a in (*p.batch, *p.rows[:-1], *p.cols[:-1]))
        return tiling, tiling.cycles * p.steps * outer

    @property
    def _plain_a(self) -> bool:
        return is_plain(self.product.a, self.product.element)

    def _pad_a(self) -> None:
        """Give the row operand, if it has a border, a copy with one."""
        a = self.product.a
        if not self._plain_a and not self._limit("a", a):
            self._copy("a", a, halo(self.product, a, self._name()))

    def _pad_b(self) -> None:
        """Give the column operand, if it has a border or lies across its lanes, a copy as it should be."""
        p, column = self.product, self.product.cols[-1]
        read = widened(p.b)
        at = offset_of(read, p.by_name) if isinstance(read, Load) else Affine()
        if not at.is_linear or at.coefficient(column) != 1:
            if not is_plain(p.b, p.element) and self._limit("b", p.b):
                p = self.product
            along = halo(p, p.b, self._name(), last=column)
            if along is not None:
                self._copy("b", p.b, along, across=True)
                return
        elif read is not p.b and isinstance(read, Load) and self._is_read_once(read):
            return  # it is widened where it is packed
        if not is_plain(p.b, p.element) and not self._limit("b", p.b):
            self._copy("b", p.b, halo(p, p.b, self._name()))

    def _is_read_once(self, b: Load) -> bool:
        """Whether a column operand has no border, and no two steps or columns share an element."""
        p = self.product
        points = p.steps * prod(a.extent for a in (*p.batch, *p.cols))
        return not b.where and touched(b, p.by_name) >= points

    def _copy(self, side: str, operand: Expr, step: Step | None, *, across: bool = False) -> None:
        """Read an operand from a copy with a border, but remember where the border is."""
        if step is None:
            return
        read = widened(operand)
        if isinstance(read, Load) and read.other == 0:
            limits = tuple(g for g in read.where if self._spares(g))
            self.product = replace(self.product, limits=(*self.product.limits, *limits))
        self._use(side, step, across=across)

    def _spares(self, limit: Guard) -> bool:
        """Whether leaving products with a border out spares so many that short loops are worth it."""
        p = self.product
        axes = limit.index.axes
        if not limit.index.is_linear or p.rows[-1] in axes or p.cols[-1] in axes:
            return False
        points = prod(a.extent for a in axes)
        if points > _MOST_POINTS:
            return False
        found = np.full((), limit.index.const, np.int64)
        for a in axes:
            step = limit.index.coefficient(a)
            found = found[..., None] + step * np.arange(a.extent, dtype=np.int64)
        inside = np.count_nonzero((found >= limit.lo) & (found < limit.hi))
        return bool(inside <= _SPARING * points)

    def _limit(self, side: str, operand: Expr) -> bool:
        """Leave the border of an operand out by the bounds of loops, if these are the same for a whole tile."""
        p = self.product
        if not isinstance(operand, Load) or operand.other != 0:
            return False
        plain = replace(operand, where=())
        if not is_plain(plain, p.element) or not p.place(plain).is_linear:
            return False
        varying = (p.rows[-1], p.cols[-1])
        for g in operand.where:
            steps = [a for a in g.index.axes if a in p.k]
            if any(a in varying for a in g.index.axes):
                return False
            if len(steps) != 1 or not may_limit(g, steps[0]):
                return False
        a, b = (plain, p.b) if side == "a" else (p.a, plain)
        limits = (*p.limits, *operand.where)
        self.product = replace(p, a=a, b=b, limits=limits, exact=True)
        return True

    def _name(self) -> str:
        return f"{self.prefix}{len(self.steps)}"

    def _use(self, side: str, step: Step | None, *, across: bool = False) -> None:
        """Read an operand from a scratch buffer from now on; `across`: whose order of memory is another one."""
        if step is None:
            return
        fixed = self.product.fixed
        if self.product.is_fixed(self.product.a if side == "a" else self.product.b):
            fixed = (*fixed, step.buffer.name)  # it is made once, before the loop
        else:
            self._charge(step, across=across)
        buffers = (*self.product.buffers, replace(step.buffer, access="r"))
        a, b = (step.read, self.product.b) if side == "a" else (self.product.a, step.read)
        self.product = replace(self.product, buffers=buffers, a=a, b=b, fixed=fixed)
        self.steps.append(step)

    def _charge(self, step: Step, *, across: bool) -> None:
        elements, element = prod(step.buffer.shape), step.buffer.dtype.bytes
        self.cycles += copying(elements, element, self.target, across=across)

    def _count_stores(self) -> None:
        """Count what the epilogue stores, and loads beside the sums, lane by lane."""
        p, column = self.product, self.product.cols[-1]
        points = prod(a.extent for a in (*p.batch, *p.rows, *p.cols))
        element, lines = p.accumulate.bytes, rows_lie_together(p)
        stores = [p.by_name[s.buffer].offset(s.index) for s in p.stages]
        others = [p.place(e) for e in loads(*(s.value for s in p.stages))]
        for n, at in enumerate((*stores, *others)):
            apart = abs(at.coefficient(column))
            if column in at.axes and apart != 1:
                by_line = lines and n < len(stores)
                lanes = VECTOR_BYTES // element
                self.cycles += scattering(points, lanes, apart * element, by_line=by_line)

    def _ready_a(self, tiling: Tiling) -> Rows:
        """Copy the row operand if that pays; return how it is read."""
        size = tiling.rows.size
        if self._share_windows(size):
            return "windows"
        if not self._plain_a and not self.product.exact:
            self._pad_a()
        plain = self._plain_a
        wanted = self._best_rows() if plain else self._best_evaluated_rows()
        if self.form is not None and self._can_read(self.form.a):
            wanted = self.form.a
        if wanted == "panels":
            self._use("a", pack_rows(self.product, size, self._name()), across=True)
        elif wanted == "lines":
            self._use("a", evaluate_rows(self.product, self._name()))
        return wanted

    def _can_read(self, rows: Rows) -> bool:
        """Whether the row operand, as it is now, can be read so."""
        if self.product.exact:
            return rows == ("direct" if self._plain_a else "local")
        return rows in ("panels", "lines", "direct" if self._plain_a else "local")

    def _best_rows(self) -> Rows:
        """Return how a plain row operand is best read."""
        p = self.product
        wide = prod(a.extent for a in p.cols) >= _FEWEST_COLUMNS
        products = p.steps * prod(a.extent for a in (*p.batch, *p.rows))
        at = p.place(as_load(p.a))
        once = 2 * touched(as_load(p.a), p.by_name) >= products
        if not (once and wide) or p.exact:
            return "direct"
        if self._apart(at) or self._is_spread(at):
            return "panels"
        return "lines" if p.steps > 64 and self._aliases(at) else "direct"

    def _best_evaluated_rows(self) -> Rows:
        """Return how a row operand that has to be evaluated is best read."""
        p = self.product
        products = p.steps * prod(a.extent for a in (*p.batch, *p.rows))
        reads = [touched(e, p.by_name) for e in loads(p.a)]
        if 2 * max(reads, default=1) < products:
            return "local"
        unit = any(p.place(e).coefficient(a) == 1 for e in loads(p.a) for a in p.k)
        return "lines" if unit else "panels"

    def _share_windows(self, size: int) -> bool:
        """Let all windows, which overlap, read one copy in panels, its border included; return whether that can be."""
        p = self.product
        if not self._overlaps():
            return False
        panels = halo(p, p.a, self._name(), last=p.rows[-1], panel=size, reuse=1)
        self._use("a", panels, across=True)
        return panels is not None

    def _overlaps(self) -> bool:
        """Whether rows lie side by side and steps of k far apart, and products share what they read of the rows."""
        p = self.product
        found = [e for e in loads(p.a) if all(isinstance(i, Affine) for i in e.index)]
        if not found or prod(a.extent for a in p.cols) < _FEWEST_COLUMNS or p.exact:
            return False
        widest = max(found, key=lambda e: touched(e, p.by_name))
        at = p.place(widest)
        products = p.steps * prod(a.extent for a in (*p.batch, *p.rows))
        return self._apart(at) and touched(widest, p.by_name) < products

    def _apart(self, at: Affine) -> bool:
        """Whether rows lie side by side but every step of k would touch another cache line for a few bytes of them."""
        p = self.product
        far = _stride(at, p.k) * p.accumulate.bytes >= _FAR_APART
        return at.is_linear and at.coefficient(p.rows[-1]) == 1 and far

    def _is_spread(self, at: Affine) -> bool:
        """Whether every step of a long sum touches other cache lines for rows that are near each other: maps of a stride, small ones."""
        p = self.product
        row, step = (c * p.accumulate.bytes for c in (at.coefficient(p.rows[-1]), _stride(at, p.k)))
        lines = p.steps * max(step, 64) > self.target.l1
        return at.is_linear and 0 < row <= _NEAR_ROWS and 2 * step >= _FAR_APART and lines

    def _aliases(self, at: Affine) -> bool:
        """Return whether all rows of a tile fall into one set of the first-level cache."""
        step = at.coefficient(self.product.rows[-1]) * self.product.accumulate.bytes
        return step != 0 and step % 4096 == 0

    def _ready_b(self, tiling: Tiling) -> Columns:
        """Pack the column operand if that pays or must be; return how it is read."""
        p = self.product
        plain = is_plain(p.b, p.element)
        read = widened(p.b)
        at = p.place(read) if isinstance(read, Load) else Affine()
        unit = at.is_linear and at.coefficient(p.cols[-1]) == 1
        far = p.steps > lines_held(_stride(at, p.k) * p.accumulate.bytes)
        wanted: Columns = "panels"
        if plain and unit:
            few = prod(a.extent for a in p.rows) < 48
            if p.is_fixed(p.b) and tiling.all_panels > 1:
                wanted = "panels"
            elif few or not (far or p.steps > _DIRECT_STEPS):
                wanted = "direct"
            wanted = self.form.b if self.form else wanted
        if wanted == "panels":
            self._use("b", pack_columns(p, tiling, self._name()), across=not unit)
        return wanted


def _stride(at: Affine, k: tuple[Axis, ...]) -> int:
    """Return the elements from one step of k to the next."""
    return abs(at.coefficient(k[-1])) if k else 0
