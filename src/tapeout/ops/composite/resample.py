"""Resampling along an axis: every element is a weighted sum of few elements at known places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.op import Array, Composite, register
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.type import TensorType
    from tapeout.ops.sym import Sym

WRITTEN_OUT = 8
"""Most terms of a sum that is written term by term; longer ones are a reduction."""


@register
class Resample(Composite):
    """`y[…, o, …] = sum over t of weights[t, o] * x[…, places[t, o], …]`, and how its adjoint is of the same form.

    Operands: `x`, `places` [terms, out], `weights` [terms, out], then places and weights of the adjoint, [terms, in]. The tables are
    constants of the caller; those of the adjoint must fit. Nothing is scattered in either direction.
    """

    name = "resample"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of `x` with the new size along the axis."""
        x, *tables = types
        if not 0 <= self.axis < x.rank or not x.dtype.is_float:
            raise ShapeError(f"resample: axis {self.axis} of {x}, floats are expected")
        places, weights, back, back_weights = tables
        fits = places.rank == back.rank == 2 and back.shape[1] == x.shape[self.axis]
        same = places.shape == weights.shape and back.shape == back_weights.shape
        kinds = places.dtype.is_integer and weights.dtype == x.dtype == back_weights.dtype
        if not (fits and same and kinds):
            text = ", ".join(map(str, tables))
            raise ShapeError(f"resample: the tables {text} do not fit {x} along {self.axis}")
        shape = list(x.shape)
        shape[self.axis] = places.shape[1]
        return (x.with_shape(tuple(shape)),)

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the sum, term by term if there are few."""
        x, places, weights = operands[:3]
        axis, (terms, size) = self.axis, places.shape
        if terms > WRITTEN_OUT:
            chosen = x.take(places, axis)
            return ((chosen * weights.broadcast(chosen.shape, [axis, axis + 1])).sum([axis]),)
        total: Sym | None = None
        for t in range(terms):
            at, factor = (
                table.slice([t, 0], [t + 1, size]).reshape([size]) for table in (places, weights)
            )
            chosen = x.take(at, axis)
            part = chosen * factor.broadcast(chosen.shape, [axis])
            total = part if total is None else total + part
        assert total is not None
        return (total,)

    def pullback(
        self,
        cotangents: tuple[Sym | None, ...],
        operands: tuple[Sym, ...],
        results: tuple[Sym, ...],
    ) -> tuple[Sym | None, ...]:
        """Return the same form with the tables exchanged, and what the weights get."""
        (dy,), (x, places, weights, back, back_weights) = cotangents, operands
        assert dy is not None
        dx = dy.emit(self, dy, back, back_weights, places, weights)
        chosen = x.take(places, self.axis)
        kept = (self.axis, self.axis + 1)
        spread = dy.broadcast(chosen.shape, [d for d in range(chosen.rank) if d != self.axis])
        dw = (chosen * spread).sum([d for d in range(chosen.rank) if d not in kept])
        return dx, None, dw, None, None


def resample(x: Sym, axis: int, places: Array, weights: Array) -> Sym:
    """Return weighted sums of elements along an axis.

    Args:
        x: Floats of any shape.
        axis: Along which axis; not negative.
        places: Integers [out, terms]: where the terms of each element stand, from 0 to the size of the axis.
        weights: [out, terms].

    Returns:
        As `x`, with size `out` along the axis.
    """
    size = int(x.shape[axis])
    if places.shape[1] == 1 and (weights == 1).all():
        found = _moved(x, axis, places[:, 0])
        if found is not None:
            return found
    back_places, back_weights = transposed(places, weights, size)
    dtype = x.dtype.numpy
    tables = [
        x.constant(np.ascontiguousarray(t.T).astype(kind))
        for t, kind in (
            (places, np.int32),
            (weights, dtype),
            (back_places, np.int32),
            (back_weights, dtype),
        )
    ]
    return x.emit(Resample(axis=axis), x, *tables)


def _moved(x: Sym, axis: int, places: Array) -> Sym | None:
    """Return elements whose places rise evenly, or repeat alike, without any table; None if neither holds."""
    size, out = int(x.shape[axis]), len(places)
    if out and out % size == 0 and (places == np.arange(out) // (out // size)).all():
        return repeat(x, {axis: out // size})
    steps = np.diff(places)
    if not out or (steps != steps[:1]).any() or (out > 1 and steps[0] < 1):
        return None
    starts, limits, strides = [0] * x.rank, list(x.shape), [1] * x.rank
    starts[axis], limits[axis] = int(places[0]), int(places[-1]) + 1
    strides[axis] = int(steps[0]) if out > 1 else 1
    return x.slice(starts, limits, strides)


def repeat(x: Sym, times: dict[int, int]) -> Sym:
    """Return the value with each element along some axes repeated a number of times, one beside the other."""
    shape: list[int] = []
    at: list[int] = []
    sizes: list[int] = []
    for d, n in enumerate(x.shape):
        k = times.get(d, 1)
        at.append(len(shape))
        shape += [n, k] if k > 1 else [n]
        sizes.append(n * k if k > 1 else n)
    return x.broadcast(shape, at).reshape(sizes)


def transposed(places: Array, weights: Array, size: int) -> tuple[Array, Array]:
    """Return the tables of the adjoint, [size, terms]; terms that are missing have weight 0.

    Args:
        places: [out, terms].
        weights: [out, terms].
        size: Of the axis that the places point into.
    """
    out, terms = places.shape
    number = np.repeat(np.arange(out), terms)
    kept = weights.ravel() != 0
    pairs, inverse = np.unique(
        places.ravel()[kept].astype(np.int64) * out + number[kept], return_inverse=True
    )
    total = np.zeros(len(pairs))
    np.add.at(total, inverse, weights.ravel()[kept].astype(np.float64))
    target, source = pairs // max(out, 1), pairs % max(out, 1)
    count = np.bincount(target, minlength=size)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    slot = np.arange(len(pairs)) - first[target]
    back = np.zeros((size, max(int(count.max(initial=0)), 1)), np.int64)
    back_weights = np.zeros(back.shape)
    back[target, slot], back_weights[target, slot] = source, total
    return back, back_weights
