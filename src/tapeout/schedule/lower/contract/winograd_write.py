"""Writes the transforms of tiles: vector by vector along one axis, without guards where all that a tile reads exists."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard, guards
from tapeout.kernel.compute import Buffer, Expr, ExprBuilder, Load, Store
from tapeout.schedule.lower.exprs import Rewriter, loads, shared_load
from tapeout.schedule.lower.values import Place, Values
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapeout.ir.dtype import DType

Bind = dict[Axis, Affine]


def dense(name: str, dtype: DType, shape: Sequence[int], access: str = "rw") -> Buffer:
    """Return a row-major buffer."""
    strides = tuple(prod(shape[n + 1 :]) for n in range(len(shape)))
    return Buffer(name, dtype, tuple(shape), strides, access)


def lines(name: str, dtype: DType, shape: Sequence[int]) -> Buffer:
    """Return a row-major buffer whose lines get one more cache line where they would all fall into the same sets of a cache."""
    *outer, last = shape
    line = last if last * dtype.bytes % 1024 else last + 64 // dtype.bytes
    strides = [line * prod(outer[n + 1 :]) for n in range(len(outer))]
    return Buffer(name, dtype, tuple(shape), (*strides, 1), "rw")


def where_read(value: Expr, where: Sequence[Guard]) -> Expr:
    """Return an expression whose loads need more conditions."""
    if not where:
        return value
    return _loads(value, lambda e: replace(e, where=guards(*e.where, *where)))


def _loads(value: Expr, change: Callable[[Load], Load]) -> Expr:
    s = ExprBuilder()
    return Rewriter(s, {}, {}, lambda e: shared_load(s, change(e)))(value)


def along(bind: Bind, axis: Axis, start: Affine, used: int) -> Place:
    """Return the place of a vector of so many points along an axis."""
    lanes = 1 << (used - 1).bit_length()
    if lanes == 1:
        return Place({**bind, axis: start})
    lane = Axis("lane", used)
    return Place({**bind, axis: start + lane}, lanes, lane)


def unflattened(w: Writer, flat: Affine, axes: Sequence[Axis]) -> Bind:
    """Return where axes stand at a point that is counted over all of them, the last one fastest."""
    bind: Bind = {}
    for axis in reversed(axes):
        bind[axis] = w.derive(flat % axis.extent, axis.extent)
        flat = flat // axis.extent
    return bind


@dataclass(frozen=True)
class Transforms:
    """Writes stores of transformed tiles.

    Attributes:
        w: Where statements go.
        values: Evaluates elements.
        lanes: Elements of a vector.
    """

    w: Writer
    values: Values
    lanes: int

    def tile(
        self, stores: Sequence[Store], axis: Axis, bind: Bind, exists: Sequence[Guard]
    ) -> None:
        """Write one tile.

        Args:
            stores: One by one, so that few values are alive at once.
            axis: Runs across lanes.
            bind: Where all other axes stand.
            exists: The conditions that the tile exists; where one fails, what it reads is zero.
        """
        found = [g.substitute(bind) for e in loads(*(s.value for s in stores)) for g in e.where]
        where = guards(*found, *exists)
        plain = [replace(s, value=_loads(s.value, lambda e: replace(e, where=()))) for s in stores]
        if not where:
            self._line(plain, axis, bind)
            return
        inside = self.values.holds(where, Place({}))
        with self.w.when(inside):
            self._line(plain, axis, bind)
        with self.w.when(self.w.apply("not", inside)):
            guarded = [replace(s, value=where_read(s.value, exists)) for s in stores]
            self._line(guarded, axis, bind)

    def _line(self, stores: Sequence[Store], axis: Axis, bind: Bind) -> None:
        whole, rest = divmod(axis.extent, self.lanes)
        if whole:
            with self.w.loop(whole) as i:
                self._vector(stores, along(bind, axis, i * self.lanes, self.lanes))
        if rest:
            self._vector(stores, along(bind, axis, Affine((), whole * self.lanes), rest))

    def _vector(self, stores: Sequence[Store], place: Place) -> None:
        for s in stores:
            self.values.store_all([s], place)
