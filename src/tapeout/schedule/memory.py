"""Gives every transient buffer its place: two that are alive at once never overlap."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.kernel.program import Buffer, numbered
from tapeout.schedule.layout import align
from tapeout.schedule.lives import lives_of
from tapeout.schedule.packing import improved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.ir.op import Array
    from tapeout.kernel.program import Item, Layout, Space
    from tapeout.schedule.model import Home, Region
    from tapeout.schedule.nest import View

LARGE = 50
"""A block is large if so many of it fill what is alive at once."""

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Demand:
    """A block of memory that is needed from one item to another, both included.

    Attributes:
        name: Unique.
        bytes: Its size.
        first: Number of the first item that touches it.
        last: Number of the last item that touches it.
    """

    name: str
    bytes: int
    first: int
    last: int


def plan(demands: Sequence[Demand], start: int = 0) -> tuple[dict[str, int], int]:
    """Return the offset of each block and the end of the last one.

    Blocks are placed from the largest to the smallest, each into the tightest gap between those already placed that are alive
    with it. Where that loses bytes between large blocks, a fixed number of other orders are tried (`schedule/packing.py`).

    Args:
        demands: The blocks.
        start: Where the memory begins; a multiple of 64.
    """
    order = sorted(demands, key=lambda d: (-d.bytes, d.first, d.name))
    offsets, end = _placed(order, start)
    least = _alive_at_once(demands)
    if end - start > least:
        large = [d for d in order if LARGE * d.bytes >= least]
        blocks = [(align(d.bytes), d.first, d.last) for d in large]
        better = [large[n] for n in improved(blocks)]
        other = _placed([*better, *order[len(large) :]], start)
        offsets, end = min((offsets, end), other, key=lambda found: found[1])
    return {d.name: offsets[d.name] for d in demands}, end


def _alive_at_once(demands: Sequence[Demand]) -> int:
    """Return the most bytes needed at one time."""
    steps: dict[int, int] = {}
    for d in demands:
        steps[d.first] = steps.get(d.first, 0) + align(d.bytes)
        steps[d.last + 1] = steps.get(d.last + 1, 0) - align(d.bytes)
    return max(accumulate(steps[n] for n in sorted(steps)), default=0)


def _placed(demands: Sequence[Demand], start: int) -> tuple[dict[str, int], int]:
    """Return the offsets of blocks placed in the order given, and the end of the last one."""
    offsets: dict[str, int] = {}
    end = start
    # One row per placed block: first item, last item, start, stop. Thousands of blocks are compared with each, in numpy.
    placed = np.zeros((4, len(demands)), np.int64)
    for count, d in enumerate(demands):
        first, last, starts, stops = placed[:, :count]
        together = (first <= d.last) & (last >= d.first)
        order = np.argsort(starts[together], kind="stable")
        size = align(d.bytes)
        at = _tightest(starts[together][order], stops[together][order], size, start)
        placed[:, count] = d.first, d.last, at, at + size
        offsets[d.name] = at
        end = max(end, at + size)
    return offsets, end


def _tightest(starts: Ints, stops: Ints, size: int, low: int) -> int:
    """Return the start of the smallest gap that fits between blocks sorted by start, or the end of all blocks."""
    if not size or not starts.size:
        return low
    reach = np.maximum.accumulate(np.concatenate([[low], stops]))
    gaps = starts - reach[:-1]
    fitting = np.nonzero(gaps >= size)[0]
    if not fitting.size:
        return int(reach[-1])
    return int(reach[fitting[np.argmin(gaps[fitting])]])


@dataclass(frozen=True)
class Placed:
    """Buffers with their places.

    Attributes:
        buffers: By name.
        arena: Bytes of the arena.
        data: The constants.
    """

    buffers: dict[str, Buffer]
    arena: int
    data: bytes


def place(
    items: Sequence[Item],
    homes: Mapping[str, Home],
    regions: Sequence[Region],
    layout: Layout,
    constants: Mapping[str, Array],
    inputs: Mapping[str, object],
    outputs: Mapping[str, str],
    views: Mapping[str, View],
) -> Placed:
    """Return the buffers that a program touches, each at its place.

    Args:
        items: Launches, checks, loops and branches, in order.
        homes: What they touch, by name, and all inputs and outputs.
        regions: Homes at fixed distances from each other.
        layout: Where variables live.
        constants: The data of constants by name.
        inputs: Names of the inputs, in order.
        outputs: Output name to home name.
        views: Homes that are parts of others, by name.
    """
    lives = lives_of(items, views, outputs.values(), regions)
    used = {n: h for n, h in homes.items() if n in lives or n in inputs}
    used.update((r.home.name, r.home) for r in regions if r.home.name in lives)
    whole = {n: h for n, h in used.items() if n not in views}
    offsets, arena = _transient(whole, lives, regions, layout.bytes)
    offsets.update((s.name, s.offset) for s in layout.slots)
    for r in regions:
        if r.home.space == "variable":
            offsets[r.home.name] = offsets[r.parts[0][0]]
    data = bytearray()
    for name in used:
        if name in constants:
            data += bytes(align(len(data)) - len(data))
            offsets[name] = len(data)
            data += np.ascontiguousarray(constants[name]).tobytes()
    offsets.update((name, n) for n, name in enumerate(inputs))
    offsets.update((name, v.offset) for name, v in views.items())
    spaces = _spaces(used, regions, outputs)
    count = sum(1 for _ in numbered(items))
    buffers = {}
    for name, home in used.items():
        first, last = lives.get(name, (-1, -1))
        if home.space in ("input", "variable", "constant"):
            first = -1
        if home.space == "variable":
            last = count
        of, step, level = _moves(views.get(name))
        buffers[name] = Buffer(
            name, home.type, home.order, spaces[name], offsets[name], first, last, of, step, level
        )
    return Placed(buffers, arena, bytes(data))


def _moves(view: View | None) -> tuple[str, int, int]:
    """Return what a buffer is a part of, and which loop moves it by how many bytes."""
    return ("", 0, 0) if view is None else (view.of.name, view.step, view.level)


def _transient(
    used: Mapping[str, Home],
    lives: Mapping[str, tuple[int, int]],
    regions: Sequence[Region],
    start: int,
) -> tuple[dict[str, int], int]:
    """Return the places of everything that does not outlive the program, and the end of the arena."""
    inside = {name: (r.home.name, at) for r in regions for name, at in r.parts}
    demands = [
        Demand(n, h.type.bytes, *lives[n])
        for n, h in used.items()
        if h.space in ("activation", "gradient") and n not in inside
    ]
    offsets, end = plan(demands, start)
    for name, (region, at) in inside.items():
        if region in offsets:
            offsets[name] = offsets[region] + at
    return offsets, end


def _spaces(
    used: Mapping[str, Home], regions: Sequence[Region], outputs: Mapping[str, str]
) -> dict[str, Space]:
    spaces = {name: home.space for name, home in used.items()}
    for name in outputs.values():
        if spaces[name] == "activation":
            spaces[name] = "output"
    for r in regions:
        if r.home.space == "gradient":
            spaces.update((name, "gradient") for name, _ in r.parts)
    return spaces
