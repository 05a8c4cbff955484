"""Positions of tokens, as rotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import op

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym


@op("RotaryEmbedding", since=23)
def rotary_embedding(
    call: Call, x: Sym, cosine: Sym, sine: Sym, position: Sym | None = None
) -> Sym:
    heads = call.integer("num_heads", 0)
    beside = call.flag("interleaved")
    call.require(x.rank in (3, 4), f"[batch, heads, length, size] or 3 dimensions, got {x.type}")
    shape = x.shape
    if x.rank == 3:
        fits = heads > 0 and shape[2] % heads == 0
        call.require(fits, f"num_heads is {heads}, the operand {x.type}")
        x = x.reshape([shape[0], shape[1], heads, shape[2] // heads])
    size = call.integer("rotary_embedding_dim", 0) or int(x.shape[3])
    call.require(size % 2 == 0 and 0 < size <= x.shape[3], f"{size} of {x.shape[3]} are rotated")
    tables = [
        _table(call, t, position, size // 2, 2 if len(shape) == 3 else 1) for t in (cosine, sine)
    ]
    turned = _rotated(x[..., :size], *tables, beside=beside)
    y = turned if size == x.shape[3] else turned.concat([x[..., size:]], 3)
    return y.reshape(shape)


def _table(call: Call, table: Sym, position: Sym | None, half: int, heads_at: int) -> Sym:
    """Return cosines or sines [batch, length, half] with a dimension for the heads."""
    if position is not None:
        call.require(table.rank == 2, f"with positions a table has 2 dimensions, got {table.type}")
        table = table.take(position, 0)
    fits = table.rank == 3 and table.shape[2] == half
    call.require(fits, f"a table is {table.type}, {half} numbers for each position are expected")
    return table.expand_dims([heads_at])


def _rotated(x: Sym, cosine: Sym, sine: Sym, *, beside: bool) -> Sym:
    """Return pairs of numbers rotated: neighbours, or one of the first half with one of the second."""
    half = int(x.shape[-1]) // 2
    if beside:
        pairs = x.reshape([*x.shape[:-1], half, 2])
        a, b = pairs[..., 0], pairs[..., 1]
    else:
        a, b = x[..., :half], x[..., half:]
    first, second = cosine * a - sine * b, sine * a + cosine * b
    if not beside:
        return first.concat([second], first.rank - 1)
    last = first.rank
    joined = first.expand_dims([last]).concat([second.expand_dims([last])], last)
    return joined.reshape(x.shape)
