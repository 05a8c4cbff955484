"""Resize and Upsample: every axis by itself, as weighted sums of elements at places known at import."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import f32, f64
from tapeout.ops import elementwise as ew
from tapeout.ops.composite.resample import resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.frontend.onnx.call import Call
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym

LIMIT_TABLE = 1 << 24
"""Most entries of a table of places."""

_COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_ROUND: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Rule:
    """How elements follow from the operand.

    Attributes:
        mode: `nearest`, `linear` or `cubic`.
        coordinates: How a place in the result becomes one in the operand.
        nearest: How a place is rounded.
        cubic: The coefficient of the cubic.
        antialias: Whether the kernel widens when the result is smaller.
        exclude: Whether elements beyond the edge weigh nothing (else the edge stands for them).
        outside: What stands where the region lies outside of the operand.
    """

    mode: str
    coordinates: str
    nearest: str = "floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude: bool = False
    outside: float = 0.0


@dataclass(frozen=True)
class Line:
    """One axis: its sizes, the factor between them, and the region that is read, in parts of the operand."""

    size: int
    out: int
    scale: float
    region: tuple[float, float] = (0.0, 1.0)


@op("Upsample", since=7)
def upsample_attribute(call: Call, x: Sym) -> Sym:
    scales = call.reals("scales")
    if scales is None:
        call.fail("attribute 'scales' is missing")
    return _simple(call, x, scales)


@op("Upsample", since=9, note="scales: known at import")
@op("Resize", since=10, note="scales: known at import")
def resize_simple(call: Call, x: Sym, scales: Sym) -> Sym:
    return _simple(call, x, _floats(call, scales, "the scales"))


@op("Resize", since=11, note="roi, scales, sizes: known at import")
def resize(
    call: Call, x: Sym, roi: Sym | None = None, scales: Sym | None = None, sizes: Sym | None = None
) -> Sym:
    rule = _rule(call)
    given = call.integers("axes") if call.opset >= 18 else None
    axes = list(range(x.rank)) if given is None else [call.axis(a, x.rank) for a in given]
    call.require(len(set(axes)) == len(axes), f"axes {axes} name an axis twice")
    region = _region(call, rule, roi, len(axes))
    policy = "stretch"
    if call.opset >= 18:
        words = ("stretch", "not_larger", "not_smaller")
        policy = call.choice("keep_aspect_ratio_policy", words, "stretch")
    wanted = None if sizes is None or not sizes.type.size else call.numbers(sizes, "the sizes")
    factors = (
        None if scales is None or not scales.type.size else _floats(call, scales, "the scales")
    )
    call.require((wanted is None) != (factors is None), "needs either scales or sizes")
    if wanted is not None:
        return _resized(call, x, rule, axes, _to_sizes(call, x, axes, wanted, policy), region)
    assert factors is not None
    return _resized(call, x, rule, axes, _by_factors(call, x, axes, factors), region)


def _simple(call: Call, x: Sym, scales: Sequence[float]) -> Sym:
    """Return the older form: place `o` comes from `o / scale`, rounded down (up where it shrinks)."""
    mode = call.choice("mode", ("nearest", "linear"), "nearest")
    axes = list(range(x.rank))
    for axis, (n, scale) in enumerate(_by_factors(call, x, axes, scales)):
        rule = Rule(mode, "asymmetric", "ceil" if scale < 1 else "floor")
        x = _resized(call, x, rule, [axis], [(n, scale)], [(0.0, 1.0)])
    return x


def _rule(call: Call) -> Rule:
    mode = call.choice("mode", ("nearest", "linear", "cubic"), "nearest")
    older = ["tf_half_pixel_for_nn"] if call.opset < 13 else []
    newer = ["half_pixel_symmetric"] if call.opset >= 19 else []
    rule = Rule(
        mode,
        call.choice(
            "coordinate_transformation_mode", (*_COORDINATES, *older, *newer), "half_pixel"
        ),
        call.choice("nearest_mode", _NEAREST, "round_prefer_floor"),
        call.real("cubic_coeff_a", -0.75),
        call.flag("antialias") if call.opset >= 18 else False,
        call.flag("exclude_outside"),
        call.real("extrapolation_value", 0.0),
    )
    call.require(not (rule.antialias and mode == "nearest"), "antialias has no meaning for nearest")
    return rule


def _floats(call: Call, x: Sym, what: str) -> tuple[float, ...]:
    array = call.value(x, what)
    call.require(array.ndim == 1, f"{what} must be a list of numbers, it is {x.type}")
    return tuple(float(n) for n in array)


def _region(call: Call, rule: Rule, roi: Sym | None, axes: int) -> list[tuple[float, float]]:
    """Return the part of each axis that is read: all of it, unless the rule is that of a crop."""
    if rule.coordinates != "tf_crop_and_resize":
        return [(0.0, 1.0)] * axes
    if roi is None:
        call.fail("tf_crop_and_resize needs the operand roi")
    found = _floats(call, roi, "the region of interest")
    call.require(len(found) == 2 * axes, f"the region has {len(found)} numbers for {axes} axes")
    return list(zip(found[:axes], found[axes:], strict=True))


def _by_factors(
    call: Call, x: Sym, axes: Sequence[int], factors: Sequence[float]
) -> list[tuple[int, float]]:
    call.require(len(factors) == len(axes), f"{len(factors)} scales for {len(axes)} axes")
    call.require(all(0 < s < math.inf for s in factors), f"scales {list(factors)} are not positive")
    pairs = zip(axes, factors, strict=True)
    return [(x.shape[a] if s == 1 else math.floor(int(x.shape[a]) * s), s) for a, s in pairs]


def _to_sizes(
    call: Call, x: Sym, axes: Sequence[int], sizes: Sequence[int], policy: str
) -> list[tuple[int, float]]:
    call.require(len(sizes) == len(axes), f"{len(sizes)} sizes for {len(axes)} axes")
    call.require(
        all(n >= 0 for n in sizes), f"sizes {list(map(int, sizes))} hold a negative number"
    )
    call.require(all(int(x.shape[a]) > 0 for a in axes), f"{x.type} has an empty axis")
    factors = [int(n) / int(x.shape[a]) for a, n in zip(axes, sizes, strict=True)]
    if policy == "stretch":
        return list(zip(sizes, factors, strict=True))
    one = (min if policy == "not_larger" else max)(factors)
    return [(math.floor(one * int(x.shape[a]) + 0.5), one) for a in axes]


def _resized(
    call: Call,
    x: Sym,
    rule: Rule,
    axes: Sequence[int],
    to: Sequence[tuple[int, float]],
    region: Sequence[tuple[float, float]],
) -> Sym:
    """Resize one axis after the other."""
    y = x
    if not x.dtype.is_float or x.dtype.bits == 16:
        exact = x.dtype.is_integer and x.dtype.bits > 16
        y = x.cast(f64 if exact else f32)
    for axis, (out, scale), part in zip(axes, to, region, strict=True):
        same = rule.coordinates != "tf_crop_and_resize" or part == (0.0, 1.0)
        if scale == 1 and out == y.shape[axis] and same:
            continue
        line = Line(int(y.shape[axis]), int(out), scale, part)
        call.require(line.size > 0 or line.out == 0, f"axis {axis} of {x.type} is empty")
        y = _along(call, y, axis, line, rule)
    if x.dtype.is_float:
        return y.cast(x.dtype)
    if y is x or rule.mode == "nearest":
        return y.cast(x.dtype)
    info = np.iinfo(x.dtype.numpy)
    return y.unary(ew.Round()).clip(float(info.min), float(info.max)).cast(x.dtype)


def _along(call: Call, x: Sym, axis: int, line: Line, rule: Rule) -> Sym:
    at = _source(line, rule.coordinates)
    places, weights = _terms(at, line, rule)
    call.require(places.size <= LIMIT_TABLE, f"axis {axis} would have {places.size} weights")
    outside = (places < 0) | (places >= line.size)
    if rule.exclude:
        weights = np.where(outside, 0.0, weights)
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    y = resample(x, axis, places.clip(0, max(line.size - 1, 0)), weights)
    if rule.coordinates != "tf_crop_and_resize":
        return y
    beyond = (at < 0) | (at > line.size - 1)
    if not beyond.any():
        return y
    return call.constant(beyond).broadcast(y.shape, [axis]).where(y.like(rule.outside), y)


def _source(line: Line, coordinates: str) -> Array:
    """Return the place in the operand of every place in the result."""
    o = np.arange(line.out, dtype=np.float64)
    width = line.scale * line.size
    if coordinates == "align_corners":
        return o * 0 if width == 1 else o * (line.size - 1) / (width - 1)
    if coordinates == "asymmetric":
        return o / line.scale
    if coordinates == "tf_half_pixel_for_nn":
        return (o + 0.5) / line.scale
    if coordinates == "tf_crop_and_resize":
        low, high = line.region
        span = (high - low) * (line.size - 1)
        inside = o * 0 + span / 2 if width == 1 else o * span / (width - 1)
        return np.asarray(inside + low * (line.size - 1))
    if coordinates == "pytorch_half_pixel" and width == 1:
        return o * 0
    middle = (o + 0.5) / line.scale - 0.5
    if coordinates == "half_pixel_symmetric":
        return np.asarray(middle + line.size / 2 * (1 - line.out / width))
    return np.asarray(middle)


def _terms(at: Array, line: Line, rule: Rule) -> tuple[Array, Array]:
    """Return where the terms of each element stand, [out, terms], beyond the edge too, and their weights."""
    if rule.mode == "nearest":
        places = _ROUND[rule.nearest](at).astype(np.int64)[:, None]
        return places, np.ones(places.shape)
    kernel = _linear if rule.mode == "linear" else _cubic
    reach = 1 if rule.mode == "linear" else 2
    shrink = min(line.scale, 1.0) if rule.antialias else 1.0
    # Terms stand in (at - reach/shrink, at + reach/shrink); the kernel is 0 at both ends.
    first = math.floor(-reach / shrink) + 1
    below = (
        np.ceil(at).astype(np.int64) - 1
    )  # the neighbour below, of a whole number the one before
    places = below[:, None] + np.arange(first, 2 - first)
    weights = kernel(np.abs(places - at[:, None]) * shrink, rule.cubic)
    if rule.antialias:
        weights = weights / weights.sum(1, keepdims=True)
    used = (weights != 0).any(0)  # whole columns of zeros are left out
    return places[:, used], weights[:, used]


def _linear(distance: Array, _: float) -> Array:
    return np.asarray(np.clip(1 - distance, 0, 1))


def _cubic(d: Array, a: float) -> Array:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
