"""Attributes of operations, types and dimensions as text; `ir.read` reads them back.

value  = number | true | false | none | "string" | f32 | [value, …] | (dimensions) | tensor
tensor = f32[2,3]: literal
literal = number (every element) | [number, …] (row-major) | #hash (in the side file)
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import DType
from tapeout.ir.graph import Graph
from tapeout.ir.literal import spell_name, spell_number
from tapeout.ir.tensor import Tensor
from tapeout.ir.type import Dim, TensorType
from tapeout.support.errors import TapeoutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.ir.op import Array, Op

INLINE = 8
"""Tensors of at most so many elements stand in the text itself; so do those of equal elements."""

_SHORT = re.compile(r"-?[0-9]+(?:\.[0-9]+|(?=e))(?:e[+-][0-9]+)?")


def spell_op(
    op: Op, dims: Mapping[str, int] | None = None, *, without: tuple[str, ...] = ()
) -> str:
    """Return an operation with the attributes that differ from their defaults: equal text, equal operation, bit by bit.

    Args:
        op: The operation.
        dims: Named dimensions that are unbound; others stand at their number.
        without: Attributes that are left out.

    Raises:
        TapeoutError: An attribute has a type that the text format does not know.
    """
    shown = []
    for f in sorted(dataclasses.fields(op), key=lambda f: f.name):
        if f.name in without:
            continue
        text = spell_value(getattr(op, f.name), dims)
        if f.default is dataclasses.MISSING or text != spell_value(f.default, dims):
            shown.append(f"{f.name} = {text}")
    return f"{op.name}{{{', '.join(shown)}}}" if shown else op.name


def spell_value(x: object, dims: Mapping[str, int] | None = None) -> str:
    """Return the text of an attribute."""
    if x is None:
        return "none"
    if isinstance(x, Dim):
        return spell_dim(x, dims)
    if isinstance(x, bool | int | float):
        return spell_number(x)
    if isinstance(x, np.integer | np.floating | np.bool_):
        return spell_number(x.item())
    if isinstance(x, str):
        return json.dumps(x)
    if isinstance(x, DType):
        return x.name
    if isinstance(x, tuple):
        return f"[{', '.join(spell_value(e, dims) for e in x)}]"
    if isinstance(x, Tensor):
        return f"{TensorType(x.dtype, x.shape)}: {spell_tensor(x)}"
    if isinstance(x, Graph):
        from tapeout.ir.text import print_region

        return "\n".join(["{", *print_region(x, dims), "}"])
    raise TapeoutError(f"an attribute of type {type(x).__name__} cannot be written as text")


def spell_dim(x: int, dims: Mapping[str, int] | None = None) -> str:
    """Return `(N * 784)` for a dimension that depends on unbound names, else its number."""
    text = _spell_expr(x.expr, dims or {}) if isinstance(x, Dim) else None
    if text is None:
        return int.__repr__(int(x))
    return text if text.startswith("(") else f"({text})"


def _spell_expr(expr: object, dims: Mapping[str, int]) -> str | None:
    """Return an expression over dimensions, None if a name in it is bound."""
    if isinstance(expr, int):
        return int.__repr__(expr)
    assert isinstance(expr, tuple)
    sign, a, b = expr
    if sign == "dim":
        return spell_name(a) if dims.get(a) == b else None
    left, right = _spell_expr(a, dims), _spell_expr(b, dims)
    sign = "/" if sign == "//" else sign  # two slashes start a comment
    return None if left is None or right is None else f"({left} {sign} {right})"


def spell_type(type: TensorType, dims: Mapping[str, int] | None = None) -> str:
    """Return a type with its unbound dimensions, as in `f32[N=2,784]`."""
    return f"{type.dtype.name}[{','.join(_spell_size(n, dims) for n in type.shape)}]"


def _spell_size(n: int, dims: Mapping[str, int] | None) -> str:
    text = spell_dim(n, dims)
    if not text.startswith("("):
        return text
    assert isinstance(n, Dim)
    name = text[1:-1] if n.expr[0] == "dim" else text
    return f"{name}={int(n)}"


def spell_tensor(x: Tensor) -> str:
    """Return the literal of a tensor: its numbers if they are few or equal, else the hash of its content."""
    array = x.array
    if x.splat is not None and array.ndim:
        return _spell_elements(array.reshape(-1)[:1])[0]
    if array.size <= INLINE:
        numbers = _spell_elements(array.reshape(-1))
        return numbers[0] if not array.ndim else f"[{', '.join(numbers)}]"
    return f"#{hash_of(x)}"


def is_inline(x: Tensor) -> bool:
    """Whether the text holds the tensor itself."""
    return x.array.size <= INLINE or x.splat is not None


def hash_of(x: Tensor) -> str:
    """Return the name of a tensor in side files."""
    return x.digest[:32]


def _spell_elements(flat: Array) -> list[str]:
    if flat.dtype.kind in "iub":
        return [spell_number(v) for v in flat.tolist()]
    bits = flat.view(f"u{flat.dtype.itemsize}").tolist()
    usual = int(np.array([math.nan]).astype(flat.dtype).view(f"u{flat.dtype.itemsize}")[0])
    return [_spell_float(v, b, usual) for v, b in zip(flat, bits, strict=True)]


def _spell_float(x: np.floating, bits: int, usual: int) -> str:
    value = float(x)
    if math.isnan(value):
        return "nan" if bits == usual else f"nan({bits:#x})"
    short = str(x)
    if _SHORT.fullmatch(short) and np.array([float(short)]).astype(x.dtype)[0] == x:
        return short
    return spell_number(value)
