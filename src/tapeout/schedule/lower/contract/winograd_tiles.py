"""Windows whose taps are summed, tile by tile in the cache: a convolution, or its data gradient.

    for task (grid): some tiles
        for tile: for vector of k:        elements[u, tile, k] := the transformed window, u = 0..15
        for group of columns:
            for u: products[u, tile, column] := sum over k of elements[u, tile, k] * weights[group, u, k, column]
            for tile: for vector of columns: the results of the tile through the epilogue

`elements` and `products` are local to a task, which takes as many tiles as let them stay in the second-level cache. The transformed
weights are scratch, made by a launch of its own.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard, guards
from tapeout.kernel.compute import ExprBuilder, LoopKernel, Numerics, Store
from tapeout.schedule.lower.contract.blocks import Blocks, KBlocks
from tapeout.schedule.lower.contract.emit import ContractionLowering
from tapeout.schedule.lower.contract.product import Product
from tapeout.schedule.lower.contract.tiles import Tiling, choose_tiling
from tapeout.schedule.lower.contract.winograd import SIZE, Windows
from tapeout.schedule.lower.contract.winograd_write import (
    Bind,
    Transforms,
    along,
    dense,
    lines,
    unflattened,
    where_read,
)
from tapeout.schedule.lower.domain import sort_axes
from tapeout.schedule.lower.exprs import loads
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.grid import Grid, Task, open_grid
from tapeout.schedule.lower.normal import offset_of
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from tapeout.kernel.compute import Buffer
    from tapeout.kernel.target import Target

PRODUCTS = SIZE * SIZE
TILE_CYCLES = 34.0
"""Estimated cycles to transform one vector of a tile, there or back."""
NEAR_CYCLES, FAR_CYCLES = 0.015, 0.05
"""Estimated cycles per byte that comes from the last-level cache, and from memory."""
_LARGE = 8 * 1024 * 1024
WEIGHT_CYCLES = 1.2
"""Estimated cycles per transformed weight."""
_SHARE = 2
"""The transformed elements of a task take at most this part of the second-level cache."""
_MOST_TILES = 36
_CHUNK = 256
_LONGEST = 1024
"""Sums of more steps would take more of a thread's stack than there is."""


