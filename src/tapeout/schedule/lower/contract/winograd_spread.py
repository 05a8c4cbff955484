"""Windows whose taps are summed, stage by stage: all tiles transformed, then all products, then all results.

Where weights are large and tiles few, a task that runs some tiles through all stages would read all weights for them; here each of the 16
products reads its own once. Elements and products go through scratch, which the last-level cache holds.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import ContractionKernel, ExprBuilder, LoopKernel, Numerics, Store
from tapeout.schedule.lower.contract.dots import Dots
from tapeout.schedule.lower.contract.lower import plan_contraction
from tapeout.schedule.lower.contract.planner import Plan
from tapeout.schedule.lower.contract.winograd import Windows
from tapeout.schedule.lower.contract.winograd_tiles import (
    FAR_CYCLES,
    PRODUCTS,
    TILE_CYCLES,
    WEIGHT_CYCLES,
    TileLowering,
    TilePlan,
)
from tapeout.schedule.lower.contract.winograd_write import Transforms, dense, lines
from tapeout.schedule.lower.finish import Finished, finish
from tapeout.schedule.lower.grid import open_chunk, open_grid, plan_grid
from tapeout.schedule.lower.values import Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapeout.kernel.compute import Buffer
    from tapeout.kernel.target import Target

_MOST_BYTES = 16 * 1024 * 1024
"""What elements and products may take."""
_WORK = 40
"""Element operations per number of a tile that is transformed."""


@dataclass(frozen=True)
class SpreadPlan:
    """How windows run stage by stage.

    Attributes:
        tiles: The plan tile by tile; its tasks are not used.
        elements: The scratch buffer of transformed elements.
        products: The scratch buffer of products.
        multiply: How the products run.
    """

    tiles: TilePlan
    elements: Buffer
    products: Buffer
    multiply: Plan | Dots
    after: tuple[LoopKernel, ...] = ()

    @property
    def windows(self) -> Windows:
        """What to compute."""
        return self.tiles.windows

    @property
    def before(self) -> tuple[LoopKernel, ...]:
        """The launches that transform the weights."""
        return self.tiles.before

    @property
    def scratch(self) -> tuple[Buffer, ...]:
        """Buffers between the launches."""
        return self.tiles.weights, self.elements, self.products

    @property
    def flops(self) -> int:
        """Floating-point operations of the products."""
        return self.tiles.flops

    @property
    def cycles(self) -> float:
        """Estimated cost."""
        (k,), (column,) = self.windows.k, self.windows.columns
        lanes = self.tiles.tiling.register
        vectors = -(-k.extent // lanes) + -(-column.extent // lanes)
        moved = [2 * self.elements.span, 2 * self.products.span, self.tiles.weights.span]
        far = 3 * FAR_CYCLES * sum(moved) * self.elements.dtype.bytes
        weights = PRODUCTS * k.extent * column.extent * WEIGHT_CYCLES
        return self.multiply.cycles + self.tiles.tiles * vectors * TILE_CYCLES + far + weights

    def lower(self, target: Target) -> tuple[Finished, ...]:
        """Return the kernels in loops, in order."""
        first = _Stage(self, target).transform()
        return first, self.multiply.lower(target, 1), _Stage(self, target).results()


def spread(plan: TilePlan, target: Target, prefix: str) -> SpreadPlan | None:
    """Return the same windows stage by stage, None if what lies between the stages is too large for caches."""
    (k,), (column,) = plan.windows.k, plan.windows.columns
    dtype = plan.windows.kernel.accumulate
    if min(plan.tiles, column.extent) == 1:
        return None
    if PRODUCTS * plan.tiles * (k.extent + column.extent) * dtype.bytes > _MOST_BYTES:
        return None
    elements = lines(f"{prefix}elements", dtype, (PRODUCTS, plan.tiles, k.extent))
    products = dense(f"{prefix}products", dtype, (PRODUCTS, plan.tiles, column.extent))
    s, u, tile = ExprBuilder(), Axis("u", PRODUCTS), Axis("tile", plan.tiles)
    at, c = (Affine.of(u), Affine.of(tile)), Affine.of(column)
    weights = replace(plan.weights, access="r")
    kernel = ContractionKernel(
        "products",
        (replace(elements, access="r"), weights, replace(products, access="w")),
        (u,),
        (tile,),
        (column,),
        (k,),
        s.load(elements, (*at, Affine.of(k))),
        s.load(weights, (c // plan.group, Affine.of(u), Affine.of(k), c % plan.group)),
        dtype,
        (Store(products.name, (), (*at, c), s.temp("acc", dtype)),),
    )
    multiply = plan_contraction(kernel, target, f"{prefix}products.")
    if multiply.steps:
        return None
    return SpreadPlan(plan, elements, products, multiply)


class _Stage(TileLowering):
    """Lowers the first or the last stage: like a task that has all tiles, whose buffers are scratch."""

    def __init__(self, plan: SpreadPlan, target: Target) -> None:
        super().__init__(plan.tiles, target)
        self.elements, self.products = plan.elements, plan.products
        self.tile = Axis("tile", plan.tiles.tiles)
        self.own_column = self.column
        self.first = Affine()
        kernel = self.win.kernel
        self.outside = (*kernel.buffers, self.elements, self.products)
        written = {s.buffer for s in kernel.stages}
        self.w = Writer([b.name for b in kernel.buffers if b.name not in written])
        self.values = Values(self.w, {b.name: b for b in self.outside})
        self.transforms = Transforms(self.w, self.values, self.lanes)

    def transform(self) -> Finished:
        """Return the kernel that transforms all tiles."""
        stores = self._element_stores()
        with self._tiles(self.k.extent) as tile:
            self.transforms.tile(stores, self.k, self._bind(tile), ())
        return finish(self.w, self.outside, Numerics())

    def results(self) -> Finished:
        """Return the kernel that makes the results of all tiles."""
        whole, rest = divmod(self.column.extent, self.lanes)
        with self._tiles(self.column.extent) as tile:
            bind = self._bind(tile)
            if whole:
                with self.w.loop(whole) as i:
                    self._results(bind, Affine(), i * self.lanes, self.lanes)
            if rest:
                self._results(bind, Affine(), Affine((), whole * self.lanes), rest)
        return finish(self.w, self.outside, Numerics())

    @contextmanager
    def _tiles(self, numbers: int) -> Iterator[Affine]:
        """Open the loops over all tiles; the body is written once."""
        grid = plan_grid([self.tile.extent], float(_WORK * numbers))
        with (
            open_grid(self.w, [self.tile], grid) as task,
            open_chunk(self.w, self.tile, task) as at,
        ):
            yield at
