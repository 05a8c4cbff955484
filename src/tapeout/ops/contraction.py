"""Sums of products: matrix products and convolutions.

Both kinds are closed under differentiation: the gradient of a product is a product, and a convolution is one trilinear form of
which any of the three tensors can be asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tapeout.ir.affine import Affine, Guard
from tapeout.ir.op import Array, Contraction, register
from tapeout.ir.type import Shape, TensorType
from tapeout.ops.exact import rounded, wide
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym

T = TypeVar("T")
Ints = tuple[int, ...]
Cotangents = tuple["Sym | None", ...]


@register
class DotGeneral(Contraction):
    """Sums of products over the contracted dimensions (StableHLO's dot_general).

    The result has the batch dimensions, then the free ones of the first operand, then those of the second, each in order.
    """

    name = "dot_general"
    contract_a: Ints
    contract_b: Ints
    batch_a: Ints = ()
    batch_b: Ints = ()

    def _free(self, rank: int, which: str) -> list[int]:
        used = (
            (self.contract_a + self.batch_a) if which == "a" else (self.contract_b + self.batch_b)
        )
        return [d for d in range(rank) if d not in used]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the result's type; paired dimensions must be equal."""
        if len(types) != 2:
            raise ShapeError(f"dot_general takes two operands, got {len(types)}")
        a, b = types
        if a.dtype != b.dtype:
            raise ShapeError(f"dot_general: {a} and {b} differ in element type")
        for what, da, db in (
            ("contracted", self.contract_a, self.contract_b),
            ("batch", self.batch_a, self.batch_b),
        ):
            if len(da) != len(db):
                raise ShapeError(
                    f"dot_general: {len(da)} {what} dimensions of {a} pair with {len(db)} of {b}"
                )
            for i, j in zip(da, db, strict=True):
                if not (0 <= i < a.rank and 0 <= j < b.rank) or a.shape[i] != b.shape[j]:
                    raise ShapeError(
                        f"dot_general: {what} dimension {i} of {a} does not pair with {j} of {b}"
                    )
        shape = [a.shape[d] for d in self.batch_a]
        shape += [a.shape[d] for d in self._free(a.rank, "a")]
        shape += [b.shape[d] for d in self._free(b.rank, "b")]
        return (a.with_shape(tuple(shape)),)

    def reference(self, *arrays: Array) -> Array:
        """Return numpy's matmul of the rearranged operands."""
        a, b = map(wide, arrays)
        fa, fb = self._free(a.ndim, "a"), self._free(b.ndim, "b")
        batch = [a.shape[d] for d in self.batch_a]
        k = math.prod(a.shape[d] for d in self.contract_a)
        left = a.transpose([*self.batch_a, *fa, *self.contract_a]).reshape(
            [*batch, math.prod(a.shape[d] for d in fa), k]
        )
        right = b.transpose([*self.batch_b, *self.contract_b, *fb]).reshape(
            [*batch, k, math.prod(b.shape[d] for d in fb)]
        )
        shape = [*batch, *(a.shape[d] for d in fa), *(b.shape[d] for d in fb)]
        y: Array = np.matmul(left, right).reshape(shape)
        return rounded(y, arrays[0].dtype)

    def reduced(self, *types: TensorType) -> Shape:
        """Return the contracted extents."""
        return tuple(types[0].shape[d] for d in self.contract_a)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        reduced: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the product of the two elements."""
        a, b = types
        place_a = dict(zip(self.contract_a, reduced, strict=True))
        place_b = dict(zip(self.contract_b, reduced, strict=True))
        rest = iter(index)
        for i, j in zip(self.batch_a, self.batch_b, strict=True):
            place_a[i] = place_b[j] = next(rest)
        for d in self._free(a.rank, "a"):
            place_a[d] = next(rest)
        for d in self._free(b.rank, "b"):
            place_b[d] = next(rest)
        return s.mul(
            reads[0]([place_a[d] for d in range(a.rank)]),
            reads[1]([place_b[d] for d in range(b.rank)]),
        )

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """`dA = dY · B` over the free dimensions of B, `dB = A · dY` over those of A."""
        (dy,), (a, b) = cotangents, operands
        assert dy is not None
        free_a, free_b = self._free(a.rank, "a"), self._free(b.rank, "b")
        n, fa = len(self.batch_a), len(free_a)
        batch = list(range(n))
        da = dy.dot_general(
            b, contract=(range(n + fa, dy.rank), free_b), batch=(batch, self.batch_b)
        )
        # Dimensions of da: batch, free of a, then the contracted ones in the order in which they lie in b.
        order_a = [
            *self.batch_a,
            *free_a,
            *(i for _, i in sorted(zip(self.contract_b, self.contract_a, strict=True))),
        ]
        db = a.dot_general(dy, contract=(free_a, range(n, n + fa)), batch=(self.batch_a, batch))
        order_b = [
            *self.batch_b,
            *(j for _, j in sorted(zip(self.contract_a, self.contract_b, strict=True))),
            *free_b,
        ]
        return (
            da.transpose([order_a.index(d) for d in range(a.rank)]),
            db.transpose([order_b.index(d) for d in range(b.rank)]),
        )


def matmul(a: Sym, b: Sym) -> Sym:
    """Return the matrix product by numpy's rule: vectors at the ends, leading dimensions broadcast."""
    from tapeout.ops.sym import broadcast_shapes

    if not a.rank or not b.rank:
        raise ShapeError(f"matmul of {a.type} and {b.type}: scalars have no matrix product")
    if b.rank <= 2:
        return a.dot_general(b, contract=([a.rank - 1], [max(b.rank - 2, 0)]))
    if a.rank == 1:
        return matmul(a.reshape([1, *a.shape]), b).squeeze([-2])
    lead = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = a.broadcast_to([*lead, *a.shape[-2:]])
    b = b.broadcast_to([*lead, *b.shape[-2:]])
    n = len(lead)
    return a.dot_general(b, contract=([n + 1], [n]), batch=(range(n), range(n)))


@register
class Conv(Contraction):
    """One of the three tensors of a convolution from the other two.

    The form is `sum x[n, g, c, o*stride + k*dilation - low] * w[g, f, c, k] * y[n, g, f, o]` over everything, with
    `x` [N, G*C, *S], `w` [G*F, C, *K], `y` [N, G*F, *O]. `out` says which tensor is computed: `y` from (x, w) is the convolution, `x` from
    (y, w) its data gradient (a transposed convolution), `w` from (x, y) its weight gradient. The derivative of any is another.
    `shape` is the shape of the result for `x` and `w`, which the operands do not determine.
    """

    name = "conv"
    out: str
    strides: Ints
    low: Ints
    high: Ints
    dilations: Ints
    groups: int = 1
    shape: Shape = ()

    def _shapes(self, types: tuple[TensorType, ...]) -> tuple[Shape, Shape, Shape]:
        """Return the shapes of (x, w, y)."""
        if self.out == "y":
            x, w = types[0].shape, types[1].shape
            return x, w, self.result_shape(x, w)
        if self.out == "x":
            return self.shape, types[1].shape, types[0].shape
        return types[0].shape, self.shape, types[1].shape

    def result_shape(self, x: Shape, w: Shape) -> Shape:
        """Return the shape of `y`."""
        spatial = []
        for i, (n, k) in enumerate(zip(x[2:], w[2:], strict=True)):
            room = n + self.low[i] + self.high[i] - ((k - 1) * self.dilations[i] + 1)
            if room < 0:
                raise ShapeError(
                    f"conv: a kernel of {k} (dilation {self.dilations[i]}) does not fit {n} with padding"
                )
            spatial.append(room // self.strides[i] + 1)
        return (x[0], w[0], *spatial)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of the tensor asked for."""
        if len(types) != 2 or types[0].dtype != types[1].dtype:
            raise ShapeError(
                f"conv takes two operands of one element type, got {', '.join(map(str, types))}"
            )
        if self.out not in ("y", "x", "w"):
            raise ShapeError(f"conv: out is {self.out!r}, it must be 'y', 'x' or 'w'")
        d = len(self.strides)
        ranks = {types[0].rank, types[1].rank} | ({len(self.shape)} if self.out != "y" else set())
        if ranks != {d + 2} or not len(self.low) == len(self.high) == len(self.dilations) == d:
            raise ShapeError(f"conv over {d} dimensions of {types[0]} and {types[1]}")
        x, w, y = self._shapes(types)
        if x[1] != w[1] * self.groups or w[0] % self.groups:
            raise ShapeError(
                f"conv: {x[1]} channels in {self.groups} groups do not fit the weight {list(map(int, w))}"
            )
        if self.result_shape(x, w) != tuple(y):
            raise ShapeError(
                f"conv: {list(map(int, y))} is not the result of {list(map(int, x))} with weight {list(map(int, w))}"
            )
        return (types[0].with_shape({"x": x, "w": w, "y": y}[self.out]),)

    def reference(self, *arrays: Array) -> Array:
        """Return the result by einsum over strided windows."""
        return rounded(self._einsum(*map(wide, arrays)), arrays[0].dtype)

    def _einsum(self, *arrays: Array) -> Array:
        types = tuple(TensorType(None, a.shape) for a in arrays)  # type: ignore[arg-type]
        x, w, y = self._shapes(types)
        g, d = self.groups, len(self.strides)
        o, k = "abcd"[:d], "uvwz"[:d]
        split_w = (g, w[0] // g, *w[1:])
        split_y = (x[0], g, w[0] // g, *y[2:])
        if self.out == "x":
            parts = np.einsum(
                f"ngf{o},gfi{k}->ngi{o}{k}",
                arrays[0].reshape(split_y),
                arrays[1].reshape(split_w),
                optimize=True,
            )
            return self._scatter(parts.reshape(x[0], x[1], *y[2:], *w[2:]), x)
        view = self._windows(arrays[0], y, w).reshape(x[0], g, x[1] // g, *y[2:], *w[2:])
        out: Array
        if self.out == "y":
            out = np.einsum(
                f"ngi{o}{k},gfi{k}->ngf{o}", view, arrays[1].reshape(split_w), optimize=True
            )
            return out.reshape(y)
        out = np.einsum(
            f"ngi{o}{k},ngf{o}->gfi{k}", view, arrays[1].reshape(split_y), optimize=True
        )
        return out.reshape(w)

    def _windows(self, x: Array, y: Shape, w: Shape) -> Array:
        padded = np.pad(
            x,
            [
                (0, 0),
                (0, 0),
                *((max(a, 0), max(b, 0)) for a, b in zip(self.low, self.high, strict=True)),
            ],
        )
        out = np.empty((*x.shape[:2], *y[2:], *w[2:]), x.dtype)
        for k in product(*map(range, w[2:])):
            last: tuple[Any, ...] = (Ellipsis, *k)
            out[last] = padded[(slice(None), slice(None), *self._tap(k, y))]
        return out

    def _scatter(self, parts: Array, x: Shape) -> Array:
        sizes = [
            n + max(a, 0) + max(b, 0) for n, a, b in zip(x[2:], self.low, self.high, strict=True)
        ]
        padded = np.zeros((*x[:2], *sizes), parts.dtype)
        d = len(self.strides)
        for k in product(*map(range, parts.shape[2 + d :])):
            last: tuple[Any, ...] = (Ellipsis, *k)
            padded[(slice(None), slice(None), *self._tap(k, parts.shape[: 2 + d]))] += parts[last]
        crop = (slice(max(a, 0), max(a, 0) + n) for n, a in zip(x[2:], self.low, strict=True))
        return padded[(slice(None), slice(None), *crop)].copy()

    def _tap(self, k: Ints, y: Shape) -> list[slice]:
        out = []
        for i, at in enumerate(k):
            first = at * self.dilations[i] - min(self.low[i], 0)
            out.append(slice(first, first + (y[2 + i] - 1) * self.strides[i] + 1, self.strides[i]))
        return out

    def reduced(self, *types: TensorType) -> Shape:
        """Return (c, k…) for y, (f, k…) for x, (n, o…) for w."""
        x, w, y = self._shapes(types)
        if self.out == "y":
            return (w[1], *w[2:])
        if self.out == "x":
            return (w[0] // self.groups, *w[2:])
        return (x[0], *y[2:])

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        reduced: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the product of the two elements; padding and the holes of a stride are guards."""
        x, w, y = self._shapes(types)
        if self.out == "y":
            return self._at_y(s, index, reduced, x, w, reads)
        if self.out == "x":
            return self._at_x(s, index, reduced, y, w, reads)
        return self._at_w(s, index, reduced, x, w, reads)

    def _group(self, channel: Affine, per_group: int) -> tuple[Affine, Affine]:
        if self.groups == 1:
            return Affine(), channel
        return channel // per_group, channel % per_group

    def _source(
        self, o: Sequence[Affine], k: Sequence[Affine], x: Shape
    ) -> tuple[list[Affine], list[Guard]]:
        at = [
            o[i] * self.strides[i] + k[i] * self.dilations[i] - self.low[i] for i in range(len(o))
        ]
        return at, [Guard(p, 0, x[2 + i]) for i, p in enumerate(at)]

    def _at_y(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        reduced: tuple[Affine, ...],
        x: Shape,
        w: Shape,
        reads: tuple[Read[T], ...],
    ) -> T:
        n, f, *o = index
        c, *k = reduced
        g, _ = self._group(f, w[0] // self.groups)
        at, where = self._source(o, k, x)
        return s.mul(reads[0]([n, g * w[1] + c, *at], where), reads[1]([f, c, *k]))

    def _at_x(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        reduced: tuple[Affine, ...],
        y: Shape,
        w: Shape,
        reads: tuple[Read[T], ...],
    ) -> T:
        n, channel, *h = index
        f, *k = reduced
        g, c = self._group(channel, w[1])
        feature = g * (w[0] // self.groups) + f
        at, where = [], []
        for i, p in enumerate(h):
            t = p + self.low[i] - k[i] * self.dilations[i]
            if self.strides[i] > 1:
                where.append(Guard(t % self.strides[i], 0, 1))
            at.append(t // self.strides[i])
            where.append(Guard(at[-1], 0, y[2 + i]))
        return s.mul(reads[0]([n, feature, *at], where), reads[1]([feature, c, *k]))

    def _at_w(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        reduced: tuple[Affine, ...],
        x: Shape,
        w: Shape,
        reads: tuple[Read[T], ...],
    ) -> T:
        f, c, *k = index
        n, *o = reduced
        g, _ = self._group(f, w[0] // self.groups)
        at, where = self._source(o, k, x)
        return s.mul(reads[0]([n, g * w[1] + c, *at], where), reads[1]([n, f, *o]))

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """The same form, asking for each operand in turn."""
        (d,), (first, second) = cotangents, operands
        assert d is not None
        pairs = {"y": ("x", "w"), "x": ("y", "w"), "w": ("x", "y")}
        wants = pairs[self.out]
        known = {self.out: d, wants[0]: first, wants[1]: second}
        out = []
        for want, operand in zip(wants, operands, strict=True):
            a, b = pairs[want]
            op = replace(self, out=want, shape=() if want == "y" else operand.shape)
            out.append(d.emit(op, known[a], known[b]))
        return tuple(out)


def conv(
    x: Sym,
    weight: Sym,
    strides: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
    dilations: Sequence[int] | None = None,
    groups: int = 1,
) -> Sym:
    """Return the convolution of `x` [N, C, *spatial] with `weight` [F, C/groups, *kernel]."""
    op = Conv(
        out="y",
        strides=tuple(strides),
        low=tuple(low),
        high=tuple(high),
        dilations=tuple(dilations or (1,) * len(strides)),
        groups=groups,
    )
    return x.emit(op, x, weight)
