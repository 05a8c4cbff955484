"""What a user's shape or index means: one -1 computed, ints and slices and `...` as slices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tapeout.ir.type import Dim, Shape, TensorType
from tapeout.ops.movement.cut import steps_between
from tapeout.support.errors import ShapeError, UnboundDimension

if TYPE_CHECKING:
    from tapeout.ops.sym import Sym


def complete_shape(x: TensorType, shape: Shape) -> Shape:
    """Return `shape` with its one -1 computed.

    Raises:
        ShapeError: Several are -1, or the rest does not divide the size.
    """
    if -1 not in shape:
        return shape
    at = shape.index(-1)
    rest = [n for i, n in enumerate(shape) if i != at]
    # Dimensions that both sides share cancel first, so that a named dimension survives as itself.
    total = list(x.shape)
    for n in list(rest):
        if n in total:
            total.remove(n)
            rest.remove(n)
    size, known = math.prod(total), math.prod(rest)
    if -1 in rest or known == 0 or size % known:
        raise ShapeError(
            f"reshape: {list(map(int, shape))} does not divide the {x.size} elements of {x}"
        )
    return (
        *shape[:at],
        total[0] if len(total) == 1 and known == 1 else size // known,
        *shape[at + 1 :],
    )


def basic_index(x: Sym, key: Any) -> Sym:
    """Return numpy's basic indexing: ints, slices, `...` and None."""
    keys = list(key) if isinstance(key, tuple) else [key]
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > x.rank or sum(k is Ellipsis for k in keys) > 1:
        raise ShapeError(f"index {key!r} does not fit {x.type}")
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (x.rank - used)
    else:
        keys += [slice(None)] * (x.rank - used)
    starts: list[int] = []
    limits: list[int] = []
    steps: list[int] = []
    back: list[int] = []
    shape: list[int] = []
    sizes = iter(x.shape)
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        n = next(sizes)
        lo, hi, step, keep = _range(k, n, x.type)
        if step < 0:
            back.append(len(starts))
        starts.append(lo)
        limits.append(hi)
        steps.append(abs(step))
        if keep:
            shape.append(n if _is_whole(lo, hi, step, n) else steps_between(lo, hi, abs(step)))
    whole = all(map(_is_whole, starts, limits, steps, x.shape))
    part = x if whole else x.slice(starts, limits, steps)
    return (part.reverse(back) if back else part).reshape(shape)


def _is_whole(lo: int, hi: int, step: int, n: int) -> bool:
    """Return whether a range is a whole dimension for any binding, not only at the preview number."""
    unbound = any(isinstance(v, Dim) for v in (lo, hi, n))
    return step == 1 and (hi is n and not isinstance(lo, Dim) if unbound else hi == n) and lo == 0


def _range(key: Any, n: int, type_: TensorType) -> tuple[int, int, int, bool]:
    """Return (start, limit, step, kept) with start and limit rising; a negative step says that the order turns."""
    if isinstance(key, slice):
        if key == slice(None):
            return 0, n, 1, True
        if isinstance(n, Dim):
            return _unbound_range(key, n, type_)
        a, b, step = key.indices(n)
        count = len(range(a, b, step))
        if step > 0:
            return (
                min(a, n),
                min(a, n) + max((count - 1) * step + 1, 0) if count else min(a, n),
                step,
                True,
            )
        last = a + (count - 1) * step
        return (last, a + 1, step, True) if count else (0, 0, step, True)
    at = int(key) + n if int(key) < 0 else int(key)
    if not 0 <= at < n:
        raise ShapeError(f"index {key} is out of range for a dimension of {n} of {type_}")
    return at, at + 1, 1, False


def _unbound_range(key: slice, n: Dim, type_: TensorType) -> tuple[int, int, int, bool]:
    """Return the range of a slice along a dimension whose size is not known yet, as a formula of the size."""
    step = 1 if key.step is None else int(key.step)
    if step == -1 and key.start is None and key.stop is None:
        return 0, n, step, True
    lo, hi = (
        fallback if at is None else n + int(at) if int(at) < 0 else int(at)
        for at, fallback in ((key.start, 0), (key.stop, n))
    )
    if step < 1 or not 0 <= lo <= hi <= n:
        raise UnboundDimension(
            f"slice {key.start}:{key.stop}:{key.step} of a dimension of {type_} that is not bound yet",
            hint="bind the dimension first, or slice within its size with a positive step",
        )
    return lo, hi, step, True