@dataclass(frozen=True)
class TilePlan:
    """How windows run tile by tile.

    Attributes:
        windows: What to compute; its factor `a` has k side by side, its results have columns so.
        axes: Axes that tiles are counted over, in the order of memory.
        count: Tiles of one task.
        tiling: Register tiles of one of the 16 products over a group of columns.
        group: Columns of one group.
        weights: The scratch buffer of transformed weights.
        before: What fills it.
    """

    windows: Windows
    axes: tuple[Axis, ...]
    count: int
    tiling: Tiling
    group: int
    weights: Buffer
    before: tuple[LoopKernel, ...]
    after: tuple[LoopKernel, ...] = ()

    @property
    def tiles(self) -> int:
        """Number of all tiles."""
        return prod(a.extent for a in self.axes)

    @property
    def chunk(self) -> int:
        """Most steps of k that are summed at once: as far as the weights of a group stay in the first-level cache."""
        (k,) = self.windows.k
        return -(-k.extent // -(-k.extent // _CHUNK))

    @property
    def groups(self) -> int:
        """Number of groups of columns; the last one may have fewer."""
        return self.weights.shape[0]

    @property
    def cycles(self) -> float:
        """Estimated cost."""
        (k,), (column,) = self.windows.k, self.windows.columns
        lanes = self.tiling.register
        blocks = -(-self.tiles // self.count)
        vectors = -(-k.extent // lanes) + -(-column.extent // lanes)
        multiply = PRODUCTS * self.groups * self.tiling.cycles * k.extent
        # Every task reads all weights: much of them, if they are large, from memory.
        size = self.weights.span * self.weights.dtype.bytes
        multiply += (FAR_CYCLES if size > _LARGE else NEAR_CYCLES) * size
        weights = PRODUCTS * k.extent * column.extent * WEIGHT_CYCLES
        return blocks * (multiply + self.count * vectors * TILE_CYCLES) + weights

    @property
    def flops(self) -> int:
        """Floating-point operations of the products."""
        (k,), (column,) = self.windows.k, self.windows.columns
        return 2 * PRODUCTS * self.tiles * k.extent * column.extent

    @property
    def scratch(self) -> tuple[Buffer, ...]:
        """Buffers between the launches."""
        return (self.weights,)

    def lower(self, target: Target) -> tuple[Finished, ...]:
        """Return the kernel in loops."""
        return (TileLowering(self, target).lower(),)


def plan_tiles(windows: Windows, target: Target, prefix: str) -> TilePlan | None:
    """Return the plan, None if memory is in another order than vectors need or sums are too long."""
    if windows.taps_kept or len(windows.k) != 1 or len(windows.columns) != 1:
        return None
    kernel, (k,), (column,) = windows.kernel, windows.k, windows.columns
    buffers = {b.name: b for b in kernel.buffers}
    read = [offset_of(e, buffers) for e in loads(kernel.a)]
    stores = [buffers[s.buffer].offset(s.index) for s in kernel.stages]
    if any(at.coefficient(k) != 1 for at in read) or stores[0].coefficient(column) != 1:
        return None
    if k.extent > _LONGEST:
        return None
    axes = (*sort_axes(windows.rows, [*read, *stores]), *windows.tiles)
    element = kernel.accumulate.bytes
    room = target.l2 // _SHARE // (PRODUCTS * k.extent * element)
    size = choose_tiling(_MOST_TILES, column.extent, k.extent, target, element).rows.size
    count = max(min(room, _MOST_TILES) // size, 1) * size
    count = min(count, prod(a.extent for a in axes))
    whole = choose_tiling(count, column.extent, k.extent, target, element)
    group = whole.widest
    tiling = choose_tiling(count, group, k.extent, target, element)
    weights, kernels = _weights(windows, group, f"{prefix}weights")
    return TilePlan(windows, axes, count, tiling, group, weights, kernels)


def _weights(windows: Windows, group: int, name: str) -> tuple[Buffer, tuple[LoopKernel, ...]]:
    """Return the weights transformed, in groups of columns: `[group, u, k, column]`, the last group filled up with zeros."""
    kernel, (k,), (column,) = windows.kernel, windows.k, windows.columns
    whole, rest = divmod(column.extent, group)
    shape = (whole + (rest > 0), PRODUCTS, k.extent, group)
    buffer = dense(name, kernel.accumulate, shape, "w")
    kernels = []
    for number, first in ((whole, 0), (1 if rest else 0, whole)):
        if not number:
            continue
        s, block, lane = ExprBuilder(), Axis("group", number), Axis("lane", group)
        at = (Affine.of(block) + first) * group + lane
        inside = guards(Guard(at, 0, column.extent))
        found = [v for row in windows.weights(s, {column: at}) for v in row]
        place = (Affine.of(block) + first, Affine.of(k), Affine.of(lane))
        stages = tuple(
            Store(name, (), (place[0], Affine((), u), *place[1:]), where_read(v, inside))
            for u, v in enumerate(found)
        )
        buffers, axes = (*kernel.buffers, buffer), (block, k, lane)
        kernels.append(LoopKernel(name, buffers, axes, stages, kernel.loc))
    return buffer, tuple(kernels)


class TileLowering:
    """Lowers one plan."""

    def __init__(self, plan: TilePlan, target: Target) -> None:
        self.plan, self.win, self.target = plan, plan.windows, target
        kernel = self.win.kernel
        self.dtype = kernel.accumulate
        (self.k,), (self.column,) = self.win.k, self.win.columns
        self.lanes = target.lanes(self.dtype.bytes)
        self.tile, self.u = Axis("tile", plan.count), Axis("u", PRODUCTS)
        self.own_column, self.group = Axis("column", plan.group), Axis("group", plan.groups)
        self.block = Axis("block", -(-plan.tiles // plan.count))
        self.weights = replace(plan.weights, access="r")
        self.elements = lines("elements", self.dtype, (PRODUCTS, plan.count, self.k.extent))
        self.products = dense("products", self.dtype, (PRODUCTS, plan.count, plan.group))
        self.outside = (*kernel.buffers, self.weights)
        written = {s.buffer for s in kernel.stages}
        self.w = Writer([b.name for b in self.outside if b.name not in written])
        every = (*self.outside, self.elements, self.products)
        self.values = Values(self.w, {b.name: b for b in every})
        self.transforms = Transforms(self.w, self.values, self.lanes)

    def lower(self) -> Finished:
        """Return the kernel in loops."""
        grid = Grid(1, 1, 1, self.block.extent)
        with open_grid(self.w, [self.block], grid) as task:
            self.first = task.bind[self.block] * self.plan.count
            for b in (self.elements, self.products):
                self.w.alloc(b.dtype, 1, b.span, "local", b.name)
            self._transform()
            whole, rest = divmod(self.column.extent, self.plan.group)
            if whole:
                with self.w.loop(whole) as group:
                    self._group(group, self.plan.group)
            if rest:
                self._group(Affine((), whole), rest)
        return finish(self.w, self.outside, Numerics())

    def _bind(self, tile: Affine) -> Bind:
        """Return where the axes of tiles stand at one of this task."""
        return {self.tile: tile, **unflattened(self.w, self.first + tile, self.plan.axes)}

    def _exists(self, tile: Affine) -> tuple[Guard, ...]:
        return guards(Guard(self.first + tile, 0, self.plan.tiles))

    def _element_stores(self) -> list[Store]:
        found = [v for row in self.win.elements(ExprBuilder(), {}) for v in row]
        at = (Affine.of(self.tile), Affine.of(self.k))
        name = self.elements.name
        return [Store(name, (), (Affine((), u), *at), v) for u, v in enumerate(found)]

    def _transform(self) -> None:
        """Write the transformed windows of all tiles of a task."""
        stores = self._element_stores()
        with self.w.loop(self.plan.count) as tile:
            self.transforms.tile(stores, self.k, self._bind(tile), self._exists(tile))

    def _group(self, group: Affine, columns: int) -> None:
        """Write the results of all tiles of a task in so many columns."""
        self._multiply(group)
        with self.w.loop(self.plan.count) as tile, ExitStack() as stack:
            bind = self._bind(tile)
            if where := self._exists(tile):
                stack.enter_context(self.w.when(self.values.holds(where, Place({}))))
            first = group * self.plan.group
            for start in range(0, columns, self.lanes):
                self._results(bind, first, Affine((), start), min(self.lanes, columns - start))

    def _multiply(self, group: Affine) -> None:
        """Write the 16 products over one group of columns."""
        for start in range(0, self.k.extent, self.plan.chunk):
            self._multiply_some(group, start, min(self.plan.chunk, self.k.extent - start))

    def _multiply_some(self, group: Affine, start: int, steps: int) -> None:
        """Write the products over some steps of k, added to those of the steps before."""
        s, some = ExprBuilder(), Axis("k", steps)
        u, tile = Affine.of(self.u), Affine.of(self.tile)
        k, column = Affine.of(some) + start, Affine.of(self.own_column)
        total = s.temp("acc", self.dtype)
        if start:
            total = s.add(s.load(self.products, (u, tile, column)), total)
        product = Product(
            "products",
            (self.elements, self.weights, self.products),
            (self.u,),
            (self.tile,),
            (self.own_column,),
            (some,),
            s.load(self.elements, (u, tile, k)),
            s.load(self.weights, (Affine.of(self.group), u, k, column)),
            self.dtype,
            (Store("products", (), (u, tile, column), total),),
        )
        multiply(self.w, product, self.plan.tiling, {self.group: group}, fma=self.target.fma)

    def _results(self, bind: Bind, first: Affine, start: Affine, used: int) -> None:
        """Write the results of a tile in one vector of columns."""
        s = ExprBuilder()
        at = (Affine.of(self.tile), Affine.of(self.own_column))
        found = [
            [s.load(self.products, (Affine((), u * SIZE + v), *at)) for v in range(SIZE)]
            for u in range(SIZE)
        ]
        results = [v for row in self.win.summed(s, found) for v in row]
        own = along(bind, self.own_column, start, used)
        here = along(bind, self.column, first + start, used)
        values = self.values.all(results, own)
        for number, value in enumerate(values):
            at_tile = divmod(number, self.win.results)
            point = {**here.bind, **self.win.point(at_tile, bind)}
            with ExitStack() as stack:
                if where := self.win.exists(at_tile, bind):
                    stack.enter_context(self.w.when(self.values.holds(where, Place({}))))
                place = replace(here, bind=point, temps={"acc": value})
                self.values.store_all(self.win.kernel.stages, place)


def multiply(w: Writer, product: Product, tiling: Tiling, bind: Bind, *, fma: bool) -> None:
    """Write the product of a task, one after the other along its batch axis; its columns are one panel after the other.

    Args:
        w: Where statements go.
        product: Over one axis of each role; its buffers may be local to the task.
        tiling: Its register tiles.
        bind: Where axes that are none of its own stand.
        fma: Whether to fuse multiply and add.
    """
    (batch,) = product.batch
    panels = Axis("panels", 1)
    tiles = Axis("tiles", tiling.rows.whole)
    k = KBlocks((), None, 1, product.k)
    many = max(1, tiling.panels)
    grid = Grid(0, batch.extent, 1, 1)
    axes = (batch, panels, tiles) if tiles.extent else (batch, panels)
    blocks = Blocks(k, many, panels, tiles, axes, 2, grid)
    lowering = ContractionLowering(
        product, tiling, blocks, local=False, packed=False, crossing=False, fma=fma, partials=1,
        writer=w,
    )  # fmt: skip
    lowering.inside(Task(grid, dict(bind), Affine(), Affine()))
