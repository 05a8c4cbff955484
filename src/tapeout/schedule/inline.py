"""Decides which values are kept in memory and which are evaluated anew wherever they are read.

Only what costs about as much as the load that it saves is evaluated anew: numbers, data movement whose index maps stay linear,
conversions to a wider float (so that what is kept is narrow), and comparisons of values that are kept anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Guard
from tapeout.ir.dtype import bool_
from tapeout.ir.op import Contraction, Elementwise, Pointwise, Reduction, Scatter
from tapeout.kernel.compute import Expr, ExprBuilder, Load
from tapeout.ops.control import Control, Scan
from tapeout.schedule.element import Elements
from tapeout.schedule.facts import is_factor
from tapeout.schedule.model import row_major, strides
from tapeout.schedule.nest import part_of

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.schedule.element import Index
    from tapeout.schedule.facts import Facts, FactTable
    from tapeout.schedule.uses import Uses

DEEPEST = 24
"""Most nodes that one read may evaluate one inside the other."""

CHEAP_OPERATIONS = 2
"""Most operations of a comparison that is evaluated at each reader."""

Orders = dict["Value", tuple[int, ...]]


def choose_inlined(
    nodes: Sequence[Node],
    facts: FactTable,
    uses: Uses,
    orders: Orders,
    kept: Container[Value],
) -> dict[Value, None]:
    """Return the values that are not kept.

    Args:
        nodes: The graph's nodes that matter, in order.
        facts: What each reads.
        uses: Who reads what.
        orders: Order of dimensions in memory of values that are not row-major.
        kept: Values that must be kept.
    """
    chooser = _Chooser(facts, uses, orders, kept)
    for node in nodes:
        chooser.visit(node)
    return chooser.inlined


class _Chooser:
    def __init__(
        self, facts: FactTable, uses: Uses, orders: Orders, kept: Container[Value]
    ) -> None:
        self.facts, self.uses, self.orders, self.kept = facts, uses, orders, kept
        self.inlined: dict[Value, None] = {}
        self.depth: dict[Value, int] = {}

    def visit(self, node: Node) -> None:
        if isinstance(node.op, Control):
            self._keep_operands(node)
        if not isinstance(node.op, Pointwise | Reduction):
            return
        for operand in dict.fromkeys(node.operands):
            if operand in self.inlined and not self._fits(node, operand):
                del self.inlined[operand]
        (result,) = node.results
        if result in self.kept or not self._may_inline(node):
            return
        inner = (self.depth[v] for v in node.operands if v in self.inlined)
        depth = 1 + max(inner, default=0)
        if depth <= DEEPEST:
            self.inlined[result], self.depth[result] = None, depth

    def _keep_operands(self, node: Node) -> None:
        """Keep what a loop or a branch reads, or what that is a contiguous part of; initial carries themselves."""
        carries = node.op.carries if isinstance(node.op, Scan) else 0
        for i, operand in enumerate(node.operands):
            value = operand if i < carries else part_of(operand, self.inlined)[0]
            self.inlined.pop(value, None)

    def _fits(self, node: Node, operand: Value) -> bool:
        """Whether a node may evaluate an operand: no gather, no divided index, and a factor is one load."""
        probe = LinearProbe(self.inlined, self.orders)
        same = self._is_kept_as_narrow(operand)
        for value, access in self.facts.accessed(node):
            if value is not operand:
                continue
            if access.gathers:
                return False
            element = probe.elements.read(value, access.index, access.where, access.other)
            if isinstance(node.op, Contraction) and not is_factor(element):
                return False
        return same or probe.linear

    def _is_kept_as_narrow(self, value: Value) -> bool:
        """Whether a value is a kept one as a wider float: it is read at the places at which it would lie itself."""
        node = value.node
        return node is not None and self.facts[node].widens and node.operands[0] not in self.inlined

    def _may_inline(self, node: Node) -> bool:
        if not isinstance(node.op, Pointwise):
            return False
        facts = self.facts[node]
        if facts.moves or facts.widens:
            return not self._is_last_move(node)
        return self._is_cheap_test(node, facts)

    def _is_last_move(self, node: Node) -> bool:
        """Whether a node brings what updates read into its final shape.

        Such a value (a gradient) is stored as updates read it, so that it lies in memory like the variable.
        """
        if node in self.uses.late or not node.operands:
            return False
        return any(r in self.uses.late for r in self.uses.of_value(node.results[0]))

    def _is_cheap_test(self, node: Node, facts: Facts) -> bool:
        """Whether a node compares values that are kept anyway."""
        if not isinstance(node.op, Elementwise) or node.results[0].type.dtype != bool_:
            return False
        if facts.dear or facts.cheap > CHEAP_OPERATIONS:
            return False
        size = node.results[0].type.size
        return all(self._is_kept_anyway(v) or self._is_smaller(v, size) for v in node.operands)

    def _is_smaller(self, value: Value, size: int) -> bool:
        """Whether a value repeats one that is smaller and has to be computed beforehand."""
        node = value.node
        if node is not None and value in self.inlined and self.facts[node].moves and node.operands:
            return self._is_smaller(node.operands[0], size)
        return node is not None and isinstance(node.op, Reduction) and value.type.size < size

    def _is_kept_anyway(self, value: Value) -> bool:
        """Whether a value is given, asked for, or read by what cannot read it where it is made."""
        node = value.node
        if node is None or value in self.kept:
            return True
        if value in self.inlined:
            return self.facts[node].moves and all(map(self._is_kept_anyway, node.operands))
        return isinstance(node.op, Scatter) or self._feeds_reduction(value)

    def _feeds_reduction(self, value: Value) -> bool:
        """Whether a reduction, contraction or scatter reads a value, maybe moved."""
        pending = list(self.uses.of_value(value))
        while pending:
            node = pending.pop()
            if isinstance(node.op, Reduction | Scatter):
                return True
            if node.results[0] in self.inlined:
                pending += self.uses.of_value(node.results[0])
        return False


class LinearProbe:
    """Evaluates elements to see whether every load inside has a linear place in memory."""

    def __init__(self, inlined: Container[Value], orders: Orders) -> None:
        self.orders = orders
        self.linear = True
        self.s = ExprBuilder()
        self.elements = Elements(self.s, inlined, self._leaf)
        self._names: dict[Value, str] = {}

    def _leaf(self, value: Value, index: Index, where: tuple[Guard, ...], other: float) -> Expr:
        shape = value.type.shape
        flat = Affine()
        step = strides(shape, self.orders.get(value, row_major(len(shape))))
        for i, n in zip(index, step, strict=True):
            flat = flat + i * n if isinstance(i, Affine) else flat
        self.linear = self.linear and flat.is_linear
        name = self._names.setdefault(value, f"v{len(self._names)}")
        return Load(value.type.dtype, name, index, where, other)
