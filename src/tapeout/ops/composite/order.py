"""Elements in order of size: the greatest or least few along an axis, and where they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import f32, i32, i64
from tapeout.ops.composite.index import scatter_along
from tapeout.ops.sym import iota
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ops.sym import Sym

LONGEST = 1024
"""The longest axis whose elements are all compared with each other; longer ones go in parts first."""


def top_k(x: Sym, k: int, axis: int, *, largest: bool = True) -> tuple[Sym, Sym]:
    """Return the greatest (or least) elements along an axis, in order, and where they stand.

    Of equal elements the first comes first; NaN counts as the greatest. The gradient goes to the elements that are chosen.

    Args:
        x: Numbers of any shape.
        k: How many, at most the size of the axis.
        axis: Along which axis; not negative.
        largest: Whether to take the greatest.

    Returns:
        The elements, and their places along the axis (i64): as `x`, with size `k` along the axis.

    Raises:
        ShapeError: There are fewer than `k`.
    """
    n = int(x.shape[axis])
    if not 0 <= k <= n:
        raise ShapeError(f"top_k: the first {k} along axis {axis} of {x.type}")
    there = [*(d for d in range(x.rank) if d != axis), axis]
    back = [there.index(d) for d in range(x.rank)]
    keys = _keys(x).transpose(there)
    keys = keys if largest else ~keys
    few = x.dtype.is_float and 0 < k * k <= n
    found = (_one_by_one(keys, k) if few else _first(keys, k)).transpose(back)
    return x.take_along(found, axis), found.cast(i64)


def _keys(x: Sym) -> Sym:
    """Return integers in the order of the elements; NaN is the greatest, both zeros are equal."""
    if x.dtype.is_integer:
        return x
    if x.dtype.bits == 16:
        x = x.cast(f32)
    whole = i64 if x.dtype.bits == 64 else i32
    most = int(np.iinfo(whole.numpy).max)
    bits = (x + 0.0).bitcast(whole)
    # Of negative floats the greater bits are the lesser number.
    # NaN stands above infinity and below the greatest integer, so that neither end of the integers is a key.
    return x.is_nan().where(most - 1, (bits < 0).where(bits ^ most, bits))


def _first(keys: Sym, k: int) -> Sym:
    """Return where the `k` greatest keys stand along the last axis, in order (i32)."""
    n = int(keys.shape[-1])
    last = keys.rank - 1
    if k == 1:
        return keys.argmax([last], keepdims=True)
    if n <= max(LONGEST, 2 * k):
        return _compared(keys, k)
    # The first of the whole are among the first of each part; parts follow each other, so ties stay in order.
    size = max(LONGEST, 2 * k)
    found = []
    for start in range(0, n, size):
        part = keys[..., start : min(start + size, n)]
        found.append(_first(part, min(k, int(part.shape[-1]))) + start)
    places = found[0].concat(found[1:], last)
    return places.take_along(_first(keys.take_along(places, last), k), last)


def _one_by_one(keys: Sym, k: int) -> Sym:
    """Take the greatest key `k` times, each time without those before; no key is the least integer."""
    last = keys.rank - 1
    least = int(np.iinfo(keys.dtype.numpy).min)
    number = iota(keys.builder, keys.shape, last, i32)
    found: list[Sym] = []
    for _ in range(k):
        place = keys.argmax([last], keepdims=True).cast(i32)
        found.append(place)
        keys = (number == place).where(least, keys)
    return found[0].concat(found[1:], last) if k > 1 else found[0]


def _compared(keys: Sym, k: int) -> Sym:
    """Count for each key those that come before it. All pairs are formed, in the kernel and not in memory."""
    *outer, n = keys.shape
    last, pairs = keys.rank - 1, [*keys.shape, n]
    mine = keys.broadcast(pairs, range(keys.rank))
    other = keys.broadcast(pairs, [*range(last), last + 1])
    earlier = iota(keys.builder, [n, n], 1) < iota(keys.builder, [n, n], 0)
    before = (other > mine) | ((other == mine) & earlier.broadcast_to(pairs))
    rank = before.cast(i32).sum([last + 1])
    # What comes later than the first k all goes to one place more, which is dropped.
    room = keys.constant(0, i32).broadcast([*outer, k + 1], ())
    number = iota(keys.builder, keys.shape, last, i32)
    return scatter_along(room, rank.minimum(k), number, last)[..., :k]
