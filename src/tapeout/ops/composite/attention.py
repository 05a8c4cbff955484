"""Scaled dot-product attention, `softmax(q kᵀ · scale) v`, with what its gradient needs of the forward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from tapeout.ir.dtype import BY_NAME, DType, bool_, f32, from_numpy
from tapeout.ir.op import Composite, register
from tapeout.ops.composite.attention_blocks import (
    LEAST_QUERIES,
    Block,
    blocks_of,
    joined,
    total,
)
from tapeout.ops.exact import rounded, wide
from tapeout.ops.sym import iota
from tapeout.support.errors import OptionError, ShapeError
from tapeout.support.loc import AGAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.op import Array
    from tapeout.ir.type import Shape, TensorType
    from tapeout.ops.sym import Sym

    Cotangents = tuple[Sym | None, ...]

WORTH_KEEPING = 4
"""The probabilities are kept for the gradient if they are at most so many times as large as q, k and v together."""


@dataclass(frozen=True, repr=False)
class _Attention(Composite):
    """What attention and its gradient have in common.

    Attributes:
        scale: Factor of the scores.
        left: How many keys before its own position a query attends, -1 for all.
        right: How many behind it, -1 for all; 0 is causal.
        offset: Position of the first query among the keys.
        softcap: Scores become `softcap * tanh(scores / softcap)` before the mask; 0 leaves them.
        precision: Element type of the softmax; empty for that of the operands, at least f32.
        keeps: What the second result is: `probabilities` [*, H, S, T], or `logsum` [*, H, S], from which they are made again.
    """

    scale: float = 1.0
    left: int = -1
    right: int = -1
    offset: int = 0
    softcap: float = 0.0
    precision: str = ""
    keeps: str = "logsum"

    def __post_init__(self) -> None:
        """Check the attributes."""
        if self.keeps not in ("logsum", "probabilities"):
            raise OptionError(f"keeps is {self.keeps!r}, expected 'logsum' or 'probabilities'")
        if self.softcap and self.keeps == "probabilities":
            raise OptionError("the gradient of softcap needs the scores: keeps must be 'logsum'")

    def softmax_type(self, dtype: DType) -> DType:
        """Return the element type of the softmax for operands of a type."""
        if self.precision:
            return BY_NAME[self.precision]
        return f32 if dtype.bits == 16 else dtype

    def checked(self, types: Sequence[TensorType]) -> tuple[TensorType, TensorType]:
        """Return the types of the result and of what is kept, for those of q, k, v and maybe a mask."""
        q, k, v = types[:3]
        if q.rank < 3 or k.rank != q.rank or v.rank != q.rank:
            raise ShapeError(f"{self.name}: q, k, v are {q}, {k}, {v}; expected [*, H, S, D] each")
        if not q.dtype.is_float or k.dtype != q.dtype or v.dtype != q.dtype:
            raise ShapeError(f"{self.name}: q, k, v are {q}, {k}, {v}; expected floats of one type")
        fits = q.shape[:-3] == k.shape[:-3] and k.shape[:-1] == v.shape[:-1]
        groups = k.shape[-3]
        if not fits or k.shape[-1] != q.shape[-1] or not groups or q.shape[-3] % groups:
            raise ShapeError(
                f"{self.name}: q, k, v are {q}, {k}, {v}; expected [*, H, S, D], [*, G, T, D] "
                "and [*, G, T, E], H a multiple of G"
            )
        scores = (*q.shape[:-1], k.shape[-2])
        if len(types) > 3:
            self._check_mask(types[3], q, scores)
        kept = q.with_shape(scores)
        if self.keeps == "logsum":
            kept = q.with_shape(scores[:-1]).with_dtype(self.softmax_type(q.dtype))
        return q.with_shape((*q.shape[:-1], v.shape[-1])), kept

    def blocks(self, operands: Sequence[Sym]) -> list[Block]:
        """Return the blocks in which attention over q, k, v and maybe a mask is computed."""
        q, k, *_, last = operands
        queries, keys = int(q.shape[-2]), int(k.shape[-2])
        if self.keeps != "logsum" or (len(operands) > 3 and last.dtype != bool_):
            return [Block(0, queries, 0, keys)]
        return blocks_of(queries, keys, self.left, self.right, int(self.offset))

    def at(self, block: Block) -> Self:
        """Return the operation on one block."""
        return replace(self, offset=int(self.offset) + block.start - block.first)

    def part(self, block: Block, operands: Sequence[Sym]) -> tuple[Sym, ...]:
        """Return the operands of one block."""
        q, k, v, *masks = operands
        mine = (block.keys(block.queries(m), -1) for m in masks)
        return block.queries(q), block.keys(k), block.keys(v), *mine

    def _check_mask(self, mask: TensorType, q: TensorType, scores: Shape) -> None:
        fits = mask.rank == len(scores) and all(
            m in (1, n) for m, n in zip(mask.shape, scores, strict=True)
        )
        if not fits or mask.dtype not in (bool_, q.dtype):
            wanted = q.with_shape(scores)
            raise ShapeError(
                f"{self.name}: the mask is {mask}; expected bool or {q.dtype.name}, each dimension 1 or that of {wanted}"
            )

    def scores(self, q: Array, k: Array, mask: Array | None) -> Array:
        """Return the scores [*, H, S, T] in f64, -inf where a key takes no part."""
        scores: Array = q @ np.swapaxes(_repeated(k, q), -1, -2) * self.scale
        if self.softcap:
            scores = self.softcap * np.tanh(scores / self.softcap)
        if mask is not None:
            scores = (
                np.where(mask, scores, -math.inf) if mask.dtype == bool else scores + wide(mask)
            )
        position = np.arange(scores.shape[-2])[:, None] + int(self.offset)
        ahead = np.arange(scores.shape[-1]) - position
        seen = np.ones(ahead.shape, bool)
        if self.right >= 0:
            seen &= ahead <= self.right
        if self.left >= 0:
            seen &= ahead >= -self.left
        return np.where(seen, scores, -math.inf)


@register
class Attention(_Attention):
    """`softmax(q kᵀ · scale + mask) v` for heads side by side, and what the gradient needs. A query without any key gets zeros.

    Operands are q [*, H, S, D], k [*, G, T, D], v [*, G, T, E], H a multiple of G (head h reads group h // (H/G)), and optionally a mask
    [*, H, S, T] whose dimensions may be 1: bools say which keys take part, floats are added to the scores.
    """

    name = "attention"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of the result [*, H, S, E], then of what is kept."""
        if len(types) not in (3, 4):
            raise ShapeError(f"{self.name} takes 3 or 4 operands, got {len(types)}")
        return self.checked(types)

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the weighted sums, and the probabilities or the logarithm of their denominator."""
        parts = self.blocks(operands)
        if len(parts) == 1:
            return self.formula(operands)
        found = [self.at(p).formula(self.part(p, operands)) for p in parts]
        return joined([y for y, _ in found], -2), joined([lse for _, lse in found], -1)

    def formula(self, operands: Sequence[Sym]) -> tuple[Sym, Sym]:
        """Return the results without cutting them into blocks."""
        heads = _Heads.of(self, operands)
        scores = heads.masked(heads.capped(heads.products()))
        most = scores.max(-1)
        # A row of -inf alone has no greatest score; every exponential is then 0, and so is the row.
        most = (most == -math.inf).where(0, most)
        each = (scores - most.expand_dims([-1])).exp()
        total = each.sum(-1)
        total = (total == 0).where(1, total)
        share = (each * (1 / total).expand_dims([-1])).cast(heads.q.dtype)
        y = heads.whole(heads.weighted(share))
        if self.keeps == "probabilities":
            return y, heads.whole(share)
        return y, heads.whole(most + total.log(), ends=1)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return what `AttentionGradient` computes."""
        dy, dkept = cotangents
        if dkept is not None:
            # Only a gradient of the gradient asks for this.
            dy = results[0].zeros_like() if dy is None else dy
            return _gradients(self, operands, dy, results[0], results[1], dkept)
        assert dy is not None
        attributes = {f.name: getattr(self, f.name) for f in fields(self)}
        op = AttentionGradient(**attributes)
        found: list[Sym | None] = list(dy.emit_all(op, *operands, dy, *results))
        return (*found, *([None] * (len(operands) - len(found))))

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """Return the results in f64, rounded once."""
        q, k, v = map(wide, arrays[:3])
        scores = self.scores(q, k, arrays[3] if len(arrays) == 4 else None)
        with np.errstate(all="ignore"):
            most = scores.max(-1, initial=-math.inf)
            most = np.where(np.isneginf(most), 0, most)
            each = np.exp(scores - most[..., None])
            total = each.sum(-1)
            total = np.where(total == 0, 1, total)
            share = each / total[..., None]
            lse = most + np.log(total)
        y = rounded(share @ _repeated(v, q), arrays[0].dtype)
        if self.keeps == "probabilities":
            return y, rounded(share, arrays[0].dtype)
        return y, rounded(lse, self.softmax_type(from_numpy(arrays[0].dtype)).numpy)


@register
class AttentionGradient(_Attention):
    """The gradient of `attention` with respect to q, k, v and a mask of floats.

    Operands are those of `attention`, the cotangent of its first result, and both its results.
    """

    name = "attention_gradient"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the types of q, k, v, and of the mask if it is of floats."""
        if len(types) not in (6, 7):
            raise ShapeError(f"{self.name} takes 6 or 7 operands, got {len(types)}")
        y, kept = self.checked(types[:-3])
        if types[-3:] != (y, y, kept):
            got = ", ".join(map(str, types[-3:]))
            raise ShapeError(f"{self.name}: the last operands are {got}; expected {y}, {y}, {kept}")
        return tuple(t for t in types[:-3] if t.dtype.is_float)

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the gradients as products of the probabilities and their own gradient."""
        *inputs, dy, y, kept = operands
        parts = self.blocks(inputs)
        if len(parts) == 1:
            found = _gradients(self, tuple(inputs), dy, y, kept)
            return tuple(g for g in found if g is not None)
        of = [
            _gradients(
                self.at(p),
                self.part(p, inputs),
                p.queries(dy),
                p.queries(y),
                p.queries(kept, -1),
            )
            for p in parts
        ]
        keys = inputs[1].shape[-2]
        dq, dk, dv = ([x for x in (g[i] for g in of) if x is not None] for i in range(3))
        return (
            joined(dq, -2),
            total([p.among_keys(g, keys) for p, g in zip(parts, dk, strict=True)]),
            total([p.among_keys(g, keys) for p, g in zip(parts, dv, strict=True)]),
        )

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """Return the results in f64, rounded once."""
        *inputs, dy, y, kept = (wide(a) for a in arrays)
        q, k, v = inputs[:3]
        mask = arrays[3] if len(inputs) == 4 else None
        share = kept
        if self.keeps == "logsum":
            with np.errstate(all="ignore"):
                share = np.exp(self.scores(q, k, mask) - kept[..., None])
        ds = share * (dy @ np.swapaxes(_repeated(v, q), -1, -2) - (dy * y).sum(-1, keepdims=True))
        dz = self._of_products(ds, q, k)
        results = [
            dz @ _repeated(k, q),
            _folded(np.swapaxes(dz, -1, -2) @ q, k),
            _folded(np.swapaxes(share, -1, -2) @ dy, v),
        ]
        if mask is not None and mask.dtype != bool:
            axes = tuple(i for i, n in enumerate(mask.shape) if n != ds.shape[i])
            results.append(ds.sum(axes, keepdims=True))
        return tuple(rounded(r, arrays[0].dtype) for r in results)

    def _of_products(self, ds: Array, q: Array, k: Array) -> Array:
        if not self.softcap:
            return ds * self.scale
        z = q @ np.swapaxes(_repeated(k, q), -1, -2) * self.scale
        slope: Array = 1 - np.tanh(z / self.softcap) ** 2
        return ds * slope * self.scale


def _repeated(x: Array, q: Array) -> Array:
    """Return keys or values with each group once per head that reads it."""
    return np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3)


