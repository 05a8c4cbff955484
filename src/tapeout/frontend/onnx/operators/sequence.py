"""Operators on sequences and optionals, which are resolved at import: lengths and places are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.listed import Listed, Nothing
from tapeout.frontend.onnx.operators.shape import cut
from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import bool_, i64
from tapeout.ops.sym import Sym

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.frontend.onnx.listed import Held


def _items(call: Call, x: Sym | Held) -> tuple[Sym, ...]:
    if not isinstance(x, Listed):
        call.fail(f"a sequence is expected, got {x.type}")
    return x.items


def _value(call: Call, x: Sym | Held) -> Sym:
    if not isinstance(x, Sym):
        call.fail(f"a tensor is expected, got {x.type}")
    return x


def _place(call: Call, position: Sym | Held | None, length: int, default: int) -> int:
    """Return a place in a sequence, counted from the front."""
    if position is None:
        return default
    at = int(call.scalar(_value(call, position), "the position"))
    call.require(-length <= at < max(length, 1), f"position {at} in a sequence of {length}")
    return at + length if at < 0 else at


@op("SequenceConstruct", since=11, holds=True)
def construct(call: Call, *xs: Sym | Held) -> Listed:
    return Listed(tuple(_value(call, x) for x in xs))


@op("SequenceEmpty", since=11, holds=True)
def empty(call: Call) -> Listed:
    call.skip("dtype")
    return Listed(())


@op("SequenceInsert", since=11, note="position: known at import", holds=True)
def insert(
    call: Call, x: Sym | Held, one: Sym | Held, position: Sym | Held | None = None
) -> Listed:
    items = _items(call, x)
    at = _place(call, position, len(items) + 1, len(items)) if position is not None else len(items)
    return Listed((*items[:at], _value(call, one), *items[at:]))


@op("SequenceErase", since=11, note="position: known at import", holds=True)
def erase(call: Call, x: Sym | Held, position: Sym | Held | None = None) -> Listed:
    items = _items(call, x)
    call.require(bool(items), "the sequence is empty")
    at = _place(call, position, len(items), len(items) - 1)
    return Listed((*items[:at], *items[at + 1 :]))


@op("SequenceAt", since=11, note="position: known at import", holds=True)
def at_(call: Call, x: Sym | Held, position: Sym | Held) -> Sym:
    items = _items(call, x)
    call.require(bool(items), "the sequence is empty")
    return items[_place(call, position, len(items), 0)]


@op("SequenceLength", since=11, holds=True)
def length(call: Call, x: Sym | Held) -> Sym:
    return call.constant(len(_items(call, x)), i64)


@op("SplitToSequence", since=11, note="split: known at import", holds=True)
def split_to_sequence(call: Call, x: Sym | Held, split: Sym | Held | None = None) -> Listed:
    x = _value(call, x)
    axis = call.axis(call.integer("axis", 0), x.rank)
    keep = call.flag("keepdims", default=True)
    total = x.shape[axis]
    if split is None:
        single = [cut(x, axis, i, i + 1) for i in range(int(total))]
        return Listed(tuple(one if keep else one.squeeze([axis]) for one in single))
    sizes = call.numbers(_value(call, split), "the sizes of the parts")
    if isinstance(split, Sym) and not split.rank:
        (each,) = sizes
        call.require(each > 0, f"parts of size {each}")
        whole, rest = divmod(int(total), int(each))
        sizes = (each,) * whole + ((rest,) if rest else ())
    fits = sum(sizes) == total and all(n >= 0 for n in sizes)
    call.require(fits, f"parts of sizes {list(map(int, sizes))} do not make up {total}")
    parts, start = [], 0
    for n in sizes:
        parts.append(cut(x, axis, start, start + n))
        start += n
    return Listed(tuple(parts))


@op("ConcatFromSequence", since=11, holds=True)
def concat_from_sequence(call: Call, x: Sym | Held) -> Sym:
    items = _items(call, x)
    call.require(bool(items), "the sequence is empty, its join has no type")
    new = call.flag("new_axis")
    axis = call.axis(call.integer("axis"), items[0].rank + new)
    if new:
        items = tuple(one.expand_dims([axis]) for one in items)
    return items[0] if len(items) == 1 else items[0].concat(items[1:], axis)


@op("Optional", since=15, holds=True)
def optional(call: Call, x: Sym | Held | None = None) -> Sym | Held:
    call.skip("type")
    return Nothing() if x is None else x


@op("OptionalHasElement", since=15, holds=True)
def has_element(call: Call, x: Sym | Held | None = None) -> Sym:
    return call.constant(x is not None and not isinstance(x, Nothing), bool_)


@op("OptionalGetElement", since=15, holds=True)
def get_element(call: Call, x: Sym | Held) -> Sym | Held:
    call.require(not isinstance(x, Nothing), "the optional holds nothing")
    return x
