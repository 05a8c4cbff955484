"""A function of the user's with a gradient rule of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.graph import Graph
from tapeout.ir.op import Composite, register
from tapeout.ops.control import Control
from tapeout.ops.sym import Sym
from tapeout.support.errors import NotDifferentiable, ShapeError

if TYPE_CHECKING:
    from tapeout.ir.graph import Value
    from tapeout.ir.type import TensorType

FORMULA, RULE = "formula", "rule"


@register
class Custom(Control, Composite):
    """A formula whose gradient is another formula, both recorded as regions.

    The formula takes the operands and gives the results. The rule takes the cotangents of the float results, then the operands, then
    the results, and gives the cotangents of those operands that its outputs name: `d0` is that of operand 0.
    """

    name = "custom"
    regions = ("formula", "rule")
    label: str
    formula: Graph
    rule: Graph

    __eq__ = Control.__eq__
    __hash__ = Control.__hash__

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the types of the formula's results; the operands must fit it, and the rule must fit both."""
        wanted = tuple(v.type for v in self.formula.inputs)
        if types != wanted:
            raise ShapeError(f"{self.label}: takes {_listed(wanted)}, got {_listed(types)}")
        results = tuple(v.type for _, v in self.formula.outputs)
        around = (*(t for t in results if t.dtype.is_float), *types, *results)
        if tuple(v.type for v in self.rule.inputs) != around:
            got = _listed(tuple(v.type for v in self.rule.inputs))
            raise ShapeError(f"{self.label}: the rule takes {got}, expected {_listed(around)}")
        for name, value in self.rule.outputs:
            place = int(name[1:]) if name[:1] == "d" and name[1:].isdigit() else -1
            if not 0 <= place < len(types) or value.type != types[place]:
                raise ShapeError(
                    f"{self.label}: the rule gives {name!r} as {value.type}; expected the types of {_listed(types)}"
                )
        return results

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the formula written out."""
        return tuple(_inlined(self.formula, operands).values())

    def pullback(
        self,
        cotangents: tuple[Sym | None, ...],
        operands: tuple[Sym, ...],
        results: tuple[Sym, ...],
    ) -> tuple[Sym | None, ...]:
        """Return the rule written out; cotangents that are zero become tensors."""
        if not self.rule.outputs:
            raise NotDifferentiable(f"{self.label} has no gradient")
        given = [
            y.zeros_like() if dy is None else dy
            for dy, y in zip(cotangents, results, strict=True)
            if y.dtype.is_float
        ]
        found = _inlined(self.rule, (*given, *operands, *results))
        return tuple(found.get(f"d{i}") for i in range(len(operands)))


def _inlined(body: Graph, operands: tuple[Sym, ...]) -> dict[str, Sym]:
    """Return the outputs of a region by name, its nodes appended to the builder of the operands."""
    builder = operands[0].builder
    known: dict[Value, Value] = dict(zip(body.inputs, (o.value for o in operands), strict=True))
    for node in body.nodes:
        # Nodes of a rule keep the place of the rule, in the role that the builder gives.
        loc = node.loc.as_role(builder.loc.role) if node.loc else builder.loc
        made = builder.emit(node.op, *(known[v] for v in node.operands), loc=loc)
        known.update(zip(node.results, made, strict=True))
    return {name: Sym(builder, known[value]) for name, value in body.outputs}


def _listed(types: tuple[TensorType, ...]) -> str:
    return ", ".join(map(str, types)) or "nothing"
