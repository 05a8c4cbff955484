"""Contractions of bf16 in pairs: one element of an operand holds two steps of the sum, which one instruction multiplies and adds.

Where an operand is contiguous along the axis that is paired, two of its elements are read as one u32, and nothing is copied.
Elsewhere they are put together where the operand is packed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.ir.dtype import bf16, f32, u16, u32
from tapeout.kernel.compute import Buffer, Expr, ExprBuilder, Load
from tapeout.schedule.lower.contract.prepare import Step, halo
from tapeout.schedule.lower.exprs import Rewriter, shared_load, widened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.dtype import DType
    from tapeout.kernel.target import Target
    from tapeout.schedule.lower.contract.product import Product


@dataclass(frozen=True)
class Paired:
    """A contraction whose operands are read in pairs if they can be, and the copies made for that."""

    product: Product
    steps: tuple[Step, ...] = ()


def can_pair(a: Expr, b: Expr, accumulate: DType, target: Target) -> bool:
    """Whether a machine multiplies operands like these in pairs."""
    return target.pairs and accumulate == f32 and None not in (_narrow(a), _narrow(b))


def paired(product: Product, target: Target, prefix: str) -> Paired:
    """Return a contraction with steps of the sum in pairs where a machine has that and both operands are bf16; else as it is."""
    if not can_pair(product.a, product.b, product.accumulate, target):
        return Paired(product)
    reads = (_narrow(product.a), _narrow(product.b))
    axis = _axis(product, [r for r in reads if r is not None])
    if axis is None:
        return Paired(product)
    half = Axis(f"{axis.name}.2", -(-axis.extent // 2))
    made = replace(product, k=tuple(half if a == axis else a for a in product.k), pairs=True)
    steps: list[Step] = []
    for side, read in zip("ab", reads, strict=True):
        assert read is not None
        step = _bordered(product, read, axis, f"{prefix}{len(steps)}")
        buffers = made.by_name
        plain = read
        if step is not None and isinstance(step.read, Load):
            steps.append(step)
            buffers[step.buffer.name] = replace(step.buffer, access="r")
            plain = step.read
        view = _view(plain, buffers[plain.buffer], axis, half, side)
        if view is not None:
            buffers[view[0].name] = view[0]
        operand = _together(plain, axis, half) if view is None else view[1]
        a, b = (operand, made.b) if side == "a" else (made.a, operand)
        made = replace(made, buffers=tuple(buffers.values()), a=a, b=b)
    return Paired(made, tuple(steps))


def _bordered(product: Product, read: Load, axis: Axis, name: str) -> Step | None:
    """Return a copy of an operand with its border around it, contiguous along an axis; None if it has none or is no such operand."""
    return halo(product, read, name, last=axis, dtype=bf16) if read.where else None


def _narrow(e: Expr) -> Load | None:
    """Return the load of bf16 that an operand is, None if it is another expression."""
    read = widened(e)
    if not isinstance(read, Load) or read.dtype != bf16 or read.other != 0:
        return None
    return read if all(isinstance(i, Affine) for i in read.index) else None


def _axis(product: Product, reads: Sequence[Load]) -> Axis | None:
    """Return the axis of the sum along which most operands are contiguous, the longest of such; None if there is no sum."""
    axes = [a for a in product.k if a.extent > 1]
    along = {a: sum(product.place(r).coefficient(a) == 1 for r in reads) for a in axes}
    return max(axes, key=lambda a: (along[a], a.extent % 2 == 0, a.extent), default=None)


def _view(
    read: Load, buffer: Buffer, axis: Axis, half: Axis, side: str
) -> tuple[Buffer, Load] | None:
    """Return the memory of an operand as pairs, and the load of one; None if pairs do not lie side by side at even places."""
    if read.where or axis.extent % 2:
        return None
    fast = [n for n, i in enumerate(read.index) if isinstance(i, Affine) and axis in i.axes]
    if len(fast) != 1 or buffer.strides[fast[0]] != 1 or buffer.shape[fast[0]] % 2:
        return None
    index = read.index[fast[0]]
    assert isinstance(index, Affine)
    rest = index - Affine.of(axis)
    even = index.is_linear and rest.coefficient(axis) == 0 and not rest.const % 2
    if not even or any(c % 2 for _, c in rest.terms):
        return None
    others = [s for n, s in enumerate(buffer.strides) if n != fast[0] and buffer.shape[n] > 1]
    if any(s % 2 for s in others):
        return None
    at = Affine.make({a: c // 2 for a, c in rest.terms}, rest.const // 2) + half
    shape = tuple(n // 2 if d == fast[0] else n for d, n in enumerate(buffer.shape))
    strides = tuple(1 if d == fast[0] else s // 2 for d, s in enumerate(buffer.strides))
    view = Buffer(f"{buffer.name}.{side}2", u32, shape, strides, "r", buffer.of or buffer.name)
    place = tuple(at if d == fast[0] else i for d, i in enumerate(read.index))
    return view, Load(u32, view.name, place)


def _together(read: Load, axis: Axis, half: Axis) -> Expr:
    """Return two elements along an axis as one u32, the first in the lower half; beyond the end there are zeros."""
    s = ExprBuilder()
    first = Affine.of(half) * 2
    parts = []
    for n in range(2):
        inside = Guard(first + n, 0, axis.extent)

        def guarded(e: Load, inside: Guard = inside) -> Expr:
            where = e.where if inside.always else (*e.where, inside)
            return shared_load(s, replace(e, where=where))

        element = Rewriter(s, {axis: first + n}, {}, guarded)(read)
        parts.append(s.cast(s.bitcast(element, u16), u32))
    return s.apply("or", parts[0], s.apply("shl", parts[1], s.const(16, u32)))
