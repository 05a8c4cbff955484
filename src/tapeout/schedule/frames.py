"""Finds where a node stands in the axes of another node's kernel.

A frame is the index of a node's result, written in the axes of a group. If a reads b at an index, and b stands at a frame, then
a's frame solves `index(frame of a) = frame of b`.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.ops.movement import reshape_index

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.schedule.element import Index
    from tapeout.schedule.facts import FactTable
    from tapeout.schedule.model import Frame


def frames_of(
    node: Node,
    base: Mapping[Value, Frame],
    inlined: Container[Value],
    facts: FactTable,
    spare: Sequence[Axis],
) -> Iterator[Frame]:
    """Return the frames that the reads of a pointwise node allow; the caller tests each.

    Args:
        node: Reads members of the group, maybe through inlined values.
        base: Frames of the members.
        inlined: Values that are evaluated where they are read.
        facts: What nodes read.
        spare: Axes of the group, for dimensions of the result that a read does not name (what it broadcasts along).
    """
    seen: dict[Frame, None] = {}
    for value, access in facts.accessed(node):
        start = _frame_of(value, base, inlined, facts, spare)
        if start is None or access.gathers:
            continue
        for frame in solve(access.index, start, node, value, spare):
            if frame not in seen:
                seen[frame] = None
                yield frame


def _frame_of(
    value: Value,
    base: Mapping[Value, Frame],
    inlined: Container[Value],
    facts: FactTable,
    spare: Sequence[Axis],
) -> Frame | None:
    """Return the frame of a value: a member's, or that of an inlined value which reads one (depth is bounded)."""
    if value in base:
        return base[value]
    if value not in inlined or value.node is None:
        return None
    return next(frames_of(value.node, base, inlined, facts, spare), None)


def solve(
    index: Index, target: Frame, node: Node, value: Value, spare: Sequence[Axis]
) -> Iterator[Frame]:
    """Return frames of `node` under which its read of `value` at `index` comes out at `target`."""
    shape = node.results[0].type.shape
    plain = _solve_plain(index, target, shape, spare)
    if plain is not None:
        yield plain
    if prod(shape) == prod(value.type.shape):
        yield reshape_index(target, value.type.shape, shape)


def _solve_plain(
    index: Index, target: Frame, shape: Sequence[int], spare: Sequence[Axis]
) -> Frame | None:
    """Solve when every index entry is a constant or one axis of the node's own (`i0`, `i1`, …)."""
    found: dict[Axis, Affine] = {}
    for entry, wanted in zip(index, target, strict=True):
        if not isinstance(entry, Affine):
            return None
        if entry.is_constant:
            continue
        axis = plain_axis(entry)
        if axis is None or found.setdefault(axis, wanted) != wanted:
            return None
    used = {a for i in found.values() for a in i.axes}
    left = [a for a in spare if a not in used and a.extent != 1]
    frame: list[Affine] = []
    for d, n in enumerate(shape):
        own = Axis(f"i{d}", int(n))
        if own in found:
            frame.append(found[own])
        elif n == 1:
            frame.append(Affine())
        else:
            axis = next((a for a in left if a.extent == n), None)
            if axis is None:
                return None
            left.remove(axis)
            frame.append(Affine.of(axis))
    return tuple(frame)


def plain_axis(entry: Affine) -> Axis | None:
    """Return the axis that an index entry is, None if it is anything else."""
    if entry.const or len(entry.terms) != 1:
        return None
    atom, factor = entry.terms[0]
    return atom if isinstance(atom, Axis) and factor == 1 else None


def placed(own: Sequence[Axis], frame: Frame) -> Callable[[Affine], Affine]:
    """Return the substitution of a node's own axes by its frame."""
    bind = dict(zip(own, frame, strict=True))
    return lambda index: index.substitute(bind)
