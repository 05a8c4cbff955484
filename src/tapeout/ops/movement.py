"""Operations that move data: constants, reshape, transpose, broadcast, slice, pad, reverse, concat, windows and fold.

Each is an index map. The gradient of one is another: slice and pad, broadcast and sum, windows and fold.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tapeout.ir.affine import Affine, Guard, delinearize, linearize
from tapeout.ir.dtype import DType, i32, i64
from tapeout.ir.op import Array, Pointwise, Reduction, register
from tapeout.ir.tensor import Tensor
from tapeout.ir.type import Dim, Shape, TensorType
from tapeout.ops.exact import rounded, wide
from tapeout.support.errors import ShapeError, UnboundDimension

if TYPE_CHECKING:
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym

T = TypeVar("T")
Ints = tuple[int, ...]
Cotangents = tuple["Sym | None", ...]


def _one(types: tuple[TensorType, ...], name: str) -> TensorType:
    if len(types) != 1:
        raise ShapeError(f"{name} takes one operand, got {len(types)}")
    return types[0]


@register
class Constant(Pointwise):
    """A tensor known when the graph is built."""

    name = "constant"
    tensor: Tensor

    @property
    def is_splat(self) -> bool:
        """Whether every element is the same number."""
        return self.tensor.splat is not None

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the tensor's type."""
        return (TensorType(self.tensor.dtype, self.tensor.shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return the tensor."""
        return self.tensor.array

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the number of a splat; other constants live in memory and are read, never inlined."""
        if self.tensor.splat is None:
            raise ShapeError("a constant whose elements differ must be kept in memory")
        return s.const(self.tensor.splat, self.tensor.dtype)


@register
class Iota(Pointwise):
    """`0, 1, 2, …` along one dimension."""

    name = "iota"
    shape: Shape
    axis: int
    dtype: DType = i32

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type; the axis must exist."""
        if not 0 <= self.axis < len(self.shape):
            raise ShapeError(f"iota: axis {self.axis} of shape {list(self.shape)}")
        return (TensorType(self.dtype, self.shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return the numbers."""
        line = np.arange(self.shape[self.axis], dtype=self.dtype.numpy)
        place = [-1 if i == self.axis else 1 for i in range(len(self.shape))]
        return np.broadcast_to(line.reshape(place), self.shape).copy()

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the index itself."""
        return s.cast(s.index(index[self.axis]), self.dtype)


@register
class Reshape(Pointwise):
    """The elements in row-major order in another shape."""

    name = "reshape"
    shape: Shape

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the new shape, which must hold as many elements."""
        x = _one(types, self.name)
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
        x = _one(types, self.name)
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
        x = _one(types, self.name)
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
class Slice(Pointwise):
    """Elements `start, start + stride, … < limit` of every dimension."""

    name = "slice"
    starts: Ints
    limits: Ints
    strides: Ints

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the shape of the part."""
        x = _one(types, self.name)
        if not len(self.starts) == len(self.limits) == len(self.strides) == x.rank:
            raise ShapeError(
                f"slice: starts, limits and strides must have one number per dimension of {x}"
            )
        shape = []
        for n, lo, hi, step in zip(x.shape, self.starts, self.limits, self.strides, strict=True):
            if not 0 <= lo <= hi <= n or step < 1:
                raise ShapeError(f"slice: {lo}:{hi}:{step} does not lie in 0..{n} of {x}")
            shape.append(_steps(lo, hi, step))
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
        x = _one(types, self.name)
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


@register
class Reverse(Pointwise):
    """The order along `axes` turned round."""

    name = "reverse"
    axes: Ints

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the operand's type."""
        x = _one(types, self.name)
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


@register
class Windows(Pointwise):
    """Sliding windows over `axes`: those dimensions become window counts, the window sizes are appended.

    `y[…, o, …, k] = x[…, o*stride + k*dilation - low, …]`, `value` outside.
    """

    name = "windows"
    axes: Ints
    sizes: Ints
    strides: Ints
    dilations: Ints
    low: Ints
    high: Ints
    value: float = 0.0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return counts in place of the windowed dimensions, then the sizes."""
        x = _one(types, self.name)
        return (x.with_shape(self.counted(x.shape)),)

    def counted(self, shape: Shape) -> Shape:
        """Return the result's shape for an operand's shape."""
        out = list(shape)
        for i, a in enumerate(self.axes):
            if not 0 <= a < len(shape):
                raise ShapeError(f"windows: axis {a} of shape {list(map(int, shape))}")
            span = (self.sizes[i] - 1) * self.dilations[i] + 1
            room = shape[a] + self.low[i] + self.high[i] - span
            if room < 0 or self.strides[i] < 1 or self.sizes[i] < 1:
                raise ShapeError(
                    f"windows: a window of {span} does not fit dimension {a} of {list(map(int, shape))}"
                )
            out[a] = room // self.strides[i] + 1
        return (*out, *self.sizes)

    def reference(self, *arrays: Array) -> Array:
        """Return the windows as a copy."""
        x = arrays[0]
        out = self.counted(x.shape)
        y = np.empty(out, x.dtype)
        padded, base = _padded(x, self)
        for k in product(*map(range, self.sizes)):
            y[_last(k)] = padded[_taps(x.ndim, self, k, out, base)]
        return y

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element under the window, guarded."""
        x = types[0]
        inside, where = list(index[: x.rank]), []
        for i, a in enumerate(self.axes):
            inside[a] = (
                index[a] * self.strides[i] + index[x.rank + i] * self.dilations[i] - self.low[i]
            )
            where.append(Guard(inside[a], 0, x.shape[a]))
        return reads[0](inside, where, self.value)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the windows added back where they came from."""
        (dy,), (x,) = cotangents, operands
        assert dy is not None
        return (fold(dy, self, x.shape),)


def fold(y: Sym, windows: Windows, shape: Shape) -> Sym:
    """Return the adjoint of `windows` (without its fill): elements added back into a tensor of `shape`."""
    rank = len(shape)
    plain = all(d == 1 or n == 1 for d, n in zip(windows.dilations, windows.sizes, strict=True))
    if plain and windows.sizes == windows.strides and not any(windows.low):
        return _unfold_tiles(y, windows, shape, rank)
    op = Fold(
        windows.axes,
        windows.sizes,
        windows.strides,
        windows.dilations,
        windows.low,
        windows.high,
        shape=shape,
    )
    return y.emit(op, y)


def _unfold_tiles(y: Sym, windows: Windows, shape: Shape, rank: int) -> Sym:
    """Windows that tile without overlap go back by a transpose and a reshape: no sum is needed."""
    perm: list[int] = []
    sizes: list[int] = []
    for d in range(rank):
        perm.append(d)
        sizes.append(y.shape[d])
        if d in windows.axes:
            i = windows.axes.index(d)
            perm.append(rank + i)
            sizes[-1] = sizes[-1] * windows.sizes[i]
    joined = y.transpose(perm).reshape(sizes)
    extra = [n - m for n, m in zip(shape, sizes, strict=True)]
    return joined.pad([0] * rank, extra) if any(extra) else joined


@register
class Fold(Reduction):
    """The adjoint of `Windows`: every window element added back to the place it came from, in a tensor of `shape`."""

    name = "fold"
    axes: Ints
    sizes: Ints
    strides: Ints
    dilations: Ints
    low: Ints
    high: Ints
    shape: Shape

    @property
    def windows(self) -> Windows:
        """The operation this is the adjoint of."""
        return Windows(self.axes, self.sizes, self.strides, self.dilations, self.low, self.high)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return `shape`; the operand must have the windows of it."""
        y = _one(types, self.name)
        wanted = self.windows.counted(self.shape)
        if y.shape != wanted:
            raise ShapeError(
                f"fold: the operand is {y}, the windows of {list(map(int, self.shape))} are {list(map(int, wanted))}"
            )
        return (y.with_shape(self.shape),)

    def reference(self, *arrays: Array) -> Array:
        """Return the sums."""
        y = wide(arrays[0])
        padded, base = _padded(np.zeros(self.shape, y.dtype), self.windows)
        for k in product(*map(range, self.sizes)):
            padded[_taps(len(self.shape), self.windows, k, y.shape, base)] += y[_last(k)]
        cut = [slice(None)] * len(self.shape)
        for i, a in enumerate(self.axes):
            cut[a] = slice(base[i] + self.low[i], base[i] + self.low[i] + self.shape[a])
        return rounded(padded[tuple(cut)].copy(), arrays[0].dtype)

    def reduced(self, *types: TensorType) -> Shape:
        """Return the window sizes."""
        return self.sizes

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        reduced: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the window element that came from here, zero where there is none."""
        inside, where = list(index), []
        for i, a in enumerate(self.axes):
            t = index[a] + self.low[i] - reduced[i] * self.dilations[i]
            if self.strides[i] > 1:
                where.append(Guard(t % self.strides[i], 0, 1))
            inside[a] = t // self.strides[i]
            where.append(Guard(inside[a], 0, types[0].shape[a]))
        return reads[0]([*inside, *reduced], where)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return the windows of the cotangent."""
        (dx,) = cotangents
        assert dx is not None
        return (dx.emit(self.windows, dx),)


def _padded(x: Array, w: Windows) -> tuple[Array, list[int]]:
    """Return `x` with room for every tap, and how far low sides were cropped below zero (then the base is positive)."""
    widths = [(0, 0)] * x.ndim
    base = []
    for i, a in enumerate(w.axes):
        widths[a] = (max(w.low[i], 0), max(w.high[i], 0))
        base.append(max(w.low[i], 0) - w.low[i])
    return np.pad(x, widths, constant_values=np.asarray(w.value).astype(x.dtype)), base


def _last(k: Ints) -> tuple[Any, ...]:
    """Return the numpy index of the last dimensions."""
    return (Ellipsis, *k)


def _taps(rank: int, w: Windows, k: Ints, counts: Shape, base: list[int]) -> tuple[slice, ...]:
    cut = [slice(None)] * rank
    for i, a in enumerate(w.axes):
        first = base[i] + k[i] * w.dilations[i]
        cut[a] = slice(first, first + (counts[a] - 1) * w.strides[i] + 1, w.strides[i])
    return tuple(cut)


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
            shape.append(n if _is_whole(lo, hi, step, n) else _steps(lo, hi, abs(step)))
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


def _steps(lo: int, hi: int, step: int) -> int:
    """Return how many of lo, lo + step, … lie below hi; a named dimension keeps its formula."""
    return hi - lo if step == 1 else (hi - lo + (step - 1)) // step


__all__ = [
    "Broadcast",
    "Concat",
    "Constant",
    "Fold",
    "Iota",
    "Pad",
    "Reshape",
    "Reverse",
    "Slice",
    "Tensor",
    "Transpose",
    "Windows",
    "basic_index",
    "complete_shape",
    "fold",
    "reshape_index",
]
