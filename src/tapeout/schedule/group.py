"""Decides which nodes share a kernel.

Nodes are taken in order. Each joins a group that already computes something it reads, or that reads what it reads along the same
axes, if it fits into that group's axes, if no cycle between groups arises, and if the kernel does not grow too large; otherwise it
founds a group. A node that reads two groups joins them into one where the same holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.ir.op import Contraction, Reduction, Scatter
from tapeout.schedule.fit import Fit, Fitter, LeafRead, matched, reads_fit
from tapeout.schedule.links import Links
from tapeout.schedule.model import Group
from tapeout.support.loc import AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.schedule.model import Frame

MEMBERS = 64
"""Most nodes of a group."""

LOADED = 20
"""Most distinct values that a group loads."""


def group_nodes(
    nodes: Sequence[Node], fitter: Fitter, leaves: Mapping[Node, tuple[LeafRead, ...]] | None = None
) -> Groups:
    """Return the groups of all nodes whose results are not inlined; `leaves` are those of nodes where they are known."""
    groups = Groups(fitter, leaves or {})
    for position, node in enumerate(nodes):
        if node.results[0] not in fitter.inlined:
            groups.place(node, position)
    return groups


class Groups:
    """Groups and what they read.

    Attributes:
        groups: By number.
        links: Which must run before which.
        maker: Number of the group that makes a value.
        loaded: For each group, the values made elsewhere that it loads.
        readers: Numbers of the groups that load a value.
        leaves: What each member reads, through inlined values.
    """

    def __init__(self, fitter: Fitter, known: Mapping[Node, tuple[LeafRead, ...]]) -> None:
        self.fitter, self.known = fitter, known
        self.groups: dict[int, Group] = {}
        self.links = Links()
        self.maker: dict[Value, int] = {}
        self.loaded: dict[int, dict[Value, None]] = {}
        self.readers: dict[Value, dict[int, None]] = {}
        self.leaves: dict[Node, tuple[LeafRead, ...]] = {}
        self.position: dict[Node, int] = {}

    def place(self, node: Node, position: int) -> None:
        """Put a node into a group."""
        self.position[node] = position
        leaves = self.known.get(node)
        if leaves is None:
            leaves = self.fitter.leaf_reads(node)
        self.leaves[node] = leaves
        for number in self._candidates(node, leaves):
            fit = self.fitter.fit(node, self.groups[number], leaves)
            if fit is None or not self._passes_alike(number, node, fit, leaves):
                continue
            if self._may_join(number, leaves):
                self._join(number, node, fit)
                self._merge_makers(number, node)
                return
        self._found(node)

    def _candidates(self, node: Node, leaves: Sequence[LeafRead]) -> Iterator[int]:
        """Return the groups to try: makers of what is read, the latest first, then fellow readers."""
        if isinstance(node.op, Scatter) or self.fitter.kind(node) in ("contraction", "region"):
            return
        makers = self._makers(leaves)
        yield from (g for g in makers if self._same_time(node, self.groups[g]))
        points = self.fitter.points(node)
        fellows: dict[int, None] = {}
        for r in leaves:
            if isinstance(node.op, Reduction) or r.value.type.size == points:
                fellows.update(self.readers.get(r.value, {}))
        for g in fellows:
            group = self.groups[g]
            # Beside a fellow, what is computed anew would have to wait for it, or be kept for its own reader.
            again = AGAIN in (node.loc.role, group.anchor.loc.role)
            if g not in makers and group.kind == "loop" and not again:
                yield g

    def _passes_alike(self, number: int, node: Node, fit: Fit, leaves: Sequence[LeafRead]) -> bool:
        """Whether a node passes over what it shares with a group along the same axes: rows beside columns would share nothing."""
        if any(self.maker.get(r.value) == number for r in leaves):
            return True
        g = self.groups[number]
        shared = [r for r in leaves if r.value in self.loaded[number]]
        own = _lines(
            self.fitter, node, replace(g, outer=fit.outer, inner=fit.inner), fit.frame, shared
        )
        if not own:
            return True
        members = [
            line
            for m, frame in g.members.items()
            for line in _lines(self.fitter, m, g, frame, self.leaves[m])
        ]
        return any(line in members for line in own)

    def _same_time(self, node: Node, g: Group) -> bool:
        """Whether a node may run with a group: what is computed anew must not be computed with what it was computed with first."""
        return node.loc.role != AGAIN or g.anchor.loc.role == AGAIN

    def _makers(self, leaves: Sequence[LeafRead]) -> list[int]:
        makers = {self.maker[r.value]: None for r in leaves if r.value in self.maker}
        return sorted(makers, key=lambda g: (-self.links.level(g), g))

    def _may_join(self, number: int, leaves: Sequence[LeafRead]) -> bool:
        """Whether a group stays small and free of cycles with a node that reads `leaves`."""
        if len(self.groups[number].members) >= MEMBERS:
            return False
        outside = [r.value for r in leaves if self.maker.get(r.value) != number]
        if len({**self.loaded[number], **dict.fromkeys(outside)}) > LOADED:
            return False
        others = dict.fromkeys(self.maker[v] for v in outside if v in self.maker)
        return not any(self.links.leads_to(number, other) for other in others)

    def _found(self, node: Node) -> None:
        number = self.links.add()
        fitter = self.fitter
        self.groups[number] = Group(fitter.kind(node), node, (), (), {}, node in fitter.uses.late)
        self.loaded[number] = {}
        self._join(number, node, fitter.own(node, self.leaves[node]))

    def _join(self, number: int, node: Node, fit: Fit) -> None:
        g = self.groups[number]
        g.members[node], g.outer, g.inner = fit.frame, fit.outer, fit.inner
        self.maker.update(dict.fromkeys(node.results, number))
        for r in self.leaves[node]:
            other = self.maker.get(r.value)
            if other == number:
                continue
            self.loaded[number][r.value] = None
            self.readers.setdefault(r.value, {})[number] = None
            if other is not None:
                self.links.link(other, number)

    # -- merging ------------------------------------------------------------------------------------

    def _merge_makers(self, number: int, node: Node) -> None:
        """Merge the groups that a new member reads into its own, or its own into one of them."""
        for other in self._makers(self.leaves[node]):
            if other == number:
                continue
            if self._merge(other, number, node):
                continue
            if self._merge(number, other, node):
                number = other

    def _merge(self, source: int, target: int, node: Node) -> bool:
        """Move all members of one group into another if they fit; `node` is a member of either and reads both."""
        a, b = self.groups[source], self.groups[target]
        axes = self._renamed(a, b, node)
        if axes is None or a.late != b.late or not self._may_merge(source, target):
            return False
        if not all(self._same_time(n, b) for n in a.members):
            return False
        if not all(self._same_time(n, a) for n in b.members):
            return False
        bind = {x: Affine.of(y) for x, y in axes.items()}
        moved = {n: tuple(i.substitute(bind) for i in f) for n, f in a.members.items()}
        members = {**moved, **b.members}
        if not self._agree(members, b):
            return False
        b.members = dict(sorted(members.items(), key=lambda m: self.position[m[0]]))
        self._forget(source, target)
        return True

    def _renamed(self, a: Group, b: Group, node: Node) -> dict[Axis, Axis] | None:
        """Return which axis of `b` each axis of `a` becomes, None if the groups do not run over the same points."""
        if a.kind != "loop" or b.kind in ("scatter", "region") or (a.inner and b.kind != "loop"):
            return None
        here, there = self._frame_in(node, a), self._frame_in(node, b)
        found = None if here is None or there is None else matched(here, there)
        if found is None or here is None:
            return None
        inner = [x for x in a.inner if x.extent != 1]
        target = [x for x in b.inner if x.extent != 1]
        if inner and not a.is_full(here):
            if [x.extent for x in inner] != [x.extent for x in target]:
                return None
            found.update(zip(inner, target, strict=True))
        return found if self._same_points(a, b, found) else None

    def _same_points(self, a: Group, b: Group, found: dict[Axis, Axis]) -> bool:
        """Whether a renaming takes outer axes to outer ones and inner to inner, or a map's axes to all or all outer ones."""
        outer = {found.get(x) for x in a.outer if x.extent != 1}
        inner = {found.get(x) for x in a.inner if x.extent != 1}
        to_outer = {x for x in b.outer if x.extent != 1}
        to_inner = {x for x in b.inner if x.extent != 1}
        if inner:
            return outer == to_outer and inner == to_inner
        return outer == to_outer or (b.kind == "loop" and outer == to_outer | to_inner)

    def _frame_in(self, node: Node, g: Group) -> Frame | None:
        """Return the frame that a node has, or would have, in a group."""
        if node in g.members:
            return g.members[node]
        if isinstance(node.op, Contraction | Reduction):
            return None
        own, leaves = self.fitter.facts[node].axes, self.leaves[node]
        for frame in self.fitter.frames(node, g, (*g.outer, *g.inner)):
            if reads_fit(own, frame, g.bases, leaves):
                return frame
        return None

    def _may_merge(self, source: int, target: int) -> bool:
        """Whether two groups together stay small, and no third stands between them."""
        a, b = self.groups[source], self.groups[target]
        loaded = {**self.loaded[source], **self.loaded[target]}
        if len(a.members) + len(b.members) > MEMBERS or len(loaded) > LOADED:
            return False
        return not self.links.between(source, target) and not self.links.between(target, source)

    def _agree(self, members: dict[Node, Frame], g: Group) -> bool:
        """Whether every member reads every other where it is made, and rows are worth keeping together."""
        bases = {n.results[0]: f for n, f in members.items()}
        merged = Group(g.kind, g.anchor, g.outer, g.inner, members, g.late)
        for node, frame in members.items():
            leaves = self.leaves[node]
            if isinstance(node.op, Reduction):
                if not self._reduction_agrees(node, frame, merged, bases):
                    return False
            elif not reads_fit(self.fitter.facts[node].axes, frame, bases, leaves):
                return False
            if g.kind == "loop" and merged.is_full(frame):
                place = self.fitter.offset(node.results[0], frame)
                if not self.fitter.rows_pay(g.outer, g.inner, place):
                    return False
        return True

    def _reduction_agrees(
        self, node: Node, frame: Frame, g: Group, bases: dict[Value, Frame]
    ) -> bool:
        facts = self.fitter.facts[node]
        own, at = (*facts.axes, *facts.reduced), (*frame, *g.inner_index(facts.reduced))
        return reads_fit(own, at, bases, self.leaves[node])

    def _forget(self, source: int, target: int) -> None:
        """Let the target stand for a group whose members have moved."""
        for node in self.groups.pop(source).members:
            self.maker[node.results[0]] = target
        loaded = {**self.loaded.pop(source), **self.loaded[target]}
        self.loaded[target] = {v: None for v in loaded if self.maker.get(v) != target}
        for value in loaded:
            readers = self.readers[value]
            readers.pop(source, None)
            if value in self.loaded[target]:
                readers[target] = None
            else:
                readers.pop(target, None)
        self.links.merge(source, target)

    # -- the result ---------------------------------------------------------------------------------

    def in_order(self) -> tuple[Group, ...]:
        """Return the groups, each after those it depends on."""
        return tuple(self.groups[g] for g in self.links.in_order() if g in self.groups)

    @property
    def crossing(self) -> dict[Value, None]:
        """The values that a group makes and another loads."""
        return {v: None for loaded in self.loaded.values() for v in loaded if v in self.maker}


Line = tuple["Value", tuple[tuple[Axis, ...], ...]]
"""A value, and for each of its dimensions the axes along which it is read."""


def _lines(
    fitter: Fitter, node: Node, g: Group, frame: Frame, leaves: Sequence[LeafRead]
) -> list[Line]:
    """Return how a node at a frame passes over what it reads, as far as it reads at known places."""
    facts = fitter.facts[node]
    at = (*frame, *g.inner_index(facts.reduced)) if isinstance(node.op, Reduction) else frame
    own = (*facts.axes, *facts.reduced) if isinstance(node.op, Reduction) else facts.axes
    bind = dict(zip(own, at, strict=True))
    found = [(r.value, r.at(bind)) for r in leaves]
    return [(v, tuple(tuple(i.axes) for i in index)) for v, index in found if index is not None]
