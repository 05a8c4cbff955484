"""Places named by several numbers at once, and scatters by the name of their reduction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.ir.dtype import i64
from tapeout.ops.gather import ScatterAdd, ScatterAddAlong
from tapeout.ops.scatter import ScatterAlong, ScatterRows
from tapeout.ops.sym import iota
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ops.sym import Sym


def scatter_along(x: Sym, indices: Sym, updates: Sym, axis: int, reduction: str = "set") -> Sym:
    """Return `x` with `updates` combined into the places that `indices` name along `axis` (ONNX's ScatterElements).

    Args:
        x: Numbers of any shape.
        indices: Integers of the rank of `x`, no larger than it off the axis; negative ones count from the end.
        updates: The type of `x`, the shape of the indices.
        axis: Not negative.
        reduction: `set` (of several updates the last stays), `add`, `mul`, `max` or `min`.

    Returns:
        The type of `x`.
    """
    op = ScatterAddAlong(axis) if reduction == "add" else ScatterAlong(axis, reduction)
    return x.emit(op, x, indices, updates)


def scatter_rows(x: Sym, indices: Sym, updates: Sym, axis: int, reduction: str = "set") -> Sym:
    """Return `x` with slices along `axis` combined into the places that `indices` name.

    Args:
        x: Numbers of any shape.
        indices: Integers of any shape; negative ones count from the end.
        updates: As `x`, the axis replaced by the indices' shape.
        axis: Not negative.
        reduction: `set` (of several updates the last stays), `add`, `mul`, `max` or `min`.

    Returns:
        The type of `x`.
    """
    op = ScatterAdd(axis) if reduction == "add" else ScatterRows(axis, reduction)
    return x.emit(op, x, indices, updates)


def gather_nd(x: Sym, indices: Sym, batch: int = 0) -> Sym:
    """Return the slices of `x` that rows of numbers name (ONNX's GatherND).

    Args:
        x: [*batch, *chosen, *rest].
        indices: Integers [*batch, *places, number of chosen dimensions]; negative ones count from the end.
        batch: How many leading dimensions both share.

    Returns:
        [*batch, *places, *rest].

    Raises:
        ShapeError: The indices do not fit.
    """
    rows, rest = _numbers(x, indices, batch, "gather_nd")
    return x.reshape([-1, *rest] if x.type.size else [0, *rest]).take(rows, 0)


def scatter_nd(x: Sym, indices: Sym, updates: Sym, reduction: str = "set") -> Sym:
    """Return `x` with slices combined into the places that rows of numbers name (ONNX's ScatterND).

    Args:
        x: [*chosen, *rest].
        indices: Integers [*places, number of chosen dimensions]; negative ones count from the end.
        updates: [*places, *rest].
        reduction: `set` (of several updates the last stays), `add`, `mul`, `max` or `min`.

    Returns:
        The type of `x`.

    Raises:
        ShapeError: The indices or the updates do not fit.
    """
    rows, rest = _numbers(x, indices, 0, "scatter_nd")
    wanted = (*rows.shape, *rest)
    if updates.shape != wanted:
        raise ShapeError(f"scatter_nd: the updates are {updates.type}, expected {list(wanted)}")
    flat = x.reshape([-1, *rest] if x.type.size else [0, *rest])
    return scatter_rows(flat, rows, updates, 0, reduction).reshape(x.shape)


def _numbers(x: Sym, indices: Sym, batch: int, name: str) -> tuple[Sym, tuple[int, ...]]:
    """Return the row-major numbers of the slices that indices name, and the shape of a slice."""
    if indices.rank <= batch or not indices.dtype.is_integer:
        raise ShapeError(f"{name}: the indices are {indices.type}, with {batch} batch dimensions")
    chosen = int(indices.shape[-1])
    depth = batch + chosen
    if depth > x.rank or indices.shape[:batch] != x.shape[:batch]:
        raise ShapeError(f"{name}: the indices {indices.type} do not fit {x.type}")
    places = indices.shape[:-1]
    flat, bad = x.constant(0, i64).broadcast(places, ()), None
    for d in range(batch):
        flat = flat * int(x.shape[d]) + iota(x.builder, places, d, i64)
    for i, n in enumerate(x.shape[batch:depth]):
        one = indices[..., i].cast(i64)
        outside = (one < -int(n)) | (one >= int(n))
        bad = outside if bad is None else bad | outside
        flat = flat * int(n) + (one < 0).where(one + int(n), one)
    # A number that is out of range must not become another place: it is made one that no slice has.
    count = math.prod(int(n) for n in x.shape[:depth])
    return (flat if bad is None else bad.where(count, flat)), x.shape[depth:]
