"""A graph's way through the pipeline, kept as plain data for pictures and for finding faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.driver.options import Options, resolve_target
from tapeout.driver.pipeline import lower, optimize
from tapeout.schedule.layout import plan_variables

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph
    from tapeout.kernel.program import Program


def optimized(graph: Graph, target: str = "native") -> Graph:
    """Return a graph after every pass."""
    options = Options(resolve_target(target))
    for stage in optimize(graph, options):
        assert stage.graph is not None
        graph = stage.graph
    return graph


def scheduled(graph: Graph, target: str = "native") -> Program:
    """Return the program of an optimised graph, without generating code."""
    return lower(graph, plan_variables(graph.variables), Options(resolve_target(target)))
