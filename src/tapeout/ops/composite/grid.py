"""Sampling an image at places that are data: every place reads its neighbours, and the gradient goes to both."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

from tapeout.ir.dtype import i64
from tapeout.ops import elementwise as ew
from tapeout.ops.sym import iota
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ops.sym import Sym

Term = tuple["Sym", "Sym | None"]
"""A neighbour along an axis: its place (i64), and what it weighs (None: 1)."""

CUBIC = -0.75
"""The coefficient of the cubic."""


def grid_sample(
    x: Sym, grid: Sym, mode: str = "linear", padding: str = "zeros", *, align_corners: bool = False
) -> Sym:
    """Return `x` read at the places of a grid, between -1 and 1 along each axis.

    Args:
        x: [N, C, *spatial].
        grid: [N, *out, number of spatial dimensions], the place along the last dimension first.
        mode: `nearest`, `linear` or `cubic`.
        padding: What stands beyond the edge: `zeros`, `border` (the edge) or `reflection`.
        align_corners: Whether -1 and 1 are the middles of the outer elements, or their outer edges.

    Returns:
        [N, C, *out].

    Raises:
        ShapeError: The shapes do not fit.
    """
    spatial = x.shape[2:]
    if len(spatial) < 1 or grid.rank != x.rank or grid.shape[-1] != len(spatial):
        raise ShapeError(f"grid_sample: the operand is {x.type}, the grid {grid.type}")
    axes = []
    for d, n in enumerate(spatial):
        at = grid[..., len(spatial) - 1 - d].cast(x.dtype)
        place = (at + 1) * ((n - 1) / 2) if align_corners else ((at + 1) * n - 1) * 0.5
        axes.append(_neighbours(place, int(n), mode, padding, align_corners=align_corners))
    rows = x.transpose([0, *range(2, x.rank), 1]).reshape([-1, x.shape[1]])
    total: Sym | None = None
    for terms in product(*axes):
        part = _read(rows, grid, spatial, terms)
        total = part if total is None else total + part
    assert total is not None
    return total.transpose([0, total.rank - 1, *range(1, total.rank - 1)])


def _read(rows: Sym, grid: Sym, spatial: tuple[int, ...], terms: tuple[Term, ...]) -> Sym:
    """Return the rows [N, *out, C] of one neighbour, weighed."""
    number = iota(rows.builder, grid.shape[:-1], 0, i64)
    weight: Sym | None = None
    for n, (at, w) in zip(spatial, terms, strict=True):
        number = number * int(n) + at
        weight = w if weight is None else weight if w is None else weight * w
    found = rows.take(number, 0)
    return found if weight is None else found * weight.broadcast(found.shape, range(weight.rank))


def _neighbours(place: Sym, n: int, mode: str, padding: str, *, align_corners: bool) -> list[Term]:
    low, high = (0.0, n - 1.0) if align_corners else (-0.5, n - 0.5)
    inside: Callable[[Sym], Sym] = {
        "zeros": lambda at: at,
        "border": lambda at: at.clip(0.0, n - 1.0),
        "reflection": lambda at: _reflected(at, low, high).clip(0.0, n - 1.0),
    }[padding]
    if mode == "cubic":
        first = place.floor()
        part = place - first
        at = [
            (inside(first + float(k)), w) for k, w in zip(range(-1, 3), _cubic(part), strict=True)
        ]
        return [_term(p, w, n, padding) for p, w in at]
    place = inside(place)
    if mode == "nearest":
        return [_term(place.unary(ew.Round()), None, n, padding)]
    first = place.floor()
    part = place - first
    return [_term(first, 1 - part, n, padding), _term(first + 1.0, part, n, padding)]


def _term(at: Sym, weight: Sym | None, n: int, padding: str) -> Term:
    """Return a whole place within the operand; beyond it the weight is 0, or it has been brought inside."""
    index = at.clip(0.0, n - 1.0).cast(i64)
    if padding != "zeros":
        return index, weight
    there = (at >= 0.0) & (at <= n - 1.0)
    return index, there.cast(at.dtype) if weight is None else there.where(weight, 0)


def _reflected(at: Sym, low: float, high: float) -> Sym:
    """Return a place reflected at both ends, as often as it takes."""
    span = high - low
    if span <= 0:
        return at.like(low)
    distance = (at - low).abs()
    times = (distance * (1 / span)).floor()
    rest = distance - times * span
    return (times.floor_mod(2.0) == 0).where(rest + low, high - rest)


def _cubic(part: Sym) -> list[Sym]:
    """Return the weights of the four neighbours of a place between the middle two."""

    def near(d: Sym) -> Sym:
        return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1

    def far(d: Sym) -> Sym:
        return ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC

    rest = 1 - part
    return [far(part + 1), near(part), near(rest), far(rest + 1)]
