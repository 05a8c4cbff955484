"""Exact algebra, as tables of rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tapeout.ir.region import in_regions
from tapeout.ir.rewrite import RuleSet, rewrite
from tapeout.ops.sym import Sym
from tapeout.passes.base import Pass
from tapeout.passes.rules.algebra import ALGEBRA
from tapeout.passes.rules.movement import MOVEMENT
from tapeout.passes.rules.reductions import REDUCTIONS

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph

RULES = RuleSet(*ALGEBRA, *MOVEMENT, *REDUCTIONS, lift=Sym, lower=lambda s: s.value)


@dataclass(frozen=True)
class Simplify(Pass):
    """Apply the tables until no rule fits. Never changes rounding: exact rewrites only.

    Nodes that nothing reads afterwards stay for `dce`.

    Attributes:
        rounds: Sweeps over the graph at most.
    """

    name: ClassVar[str] = "simplify"
    rounds: int = 16

    def run(self, graph: Graph) -> Graph:
        """Return the simpler graph."""
        return rewrite(in_regions(graph, self.run), RULES, limit=self.rounds)
