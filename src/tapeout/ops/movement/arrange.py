"""The same elements in another arrangement: reshape, transpose, broadcast, reverse, concat."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.affine import Affine, Guard, delinearize, linearize
from tapeout.ir.dtype import i64
from tapeout.ir.op import Array, Pointwise, register
from tapeout.ir.type import Shape, TensorType
from tapeout.ops.movement.base import Cotangents, Ints, T, one_operand
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym


@register
class Reshape(Pointwise):
    """The elements in row-major order in another shape."""

    name = "reshape"
    shape: Shape

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the new shape, which must hold as many elements."""
        x = one_operand(types, self.name)
        if math.prod(self.shape) != x.size:
            raise ShapeError(
                f"reshape: {x} has {x.size} elements, {list(map(int, self.shape))} has {math.prod(self.shape)}"
            )
        return (x.with_shape(self.shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's reshape."""
        return arrays[0].reshape(self.shape)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element of equal row-major number."""
        return reads[0](reshape_index(index, self.shape, types[0].shape))

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the cotangent in the operand's shape."""
        (dy,) = cotangents
        assert dy is not None
        return (dy.reshape(operands[0].shape),)


def reshape_index(index: tuple[Affine, ...], new: Shape, old: Shape) -> tuple[Affine, ...]:
    """Return the index into `old` of the element at `index` of `new`.

    Dimensions are matched in the smallest groups of equal product, so that untouched ones stay plain axes.
    """
    if 0 in new or 0 in old:
        return tuple(Affine() for _ in old)  # no element is ever asked for
    out: list[Affine] = []
    i = j = 0
    while i < len(new) or j < len(old):
        a, b, size_a, size_b = i, j, 1, 1
        if i < len(new):
            size_a, i = int(new[i]), i + 1
        if j < len(old):
            size_b, j = int(old[j]), j + 1
        while size_a != size_b:
            if (size_a < size_b and i < len(new)) or j >= len(old):
                size_a, i = size_a * int(new[i]), i + 1
            else:
                size_b, j = size_b * int(old[j]), j + 1
        group_new, group_old = new[a:i], old[b:j]
        if tuple(group_new) == tuple(group_old):
            out += index[a:i]
        else:
            out += delinearize(linearize(index[a:i], group_new), group_old)
    return tuple(out)


@register
class Transpose(Pointwise):
    """Dimension i of the result is dimension `perm[i]` of the operand."""

    name = "transpose"
    perm: Ints

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the permuted shape."""
        x = one_operand(types, self.name)
        if sorted(self.perm) != list(range(x.rank)):
            raise ShapeError(
                f"transpose: {list(self.perm)} is no permutation of the {x.rank} dimensions of {x}"
            )
        return (x.with_shape(tuple(x.shape[p] for p in self.perm)),)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's transpose."""
        return arrays[0].transpose(self.perm)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element at the permuted index."""
        return reads[0]([index[self.perm.index(d)] for d in range(len(self.perm))])

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the cotangent transposed back."""
        (dy,) = cotangents
        assert dy is not None
        return (dy.transpose([self.perm.index(d) for d in range(len(self.perm))]),)


@register
class Broadcast(Pointwise):
    """Dimension i of the operand stands at `axes[i]` of `shape`; others, and dimensions of size 1, repeat."""

    name = "broadcast"
    shape: Shape
    axes: Ints

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the shape; every operand dimension must be equal or 1, the axes rise."""
        x = one_operand(types, self.name)
        rising = all(a < b for a, b in zip(self.axes, self.axes[1:], strict=False))
        inside = all(0 <= a < len(self.shape) for a in self.axes)
        if len(self.axes) != x.rank or not rising or not inside:
            raise ShapeError(
                f"broadcast: axes {list(self.axes)} do not place the {x.rank} dimensions of {x}"
            )
        for d, a in enumerate(self.axes):
            if x.shape[d] not in (1, self.shape[a]):
                raise ShapeError(
                    f"broadcast: dimension {d} of {x} does not repeat to {list(map(int, self.shape))}"
                )
        return (x.with_shape(self.shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return a copy of numpy's broadcast."""
        x = arrays[0]
        place = [1] * len(self.shape)
        for d, a in enumerate(self.axes):
            place[a] = x.shape[d]
        return np.broadcast_to(x.reshape(place), self.shape).copy()

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element at the kept dimensions."""
        x = types[0]
        return reads[0](
            [Affine() if x.shape[d] == 1 else index[a] for d, a in enumerate(self.axes)]
        )

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the sum over what was repeated: the one place where broadcasting is undone."""
        (dy,), (x,) = cotangents, operands
        assert dy is not None
        new = [i for i in range(len(self.shape)) if i not in self.axes]
        grown = [a for d, a in enumerate(self.axes) if x.shape[d] == 1 and self.shape[a] != 1]
        return (dy.sum(new + grown).reshape(x.shape) if new or grown else dy.reshape(x.shape),)


@register
class Reverse(Pointwise):
    """The order along `axes` turned round."""

    name = "reverse"
    axes: Ints

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the operand's type."""
        x = one_operand(types, self.name)
        if any(not 0 <= a < x.rank for a in self.axes):
            raise ShapeError(f"reverse: axes {list(self.axes)} of {x}")
        return (x,)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's flip."""
        return np.flip(arrays[0], self.axes)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element counted from the end."""
        n = types[0].shape
        return reads[0](
            [Affine.of(n[d] - 1) - i if d in self.axes else i for d, i in enumerate(index)]
        )

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the cotangent turned round."""
        (dy,) = cotangents
        assert dy is not None
        return (dy.reverse(self.axes),)


@register
class Concat(Pointwise):
    """Operands one after the other along `axis`."""

    name = "concat"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the joined shape; the other dimensions must be equal."""
        if not types:
            raise ShapeError("concat takes at least one operand")
        first = types[0]
        if not 0 <= self.axis < first.rank:
            raise ShapeError(f"concat: axis {self.axis} of {first}")
        for i, t in enumerate(types):
            same = [n for d, n in enumerate(t.shape) if d != self.axis] == [
                n for d, n in enumerate(first.shape) if d != self.axis
            ]
            if t.dtype != first.dtype or t.rank != first.rank or not same:
                raise ShapeError(
                    f"concat along {self.axis}: operand {i} is {t}, operand 0 is {first}"
                )
        total = types[0].shape[self.axis]
        for t in types[1:]:
            total = total + t.shape[self.axis]
        return (
            first.with_shape((*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])),
        )

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's concatenate."""
        return np.concatenate(arrays, self.axis)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element of the operand whose range holds the index."""
        here = index[self.axis]
        ends = np.cumsum([t.shape[self.axis] for t in types]).tolist()
        out: T | None = None
        for t, read, end in reversed(list(zip(types, reads, ends, strict=True))):
            n = t.shape[self.axis]
            at = here - (end - n)
            guard = Guard(at, 0, n)
            part = read([*index[: self.axis], at, *index[self.axis + 1 :]], [guard])
            if out is None:
                out = part
            else:
                out = s.select(s.compare("lt", s.index(here), s.const(end, i64)), part, out)
        assert out is not None
        return out

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return each operand's part."""
        (dy,) = cotangents
        assert dy is not None
        parts: list[Sym | None] = []
        start = 0
        for x in operands:
            n = x.shape[self.axis]
            starts = [start if d == self.axis else 0 for d in range(dy.rank)]
            limits = [start + n if d == self.axis else m for d, m in enumerate(dy.shape)]
            parts.append(dy.slice(starts, limits))
            start = start + n
        return tuple(parts)
