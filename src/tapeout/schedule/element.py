"""Fusion by substitution: one element of a value as an expression over the elements of others.

Where a value is not kept in memory, reading it means evaluating the operation that makes it, at the index of the read. A guard
around such a read (padding, holes of a stride) is handed down to every load inside, and what comes out is replaced by the fill
value unless the expression gives that value anyway.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tapeout.ir.affine import Affine, Guard, guards
from tapeout.ir.dtype import i64
from tapeout.ir.op import Contraction, Pointwise, Reduction
from tapeout.kernel.compute import Apply, Cast, Const, Expr, ExprBuilder, Load
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from tapeout.ir.dtype import DType
    from tapeout.ir.graph import Node, Value
    from tapeout.ir.type import TensorType

Index = tuple[Affine | Expr, ...]


class Leaf(Protocol):
    """Reads an element of a value that is kept: outside the guards it gives `other` and touches no memory."""

    def __call__(self, value: Value, index: Index, where: tuple[Guard, ...], other: float) -> Expr:
        """Return the element."""


class Elements:
    """Builds expressions of elements for one kernel.

    Args:
        s: Makes the expressions.
        inlined: The values that are not kept: reading one evaluates its node.
        leaf: Reads all others.
    """

    def __init__(self, s: ExprBuilder, inlined: Container[Value], leaf: Leaf) -> None:
        self.s, self.inlined, self.leaf = s, inlined, leaf
        self.evaluated: dict[Node, None] = {}
        """The nodes of which elements are computed, in order."""

    def read(
        self,
        value: Value,
        index: Sequence[Affine | Expr],
        where: Sequence[Guard] = (),
        other: float = 0.0,
    ) -> Expr:
        """Return the element of a value at an index, `other` outside the guards."""
        return self._read(value, (), 0.0, index, where, other)

    def pointwise(self, node: Node, index: tuple[Affine, ...]) -> Expr:
        """Return the element of a pointwise node's result, whether or not the result is kept."""
        return self._evaluate(node, index, (), 0.0)

    def reduced(self, node: Node, index: tuple[Affine, ...], reduced: tuple[Affine, ...]) -> Expr:
        """Return what a reduction combines, at an index of its result and of its reduced axes."""
        assert isinstance(node.op, Reduction)
        self.evaluated[node] = None
        return node.op.at(self.s, index, reduced, _types(node), *self._reads(node, (), 0.0))

    def factors(
        self, node: Node, index: tuple[Affine, ...], reduced: tuple[Affine, ...]
    ) -> tuple[Expr, Expr]:
        """Return the two factors of a contraction's product."""
        assert isinstance(node.op, Contraction)
        product = self.reduced(node, index, reduced)
        if not isinstance(product, Apply) or product.op != "mul":
            raise CompileError(
                f"{node.op.name}: a contraction must be a product", where=str(node.loc)
            )
        return product.args[0], product.args[1]

    def _reads(
        self, node: Node, context: tuple[Guard, ...], fill: float
    ) -> list[Callable[..., Expr]]:
        return [partial(self._read, v, context, fill) for v in node.operands]

    def _evaluate(
        self, node: Node, index: tuple[Affine, ...], context: tuple[Guard, ...], fill: float
    ) -> Expr:
        assert isinstance(node.op, Pointwise), node
        self.evaluated[node] = None
        return node.op.at(self.s, index, _types(node), *self._reads(node, context, fill))

    def _read(
        self,
        value: Value,
        context: tuple[Guard, ...],
        fill: float,
        index: Sequence[Affine | Expr],
        where: Sequence[Guard] = (),
        other: float = 0.0,
    ) -> Expr:
        """Return an element; `context` are the guards of the reads around this one, `fill` what they give outside."""
        own = guards(*where)
        outside = other if own else fill
        inner = tuple(dict.fromkeys((*context, *own)))
        if value not in self.inlined:
            return self.leaf(value, tuple(index), inner, outside)
        assert value.node is not None
        at = tuple(i for i in index if isinstance(i, Affine))
        if len(at) != len(index):
            raise CompileError("a gather must read a value that is kept", where=str(value.node.loc))
        element = self._evaluate(value.node, at, inner, outside)
        if not own or _same(_outside(element, own), outside):
            return element
        return self.s.select(self._holds(own), element, self.s.const(outside, element.dtype))

    def _holds(self, where: tuple[Guard, ...]) -> Expr:
        return holds(self.s, where)


def holds(s: ExprBuilder, where: Sequence[Guard]) -> Expr:
    """Return the condition that all guards hold; at least one must not be provable."""
    found: Expr | None = None
    for g in where:
        lo, hi = g.index.range
        index = s.index(g.index)
        parts = [s.compare("ge", index, s.const(g.lo, i64))] if lo < g.lo else []
        parts += [s.compare("lt", index, s.const(g.hi, i64))] if hi >= g.hi else []
        for p in parts:
            found = p if found is None else s.apply("and", found, p)
    assert found is not None, "a guard that ranges prove"
    return found


def _types(node: Node) -> tuple[TensorType, ...]:
    return tuple(v.type for v in node.operands)


def _same(found: float | None, wanted: float) -> bool:
    """Return whether two numbers are equal, the sign of zero included."""
    if found is None:
        return False
    if math.isnan(wanted):
        return math.isnan(found)
    return found == wanted and math.copysign(1.0, found) == math.copysign(1.0, wanted)


def _outside(expr: Expr, where: tuple[Guard, ...]) -> float | None:
    """Return the number that an expression is when every load under the guards gives its fill; None if unknown."""
    known: dict[int, float | None] = {}

    def visit(e: Expr) -> float | None:
        if id(e) not in known:
            known[id(e)] = _number(e, where, visit)
        return known[id(e)]

    return visit(expr)


def _number(
    e: Expr, where: tuple[Guard, ...], visit: Callable[[Expr], float | None]
) -> float | None:
    if isinstance(e, Const):
        return float(e.value)
    if isinstance(e, Load):
        return float(e.other) if all(g in e.where for g in where) else None
    if isinstance(e, Cast):
        return _convert(visit(e.arg), e.dtype)
    if not isinstance(e, Apply) or e.op not in _FOLD:
        return None
    if e.op == "select":
        condition = visit(e.args[0])
        return None if condition is None else visit(e.args[1] if condition else e.args[2])
    args = [visit(a) for a in e.args]
    numbers = [a for a in args if a is not None]
    return _FOLD[e.op](*numbers) if len(numbers) == len(args) else None


def _convert(x: float | None, dtype: DType) -> float | None:
    # Rounding to a narrower float is left alone: only small whole fills are worth recognising.
    if x is None or not x.is_integer() or abs(x) > 256:
        return None
    return float(bool(x)) if dtype.kind == "b" else None if dtype.kind == "u" and x < 0 else x


_FOLD: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "max": lambda a, b: math.nan if math.isnan(a + b) else max(a, b),
    "min": lambda a, b: math.nan if math.isnan(a + b) else min(a, b),
    "neg": lambda a: -a,
    "abs": abs,
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "and": lambda a, b: float(int(a) & int(b)),
    "or": lambda a, b: float(int(a) | int(b)),
    "select": lambda c, a, b: a if c else b,
}
