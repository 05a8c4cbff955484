"""Shares the memory of a task among the buffers that it keeps to itself: two that are needed at once never overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.dtype import DType

_LINE = 64


@dataclass(frozen=True)
class Wish:
    """A buffer that is needed from the launch `first` of a task to the launch `last`, both included."""

    name: str
    dtype: DType
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Room:
    """Where the buffers of a task lie.

    Attributes:
        sizes: Elements of the memory of each element type.
        places: The first element of each buffer, in the memory of its type.
    """

    sizes: tuple[tuple[DType, int], ...]
    places: dict[str, int]


def share_room(wishes: Sequence[Wish]) -> tuple[Room, int]:
    """Return where buffers lie, and the bytes that all of them take. The largest are placed first, each as low as it can be."""
    ends: dict[DType, int] = {}
    places: dict[str, int] = {}
    placed: list[tuple[Wish, int, int]] = []
    for wish in sorted(wishes, key=lambda w: (-w.size * w.dtype.bytes, w.first, w.name)):
        step = _LINE // wish.dtype.bytes
        size = -(-max(wish.size, 1) // step) * step
        others = sorted(
            (start, stop)
            for other, start, stop in placed
            if other.dtype == wish.dtype and other.first <= wish.last and wish.first <= other.last
        )
        at = 0
        for start, stop in others:
            if at + size <= start:
                break
            at = max(at, stop)
        placed.append((wish, at, at + size))
        places[wish.name] = at
        ends[wish.dtype] = max(ends.get(wish.dtype, 0), at + size)
    room = Room(tuple(ends.items()), places)
    return room, sum(n * d.bytes for d, n in ends.items())
