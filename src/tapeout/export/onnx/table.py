"""The table of spellings: how an operation that is not elementwise is written in ONNX operators.

    @spells("transpose")
    def transpose(w: Writer, node: Node, x: str) -> str:
        return w.transpose(x, node.op.perm)

Elementwise operations need no entry: their scalar body is their spelling (`scalars`). `spells_if` enters operators that ONNX
has itself, for nodes that fit; composites that do not fit are written out as their formula first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tapeout.export.onnx.scalars import OnnxScalars
from tapeout.export.onnx.writer import Term, Writer
from tapeout.ir.dtype import bf16, f32
from tapeout.ir.op import Elementwise
from tapeout.ops.elementwise import Bitcast, Cast
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Container

    from tapeout.ir.graph import Node, Value

Spelling = Callable[..., "str | tuple[str, ...]"]
Condition = Callable[["Node", "Container[Value]"], bool]
_TABLE: dict[str, Spelling] = {}
_NATIVE: dict[str, tuple[Condition, Spelling]] = {}


def spells(name: str) -> Callable[[Spelling], Spelling]:
    """Enter a function as the spelling of the operation with a name."""

    def enter(spelling: Spelling) -> Spelling:
        if name in _TABLE:
            raise ValueError(f"two spellings of {name}")
        _TABLE[name] = spelling
        return spelling

    return enter


def spells_if(name: str, fits: Condition) -> Callable[[Spelling], Spelling]:
    """Enter a function as the spelling of those nodes of an operation that fit.

    Args:
        name: The operation.
        fits: Asked with the node and the values that something reads.
    """

    def enter(spelling: Spelling) -> Spelling:
        if name in _NATIVE:
            raise ValueError(f"two spellings of {name}")
        _NATIVE[name] = (fits, spelling)
        return spelling

    return enter


def is_native(node: Node, read: Container[Value]) -> bool:
    """Return whether ONNX has the operation itself; `read` are the values that something reads."""
    import tapeout.export.onnx.spellings  # noqa: F401  (fills the table)

    return node.op.name in _NATIVE and _NATIVE[node.op.name][0](node, read)


def spell(w: Writer, node: Node, operands: list[str], read: Container[Value]) -> tuple[str, ...]:
    """Append the ONNX nodes of a node and return the names of its results, of the first at least.

    Raises:
        CompileError: The operation has no spelling.
    """
    if is_native(node, read):
        return _names(_NATIVE[node.op.name][1](w, node, *operands))
    if node.op.name in _TABLE:
        return _names(_TABLE[node.op.name](w, node, *operands))
    if isinstance(node.op, Elementwise):
        return (_by_body(w, node, operands),)
    raise CompileError(f"{node.op.name} cannot be written as ONNX", where=str(node.loc))


def _names(made: str | tuple[str, ...]) -> tuple[str, ...]:
    return made if isinstance(made, tuple) else (made,)


def _by_body(w: Writer, node: Node, operands: list[str]) -> str:
    """Spell an elementwise operation by its scalar body, that of bf16 in f32 as runtimes lack it."""
    assert isinstance(node.op, Elementwise)
    s = OnnxScalars(w)
    terms = [Term(n, v.type.dtype) for n, v in zip(operands, node.operands, strict=True)]
    if not isinstance(node.op, Cast | Bitcast):
        terms = [s.cast(t, f32) if t.dtype == bf16 else t for t in terms]
    made: Term = node.op.body(s, *terms)
    return s.cast(made, node.results[0].type.dtype).name


def spelled() -> list[str]:
    """Return the names of the operations in the table."""
    import tapeout.export.onnx.spellings  # noqa: F401

    return sorted(_TABLE)
