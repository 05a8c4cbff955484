"""Attention of opset 23 and later: heads in a dimension of their own or side by side, grouped, masked, with a cache."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import bool_
from tapeout.ops.composite.attention import Attention, attention, scores_of
from tapeout.ops.sym import Sym, broadcast_shapes

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call

_STAGES = ("products", "capped", "masked", "probabilities")


@dataclass(frozen=True)
class _Operands:
    """What a node attends to, heads in dimension 1.

    Attributes:
        q: Queries [N, H, S, D].
        k: Keys [N, G, T, D], those of the cache in front.
        v: Values [N, G, T, E].
        past: How many of the keys come from the cache.
        mask: What the node says of keys, None if nothing.
    """

    q: Sym
    k: Sym
    v: Sym
    past: int
    mask: Sym | None


@op("Attention", since=23)
def attention_23(
    call: Call,
    q: Sym,
    k: Sym,
    v: Sym,
    attn_mask: Sym | None = None,
    past_key: Sym | None = None,
    past_value: Sym | None = None,
) -> tuple[Sym | None, ...]:
    return _attention(call, _operands(call, q, k, v, attn_mask, past_key, past_value), q.rank, None)


@op("Attention", since=24)
def attention_24(
    call: Call,
    q: Sym,
    k: Sym,
    v: Sym,
    attn_mask: Sym | None = None,
    past_key: Sym | None = None,
    past_value: Sym | None = None,
    nonpad_kv_seqlen: Sym | None = None,
) -> tuple[Sym | None, ...]:
    both = past_key is not None and nonpad_kv_seqlen is not None
    call.require(not both, "has past_key and nonpad_kv_seqlen")
    x = _operands(call, q, k, v, attn_mask, past_key, past_value)
    return _attention(call, x, q.rank, nonpad_kv_seqlen)


def _operands(
    call: Call,
    q: Sym,
    k: Sym,
    v: Sym,
    mask: Sym | None,
    past_key: Sym | None,
    past_value: Sym | None,
) -> _Operands:
    call.require(
        q.rank in (3, 4) and k.rank == q.rank == v.rank,
        f"Q, K, V are {q.type}, {k.type}, {v.type}; expected all of rank 3 or all of rank 4",
    )
    heads, groups = call.integer("q_num_heads", 0), call.integer("kv_num_heads", 0)
    if q.rank == 3:
        q, k, v = (
            _by_head(call, x, n, what)
            for x, n, what in ((q, heads, "Q"), (k, groups, "K"), (v, groups, "V"))
        )
    call.require((past_key is None) == (past_value is None), "has past_key or past_value alone")
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = past_key.concat([k], 2), past_value.concat([v], 2)
    # Values may have a type of their own; the result has that of the queries.
    return _Operands(q, k, v.cast(q.dtype), past, mask)


def _by_head(call: Call, x: Sym, heads: int, what: str) -> Sym:
    """Return [N, heads, S, D] of [N, S, heads * D]."""
    width = x.shape[2]
    attribute = "q_num_heads" if what == "Q" else "kv_num_heads"
    call.require(heads > 0, f"attribute {attribute!r} is missing; {what} is {x.type}")
    call.require(width % heads == 0, f"{heads} heads do not divide {what}, which is {x.type}")
    return x.reshape((*x.shape[:2], heads, width // heads)).transpose((0, 2, 1, 3))


def _attention(call: Call, x: _Operands, rank: int, lengths: Sym | None) -> tuple[Sym | None, ...]:
    size = int(x.q.shape[-1])
    scale = call.real("scale", 1.0 / math.sqrt(size) if size else 1.0)
    left, right = call.integer("left_window_size", -1), call.integer("right_window_size", -1)
    call.require(min(left, right) >= -1, f"a window is {left} to the left, {right} to the right")
    if call.flag("is_causal"):
        right = 0
    code = call.integer("softmax_precision", 0)
    precision = call.dtype("softmax_precision") if code else None
    softcap = call.real("softcap", 0.0)
    x = replace(x, mask=None if x.mask is None else _mask(call, x.mask, x))
    if lengths is not None:
        x, left, right = _padded(call, x, lengths, left, right)
    y = attention(
        x.q,
        x.k,
        x.v,
        x.mask,
        scale=scale,
        left=left,
        right=right,
        offset=x.past,
        softcap=softcap,
        precision=precision,
    )
    return y if rank == 4 else _side_by_side(y), x.k, x.v, _scores(call, x, y)


def _side_by_side(y: Sym) -> Sym:
    n, heads, rows, size = y.shape
    return y.transpose((0, 2, 1, 3)).reshape((n, rows, heads * size))


def _mask(call: Call, mask: Sym, x: _Operands) -> Sym:
    """Return a mask that is as long as the keys: those beyond its end take no part."""
    keys = x.k.shape[2]
    last = mask.shape[-1] if mask.rank else 1
    call.require(last <= keys, f"attn_mask is {mask.type} for {int(keys)} keys")
    call.require(mask.dtype in (bool_, x.q.dtype), f"attn_mask is {mask.type}, Q is {x.q.type}")
    if last < keys and mask.rank and (last > 1 or keys - last):
        none = False if mask.dtype == bool_ else -math.inf
        high = (*(0,) * (mask.rank - 1), keys - last)
        mask = mask.pad((0,) * mask.rank, high, none)
    scores = (*x.q.shape[:3], keys)
    fits = mask.rank <= 4 and broadcast_shapes(mask.shape, scores) == scores
    call.require(
        fits, f"attn_mask is {mask.type}, which does not repeat to {list(map(int, scores))}"
    )
    return mask


def _padded(
    call: Call, x: _Operands, lengths: Sym, left: int, right: int
) -> tuple[_Operands, int, int]:
    """Return the operands with a mask for samples of which only the first keys count; windows stand at the end of these."""
    batch, _, rows, _ = x.q.shape
    keys = x.k.shape[2]
    call.require(lengths.shape == (batch,), f"nonpad_kv_seqlen is {lengths.type}, Q is {x.q.type}")
    shape = (batch, 1, rows, keys)
    key, query = (call.iota(shape, axis, lengths.dtype) for axis in (3, 2))
    length = lengths.reshape((batch, 1, 1, 1))
    seen = (key < length).broadcast_to(shape)
    ahead = key - query - (length - rows)
    if right >= 0:
        seen = seen & (ahead <= right)
    if left >= 0:
        seen = seen & (ahead >= -left)
    mask = x.mask
    if mask is None:
        mask = seen
    elif mask.dtype == bool_:
        mask = mask & seen
    else:
        mask = seen.where(mask, -math.inf)
    return replace(x, mask=mask), -1, -1


def _scores(call: Call, x: _Operands, y: Sym) -> Sym | None:
    """Return the matrix of scores that the node asks for, None if it asks for none."""
    mode = call.integer("qk_matmul_output_mode", 0)
    call.require(0 <= mode <= 3, f"attribute 'qk_matmul_output_mode' is {mode}, not 0 to 3")
    if len(call.outputs) < 4 or not call.outputs[3]:
        return None
    made = y.value.node
    assert made is not None and isinstance(made.op, Attention)
    return scores_of(made.op, [Sym(y.builder, v) for v in made.operands], _STAGES[mode])
