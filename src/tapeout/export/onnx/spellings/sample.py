"""Random bits: the rounds of the generator, written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tapeout.export.onnx.scalars import OnnxScalars
from tapeout.export.onnx.table import spells
from tapeout.export.onnx.writer import Term
from tapeout.ir.affine import Axis, index_of
from tapeout.ops.random import RandomBits

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.export.onnx.writer import Writer
    from tapeout.ir.graph import Node


@spells("random_bits")
def random_bits(w: Writer, node: Node, seed: str, step: str) -> str:
    op = node.op
    assert isinstance(op, RandomBits)
    axes = [Axis(f"i{d}", w.static(n)) for d, n in enumerate(op.shape)]
    types = tuple(v.type for v in node.operands)
    reads = (_whole(n, v.type.dtype) for n, v in zip((seed, step), node.operands, strict=True))
    made: Term = op.at(OnnxScalars(w, axes), index_of(axes), types, *reads)
    return w.reshape(made.name, op.shape)


def _whole(name: str, dtype: object) -> Callable[..., Term]:
    def read(index: Sequence[object], where: Sequence[object] = (), other: float = 0.0) -> Term:
        return Term(name, dtype)  # type: ignore[arg-type]

    return read
