"""What is known of values while the graph is built: the shape arithmetic of exported models.

Exporters compute shapes in the graph (Shape, Gather, Concat, Reshape, ...). Every shape is a number at import, so such a
value follows from constants; it is computed here on demand, with the reference of each operation. The nodes that made it are
dropped afterwards if nothing else reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.graph import Value
from tapeout.ir.type import Dim
from tapeout.ops.gather import Take
from tapeout.ops.movement import Constant
from tapeout.ops.sym import Sym, constant
from tapeout.support.errors import BudgetError, OnnxImportError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Node
    from tapeout.ir.op import Array

LIMIT_ELEMENTS = 1 << 20
"""The largest value that is computed at import."""

LIMIT_WORK = 1 << 27
"""How many elements are computed at import, all in all."""


class DecidesShape(Exception):
    """A tensor that was taken for a parameter decides a shape, so it is a constant."""

    def __init__(self, name: str) -> None:
        """Name the tensor."""
        super().__init__(name)
        self.name = name


class Known:
    """Values of one graph that follow from constants."""

    def __init__(self, parameters: Container[str] = ()) -> None:
        """Know nothing but constants; `parameters` are the names of stored tensors that are none."""
        self._parameters = parameters
        self._arrays: dict[Value, Array | None] = {}
        self._dims: dict[Value, Array] = {}
        self._work = 0

    def remember(self, builder: Builder, sizes: Sequence[int]) -> Sym:
        """Return sizes as a constant i64 vector; named dimensions among them keep their name."""
        made = constant(builder, np.array([int(n) for n in sizes], np.int64))
        if any(isinstance(n, Dim) for n in sizes):
            self._dims[made.value] = _objects(sizes)
        return made

    def array(self, x: Sym, what: str, place: str) -> Array:
        """Return the content of a value.

        Args:
            x: The value.
            what: What it decides, for the error.
            place: The node that asks.

        Raises:
            OnnxImportError: It depends on the content of an input.
            DecidesShape: It depends on that of a parameter.
        """
        found = self.get(x.value)
        if found is not None:
            return found
        source, why = self._blame(x.value)
        if source in self._parameters:
            raise DecidesShape(source)
        raise OnnxImportError(
            f"{what} must be known when the model is imported, but it {why}",
            where=place,
            hint=f"bind it: values={{{source!r}: ...}}" if source else "",
        )

    def numbers(self, x: Sym, what: str, place: str) -> tuple[int, ...]:
        """Return the content of an integer value of rank 0 or 1; see `array`."""
        found = self.array(x, what, place)
        if found.ndim > 1 or found.dtype.kind not in "iu":
            text = f"{what} must be a list of integers, it is {x.type}"
            raise OnnxImportError(text, where=place)
        named = self._dims.get(x.value)
        return tuple(found.ravel().tolist() if named is None else named.ravel().tolist())

    def get(self, value: Value) -> Array | None:
        """Return the content of a value, None when it depends on data or is too large to compute."""
        todo = [value]
        while todo:
            top = todo[-1]
            if top in self._arrays:
                todo.pop()
                continue
            missing = [v for v in _operands(top) if v not in self._arrays]
            if missing:
                todo += missing
                continue
            self._evaluate(top)
        return self._arrays[value]

    def _evaluate(self, value: Value) -> None:
        node = value.node
        if node is None or any(self._arrays[v] is None for v in node.operands):
            self._arrays[value] = None
            return
        if isinstance(node.op, Constant):
            self._arrays[value] = node.op.tensor.array
            return
        size = sum(r.type.size for r in node.results)
        if size > LIMIT_ELEMENTS or not node.operands:
            # Without operands and no constant: iota, whose content is worth computing while small.
            small = not node.operands and size <= LIMIT_ELEMENTS
            self._arrays.update(dict.fromkeys(node.results, None))
            if not small:
                return
        self._work += size + sum(v.type.size for v in node.operands)
        if self._work > LIMIT_WORK:
            text = f"shape arithmetic computes more than {LIMIT_WORK} elements"
            raise BudgetError(text, where=str(node.loc))
        self._compute(node)

    def _compute(self, node: Node) -> None:
        operands = [self._arrays[v] for v in node.operands]
        with np.errstate(all="ignore"):
            made = node.op.reference(*(a for a in operands if a is not None))
        arrays = made if isinstance(made, tuple) else (made,)
        for result, array in zip(node.results, arrays, strict=True):
            self._arrays[result] = np.asarray(array)
        if len(node.results) == 1 and any(v in self._dims for v in node.operands):
            self._name(node, node.results[0])

    def _name(self, node: Node, result: Value) -> None:
        """Carry the names of dimensions through an operation that can; else only numbers are left."""
        operands = [self._dims.get(v, self._arrays[v]) for v in node.operands]
        try:
            named = np.asarray(_reference(node, operands), object)
            plain = self._arrays[result]
            if plain is not None and np.array_equal(named.astype(np.int64), plain):
                self._dims[result] = named
        except (TypeError, ValueError, AttributeError, OverflowError):
            return

    def _blame(self, value: Value) -> tuple[str, str]:
        """Return the input or parameter that makes a value unknown, and the reason in words."""
        seen: set[Value] = set()
        todo = [value]
        while todo:
            v = todo.pop()
            if v in seen:
                continue
            seen.add(v)
            if v.node is None:
                return v.name, f"depends on the content of {v.name!r}"
            todo += [o for o in v.node.operands if self._arrays.get(o) is None]
        return "", f"has more than {LIMIT_ELEMENTS} elements"


def _operands(value: Value) -> tuple[Value, ...]:
    return value.node.operands if value.node is not None else ()


def _objects(sizes: Sequence[int]) -> Array:
    made = np.empty(len(sizes), object)
    made[:] = list(sizes)
    return made


def _reference(node: Node, operands: list[Array | None]) -> object:
    if node.op.name == "div":
        a, b = operands
        return a // b  # type: ignore[operator]  # sizes are not negative
    if node.op.name == "cast":
        return operands[0]
    if isinstance(node.op, Take):
        # numpy would make a plain number of a single element.
        made = np.empty(node.results[0].type.shape, object)
        made[...] = np.take(operands[0], operands[1], node.op.axis)  # type: ignore[arg-type]
        return made
    return node.op.reference(*operands)  # type: ignore[arg-type]
