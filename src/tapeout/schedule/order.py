"""Puts kernels in an order with little memory alive at once. Deterministic; what serves only updates comes last."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.schedule.model import Home
    from tapeout.schedule.nest import AnyWork

WIDEST = 64
"""Most ready kernels that are compared at each step."""


def order(
    works: Sequence[AnyWork], homes: Mapping[str, Home], kept: Mapping[str, None]
) -> tuple[AnyWork, ...]:
    """Return the kernels in a better order.

    Args:
        works: In an order that is right: two kernels of which one writes what the other touches keep their order.
        homes: By name.
        kept: Homes whose content must last to the end.
    """
    before = dependencies(works)
    candidates = [_late_last(works, range(len(works)))]
    candidates.append(_late_last(works, _greedy(works, before, homes, kept)))
    best = min(candidates, key=lambda c: peak([works[i] for i in c], homes, kept))
    return tuple(works[i] for i in best)


def _late_last(works: Sequence[AnyWork], numbers: Sequence[int]) -> list[int]:
    return [i for i in numbers if not works[i].late] + [i for i in numbers if works[i].late]


def dependencies(works: Sequence[AnyWork]) -> list[tuple[int, ...]]:
    """Return, for each kernel, the earlier ones that must run before it."""
    writer: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    before: list[tuple[int, ...]] = []
    for i, work in enumerate(works):
        found: dict[int, None] = {}
        for name in work.reads:
            if name in writer:
                found[writer[name]] = None
        for name in work.writes:
            if name in writer:
                found[writer[name]] = None
            found.update((r, None) for r in readers.get(name, ()))
        for name in work.writes:
            writer[name], readers[name] = i, []
        for name in work.reads:
            readers.setdefault(name, []).append(i)
        found.pop(i, None)
        before.append(tuple(found))
    return before


def _greedy(
    works: Sequence[AnyWork],
    before: Sequence[tuple[int, ...]],
    homes: Mapping[str, Home],
    kept: Mapping[str, None],
) -> list[int]:
    """Run next what adds least memory, among what can run."""
    waiting = [len(b) for b in before]
    after: list[list[int]] = [[] for _ in works]
    for i, b in enumerate(before):
        for j in b:
            after[j].append(i)
    live = _Live(works, homes, kept)
    ready = [i for i, n in enumerate(waiting) if not n]
    done: list[int] = []
    while ready:
        chosen = min(ready[:WIDEST], key=lambda i: (works[i].late, live.growth(i), i))
        ready.remove(chosen)
        live.run(chosen)
        done.append(chosen)
        for i in after[chosen]:
            waiting[i] -= 1
            if not waiting[i]:
                ready.append(i)
        ready.sort()
    return done


class _Live:
    """What is alive while kernels run one after the other."""

    def __init__(
        self, works: Sequence[AnyWork], homes: Mapping[str, Home], kept: Mapping[str, None]
    ) -> None:
        self.works = works
        spaces = ("activation", "gradient")
        self.size = {n: h.type.bytes for n, h in homes.items() if h.space in spaces}
        self.left: dict[str, int] = {}
        for work in works:
            for name in work.touches:
                self.left[name] = self.left.get(name, 0) + 1
        for name in kept:
            self.left[name] = self.left.get(name, 0) + 1
        self.alive: dict[str, None] = {}
        self.bytes = 0

    def growth(self, i: int) -> int:
        """Return the bytes that stay alive more after kernel `i` than before."""
        total = 0
        for name in self.works[i].touches:
            size = self.size.get(name, 0)
            total += size if name not in self.alive else 0
            total -= size if self.left[name] == 1 else 0
        return total

    def run(self, i: int) -> int:
        """Run kernel `i` and return the bytes alive during it."""
        names = self.works[i].touches
        for name in names:
            if name not in self.alive:
                self.alive[name] = None
                self.bytes += self.size.get(name, 0)
        during = self.bytes
        for name in names:
            self.left[name] -= 1
            if not self.left[name]:
                self.bytes -= self.size.get(name, 0)
        return during


def peak(works: Sequence[AnyWork], homes: Mapping[str, Home], kept: Mapping[str, None]) -> int:
    """Return the most bytes alive at once."""
    live = _Live(works, homes, kept)
    return max((live.run(i) for i in range(len(works))), default=0)
