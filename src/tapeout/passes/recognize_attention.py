"""Attention that a file spells out: products, scale, mask, softmax, product."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import bool_
from tapeout.ops import elementwise as ew
from tapeout.ops import movement as mv
from tapeout.ops.composite.attention import attention
from tapeout.ops.composite.softmax import Softmax
from tapeout.ops.contraction import DotGeneral
from tapeout.ops.sym import Sym
from tapeout.passes.constants import splat_of

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Node, Value
    from tapeout.ir.op import Array

MOST_ANCESTORS = 64
MOST_ELEMENTS = 1 << 22
"""Masks that more nodes make, or that are larger, are not looked into."""


@dataclass(frozen=True)
class _Scores:
    """What the softmax is taken of: `scale * q k`, and a mask."""

    product: DotGeneral
    q: Value
    k: Value
    scale: float
    mask: Value | None
    allowed: bool


def recognize_attention(b: Builder, node: Node, operands: tuple[Value, ...]) -> Value | None:
    """Return attention in place of the product that ends it, None if a node is no such product.

    Args:
        b: The graph under construction.
        node: Any node.
        operands: The operands in the graph under construction; nothing else reads the first.
    """
    if not isinstance(node.op, DotGeneral) or not _is_row_product(node.op, operands[0].type.rank):
        return None
    share, v = operands
    softmax = share.node
    rank = share.type.rank
    if softmax is None or softmax.op != Softmax(axis=rank - 1) or node.op.contract_b != (rank - 2,):
        return None
    found = _scores(softmax.operands[0])
    if found is None:
        return None
    scale, q = _unscaled(found.q)
    factor, k = _unscaled(found.k)
    keys = Sym(b, k)
    if found.product.contract_b == (rank - 2,):
        keys = keys.transpose((*range(rank - 2), rank - 1, rank - 2))
    causal = found.mask is not None and not found.allowed and _is_causal(found.mask)
    mask = None if found.mask is None or causal else _small(Sym(b, found.mask))
    total = found.scale * scale * factor
    return attention(Sym(b, q), keys, Sym(b, v), mask, scale=total, causal=causal).value


def _is_row_product(op: DotGeneral, rank: int) -> bool:
    """Whether a product sums over the last dimension of its first operand, all but the last two being batch."""
    batch = tuple(range(rank - 2))
    return rank >= 3 and op.batch_a == op.batch_b == batch and op.contract_a == (rank - 1,)


def _scores(value: Value) -> _Scores | None:
    scores, mask, allowed = value, None, False
    node = value.node
    if node is not None and isinstance(node.op, ew.Add):
        # The mask may stand on either side.
        for a, b in (node.operands, node.operands[::-1]):
            if _product(_unscaled(a)[1]) is not None:
                scores, mask = a, b
                break
    elif node is not None and isinstance(node.op, ew.Select):
        condition, a, b = node.operands
        if splat_of(b) == -inf:
            scores, mask, allowed = a, condition, True
    scale, z = _unscaled(scores)
    product = _product(z)
    if product is None or z.node is None:
        return None
    q, k = z.node.operands
    return _Scores(product, q, k, scale, mask, allowed)


def _product(value: Value) -> DotGeneral | None:
    """Return the product of every query with every key that a value is."""
    node = value.node
    if node is None or not isinstance(node.op, DotGeneral):
        return None
    rank = value.type.rank
    fits = _is_row_product(node.op, rank) and node.operands[1].type.rank == rank
    return node.op if fits else None


def _unscaled(value: Value) -> tuple[float, Value]:
    """Return a number and a value whose product the value is, as far as it is spelled out."""
    scale = 1.0
    while value.node is not None:
        op, operands = value.node.op, value.node.operands
        if isinstance(op, ew.Mul | ew.Div):
            number = splat_of(operands[1])
            left = splat_of(operands[0]) if isinstance(op, ew.Mul) else None
            if number is not None and number != 0:
                scale = scale / number if isinstance(op, ew.Div) else scale * number
                value = operands[0]
                continue
            if left is not None and left != 0:
                scale, value = scale * left, operands[1]
                continue
        return scale, value
    return scale, value


def _small(mask: Sym) -> Sym:
    """Return a mask with size 1 where it only repeats."""
    node = mask.value.node
    if node is None or not isinstance(node.op, mv.Broadcast):
        return mask
    (source,) = node.operands
    axes = node.op.axes
    if list(axes) != sorted(axes):
        return mask
    sizes = dict(zip(axes, source.type.shape, strict=True))
    shape = tuple(sizes.get(d, 1) for d in range(mask.rank))
    return _small(Sym(mask.builder, source).reshape(shape)) if shape != mask.shape else mask


def _is_causal(mask: Value) -> bool:
    """Whether a mask is known to be 0 up to the diagonal and -inf behind it."""
    if mask.type.dtype == bool_ or mask.type.size > MOST_ELEMENTS:
        return False
    found = _known(mask)
    if found is None:
        return False
    rows, columns = mask.type.shape[-2:]
    behind = np.arange(int(columns)) > np.arange(int(rows))[:, None]
    return bool(np.array_equal(found, np.broadcast_to(np.where(behind, -inf, 0.0), found.shape)))


def _known(value: Value) -> Array | None:
    """Return the content of a value that depends on constants alone, None for others."""
    order: list[Node] = []
    pending = [value]
    seen: dict[Node, None] = {}
    while pending:
        v = pending.pop()
        if v.node is None or v.type.size > MOST_ELEMENTS:
            return None
        if v.node in seen:
            continue
        seen[v.node] = None
        order.append(v.node)
        pending += v.node.operands
        if len(seen) > MOST_ANCESTORS:
            return None
    known: dict[Value, Array] = {}
    while order:
        # Depth first gives no order of its own: take those whose operands are known.
        ready = [n for n in order if all(o in known for o in n.operands)]
        for n in ready:
            with np.errstate(all="ignore"):
                results = n.op.reference(*(known[o] for o in n.operands))
            known.update(
                zip(n.results, results if isinstance(results, tuple) else (results,), strict=True)
            )
        order = [n for n in order if n not in ready]
    return known[value]
