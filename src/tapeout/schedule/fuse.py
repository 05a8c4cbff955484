"""Turns a graph into kernels at level T: which values are kept, which nodes share a kernel, in which layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapeout.ir.op import Pointwise, Reduction, Scatter
from tapeout.ops.control import Cond, Scan
from tapeout.schedule.facts import FactTable
from tapeout.schedule.fit import Fitter
from tapeout.schedule.inline import choose_inlined
from tapeout.schedule.kernels import Kernels, copy
from tapeout.schedule.model import Home, Homes, Work, row_major
from tapeout.schedule.nest import Around, Nest, Nester, fixed_values, initial_slots
from tapeout.schedule.order import order
from tapeout.schedule.orders import choose_orders
from tapeout.schedule.recompute import group_with_recomputed
from tapeout.schedule.reuse import in_place, reuse
from tapeout.schedule.updates import in_place_homes, plan_updates
from tapeout.schedule.uses import Uses, needed_nodes
from tapeout.support.errors import CompileError
from tapeout.support.loc import UNKNOWN, Loc

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.op import Array
    from tapeout.schedule.group import Groups
    from tapeout.schedule.inline import Orders
    from tapeout.schedule.nest import AnyWork


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

    works: tuple[AnyWork, ...]
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
    return _fuse(graph, Around())


def _fuse(graph: Graph, around: Around) -> Fused:
    nodes = needed_nodes(graph)
    sources, constants = source_homes(graph, nodes, around)
    nodes = tuple(n for n in nodes if n.results[0] not in sources)
    _check_kinds(nodes)
    facts, uses = FactTable(), Uses.of(graph, nodes)
    fixed = {**sources, **uses.wanted, **fixed_values(nodes)}
    orders = choose_orders(nodes, facts, uses, fixed)
    inlined = choose_inlined(nodes, facts, uses, orders, uses.wanted)
    groups, fitter = group_with_recomputed(nodes, Fitter(facts, uses, orders, inlined))
    inlined = dict(fitter.inlined)
    updates = plan_updates(graph, groups)

    homes = dict(sources)
    stored = _stored(nodes, uses, groups, sources)
    homes.update(_new_homes(graph, stored, orders, around))
    in_place_homes(updates, homes)
    aside = {v: replace(homes[v], name=f"%old.{v.name}", space="activation") for v in updates.aside}
    slots = initial_slots(nodes, homes, _movable(stored, uses, groups, around))

    kernels = Kernels(homes, inlined, stored)
    nester = Nester(homes, inlined, slots, around, _fuse_region, _copied)
    works: list[AnyWork] = [copy(homes[v], home, late=False) for v, home in aside.items()]
    for g in groups.in_order():
        works += nester.build(g.anchor) if g.kind == "region" else kernels.build(g)
    for new, variable in updates.copies:
        source = aside.get(new, homes[new])
        works.append(copy(source, homes[variable.value], late=True))
    for value, target in around.targets:
        if homes[value] is not target:
            works.append(copy(homes[value], target, late=False, loc=_loc(value)))
    works = _with_carried(works, homes, around)
    outputs = {name: aside.get(v, homes[v]) for name, v in graph.outputs}
    checks = tuple(homes[c.bad] for c in graph.checks)
    return Fused(tuple(works), outputs, checks, tuple(sources.values()), constants)


def _with_carried(works: list[AnyWork], homes: Homes, around: Around) -> list[AnyWork]:
    """Return the kernels of a round and the copies of carries that live in one place, which end it.

    A carry that becomes another one is put aside before either is overwritten.
    """
    places = {home.name: None for _, home in around.carried}
    before: list[AnyWork] = []
    after: list[AnyWork] = []
    for n, (value, target) in enumerate(around.carried):
        source = homes[value]
        if source.name in places:
            aside = replace(source, name=f"{around.prefix}%aside{n}", space="activation")
            before.append(copy(source, aside, late=False, loc=_loc(value)))
            source = aside
        after.append(copy(source, target, late=False, loc=_loc(value)))
    return [*before, *works, *after]


def _stored(nodes: Sequence[Node], uses: Uses, groups: Groups, sources: Homes) -> dict[Value, None]:
    """Return the values that are kept: asked for, read by another kernel, or made by a loop or branch."""
    made = (r for n in nodes if n.op.regions for r in n.results)
    return {v: None for v in (*uses.wanted, *groups.crossing, *made) if v not in sources}


def _new_homes(graph: Graph, stored: Iterable[Value], orders: Orders, around: Around) -> Homes:
    """Return the homes of kept values: where the region's outputs must go, or new ones."""
    numbers = {node: i for i, node in enumerate(graph.nodes)}
    homes: Homes = {}
    targets: Homes = {}
    for value, target in around.targets:
        targets.setdefault(value, target)
    for v in stored:
        assert v.node is not None
        order = orders.get(v, row_major(v.type.rank))
        which = f".{v.index}" if len(v.node.results) > 1 else ""
        name = f"{around.prefix}%{numbers[v.node]}{which}"
        homes[v] = targets[v] if v in targets else Home(name, v.type, order, "activation")
    return homes