def _folded(x: Array, like: Array) -> Array:
    """Return the sum over the heads of each group."""
    groups = like.shape[-3]
    split = (*x.shape[:-3], groups, x.shape[-3] // groups, *x.shape[-2:])
    total: Array = x.reshape(split).sum(-3)
    return total


@dataclass(frozen=True)
class _Heads:
    """The operands with heads by group: q [*, G, R, S, D], or [*, G, S, D] where each group has one head.

    Attributes:
        op: The attributes.
        q: Queries.
        k: Keys [*, G, T, D].
        v: Values [*, G, T, E].
        mask: None, or [*, G, R, S, T] with dimensions of 1.
        lead: Leading dimensions of the operands as given, heads included.
    """

    op: _Attention
    q: Sym
    k: Sym
    v: Sym
    mask: Sym | None
    lead: Shape

    @classmethod
    def of(cls, op: _Attention, operands: Sequence[Sym]) -> _Heads:
        """Return the operands of attention by group."""
        q, k, v = operands[:3]
        heads = cls(op, q, k, v, None, q.shape[:-2])
        mask = heads.split(operands[3]) if len(operands) > 3 else None
        return cls(op, heads.split(q), k, v, mask, q.shape[:-2])

    @property
    def batch(self) -> range:
        """The dimensions that keys and queries share."""
        return range(self.k.rank - 2)

    @property
    def repeats(self) -> int:
        """How many heads read one group."""
        return int(self.lead[-1]) // int(self.k.shape[-3])

    def split(self, x: Sym, ends: int = 2) -> Sym:
        """Return a value with its heads (one dimension, maybe 1) as groups and heads of a group."""
        if self.repeats == 1:
            return x
        at = x.rank - ends - 1
        one = x.shape[at] == 1 and self.lead[-1] != 1
        parts = (1, 1) if one else (self.k.shape[-3], self.repeats)
        return x.reshape((*x.shape[:at], *parts, *x.shape[at + 1 :]))

    def whole(self, x: Sym, ends: int = 2) -> Sym:
        """Return a value with heads as one dimension again."""
        return x.reshape((*self.lead, *x.shape[x.rank - ends :]))

    def products(self) -> Sym:
        """Return the scaled products of queries and keys, in the type of the softmax."""
        kind = self.op.softmax_type(self.q.dtype)
        return _rows_of(self.q.cast(kind), self.k.cast(kind), self.batch) * self.op.scale

    def capped(self, z: Sym) -> Sym:
        """Return the scores of the products."""
        cap = self.op.softcap
        return (z / cap).tanh() * cap if cap else z

    def masked(self, scores: Sym) -> Sym:
        """Return the scores with the mask added, and -inf for keys that take no part."""
        if self.mask is not None:
            if self.mask.dtype == bool_:
                scores = self.mask.where(scores, -math.inf)
            else:
                scores = scores + self.mask.cast(scores.dtype)
        seen = self._band(scores)
        return scores if seen is None else seen.where(scores, -math.inf)

    def _band(self, scores: Sym) -> Sym | None:
        """Return which keys each query may see by their positions [S, T], None if it may see all."""
        rows, columns = scores.shape[-2:]
        left, right, offset = self.op.left, self.op.right, self.op.offset
        key = iota(scores.builder, (rows, columns), 1)
        query = iota(scores.builder, (rows, columns), 0)
        seen = key <= query + int(offset + right) if right >= 0 else None
        if left >= 0:
            near = key >= query + int(offset - left)
            seen = near if seen is None else seen & near
        return seen

    def weighted(self, share: Sym) -> Sym:
        """Return the values summed with weights."""
        n = len(self.batch)
        return share.dot_general(self.v, contract=([share.rank - 1], [n]), batch=(self.batch,) * 2)

    def over_queries(self, a: Sym, b: Sym) -> Sym:
        """Return the products of two values with rows per query, summed over all queries of a group."""
        n = len(self.batch)
        contract = (range(n, a.rank - 1), range(n, b.rank - 1))
        return a.dot_general(b, contract=contract, batch=(self.batch,) * 2)


def _rows_of(a: Sym, b: Sym, batch: range) -> Sym:
    """Return the product of every row of one value with every row of another."""
    return a.dot_general(b, contract=([a.rank - 1], [b.rank - 1]), batch=(batch, batch))


def _gradients(
    op: _Attention,
    operands: tuple[Sym, ...],
    dy: Sym,
    y: Sym,
    kept: Sym,
    dkept: Sym | None = None,
) -> Cotangents:
    """Return the cotangents of the operands; `dkept` is that of what attention keeps."""
    heads = _Heads.of(op, operands)
    dy, y = heads.split(dy), heads.split(y)
    kind = op.softmax_type(dy.dtype)
    n = len(heads.batch)
    dshare = _rows_of(dy.cast(kind), heads.v.cast(kind), heads.batch)
    delta = (dy.cast(kind) * y.cast(kind)).sum(-1)
    slope: Sym | None = None
    if op.keeps == "probabilities":
        share = heads.split(kept)
        wide_share = share.cast(kind)
        if dkept is not None:
            more = heads.split(dkept).cast(kind)
            dshare = dshare + more
            delta = delta + (wide_share * more).sum(-1)
    else:
        logsum = heads.split(kept, ends=1)
        # Computed twice on purpose: what the forward pass could keep for this is as large as the probabilities.
        with dy.builder.at(dy.builder.loc.as_role(AGAIN)):
            scores = heads.capped(heads.products())
            wide_share = (heads.masked(scores) - logsum.expand_dims([-1])).exp()
        if op.softcap:
            slope = 1 - (scores * (1 / op.softcap)) * (scores * (1 / op.softcap))
        share = wide_share.cast(dy.dtype)
        if dkept is not None:
            delta = delta - heads.split(dkept, ends=1)
    dscores = wide_share * (dshare - delta.expand_dims([-1]))
    dz = dscores if slope is None else dscores * slope
    dz = (dz * op.scale).cast(dy.dtype)
    dq = dz.dot_general(heads.k, contract=([dz.rank - 1], [n]), batch=(heads.batch,) * 2)
    dk, dv = heads.over_queries(dz, heads.q), heads.over_queries(share, dy)
    found: Cotangents = (heads.whole(dq), dk, dv)
    if len(operands) == 3:
        return found
    return (*found, _of_mask(operands[3], heads.whole(dscores)))


def _of_mask(mask: Sym, dscores: Sym) -> Sym | None:
    """Return the cotangent of a mask: of floats the sum over the dimensions that it repeats along."""
    if not mask.dtype.is_float:
        return None
    axes = [i for i, n in enumerate(mask.shape) if n != dscores.shape[i]]
    return dscores.sum(axes, keepdims=True).cast(mask.dtype) if axes else dscores.cast(mask.dtype)


def attention(
    q: Sym,
    k: Sym,
    v: Sym,
    mask: Sym | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    left: int = -1,
    right: int = -1,
    offset: int = 0,
    softcap: float = 0.0,
    precision: DType | None = None,
) -> Sym:
    """Return scaled dot-product attention.

    Args:
        q: Queries [*, H, S, D].
        k: Keys [*, G, T, D]; H is a multiple of G, and head h reads group h // (H/G).
        v: Values [*, G, T, E].
        mask: Bools (which keys take part) or floats (added to the scores), of a shape that broadcasts to [*, H, S, T].
        scale: Factor of the scores, by default `1 / sqrt(D)`.
        causal: Whether a query attends no key behind its own position.
        left: How many keys before its position a query attends, -1 for all.
        right: How many behind it, -1 for all.
        offset: Position of the first query among the keys.
        softcap: Scores become `softcap * tanh(scores / softcap)` before the mask; 0 leaves them.
        precision: Element type of the softmax, by default that of the operands, at least f32.

    Returns:
        [*, H, S, E]; rows of queries without any key are zero.

    Raises:
        ShapeError: The shapes or element types do not fit.
    """
    scores = math.prod((*q.shape[:-1], k.shape[-2])) if k.rank > 1 else 0
    window = causal or left >= 0 or right >= 0
    added = mask is not None and mask.dtype != bool_
    blocked = window and not added and q.rank > 1 and q.shape[-2] >= LEAST_QUERIES
    given = q.type.size + k.type.size + v.type.size
    op = Attention(
        scale=1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale),
        left=left,
        right=(0 if right < 0 else min(right, 0)) if causal else right,
        offset=offset,
        softcap=float(softcap),
        precision="" if precision is None else precision.name,
        keeps="logsum" if softcap or blocked or scores > WORTH_KEEPING * given else "probabilities",
    )
    operands = [q, k, v]
    if mask is not None:
        missing = max(q.rank - mask.rank, 0)
        operands.append(mask.reshape((*(1,) * missing, *mask.shape)) if missing else mask)
    return q.emit_all(op, *operands)[0]


def scores_of(op: Attention, operands: Sequence[Sym], stage: str) -> Sym:
    """Return the matrix [*, H, S, T] that attention makes on its way: `products`, `capped`, `masked` or `probabilities`."""
    heads = _Heads.of(op, operands)
    z = heads.products()
    if stage != "products":
        z = heads.capped(z)
    if stage in ("masked", "probabilities"):
        z = heads.masked(z)
    if stage == "probabilities":
        most = z.max(-1, keepdims=True)
        each = (z - (most == -math.inf).where(0, most)).exp()
        total = each.sum(-1, keepdims=True)
        z = each / (total == 0).where(1, total)
    return heads.whole(z).cast(operands[0].dtype)
