"""Attention: of queries to keys and values, and with the projections of several heads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tapeout.frontend.init import fan_in_uniform, xavier_uniform, zeros
from tapeout.frontend.nn.base import expect_shape, known, parameter, recorder
from tapeout.frontend.nn.dense import in_training
from tapeout.ir.dtype import bool_
from tapeout.ops.composite import attention as composite_attention
from tapeout.ops.composite import linear as composite_linear
from tapeout.ops.composite.softmax import softmax
from tapeout.ops.sym import iota

if TYPE_CHECKING:
    from tapeout.ops.sym import Sym


def attention(
    q: Sym,
    k: Sym,
    v: Sym,
    mask: Sym | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    name: str = "",
) -> Sym:
    """Return for each query the mean of the values, weighted by the softmax of its products with the keys.

    Args:
        q: [*, H, L, E].
        k: [*, G, S, E]; G divides H, and each key and value serves H/G heads.
        v: [*, G, S, D].
        mask: What is added to the scores, or a bool that is true where a query may look; it broadcasts to [*, H, L, S].
        causal: Whether query i looks at keys 0..i only.
        scale: What products are multiplied by (default 1/√E).
        dropout: The share of weights that are dropped in training.
        name: Name of the layer; needed with dropout.

    Returns:
        [*, H, L, D]; zeros for a query that may look nowhere.

    Raises:
        ShapeError: The shapes do not fit.
    """
    factor = 1 / math.sqrt(known(q, -1, name or "attention")) if scale is None else float(scale)
    # The composite takes heads; without that dimension there is one.
    shape = [*q.shape[:-1], v.shape[-1]]
    q, k, v = (x.expand_dims([0]) if x.rank == 2 else x for x in (q, k, v))
    y = composite_attention.attention(q, k, v, mask, scale=factor, causal=causal)
    if dropout:
        here = recorder(q, name)
        y = here.by_mode(name, _with_dropout(q, k, v, mask, factor, causal, dropout, name), y)
    return y.reshape(shape)


def _with_dropout(
    q: Sym,
    k: Sym,
    v: Sym,
    mask: Sym | None,
    factor: float,
    causal: bool,
    share: float,
    name: str,
) -> Sym:
    """Return attention of which a share of the weights is dropped."""
    k, v = (_shared(x, q.shape[-3]) for x in (k, v))
    scores = (q * factor).matmul(k.transpose([*range(k.rank - 2), k.rank - 1, k.rank - 2]))
    if causal:
        rows, columns = (iota(q.builder, scores.shape, scores.rank - 2 + i) for i in (0, 1))
        scores = (columns <= rows).where(scores, -math.inf)
    if mask is not None:
        scores = mask.where(scores, -math.inf) if mask.dtype == bool_ else scores + mask
    return in_training(softmax(scores, -1), share, name).matmul(v)


def _shared(x: Sym, heads: int) -> Sym:
    """Return keys or values [*, G, S, E] for every head [*, H, S, E]."""
    groups = x.shape[-3]
    if groups == heads:
        return x
    lead, rest = x.shape[:-2], x.shape[-2:]
    wide = [*lead, heads // groups, *rest]
    each = x.broadcast(wide, [a for a in range(len(wide)) if a != len(lead)])
    return each.reshape([*lead[:-1], heads, *rest])


def multi_head_attention(
    x: Sym,
    heads: int,
    *,
    name: str,
    context: Sym | None = None,
    kv_heads: int | None = None,
    mask: Sym | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    bias: bool = True,
) -> Sym:
    """Return attention of `x` to itself or to a context, by several heads with projections of their own.

    Args:
        x: [N, L, E]; E is parted among the heads.
        heads: How many.
        name: Name of the layer. Its parameters are `name.in_proj_weight` [3E, E] (queries, keys, values) and `name.in_proj_bias` [3E],
            `name.out_proj.weight` [E, E] and `name.out_proj.bias` [E]. With a context of another width, or fewer heads for keys, there
            are `name.q_proj_weight`, `name.k_proj_weight` and `name.v_proj_weight` in place of the first.
        context: What keys and values are made of [N, S, C] (default: `x`).
        kv_heads: Heads of keys and values, each of which serves several heads (default: `heads`).
        mask: As for `attention`.
        causal: As for `attention`.
        dropout: The share of weights that are dropped in training.
        bias: Whether projections have biases.

    Returns:
        [N, L, E].

    Raises:
        ShapeError: The shapes do not fit.
    """
    width, source = known(x, -1, name), x if context is None else context
    groups = heads if kv_heads is None else kv_heads
    expect_shape(
        x.rank == source.rank == 3 and heads > 0 and width % heads == 0 and heads % groups == 0,
        f"multi_head_attention {name!r}: {heads} heads and {groups} for keys of {x.type.text} and {source.type.text}",
    )
    q, k, v = _projected(x, source, width, width // heads * groups, name, bias)
    q, k, v = (_split(t, h) for t, h in ((q, heads), (k, groups), (v, groups)))
    y = attention(q, k, v, mask, causal=causal, dropout=dropout, name=f"{name}.dropout")
    y = y.transpose([0, 2, 1, 3]).reshape(x.shape)
    weight = parameter(x, f"{name}.out_proj.weight", (width, width), fan_in_uniform(width))
    offset = parameter(x, f"{name}.out_proj.bias", (width,), zeros()) if bias else None
    return composite_linear.linear(y, weight, offset)


def _projected(
    x: Sym, source: Sym, width: int, narrow: int, name: str, bias: bool
) -> tuple[Sym, Sym, Sym]:
    """Return queries, keys and values."""
    inside = known(source, -1, name)
    cuts = [(0, width), (width, width + narrow), (width + narrow, width + 2 * narrow)]
    total = cuts[-1][1]
    recorder(x, name)
    if inside == width == narrow:
        whole = parameter(x, f"{name}.in_proj_weight", (total, width), xavier_uniform())
        weights = [whole[a:b] for a, b in cuts]
    else:
        whole = None
        sizes = ((width, width), (narrow, inside), (narrow, inside))
        weights = [
            parameter(x, f"{name}.{n}_proj_weight", s, xavier_uniform())
            for n, s in zip("qkv", sizes, strict=True)
        ]
    offset = parameter(x, f"{name}.in_proj_bias", (total,), zeros()) if bias else None
    if whole is not None and source is x:
        y = composite_linear.linear(x, whole, offset)
        return y[:, :, : cuts[0][1]], y[:, :, slice(*cuts[1])], y[:, :, slice(*cuts[2])]
    offsets = [None if offset is None else offset[a:b] for a, b in cuts]
    q, k, v = (
        composite_linear.linear(t, w, b)
        for t, w, b in zip((x, source, source), weights, offsets, strict=True)
    )
    return q, k, v


def _split(x: Sym, heads: int) -> Sym:
    """Return [N, L, H·D] as [N, H, L, D]."""
    n, length, width = x.shape
    return x.reshape([n, length, heads, width // heads]).transpose([0, 2, 1, 3])
