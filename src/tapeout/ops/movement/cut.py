"""Parts of a tensor, and room around one: slice and pad, each the adjoint of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.affine import Affine, Guard
from tapeout.ir.dtype import i64
from tapeout.ir.op import Array, Pointwise, register
from tapeout.ir.type import TensorType
from tapeout.ops.movement.base import Cotangents, Ints, T, one_operand
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym


@register
class Slice(Pointwise):
    """Elements `start, start + stride, … < limit` of every dimension."""

    name = "slice"
    starts: Ints
    limits: Ints
    strides: Ints

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the shape of the part."""
        x = one_operand(types, self.name)
        if not len(self.starts) == len(self.limits) == len(self.strides) == x.rank:
            raise ShapeError(
                f"slice: starts, limits and strides must have one number per dimension of {x}"
            )
        shape = []
        for n, lo, hi, step in zip(x.shape, self.starts, self.limits, self.strides, strict=True):
            if not 0 <= lo <= hi <= n or step < 1:
                raise ShapeError(f"slice: {lo}:{hi}:{step} does not lie in 0..{n} of {x}")
            shape.append(steps_between(lo, hi, step))
        return (x.with_shape(tuple(shape)),)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's slice."""
        return arrays[0][
            tuple(
                slice(a, b, c)
                for a, b, c in zip(self.starts, self.limits, self.strides, strict=True)
            )
        ]

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element at `start + stride * i`."""
        return reads[0](
            [i * step + lo for i, lo, step in zip(index, self.starts, self.strides, strict=True)]
        )

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the cotangent with zeros around and between."""
        (dy,), (x,) = cotangents, operands
        assert dy is not None
        high = []
        for n, m, lo, step in zip(x.shape, dy.shape, self.starts, self.strides, strict=True):
            high.append(n - lo - ((m - 1) * step + 1 if m else 0))
        return (dy.pad(self.starts, high, 0.0, [step - 1 for step in self.strides]),)


@register
class Pad(Pointwise):
    """`value` around the operand (`low`, `high`; negative numbers crop) and between its elements (`interior`)."""

    name = "pad"
    low: Ints
    high: Ints
    interior: Ints
    value: float = 0.0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the grown shape."""
        x = one_operand(types, self.name)
        if (
            not len(self.low) == len(self.high) == len(self.interior) == x.rank
            or min(self.interior, default=0) < 0
        ):
            raise ShapeError(
                f"pad: low, high and interior (>= 0) must have one number per dimension of {x}"
            )
        shape = tuple(
            lo + hi + (n + (n - 1) * k if n else 0)
            for n, lo, hi, k in zip(x.shape, self.low, self.high, self.interior, strict=True)
        )
        if any(n < 0 for n in shape):
            raise ShapeError(
                f"pad: {x} cropped by {list(self.low)} and {list(self.high)} has a negative size"
            )
        return (x.with_shape(shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return the padded array."""
        x = arrays[0]
        (out,) = self.infer(TensorType(i64, x.shape))
        y = np.full(out.shape, self.value).astype(x.dtype)
        to, source = [], []
        for n, m, lo, k in zip(x.shape, out.shape, self.low, self.interior, strict=True):
            kept = [i for i in range(n) if 0 <= lo + i * (k + 1) < m]
            source.append(np.array(kept, int))
            to.append(np.array([lo + i * (k + 1) for i in kept], int))
        if x.ndim:
            y[np.ix_(*to)] = x[np.ix_(*source)]
        else:
            y[...] = x
        return y

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element below, guarded."""
        inside, where = [], []
        for i, n, lo, k in zip(index, types[0].shape, self.low, self.interior, strict=True):
            at = i - lo
            where.append(Guard(at, 0, (n - 1) * (k + 1) + 1 if n else 0))
            if k:
                where.append(Guard(at % (k + 1), 0, 1))
            inside.append(at // (k + 1))
        return reads[0](inside, where, self.value)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the part of the cotangent that the operand fills."""
        (dy,), (x,) = cotangents, operands
        assert dy is not None
        low = [max(-lo, 0) for lo in self.low]
        high = [max(-hi, 0) for hi in self.high]
        whole = dy.pad(low, high) if any(low) or any(high) else dy
        starts = [max(lo, 0) for lo in self.low]
        steps = [k + 1 for k in self.interior]
        limits = [
            lo + (n - 1) * k + 1 if n else lo
            for lo, n, k in zip(starts, x.shape, steps, strict=True)
        ]
        return (whole.slice(starts, limits, steps),)


def steps_between(lo: int, hi: int, step: int) -> int:
    """Return how many of lo, lo + step, … lie below hi; a named dimension keeps its formula."""
    return hi - lo if step == 1 else (hi - lo + (step - 1)) // step
