"""Windows whose slides are summed, in blocks of tiles in the cache: a weight gradient.

    for task (grid): a part of all tiles, some rows, some columns, one line u of the 4 x 4 products
        sums[part, u, 0..3, row, column] := 0
        for block of tiles:
            for tile: for vector of rows:     elements[0..3, tile, row] := line u of the transformed window
            for tile: for vector of columns:  weights[0..3, tile, column] := line u of the transformed pair of points
            for v: sums[part, u, v, row, column] += sum over the block's tiles of elements[v, tile, row] * weights[v, tile, column]

Then one launch adds the parts in order, transforms each 4 x 4 sums to 3 x 3 results and runs the epilogue. `elements` and `weights` are
local to a task; `sums` is scratch, of which a task keeps its own part in the second-level cache.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard, guards
from tapeout.kernel.compute import ExprBuilder, LoopKernel, Numerics, Reduce, Store
from tapeout.schedule.lower.contract.product import Product
from tapeout.schedule.lower.contract.tiles import Tiling, choose_tiling
from tapeout.schedule.lower.contract.winograd import SIZE, Windows
from tapeout.schedule.lower.contract.winograd_tiles import PRODUCTS, TILE_CYCLES, multiply
from tapeout.schedule.lower.contract.winograd_write import (
    Bind,
    Transforms,
    along,
    dense,
    unflattened,
)
from tapeout.schedule.lower.domain import sort_axes
from tapeout.schedule.lower.exprs import loads
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.grid import Grid, open_grid
from tapeout.schedule.lower.normal import offset_of
from tapeout.schedule.lower.values import Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from tapeout.kernel.compute import Buffer, Expr
    from tapeout.kernel.target import Target

_MOST = 128
"""Most rows and columns of a task: four matrices of so many fill half of the second-level cache."""
_BLOCK = 32
"""Tiles of a block: what a task transforms at once."""
_TASKS = 32
_FEWEST_TILES = 256
"""A part has at least so many tiles, if there are so many."""
_RESULT_CYCLES = 1.5
"""Estimated cycles per entry of `sums` to add the parts and transform them."""


@dataclass(frozen=True)
class TapPlan:
    """How a weight gradient over windows runs.

    Attributes:
        windows: What to compute; both factors have the axis of results side by side.
        axes: Axes that tiles are counted over, in the order of memory.
        block: Tiles of one block.
        blocks: Blocks of one part; the last part may have fewer tiles.
        parts: Parts of the tiles.
        rows: Rows of one task.
        columns: Columns of one task.
        swap: Whether the rows lie across lanes in `sums`: then they are nearer to each other in the result than columns.
        tiling: Register tiles of one product.
        sums: The scratch buffer of sums.
    """

    windows: Windows
    axes: tuple[Axis, ...]
    block: int
    blocks: int
    parts: int
    rows: int
    columns: int
    swap: bool
    tiling: Tiling
    sums: Buffer
    before: tuple[LoopKernel, ...] = ()

    @property
    def tiles(self) -> int:
        """Number of all tiles."""
        return prod(a.extent for a in self.axes)

    @property
    def cycles(self) -> float:
        """Estimated cost."""
        (row,), (column,) = self.windows.rows, self.windows.columns
        lanes = self.tiling.register
        groups = (row.extent // self.rows) * (column.extent // self.columns)
        vectors = -(-self.rows // lanes) + -(-self.columns // lanes)
        one = SIZE * self.tiling.cycles * self.block + self.block * vectors * TILE_CYCLES / SIZE
        total = groups * SIZE * self.parts * self.blocks * one
        return total + _RESULT_CYCLES * prod(self.sums.shape)

    @property
    def flops(self) -> int:
        """Floating-point operations of the products."""
        (row,), (column,) = self.windows.rows, self.windows.columns
        return 2 * PRODUCTS * self.tiles * row.extent * column.extent

    @property
    def scratch(self) -> tuple[Buffer, ...]:
        """Buffers between the launches."""
        return (self.sums,)

    @property
    def after(self) -> tuple[LoopKernel, ...]:
        """The kernel that adds the parts and transforms them to results."""
        win, s, part = self.windows, ExprBuilder(), Axis("part", self.parts)
        (row,), (column,) = win.rows, win.columns
        dtype = win.kernel.accumulate
        axes = (column, row) if self.swap else (row, column)
        place = tuple(map(Affine.of, axes))
        stages: list[Reduce | Store] = []
        square: list[list[Expr]] = []
        for u in range(SIZE):
            square.append([])
            for v in range(SIZE):
                index = (Affine.of(part), Affine((), u), Affine((), v), *place)
                value: Expr = s.load(self.sums, index)
                if self.parts > 1:
                    name = f"sum{u}{v}"
                    stages.append(Reduce(name, "sum", (part,), value, dtype))
                    value = s.temp(name, dtype)
                square[u].append(value)
        for i, line in enumerate(win.summed(s, square)):
            for j, value in enumerate(line):
                stages += win.stages(s, (i, j), {}, value)
        kernel = win.kernel
        buffers = (*kernel.buffers, replace(self.sums, access="r"))
        return (LoopKernel(kernel.name, buffers, axes, tuple(stages), kernel.loc),)

    def lower(self, target: Target) -> tuple[Finished, ...]:
        """Return the kernel that makes the sums, in loops."""
        return (_TapLowering(self, target).lower(),)


def plan_taps(windows: Windows, target: Target, prefix: str) -> TapPlan | None:
    """Return the plan, None if memory is in another order than vectors need."""
    if not windows.taps_kept or len(windows.rows) != 1 or len(windows.columns) != 1:
        return None
    kernel, (row,), (column,) = windows.kernel, windows.rows, windows.columns
    buffers = {b.name: b for b in kernel.buffers}
    sides = [(kernel.a, row), (kernel.b, column)]
    if any(offset_of(e, buffers).coefficient(x) != 1 for side, x in sides for e in loads(side)):
        return None
    read = [offset_of(e, buffers) for e in loads(kernel.a, kernel.b)]
    axes = (*sort_axes(windows.k, read), *windows.tiles)
    rows, columns = _divisor(row.extent), _divisor(column.extent)
    tiles = prod(a.extent for a in axes)
    element = kernel.accumulate.bytes
    block = min(_BLOCK, tiles)
    groups = SIZE * (row.extent // rows) * (column.extent // columns)
    parts = max(1, min(-(-_TASKS // groups), tiles // _FEWEST_TILES))
    blocks = -(-tiles // (parts * block))
    parts = -(-tiles // (blocks * block))
    first = kernel.stages[0]
    stored = buffers[first.buffer].offset(first.index)
    swap = abs(stored.coefficient(row)) < abs(stored.coefficient(column))
    size = (columns, rows) if swap else (rows, columns)
    tiling = choose_tiling(*size, block, target, element)
    whole = (column.extent, row.extent) if swap else (row.extent, column.extent)
    sums = dense(f"{prefix}sums", kernel.accumulate, (parts, SIZE, SIZE, *whole))
    return TapPlan(windows, axes, block, blocks, parts, rows, columns, swap, tiling, sums)


def _divisor(extent: int) -> int:
    """Return the greatest divisor that a task may have as rows or columns."""
    return max(d for d in range(1, min(extent, _MOST) + 1) if extent % d == 0)


class _TapLowering:
    """Lowers one plan."""

    def __init__(self, plan: TapPlan, target: Target) -> None:
        self.plan, self.win, self.target = plan, plan.windows, target
        kernel = self.win.kernel
        self.dtype = kernel.accumulate
        (row,), (column,) = self.win.rows, self.win.columns
        self.part, self.line = Axis("part", plan.parts), Axis("line", SIZE)
        self.row_group = Axis("rows", row.extent // plan.rows)
        self.column_group = Axis("columns", column.extent // plan.columns)
        self.row, self.column = Axis("row", plan.rows), Axis("column", plan.columns)
        self.tile, self.v = Axis("tile", plan.block), Axis("v", SIZE)
        self.full_row = Affine.of(self.row_group) * plan.rows + self.row
        self.full_column = Affine.of(self.column_group) * plan.columns + self.column
        self.elements = dense("elements", self.dtype, (SIZE, plan.block, plan.rows))
        self.weights = dense("weights", self.dtype, (SIZE, plan.block, plan.columns))
        self.outside = (*kernel.buffers, plan.sums)
        self.w = Writer([b.name for b in kernel.buffers])
        every = (*self.outside, self.elements, self.weights)
        self.values = Values(self.w, {b.name: b for b in every})
        self.lanes = target.lanes(self.dtype.bytes)
        self.transforms = Transforms(self.w, self.values, self.lanes)

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        axes = [self.part, self.row_group, self.column_group, self.line]
        grid = Grid(len(axes), 1, 1, prod(a.extent for a in axes))
        with open_grid(self.w, axes, grid) as task:
            self.bind: Bind = dict(task.bind)
            for b in (self.elements, self.weights):
                self.w.alloc(b.dtype, 1, b.span, "local", b.name)
            self._clear()
            with self.w.loop(self.plan.blocks) as block:
                number = task.bind[self.part] * self.plan.blocks + block
                self._block(number * self.plan.block)
        return finish(self.w, self.outside, Numerics(partials=self.plan.parts))

    def _place_of_sum(self, v: Affine) -> tuple[Affine, ...]:
        part, line = Affine.of(self.part), Affine.of(self.line)
        ends = (self.full_row, self.full_column)
        return part, line, v, *(reversed(ends) if self.plan.swap else ends)

    def _clear(self) -> None:
        """Write zeros to the sums of a task."""
        s = ExprBuilder()
        zero = s.const(0, self.dtype)
        store = Store(self.plan.sums.name, (), self._place_of_sum(Affine.of(self.v)), zero)
        outer, across = (self.column, self.row) if self.plan.swap else (self.row, self.column)
        with self.w.loop(SIZE) as v, self.w.loop(outer.extent) as line:
            bind = {**self.bind, self.v: v, outer: line}
            whole, rest = divmod(across.extent, self.lanes)
            if whole:
                with self.w.loop(whole) as i:
                    place = along(bind, across, i * self.lanes, self.lanes)
                    self.values.store_all([store], place)
            if rest:
                at = Affine((), whole * self.lanes)
                self.values.store_all([store], along(bind, across, at, rest))

    def _block(self, first: Affine) -> None:
        """Add the products of a block of tiles."""
        (row,), (column,) = self.win.rows, self.win.columns
        s = ExprBuilder()
        elements = self.win.elements(s, {row: self.full_row})
        weights = self.win.weights(s, {column: self.full_column})
        with self.w.loop(self.plan.block) as tile:
            flat = first + tile
            here = unflattened(self.w, flat, self.plan.axes)
            bind = {**self.bind, **here, self.tile: tile}
            exists = guards(Guard(flat, 0, self.plan.tiles))
            for line in range(SIZE):
                with ExitStack() as stack:
                    at = self.w.named(self.w.index(self.bind[self.line]))
                    stack.enter_context(self.w.when(self.w.apply("eq", at, self.w.i64(line))))
                    for name, axis, found in (
                        ("elements", self.row, elements),
                        ("weights", self.column, weights),
                    ):
                        stores = [
                            Store(
                                name, (), (Affine((), v), Affine.of(self.tile), Affine.of(axis)), x
                            )
                            for v, x in enumerate(found[line])
                        ]
                        self.transforms.tile(stores, axis, bind, exists)
        self._multiply()

    def _multiply(self) -> None:
        """Add the products of a block to the sums, for each of the four entries of a line."""
        s = ExprBuilder()
        v, tile = Affine.of(self.v), Affine.of(self.tile)
        place = self._place_of_sum(v)
        before = s.load(self.plan.sums, place)
        total = s.add(before, s.temp("acc", self.dtype))
        sides = [(self.elements, self.row), (self.weights, self.column)]
        (a, row), (b, column) = reversed(sides) if self.plan.swap else sides
        product = Product(
            "products",
            (self.elements, self.weights, self.plan.sums),
            (self.v,),
            (row,),
            (column,),
            (self.tile,),
            s.load(a, (v, tile, Affine.of(row))),
            s.load(b, (v, tile, Affine.of(column))),
            self.dtype,
            (Store(self.plan.sums.name, (), place, total),),
        )
        multiply(self.w, product, self.plan.tiling, self.bind, fma=self.target.fma)
