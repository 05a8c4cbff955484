"""What depends on constants alone is computed now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tapeout.ir.op import Composite, Elementwise
from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import rebuild
from tapeout.ir.tensor import Tensor
from tapeout.ops import movement as mv
from tapeout.ops.sym import Sym, constant
from tapeout.passes.base import Pass
from tapeout.passes.constants import constant_of, splat_of

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.op import Array


@dataclass(frozen=True)
class Fold(Pass):
    """Evaluate operations on constants with their numpy reference.

    An elementwise operation on tensors of equal elements is computed once and broadcast, whatever the size.

    Attributes:
        grow: Elements that a folded result may have; a larger one is folded only if it is not larger than its operands.
        read: Elements that the operands may have together.
    """

    name: ClassVar[str] = "fold"
    grow: int = 4096
    read: int = 1 << 22

    def run(self, graph: Graph) -> Graph:
        """Return the graph with constants in place of what they decide."""
        return rebuild(in_regions(graph, self.run), self._folded)

    def _folded(
        self, b: Builder, node: Node, operands: tuple[Value, ...]
    ) -> tuple[Value, ...] | None:
        if not operands or isinstance(node.op, Composite) or node.op.regions:
            return None
        arrays = [constant_of(v) for v in operands]
        known = [a for a in arrays if a is not None]
        if len(known) == len(arrays):
            return self._whole(b, node, known)
        return _splats(b, node, operands) if isinstance(node.op, Elementwise) else None

    def _whole(self, b: Builder, node: Node, arrays: list[Array]) -> tuple[Value, ...] | None:
        before = sum(a.size for a in arrays)
        after = sum(v.type.size for v in node.results)
        if before > self.read or after > max(self.grow, before):
            return None
        results = _reference(node, arrays)
        return tuple(b.emit(mv.Constant(tensor=Tensor.of(r)))[0] for r in results)


def _splats(b: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    numbers = [splat_of(v) for v in operands]
    if any(n is None for n in numbers):
        return None
    arrays = [np.asarray(n, v.type.dtype.numpy) for n, v in zip(numbers, operands, strict=True)]
    (result,) = _reference(node, arrays)
    shape = node.results[0].type.shape
    scalar: Sym = constant(b, result)
    return (scalar.broadcast_to(shape).value,)


def _reference(node: Node, arrays: list[Array]) -> tuple[Array, ...]:
    with np.errstate(all="ignore"):
        found = node.op.reference(*arrays)
    results = found if isinstance(found, tuple) else (found,)
    types = [v.type for v in node.results]
    return tuple(np.asarray(r, t.dtype.numpy) for r, t in zip(results, types, strict=True))
