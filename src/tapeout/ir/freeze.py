"""Which parameters train."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.support.errors import OptionError
from tapeout.support.patterns import Pattern, check_matched, globs_of, matcher

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph, Variable


def with_trainable(graph: Graph, pattern: Pattern, what: str, *, trainable: bool) -> Graph:
    """Return the graph with the parameters that a pattern names made trainable, or frozen.

    The values that nodes read stay the same, so nothing else of the graph changes; every binding and mode of it, made before
    or later, holds the same new variables.

    Args:
        graph: The model.
        pattern: Globs or a function of the name.
        what: Who asks, for the error.
        trainable: What the parameters become.

    Raises:
        OptionError: A glob names no parameter.
    """
    _check(graph, globs_of(pattern, what), what)
    chosen = matcher(pattern, what)
    known: dict[Variable, Variable] = {}

    def changed(v: Variable) -> Variable:
        if v.kind != "parameter" or v.trainable == trainable or not chosen(v.name):
            return v
        if v not in known:
            known[v] = replace(v, trainable=trainable)
        return known[v]

    return graph.then(
        lambda g: replace(g, variables=tuple(changed(v) for v in g.variables)), variables_only=True
    )


def _check(graph: Graph, globs: list[str], what: str) -> None:
    states = [v.name for v in graph.variables if v.kind == "state"]
    for glob in globs:
        try:
            check_matched([glob], list(graph.parameters), what, "parameter", graph.name)
        except OptionError as e:
            if glob.removeprefix("!") not in states:
                raise
            hint = "a step changes it by rule; with_mode({…: 'eval'}) leaves statistics alone"
            raise OptionError(
                f"{what}: {glob!r} is a state, no parameter", where=e.where, hint=hint
            ) from None
