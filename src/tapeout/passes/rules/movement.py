"""Data movement: what moves nothing goes, two in a row become one, and what is only a reshape is written as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.rewrite import match, rule
from tapeout.ops import movement as mv
from tapeout.passes.rules.patterns import P, Q, X

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.op import Op
    from tapeout.ir.rewrite import Site
    from tapeout.ops.sym import Sym

Ints = tuple[int, ...]

reshape, transpose, broadcast = match(mv.Reshape), match(mv.Transpose), match(mv.Broadcast)
reverse, slices, pad = match(mv.Reverse), match(mv.Slice), match(mv.Pad)


def _below(node: Site) -> Op:
    """Return the operation that makes the first operand."""
    made = node.operands[0].node
    assert made is not None
    return made.op


def compose(inner: Ints, outer: Ints) -> Ints:
    """Return the permutation that does `inner`, then `outer`."""
    return tuple(inner[i] for i in outer)


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]


def _transpose_of_ones(x: Sym, p: Ints) -> Sym | None:
    """A transpose that only moves dimensions of size 1 is a reshape."""
    moved = [d for d in p if x.shape[d] != 1]
    return x.reshape([x.shape[d] for d in p]) if moved == sorted(moved) else None


def _broadcast_of_ones(x: Sym, p: Ints) -> Sym | None:
    """A broadcast that repeats nothing is a reshape."""
    return x.reshape(p) if _without_ones(p) == _without_ones(x.shape) else None


def _broadcast_twice(x: Sym, p: Ints, q: Ints, node: Site) -> Sym:
    """`x` placed at axes `p`, the result placed at axes `q`."""
    return x.broadcast(node.type.shape, [q[a] for a in p])


def _broadcast_of_expanded(x: Sym, q: Ints, node: Site) -> Sym | None:
    """A reshape that only inserts dimensions of size 1 goes into the broadcast of its result."""
    (middle,) = node.operands
    places = iter(enumerate(middle.type.shape))
    axes = []
    for n in x.shape:
        place = next((i for i, m in places if m == n), None)
        if place is None:
            return None
        axes.append(q[place])
    only_ones = x.type.size == middle.type.size and _without_ones(x.shape) == _without_ones(
        middle.type.shape
    )
    return x.broadcast(node.type.shape, axes) if only_ones else None


def _slice_all(x: Sym, node: Site) -> Sym | None:
    return x if x.shape == node.type.shape else None


def _slice_twice(x: Sym, node: Site) -> Sym:
    outer, inner = node.op, _below(node)
    assert isinstance(outer, mv.Slice) and isinstance(inner, mv.Slice)
    starts, limits, strides = [], [], []
    shape = node.type.shape
    for d, n in enumerate(shape):
        start = inner.starts[d] + outer.starts[d] * inner.strides[d]
        step = inner.strides[d] * outer.strides[d]
        starts.append(start if n else 0)
        limits.append(start + (n - 1) * step + 1 if n else 0)
        strides.append(step)
    return x.slice(starts, limits, strides)


def _pad_nothing(x: Sym, node: Site) -> Sym | None:
    op = node.op
    assert isinstance(op, mv.Pad)
    between = all(k == 0 or n <= 1 for k, n in zip(op.interior, x.shape, strict=True))
    return x if between and not any(op.low) and not any(op.high) else None


def _pad_crops(x: Sym, node: Site) -> Sym | None:
    """A pad that only takes away is a slice."""
    op = node.op
    assert isinstance(op, mv.Pad)
    if any(op.interior) or max((*op.low, *op.high), default=0) > 0:
        return None
    limits = [n + hi for n, hi in zip(x.shape, op.high, strict=True)]
    return x.slice([-lo for lo in op.low], limits)


def _pad_twice(x: Sym, node: Site) -> Sym | None:
    """Two pads with one value are one, if the first takes nothing away and neither goes between elements."""
    outer, inner = node.op, _below(node)
    assert isinstance(outer, mv.Pad) and isinstance(inner, mv.Pad)
    if repr(outer.value) != repr(inner.value) or any(outer.interior) or any(inner.interior):
        return None
    if min((*inner.low, *inner.high), default=0) < 0:
        return None
    low = [a + b for a, b in zip(outer.low, inner.low, strict=True)]
    high = [a + b for a, b in zip(outer.high, inner.high, strict=True)]
    return x.pad(low, high, outer.value)


def _slice_of_pad(x: Sym, node: Site) -> Sym | None:
    """A slice that lies inside what was padded takes it from there."""
    outer, inner = node.op, _below(node)
    assert isinstance(outer, mv.Slice) and isinstance(inner, mv.Pad)
    if any(inner.interior):
        return None
    starts = [a - lo for a, lo in zip(outer.starts, inner.low, strict=True)]
    limits = [b - lo for b, lo in zip(outer.limits, inner.low, strict=True)]
    inside = all(0 <= a <= b <= n for a, b, n in zip(starts, limits, x.shape, strict=True))
    return x.slice(starts, limits, outer.strides) if inside else None


def _reverse_of_ones(x: Sym, p: Ints) -> Sym | None:
    axes = [a for a in p if x.shape[a] > 1]
    if len(axes) == len(p):
        return None
    return x.reverse(axes) if axes else x


def _reverse_twice(x: Sym, p: Ints, q: Ints) -> Sym:
    axes = sorted(set(p) ^ set(q))
    return x.reverse(axes) if axes else x


MOVEMENT = (
    rule("reshape-same", reshape(X, shape=P), lambda x, p: x if x.shape == p else None),
    rule("reshape-twice", reshape(reshape(X), shape=P), lambda x, p: x.reshape(p)),
    rule(
        "transpose-same",
        transpose(X, perm=P),
        lambda x, p: x if p == tuple(range(x.rank)) else None,
    ),
    rule(
        "transpose-twice",
        transpose(transpose(X, perm=P), perm=Q),
        lambda x, p, q: x.transpose(compose(p, q)),
    ),
    rule("transpose-of-ones", transpose(X, perm=P), _transpose_of_ones),
    rule("broadcast-of-ones", broadcast(X, shape=P), _broadcast_of_ones),
    rule("broadcast-twice", broadcast(broadcast(X, axes=P), axes=Q), _broadcast_twice),
    rule("broadcast-of-expanded", broadcast(reshape(X), axes=Q), _broadcast_of_expanded),
    rule("slice-all", slices(X), _slice_all),
    rule("slice-twice", slices(slices(X)), _slice_twice),
    rule("slice-of-pad", slices(pad(X)), _slice_of_pad),
    rule("pad-nothing", pad(X), _pad_nothing),
    rule("pad-crops", pad(X), _pad_crops),
    rule("pad-twice", pad(pad(X)), _pad_twice),
    rule("reverse-of-ones", reverse(X, axes=P), _reverse_of_ones),
    rule("reverse-twice", reverse(reverse(X, axes=P), axes=Q), _reverse_twice),
    rule("concat-one", match(mv.Concat)(X), lambda x: x),
)
"""Tried from top to bottom at each operation."""
