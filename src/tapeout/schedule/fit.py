"""Whether and where a node fits into the axes of a group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, FloorDiv, Guard, Mod, index_of
from tapeout.ir.op import Contraction, Pointwise, Reduction, Scatter
from tapeout.kernel.compute import Expr, ExprBuilder
from tapeout.ops.control import Control
from tapeout.schedule.element import Elements
from tapeout.schedule.facts import own_axes
from tapeout.schedule.frames import frames_of, plain_axis
from tapeout.schedule.model import Group, GroupKind, row_major, strides
from tapeout.schedule.nest import part_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.schedule.element import Index
    from tapeout.schedule.facts import FactTable
    from tapeout.schedule.inline import Orders
    from tapeout.schedule.model import Frame
    from tapeout.schedule.uses import Uses

FEW_ROWS = 8
"""Below this many outer points a row kernel keeps too few cores busy, unless it is small."""

SMALL = 1 << 14
"""Elements that one core passes over in no time."""


@dataclass(frozen=True, slots=True)
class LeafRead:
    """A read of a kept value, through any inlined ones, in the node's own axes."""

    value: Value
    index: Index
    guarded: bool

    def at(self, bind: Mapping[Axis, Affine]) -> Frame | None:
        """Return the index with the node's axes replaced, None if it gathers or is guarded."""
        parts = tuple(i.substitute(bind) for i in self.index if isinstance(i, Affine))
        return None if self.guarded or len(parts) != len(self.index) else parts


@dataclass(frozen=True, slots=True)
class Fit:
    """How a node enters a group: its frame, and the group's axes from then on."""

    frame: Frame
    outer: tuple[Axis, ...]
    inner: tuple[Axis, ...]