def _movable(
    stored: Container[Value], uses: Uses, groups: Groups, around: Around
) -> Callable[[Value], bool]:
    """Return whether the kernel that makes a value may write it into a part of another home."""
    targets = {v: None for v, _ in around.targets}

    def movable(value: Value) -> bool:
        if value not in stored or value in uses.wanted or value in targets:
            return False
        return value in groups.maker and groups.groups[groups.maker[value]].kind != "region"

    return movable


def _fuse_region(body: Graph, around: Around) -> tuple[tuple[AnyWork, ...], dict[str, Array]]:
    """Return the kernels of a region in a good order, results over dying operands, and the data of constants."""
    fused = _fuse(body, around)
    homes = {h.name: h for w in fused.works for h in w.homes}
    works = order(fused.works, homes, {})
    own = f"{around.prefix}%"
    works = in_place(works, [home.name for _, home in around.carried], own)
    fixed = {n: None for n in homes if not n.startswith(own)} | fixed_homes(works)
    return reuse(works, fixed), fused.constants


def fixed_homes(works: Sequence[AnyWork]) -> dict[str, None]:
    """Return the names of homes that loops and branches touch, which must stay what they are."""
    nests = [w for w in works if isinstance(w, Nest)]
    parts = {v.home.name: None for w in nests for v in w.views}
    return parts | {name: None for w in nests for name in w.args}


def _copied(source: Home, target: Home, loc: Loc) -> Work:
    return copy(source, target, late=False, loc=loc)


def _loc(value: Value) -> Loc:
    return value.node.loc if value.node is not None else UNKNOWN


def source_homes(
    graph: Graph, nodes: Sequence[Node], around: Around
) -> tuple[Homes, dict[str, Array]]:
    """Return the homes of inputs, variables and constants, and the data of the latter."""
    homes: Homes = dict(around.given)
    for v in graph.inputs:
        if v not in homes:
            homes[v] = Home(v.name, v.type, row_major(v.type.rank), "input")
    for var in graph.variables:
        homes[var.value] = Home(var.name, var.type, row_major(var.type.rank), "variable")
    constants: dict[str, Array] = {}
    for node in nodes:
        data = constant_data(node)
        if data is None:
            continue
        (result,) = node.results
        name = f"${around.prefix}%{len(constants)}"
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
        if not isinstance(node.op, Pointwise | Reduction | Scatter | Scan | Cond):
            kind = type(node.op).__mro__[1].__name__
            raise CompileError(
                f"{node.op.name} ({kind}) cannot be scheduled; only primitive operations can",
                where=str(node.loc),
                hint="decompose composite operations first",
            )
