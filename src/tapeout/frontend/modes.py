"""Layers that do one thing in training and another in inference: recorded once with both meanings, settled when the graph is taken.

A layer emits what it is in training, what it is in inference, and a node that chooses. `settle` puts one of the two in place of
every choice, so that no graph that leaves the builder holds one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapeout.ir.build import rebuilder
from tapeout.ir.modes import Modes
from tapeout.ir.op import Op
from tapeout.ir.rewrite import finish
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tapeout.ir.graph import Graph, Node, Value, Variable
    from tapeout.ir.modes import Mode
    from tapeout.ir.type import TensorType


RANDOM = ("rng.seed", "rng.step")
"""The variables that random numbers follow from: the seed of the trainer and the number of the step."""


@dataclass(frozen=True, repr=False)
class ByMode(Op):
    """Operand 0 in training, operand 1 in inference. It has no other meaning, so nothing but `settle` reads it."""

    name = "by_mode"
    layer: str = ""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the type of both."""
        in_training, in_inference = types
        if in_training != in_inference:
            raise ShapeError(
                f"{self.layer!r} is {in_training} in training and {in_inference} in inference"
            )
        return (in_training,)


def settle(graph: Graph, owners: Mapping[str, list[str]], trains: Callable[[str], bool]) -> Graph:
    """Return a recorded graph with every choice made.

    Args:
        graph: The graph, with choices.
        owners: The layers on whose behalf a state is updated; updates of other states are the user's.
        trains: Whether a layer, given by name, is in training. Asked with an empty name: whether the graph is.

    Returns:
        The graph without choices, without the updates of layers in inference, and without what only those needed. In inference
        the user's updates are dropped as well: they say what a training step does.
    """
    chosen: dict[Value, Value] = {}
    kept: list[tuple[Node, tuple[Value, ...]]] = []
    for node in graph.nodes:
        operands = tuple(chosen.get(v, v) for v in node.operands)
        if isinstance(node.op, ByMode):
            chosen[node.results[0]] = operands[0 if trains(node.op.layer) else 1]
        else:
            kept.append((node, operands))
    updates = tuple(
        (name, value)
        for name, value in graph.updates
        if (any(map(trains, owners[name])) if name in owners else trains(""))
    )
    return _needed(replace(graph, updates=updates), kept, chosen)


def with_modes(
    recorded: Graph,
    owners: Mapping[str, list[str]],
    bindable: Callable[[Graph], Graph],
    modes: Modes,
) -> Graph:
    """Return a recorded graph in some modes, which knows itself in all others.

    Args:
        recorded: The graph, with choices.
        owners: As for `settle`.
        bindable: Makes a graph whose named dimensions can be bound.
        modes: The mode of each layer.
    """
    layers = dict.fromkeys(n.op.layer for n in recorded.nodes if isinstance(n.op, ByMode))
    layers.update(dict.fromkeys(layer for found in owners.values() for layer in found))
    if not layers:
        return bindable(settle(recorded, owners, lambda _: True))
    names = {
        layer: [v.name for v in recorded.variables if v.name.startswith(f"{layer}.")]
        for layer in layers
    }

    def trains(layer: str) -> bool:
        if not layer:
            return not modes.is_inference
        return modes.of(layer, *names[layer]) != "eval"

    def over(mode: Mode) -> Graph:
        asked = Modes().over(mode, recorded.name)
        asked.check([*names, *(n for found in names.values() for n in found)], recorded.name)
        return with_modes(recorded, owners, bindable, modes.over(mode, recorded.name))

    def inferring() -> Graph:
        return bindable(settle(recorded, owners, lambda _: False))

    return replace(
        bindable(settle(recorded, owners, trains)),
        modes=over,
        evaluation=None if modes.is_inference else inferring,
    )


def _needed(
    graph: Graph, kept: list[tuple[Node, tuple[Value, ...]]], chosen: dict[Value, Value]
) -> Graph:
    """Return the graph of those nodes that outputs, updates and checks need."""
    needed = {chosen.get(v, v) for v in graph.results}
    live = []
    for node, operands in reversed(kept):
        if not needed.isdisjoint(node.results):
            live.append((node, operands))
            needed.update(operands)
    b = rebuilder(replace(graph, variables=_kept(graph, needed)))
    new: dict[Value, Value] = {}
    for node, operands in reversed(live):
        now = tuple(new.get(v, v) for v in operands)
        if now == node.operands:
            b.keep(node)
            continue
        results = b.emit(node.op, *now, loc=node.loc)
        new.update(zip(node.results, results, strict=True))
    # A choice may lead to a node that was itself made anew.
    ends = {v: new.get(chosen[v], chosen[v]) for v in chosen}
    return finish(graph, b, {**new, **ends})


def _kept(graph: Graph, needed: set[Value]) -> tuple[Variable, ...]:
    """Return the variables without the source of random numbers if nothing draws."""
    return tuple(v for v in graph.variables if v.name not in RANDOM or v.value in needed)
