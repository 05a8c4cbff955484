"""Normalisation: batch, layer, group, instance and root-mean-square norm.

All are one formula, `(x - mean) / sqrt(variance + epsilon) * scale + bias`, over other dimensions. The variance is that of the
population, taken of the centred operand (a second pass, no difference of large squares). Floats of 16 bits are computed in f32
and rounded once, at the end. The gradient needs two sums, of `dy` and of `dy * (x - mean)`, which one pass can take.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tapeout.ir.dtype import f32
from tapeout.ir.op import Composite, register
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array
    from tapeout.ir.type import Shape, TensorType
    from tapeout.ops.sym import Sym

    Cotangents = tuple[Sym | None, ...]

Ints = tuple[int, ...]


class _Norm(Composite):
    """Operands are x, then maybe the scale, then maybe the bias, both of the sizes of x at `places`.

    Results are y and the statistics, which have the dimensions of x without `axes`: the mean (if `centered`), and the variance or
    the inverse deviation.
    """

    axes: Ints
    epsilon: float

    centered: ClassVar[bool] = True
    gives_variance: ClassVar[bool] = False
    least: ClassVar[int] = 1
    """How many values a statistic needs."""

    def scaled_at(self, rank: int) -> Ints:
        """Return the dimensions of x on which scale and bias lie."""
        return self.axes

    def kept(self, rank: int) -> Ints:
        """Return the dimensions of x that the statistics have."""
        return tuple(d for d in range(rank) if d not in self.axes)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of x, then those of the statistics, at least f32."""
        if len(types) not in (1, 2, 3):
            raise ShapeError(f"{self.name} takes 1 to 3 operands, got {len(types)}")
        x = types[0]
        if not x.dtype.is_float:
            raise ShapeError(f"{self.name} takes floats, got {x}")
        places = self.scaled_at(x.rank)
        for dims in (self.axes, places):
            if any(not 0 <= d < x.rank for d in dims) or list(dims) != sorted(set(dims)):
                raise ShapeError(f"{self.name}: dimensions {list(dims)} of {x}")
        wanted = x.with_shape(tuple(x.shape[d] for d in places))
        for what, t in zip(("scale", "bias"), types[1:], strict=False):
            if t != wanted:
                raise ShapeError(f"{self.name}: the {what} is {t}, expected {wanted} for x {x}")
        if _count(x.shape, self.axes) < self.least:
            raise ShapeError(
                f"{self.name}: {x} has fewer than {self.least} values for a statistic",
                hint="use a larger batch, or drop the last short one",
            )
        statistic = x.with_shape(tuple(x.shape[d] for d in self.kept(x.rank)))
        statistic = statistic.with_dtype(_wide(x.dtype))
        return (x, statistic, statistic) if self.centered else (x, statistic)

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return y and the statistics, in two passes over x."""
        x = operands[0].cast(_wide(operands[0].dtype))
        every, kept = tuple(range(x.rank)), self.kept(x.rank)
        mean = x.mean(self.axes) if self.centered else None
        c = x if mean is None else x - _on(mean, kept, every, x)
        variance = c.square().mean(self.axes)
        inverse = (variance + self.epsilon).rsqrt()
        y = self._times(c, inverse, operands[1:2])
        if len(operands) == 3:
            y = y + _on(operands[2].cast(x.dtype), self.scaled_at(x.rank), every, x)
        spread = variance if self.gives_variance else inverse
        y = y.cast(operands[0].dtype)
        return (y, spread) if mean is None else (y, mean, spread)

    def _times(self, x: Sym, inverse: Sym, scale: Sequence[Sym]) -> Sym:
        """Return `x * inverse * scale`."""
        every, kept = tuple(range(x.rank)), self.kept(x.rank)
        if not scale:
            return x * _on(inverse, kept, every, x)
        places, wide = self.scaled_at(x.rank), scale[0].cast(x.dtype)
        both = _union(kept, places)
        if both == every:
            return x * _on(inverse, kept, every, x) * _on(wide, places, every, x)
        # One factor serves many elements.
        factor = _on(inverse, kept, both, x) * _on(wide, places, both, x)
        return x * _on(factor, both, every, x)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """Return the definition in f64."""
        x = arrays[0].astype(np.float64)
        with np.errstate(all="ignore"):
            mean = np.mean(x, axis=self.axes, keepdims=True) if self.centered else np.zeros(())
            variance = np.mean((x - mean) ** 2, axis=self.axes, keepdims=True)
            inverse = 1 / np.sqrt(variance + self.epsilon)
            y = (x - mean) * inverse
            places = self.scaled_at(x.ndim)
            shape = [n if d in places else 1 for d, n in enumerate(x.shape)]
            for a, function in zip(arrays[1:], (np.multiply, np.add), strict=False):
                y = function(y, a.astype(np.float64).reshape(shape))
        wide = np.float32 if arrays[0].dtype.itemsize == 2 else arrays[0].dtype
        found = (mean, variance if self.gives_variance else inverse)
        statistics = [np.squeeze(a, self.axes).astype(wide) for a in found[not self.centered :]]
        return (y.astype(arrays[0].dtype), *statistics)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the cotangents of x, scale and bias from the sums of `dy` and `dy * (x - mean)`."""
        x = operands[0].cast(_wide(operands[0].dtype))
        every, kept, places = tuple(range(x.rank)), self.kept(x.rank), self.scaled_at(x.rank)
        c = x - _on(results[1], kept, every, x) if self.centered else x
        inverse = (results[-1] + self.epsilon).rsqrt() if self.gives_variance else results[-1]
        share = 1.0 / max(_count(x.shape, self.axes), 1)
        offset, slope = self._of_statistics(cotangents[1:], inverse, share)
        dx: Sym | None = None
        more: list[Sym | None] = [None] * (len(operands) - 1)
        if cotangents[0] is not None:
            dy = cotangents[0].cast(x.dtype)
            both = _union(kept, places) if more else kept
            inner = [d for d in every if d not in both]
            one, two = dy.sum(inner), (dy * c).sum(inner)
            if more:
                spread = two * _on(inverse, kept, both, x)
                gone = [both.index(d) for d in both if d not in places]
                found = (spread.sum(gone), one.sum(gone))
                more = [s.cast(o.dtype) for s, o in zip(found, operands[1:], strict=False)]
                scale = _on(operands[1].cast(x.dtype), places, both, x)
                one, two = one * scale, two * scale
            rest = [both.index(d) for d in both if d in self.axes]
            dx = self._times(dy, inverse, operands[1:2])
            # Multiplied one after the other: the cube of a large inverse would overflow.
            slope = _sum(slope, inverse * (two.sum(rest) * share) * inverse * inverse)
            if self.centered:
                offset = _sum(offset, inverse * (one.sum(rest) * share))
        for part in (
            None if offset is None else _on(offset, kept, every, x),
            None if slope is None else c * _on(slope, kept, every, x),
        ):
            if part is not None:
                dx = -part if dx is None else dx - part
        return (None if dx is None else dx.cast(operands[0].dtype), *more)

    def _of_statistics(
        self, cotangents: Cotangents, inverse: Sym, share: float
    ) -> tuple[Sym | None, Sym | None]:
        """Return what the cotangents of the statistics take from that of x, and from it per unit of `x - mean`."""
        dmean = cotangents[0] if self.centered else None
        offset = None if dmean is None else dmean * -share
        dspread = cotangents[-1]
        if dspread is None:
            return offset, None
        if self.gives_variance:
            return offset, dspread * (-2 * share)
        return offset, inverse * (dspread * share) * inverse * inverse


