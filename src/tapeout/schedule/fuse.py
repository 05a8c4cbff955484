"""Turns a graph into kernels at level T: which values are kept, which nodes share a kernel, in which layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapeout.ir.op import Pointwise, Reduction, Scatter
from tapeout.schedule.facts import FactTable
from tapeout.schedule.fit import Fitter
from tapeout.schedule.inline import choose_inlined
from tapeout.schedule.kernels import Kernels, copy
from tapeout.schedule.model import Home, Homes, Work, row_major
from tapeout.schedule.orders import choose_orders
from tapeout.schedule.recompute import group_with_recomputed
from tapeout.schedule.updates import in_place_homes, plan_updates
from tapeout.schedule.uses import Uses, needed_nodes
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Graph, Node
    from tapeout.ir.op import Array


@dataclass(frozen=True)
class Fused:
    """The kernels of a graph, in an order in which each comes after what it reads.

    Attributes:
        works: The kernels.
        outputs: Where each output lives.
        checks: Where the bool of each check lives.
        sources: Homes of inputs, variables and constants.
        constants: The data of constant homes, by name.
    """

    works: tuple[Work, ...]
    outputs: dict[str, Home]
    checks: tuple[Home, ...]
    sources: tuple[Home, ...]
    constants: dict[str, Array]

    @property
    def homes(self) -> dict[str, Home]:
        """All homes by name."""
        touched = (h for work in self.works for h in work.homes)
        return {h.name: h for h in (*self.sources, *touched)}


def fuse(graph: Graph) -> Fused:
    """Return the kernels of a graph of primitives."""
    nodes = needed_nodes(graph)
    sources, constants = source_homes(graph, nodes)
    nodes = tuple(n for n in nodes if n.results[0] not in sources)
    _check_kinds(nodes)
    facts, uses = FactTable(), Uses.of(graph, nodes)
    orders = choose_orders(nodes, facts, uses, {**sources, **uses.wanted})
    inlined = choose_inlined(nodes, facts, uses, orders, uses.wanted)
    groups, fitter = group_with_recomputed(nodes, Fitter(facts, uses, orders, inlined))
    inlined = dict(fitter.inlined)
    updates = plan_updates(graph, groups)

    homes = dict(sources)
    numbers = {node: i for i, node in enumerate(graph.nodes)}
    stored = {v: None for v in (*uses.wanted, *groups.crossing) if v not in sources}
    for v in stored:
        assert v.node is not None
        order = orders.get(v, row_major(v.type.rank))
        homes[v] = Home(f"%{numbers[v.node]}", v.type, order, "activation")
    in_place_homes(updates, homes)
    aside = {v: replace(homes[v], name=f"%old.{v.name}", space="activation") for v in updates.aside}

    kernels = Kernels(homes, inlined, stored)
    works = [copy(homes[v], home, late=False) for v, home in aside.items()]
    works += [work for g in groups.in_order() for work in kernels.build(g)]
    for new, variable in updates.copies:
        source = aside.get(new, homes[new])
        works.append(copy(source, homes[variable.value], late=True))
    outputs = {name: aside.get(v, homes[v]) for name, v in graph.outputs}
    checks = tuple(homes[c.bad] for c in graph.checks)
    return Fused(tuple(works), outputs, checks, tuple(sources.values()), constants)


def source_homes(graph: Graph, nodes: Sequence[Node]) -> tuple[Homes, dict[str, Array]]:
    """Return the homes of inputs, variables and constants, and the data of the latter."""
    homes: Homes = {}
    for v in graph.inputs:
        homes[v] = Home(v.name, v.type, row_major(v.type.rank), "input")
    for var in graph.variables:
        homes[var.value] = Home(var.name, var.type, row_major(var.type.rank), "variable")
    constants: dict[str, Array] = {}
    for node in nodes:
        data = constant_data(node)
        if data is None:
            continue
        (result,) = node.results
        name = f"$%{len(constants)}"
        homes[result] = Home(name, result.type, row_major(result.type.rank), "constant")
        constants[name] = data
    return homes, constants


def constant_data(node: Node) -> Array | None:
    """Return the data of a constant that is not one number everywhere, None for every other node."""
    if node.operands or getattr(node.op, "is_splat", True):
        return None
    return node.op.reference()  # type: ignore[return-value]


def _check_kinds(nodes: Sequence[Node]) -> None:
    for node in nodes:
        if not isinstance(node.op, Pointwise | Reduction | Scatter):
            kind = type(node.op).__mro__[1].__name__
            raise CompileError(
                f"{node.op.name} ({kind}) cannot be scheduled; only primitive operations can",
                where=str(node.loc),
                hint="decompose composite operations first",
            )