@dataclass(frozen=True)
class Fitter:
    """Tests nodes against groups.

    Attributes:
        facts: What nodes read.
        uses: Who reads what.
        orders: Order of dimensions in memory of values that are not row-major.
        inlined: Values that are evaluated where they are read.
    """

    facts: FactTable
    uses: Uses
    orders: Orders
    inlined: Mapping[Value, None]

    # -- what a node reads --------------------------------------------------------------------------

    def leaf_reads(self, node: Node) -> tuple[LeafRead, ...]:
        """Return what a node reads, through inlined values."""
        found: dict[LeafRead, None] = {}

        def leaf(value: Value, index: Index, where: tuple[Guard, ...], other: float) -> Expr:
            found[LeafRead(value, index, bool(where))] = None
            return s.temp(f"{len(found)}", value.type.dtype)

        s = ExprBuilder()
        elements = Elements(s, self.inlined, leaf)
        if isinstance(node.op, Control):
            bases = dict.fromkeys(part_of(v, self.inlined)[0] for v in node.operands)
            return tuple(LeafRead(v, index_of(own_axes(v.type.shape)), True) for v in bases)
        if isinstance(node.op, Scatter):
            for v in node.operands:
                elements.read(v, index_of(own_axes(v.type.shape)))
            return tuple(found)
        facts = self.facts[node]
        if isinstance(node.op, Reduction):
            elements.reduced(node, index_of(facts.axes), index_of(facts.reduced))
        else:
            elements.pointwise(node, index_of(facts.axes))
        return tuple(found)

    def points(self, node: Node) -> int:
        """Return how many elements a node looks at."""
        facts = self.facts[node]
        return prod(a.extent for a in (*facts.axes, *facts.reduced))

    def offset(self, value: Value, index: Sequence[Affine]) -> Affine:
        """Return the element number at an index in the value's layout."""
        shape = value.type.shape
        flat = Affine()
        order = self.orders.get(value, row_major(len(shape)))
        for i, n in zip(index, strides(shape, order), strict=True):
            flat = flat + i * n
        return flat

    def is_linear(self, node: Node, frame: Frame, leaves: Sequence[LeafRead]) -> bool:
        """Whether a node's store and loads have linear places at a frame."""
        bind = dict(zip(self.facts[node].axes, frame, strict=True))
        if not self.offset(node.results[0], frame).is_linear:
            return False
        for r in leaves:
            at = tuple(i.substitute(bind) if isinstance(i, Affine) else Affine() for i in r.index)
            if not self.offset(r.value, at).is_linear:
                return False
        return True

    def followers(self, value: Value) -> list[Node]:
        """Return the nodes that read a value, through inlined ones."""
        found: dict[Node, None] = {}
        stack = list(self.uses.of_value(value))
        while stack:
            node = stack.pop()
            if node in found:
                continue
            if node.results[0] in self.inlined:
                stack += self.uses.of_value(node.results[0])
            else:
                found[node] = None
        return list(found)

    # -- founding -----------------------------------------------------------------------------------

    def kind(self, node: Node) -> GroupKind:
        """Return the kind of group that a node founds."""
        if isinstance(node.op, Control):
            return "region"
        if isinstance(node.op, Scatter):
            return "scatter"
        if not isinstance(node.op, Contraction):
            return "loop"
        return "contraction" if self._tiles(node) or self._slides(node) else "loop"

    def _slides(self, node: Node) -> bool:
        """Whether neighbouring sums of a contraction read the same elements: at the sum of an axis of the result and a summed one."""
        facts = self.facts[node]
        free, summed = ({a for a in x if a.extent != 1} for x in (facts.axes, facts.reduced))
        entries = (i for a in facts.accesses for i in a.index if isinstance(i, Affine))
        return any(free & set(i.axes) and summed & set(i.axes) for i in entries)

    def _tiles(self, node: Node) -> bool:
        """Whether each factor of a contraction has an axis of the result to itself, and there is something to sum.

        A matrix-vector product and an outer product have not: they are as fast as memory, in plain loops.
        """
        fit = self._split(node)
        if all(a.extent == 1 for a in fit.inner):
            return False
        bind = dict(zip(self.facts[node].axes, fit.frame, strict=True))
        kept = {a for a in fit.outer if a.extent != 1}
        used: tuple[set[Axis], set[Axis]] = set(), set()
        for access in self.facts[node].accesses:
            parts = [i.substitute(bind) for i in access.index if isinstance(i, Affine)]
            used[access.operand].update(a for i in parts for a in i.axes if a in kept)
        return bool(used[0] - used[1]) and bool(used[1] - used[0])

    def _split(self, node: Node) -> Fit:
        """Return a contraction's axes, those of the result that its reads divide split in two (channels of groups)."""
        facts = self.facts[node]
        outer: list[Axis] = []
        frame: list[Affine] = []
        entries = [i for a in facts.accesses for i in a.index if isinstance(i, Affine)]
        # What a guard divides are the holes of a stride; they are split by parity later.
        holes = {x for a in facts.accesses for g in a.where for x in _divided(g.index)}
        for d, axis in enumerate(facts.axes):
            by = None if axis in holes else _divisor(axis, entries)
            if by is None:
                outer.append(Axis(f"a{d}", axis.extent))
                frame.append(Affine.of(outer[-1]))
                continue
            outer += [Axis(f"a{d}.0", axis.extent // by), Axis(f"a{d}.1", by)]
            frame.append(Affine.of(outer[-2]) * by + outer[-1])
        return Fit(tuple(frame), tuple(outer), facts.reduced)

    def own(self, node: Node, leaves: Sequence[LeafRead]) -> Fit:
        """Return axes and frame of a founding node: its own, or those of an operand if only then all places are linear."""
        outer = own_axes(node.results[0].type.shape, "a")
        own = Fit(index_of(outer), outer, ())
        if isinstance(node.op, Scatter | Control):
            return own
        if isinstance(node.op, Contraction):
            return self._split(node)
        if not isinstance(node.op, Pointwise):
            return replace(own, inner=self.facts[node].reduced)
        if self.is_linear(node, own.frame, leaves):
            return own
        for r in leaves:
            axes = own_axes(r.value.type.shape, "a")
            base = {r.value: index_of(axes)}
            for frame in frames_of(node, base, self.inlined, self.facts, ()):
                if self.is_linear(node, frame, leaves):
                    return Fit(frame, axes, ())
        return own

    # -- joining ------------------------------------------------------------------------------------

    def fit(self, node: Node, g: Group, leaves: Sequence[LeafRead]) -> Fit | None:
        """Return where a node stands in a group's axes, None if it does not fit."""
        if g.kind in ("scatter", "region") or g.late != (node in self.uses.late):
            return None
        if isinstance(node.op, Reduction):
            return self._reduction(node, g, leaves) if g.kind == "loop" else None
        size = node.results[0].type.size
        full = g.kind == "loop" and g.depth > 1 and size == g.points * g.depth
        if size != g.points and not full:
            return None
        for frame in self.frames(node, g, (*g.outer, *g.inner) if full else g.outer):
            if not self._fits_at(node, frame, g, leaves):
                continue
            if not full or self.rows_pay(g.outer, g.inner, self.offset(node.results[0], frame)):
                return Fit(frame, g.outer, g.inner)
        return None

    def frames(self, node: Node, g: Group, axes: Sequence[Axis]) -> Iterator[Frame]:
        """Return frames to try: what a node's reads of members say, then the group's axes as they stand."""
        yield from frames_of(node, g.bases, self.inlined, self.facts, axes)
        if tuple(a.extent for a in axes) == node.results[0].type.shape:
            yield index_of(axes)

    def _fits_at(self, node: Node, frame: Frame, g: Group, leaves: Sequence[LeafRead]) -> bool:
        """Whether a pointwise node at a frame reads members where they are made, and memory at linear places."""
        used = {a for i in frame for a in i.axes}
        inner = [a in used for a in g.inner if a.extent != 1]
        if not all(a in used for a in g.outer if a.extent != 1) or len(set(inner)) > 1:
            return False
        if not reads_fit(self.facts[node].axes, frame, g.bases, leaves):
            return False
        return self.is_linear(node, frame, leaves)

    def _reduction(self, node: Node, g: Group, leaves: Sequence[LeafRead]) -> Fit | None:
        """Return where a reduction stands in a row kernel; a map becomes one if that pays."""
        facts = self.facts[node]
        if not g.inner:
            return self._converted(node, g, leaves)
        frame, inner = _aligned(facts.axes, g.outer), _aligned(facts.reduced, g.inner)
        if frame is None or inner is None:
            return None
        fits = reads_fit((*facts.axes, *facts.reduced), (*frame, *inner), g.bases, leaves)
        return Fit(frame, g.outer, g.inner) if fits else None

    def _converted(self, node: Node, g: Group, leaves: Sequence[LeafRead]) -> Fit | None:
        """Return how a map becomes a row kernel that ends in this reduction, None if it cannot or should not."""
        facts, bases = self.facts[node], g.bases
        own = (*facts.axes, *facts.reduced)
        read = next((r for r in leaves if r.value in bases), None)
        index = None if read is None else read.at({})
        if read is None or index is None or self.points(node) != g.points:
            return None
        found = matched(index, bases[read.value])
        if found is None or sorted(found) != sorted(a for a in own if a.extent != 1):
            return None
        inner = tuple(found[a] for a in facts.reduced if a.extent != 1)
        outer = tuple(a for a in g.outer if a not in inner)
        at = tuple(Affine.of(found[a]) if a in found else Affine() for a in own)
        if not reads_fit(own, at, bases, leaves):
            return None
        place = self.offset(read.value, bases[read.value])
        if not self._serves_only(g, node) and not self.rows_pay(outer, inner, place):
            return None
        return Fit(at[: len(facts.axes)], outer, inner)

    def _serves_only(self, g: Group, node: Node) -> bool:
        """Whether nothing but `node` needs the members of a group."""
        return all(
            n.results[0] not in self.uses.wanted
            and all(f is node or f in g.members for f in self.followers(n.results[0]))
            for n in g.members
        )

    def rows_pay(self, outer: Sequence[Axis], inner: Sequence[Axis], place: Affine) -> bool:
        """Whether one core should pass over a whole row: rows lie along memory, and are many or small."""
        rows, depth = prod(a.extent for a in outer), prod(a.extent for a in inner)
        if rows < FEW_ROWS and rows * depth > SMALL:
            return False
        return any(place.coefficient(a) == 1 for a in inner)


def _divided(index: Affine) -> list[Axis]:
    """Return the axes inside divisions and remainders."""
    return [x for atom, _ in index.terms if isinstance(atom, FloorDiv | Mod) for x in atom.of.axes]


def _divisor(axis: Axis, entries: Sequence[Affine]) -> int | None:
    """Return the number by which index entries divide an axis alone, None if they do not or in several ways."""
    found = {
        atom.by
        for entry in entries
        for atom, _ in entry.terms
        if isinstance(atom, FloorDiv | Mod) and atom.of == Affine.of(axis)
    }
    by = next(iter(found)) if len(found) == 1 else None
    return by if by is not None and axis.extent % by == 0 else None


def reads_fit(
    own: Sequence[Axis], frame: Frame, bases: Mapping[Value, Frame], leaves: Sequence[LeafRead]
) -> bool:
    """Whether every read of a member comes out at the member's frame."""
    bind = dict(zip(own, frame, strict=True))
    return all(r.at(bind) == bases[r.value] for r in leaves if r.value in bases)


def _aligned(own: Sequence[Axis], axes: Sequence[Axis]) -> Frame | None:
    """Return a group's axes as the index of dimensions of the same extents, None if they differ; size 1 is skipped."""
    left = [a for a in axes if a.extent != 1]
    if [a.extent for a in own if a.extent != 1] != [a.extent for a in left]:
        return None
    rest = iter(left)
    return tuple(Affine.of(next(rest)) if a.extent != 1 else Affine() for a in own)


def matched(index: Frame, frame: Frame) -> dict[Axis, Axis] | None:
    """Return which axis stands where another does in two indices, None where one is no plain axis or two disagree."""
    found: dict[Axis, Axis] = {}
    for a, b in zip(index, frame, strict=True):
        if a.is_constant and a == b:
            continue
        left, right = plain_axis(a), plain_axis(b)
        if left is None or right is None or found.setdefault(left, right) != right:
            return None
    return found if len(set(found.values())) == len(found) else None