@register
class BatchNorm(_Norm):
    """Statistics over the batch and all places, per channel; scale and bias lie on the dimensions that the statistics have.

    Gives y, the mean and the variance of the population. A single value has no deviation, so at least two are needed.
    """

    name = "batch_norm"
    axes: Ints
    epsilon: float = 1e-5

    gives_variance = True
    least = 2

    def scaled_at(self, rank: int) -> Ints:
        """Return the dimensions that are not normalised over."""
        return self.kept(rank)


@register
class BatchNormInference(Composite):
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`: operands in the order x, scale, bias, mean, variance.

    All but x are [C] for x [N, C, *], or have the sizes of more dimensions of x from the second on. It is differentiated through
    its formula.
    """

    name = "batch_norm_inference"
    epsilon: float = 1e-5

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of x."""
        if len(types) != 5:
            raise ShapeError(f"{self.name} takes 5 operands, got {len(types)}")
        x, *rest = types
        wanted = x.shape[1 : 1 + rest[0].rank]
        if not rest[0].rank or not all(t.shape == wanted for t in rest):
            given = ", ".join(map(str, rest))
            raise ShapeError(f"{self.name}: scale, bias, mean and variance are {given} for x {x}")
        if not all(t.dtype.is_float for t in types):
            raise ShapeError(f"{self.name} takes floats, got {', '.join(map(str, types))}")
        return (x,)

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return x times one factor per channel, plus the bias."""
        x, (scale, bias, mean, variance) = (
            operands[0],
            (_as_wide(v, operands[0]) for v in operands[1:]),
        )
        places, every = tuple(range(1, 1 + scale.rank)), tuple(range(x.rank))
        factor = (variance + self.epsilon).rsqrt() * scale
        c = _as_wide(x, x) - _on(mean, places, every, x)
        y = c * _on(factor, places, every, x) + _on(bias, places, every, x)
        return (y.cast(x.dtype),)

    def reference(self, *arrays: Array) -> Array:
        """Return the definition in f64."""
        x = arrays[0].astype(np.float64)
        shape = (1, *arrays[1].shape, *(1,) * (x.ndim - 1 - arrays[1].ndim))
        scale, bias, mean, variance = (a.astype(np.float64).reshape(shape) for a in arrays[1:])
        with np.errstate(all="ignore"):
            y = (x - mean) / np.sqrt(variance + self.epsilon) * scale + bias
        return np.asarray(y).astype(arrays[0].dtype)


@register
class Normalize(_Norm):
    """Statistics over `axes` of each sample: layer, group and instance norm. Gives y, the mean and the inverse deviation."""

    name = "normalize"
    axes: Ints
    places: Ints
    epsilon: float = 1e-5

    def scaled_at(self, rank: int) -> Ints:
        """Return `places`."""
        return self.places


@register
class RmsNorm(_Norm):
    """`x / sqrt(mean(x**2) + epsilon)`; gives y and the inverse root mean square. The scale lies on `axes`."""

    name = "rms_norm"
    axes: Ints
    epsilon: float = 1e-5

    centered = False


def _wide(dtype: DType) -> DType:
    return f32 if dtype.bits == 16 else dtype


def _as_wide(v: Sym, x: Sym) -> Sym:
    return v.cast(_wide(x.dtype))


def _count(shape: Shape, axes: Sequence[int]) -> int:
    return math.prod(int(shape[a]) for a in axes)


def _union(a: Ints, b: Ints) -> Ints:
    return tuple(sorted({*a, *b}))


def _sum(a: Sym | None, b: Sym) -> Sym:
    return b if a is None else a + b


def _on(v: Sym, have: Ints, want: Ints, x: Sym) -> Sym:
    """Return a value that lies on the dimensions `have` of x, repeated so that it lies on `want`."""
    return v.broadcast([x.shape[d] for d in want], [want.index(d) for d in have])


def _emit(op: _Norm, x: Sym, scale: Sym | None, bias: Sym | None) -> tuple[Sym, ...]:
    """Return the results of a norm with either, both or none of scale and bias."""
    if scale is not None:
        return x.emit_all(op, x, scale) if bias is None else x.emit_all(op, x, scale, bias)
    y, *statistics = x.emit_all(op, x)
    if bias is not None:
        y = y + _on(bias, op.scaled_at(x.rank), tuple(range(x.rank)), x)
    return (y, *statistics)


# -- functions ----------------------------------------------------------------------------------------------------------


def batch_norm(
    x: Sym, scale: Sym | None, bias: Sym | None, eps: float = 1e-5, *, spatial: bool = True
) -> tuple[Sym, Sym, Sym]:
    """Return the batch normalised by its own statistics: training's form.

    Args:
        x: [N, C, *spatial].
        scale: [C] (or [C, *spatial] unless `spatial`).
        bias: Alike.
        eps: Added to the variance.
        spatial: Whether statistics are per channel; else per channel and place.

    Returns:
        y, the mean and the population's variance, both [C], at least f32.

    Raises:
        ShapeError: The shapes do not fit, or there is just one value per channel.
    """
    axes = tuple(d for d in range(x.rank) if d == 0 or (spatial and d > 1))
    y, mean, variance = _emit(BatchNorm(axes=axes, epsilon=eps), x, scale, bias)
    return y, mean, variance


def batch_norm_inference(
    x: Sym, scale: Sym, bias: Sym, mean: Sym, variance: Sym, eps: float = 1e-5
) -> Sym:
    """Return `(x - mean) / sqrt(variance + eps) * scale + bias` with statistics that are given, [C] like scale and bias."""
    return x.emit(BatchNormInference(epsilon=eps), x, scale, bias, mean, variance)


def moved(statistic: Sym, found: Sym, share: float) -> Sym:
    """Return a running statistic after a batch: moved by a share of the way towards what was found, in its own type.

    Not `statistic * (1 - share) + found * share`: rounded, the two factors do not add up to 1.
    """
    now = statistic.cast(found.dtype)
    return (now + (found - now) * share).cast(statistic.dtype)


def layer_norm(
    x: Sym, scale: Sym | None, bias: Sym | None, axes: Sequence[int], eps: float = 1e-5
) -> tuple[Sym, Sym, Sym]:
    """Return x normalised over axes.

    Args:
        x: Any shape.
        scale: The sizes of x at `axes`.
        bias: Alike.
        axes: What to normalise over, in rising order.
        eps: Added to the variance.

    Returns:
        y, the mean and the inverse deviation, without the axes, at least f32.
    """
    at = tuple(axes)
    y, mean, inverse = _emit(Normalize(axes=at, places=at, epsilon=eps), x, scale, bias)
    return y, mean, inverse


def instance_norm(x: Sym, scale: Sym | None, bias: Sym | None, eps: float = 1e-5) -> Sym:
    """Return x [N, C, *spatial] normalised over the spatial dimensions, with scale and bias [C]."""
    op = Normalize(axes=tuple(range(2, x.rank)), places=(1,), epsilon=eps)
    return _emit(op, x, scale, bias)[0]


def group_norm(
    x: Sym,
    scale: Sym | None,
    bias: Sym | None,
    groups: int,
    eps: float = 1e-5,
    *,
    per_group: bool = False,
) -> Sym:
    """Return x [N, C, *spatial] normalised over groups of channels and all places, with scale and bias [C].

    Args:
        x: The channels of a group lie side by side.
        scale: [C], or [groups] if `per_group`.
        bias: Alike.
        groups: How many.
        eps: Added to the variance.
        per_group: Whether scale and bias are those of a group.

    Raises:
        ShapeError: The groups do not divide the channels.
    """
    if x.rank < 2 or groups < 1 or int(x.shape[1]) % groups:
        raise ShapeError(f"group_norm: {groups} groups do not divide the channels of {x.type}")
    each = int(x.shape[1]) // groups
    parts = x.reshape([x.shape[0], groups, each, *x.shape[2:]])
    places = (1,) if per_group else (1, 2)
    sizes = [parts.shape[d] for d in places]
    affine = [None if a is None else a.reshape(sizes) for a in (scale, bias)]
    op = Normalize(axes=tuple(range(2, parts.rank)), places=places, epsilon=eps)
    return _emit(op, parts, *affine)[0].reshape(x.shape)


def rms_norm(x: Sym, scale: Sym | None, axes: Sequence[int], eps: float = 1e-5) -> tuple[Sym, Sym]:
    """Return `x / sqrt(mean(x**2) + eps) * scale` over axes, and the inverse root mean square without the axes."""
    y, inverse = _emit(RmsNorm(axes=tuple(axes), epsilon=eps), x, scale, None)
    return y, inverse
