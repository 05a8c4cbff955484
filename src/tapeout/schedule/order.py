"""Puts kernels in an order with little memory alive at once. Deterministic; what serves only updates comes last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.schedule.reuse import same_place
from tapeout.support.loc import AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tapeout.schedule.model import Home
    from tapeout.schedule.nest import AnyWork

WIDEST = 64
"""Most ready kernels that are compared at each step."""


def order(
    works: Sequence[AnyWork],
    homes: Mapping[str, Home],
    kept: Mapping[str, None],
    scratch: Callable[[AnyWork], int] = lambda _: 0,
) -> tuple[AnyWork, ...]:
    """Return the kernels in a better order.

    Args:
        works: In an order that is right: two kernels of which one writes what the other touches keep their order.
        homes: By name.
        kept: Homes whose content must last to the end.
        scratch: Says how many bytes a kernel needs while it runs.
    """
    before = dependencies(works)
    candidates = [_late_last(works, range(len(works)))]
    candidates += [_late_last(works, _greedy(works, before, homes, kept, tie)) for tie in (1, -1)]
    candidates.append(_late_last(works, _sunk(works, before, homes, candidates[0])))
    extra = [scratch(w) for w in works]
    best = min(
        candidates,
        key=lambda c: peak([works[i] for i in c], homes, kept, [extra[i] for i in c]),
    )
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
    tie: int,
) -> list[int]:
    """Run next what adds least memory, among what can run; what is computed anew runs right before the first that needs it.

    Of several that add equally little the first runs if `tie` is 1, the last if it is -1.
    """
    steps = _Steps(works, before)
    live = _Live(works, homes, kept)
    done: list[int] = []
    while steps.ready:
        some = sorted(steps.ready)[:WIDEST]
        chosen = min(some, key=lambda i: (works[i].late, live.growth(steps.ready[i]), tie * i))
        for i in steps.ready[chosen]:
            live.run(i)
            done.append(i)
        steps.run(chosen)
    return done


class _Steps:
    """Kernels that can run next, each with those before it that compute anew what it needs."""

    def __init__(self, works: Sequence[AnyWork], before: Sequence[tuple[int, ...]]) -> None:
        self.before = before
        self.after: list[list[int]] = [[] for _ in works]
        for i, b in enumerate(before):
            for j in b:
                self.after[j].append(i)
        # One that nothing needs is no use to wait for.
        self.lazy = [w.loc.role == AGAIN and bool(self.after[i]) for i, w in enumerate(works)]
        self.done = [False] * len(works)
        self.ready: dict[int, list[int]] = {}
        for i in range(len(works)):
            self._look(i)

    def _look(self, i: int) -> None:
        """Note whether a kernel can run."""
        if self.lazy[i] or self.done[i]:
            return
        chain: dict[int, None] = {}
        stack = [i]
        while stack:
            missing = [j for j in self.before[stack[-1]] if not self.done[j] and j not in chain]
            if any(not self.lazy[j] for j in missing):
                return
            if missing:
                stack.append(missing[0])
            else:
                chain[stack.pop()] = None
        self.ready[i] = list(chain)

    def run(self, chosen: int) -> None:
        """Note that a kernel has run, and those before it that it needed."""
        ran = self.ready.pop(chosen)
        for i in ran:
            self.done[i] = True
        seen: dict[int, None] = {}
        pending = [a for i in ran for a in self.after[i]]
        while pending:
            i = pending.pop()
            if i in seen:
                continue
            seen[i] = None
            self._look(i)
            if self.lazy[i]:
                pending += self.after[i]
        for i, chain in list(self.ready.items()):
            if i not in seen and any(self.done[j] for j in chain):
                self._look(i)


def _sunk(
    works: Sequence[AnyWork],
    before: Sequence[tuple[int, ...]],
    homes: Mapping[str, Home],
    numbers: Sequence[int],
) -> list[int]:
    """Move each kernel that adds to what is alive, or computes something anew, down to just before the first that needs it."""
    after: list[list[int]] = [[] for _ in works]
    for i, b in enumerate(before):
        for j in b:
            after[j].append(i)
    last = {name: i for i in numbers for name in works[i].touches}
    sizes = {n: h.type.bytes for n, h in homes.items() if h.space in ("activation", "gradient")}
    # From the last to the first, so that what a kernel waits for has its final place.
    out: list[int] = []
    for i in reversed(numbers):
        work = works[i]
        made = sum(sizes.get(n, 0) for n in work.writes)
        freed = sum(sizes.get(n, 0) for n in work.reads if last[n] == i)
        if (made <= freed and work.loc.role != AGAIN) or not after[i]:
            out.append(i)
            continue
        needed = dict.fromkeys(after[i])
        place = next(n for n in range(len(out) - 1, -1, -1) if out[n] in needed)
        out.insert(place + 1, i)
    return out[::-1]


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
        self.writers: dict[str, list[int]] = {}
        for i, work in enumerate(works):
            for name in work.writes:
                self.writers.setdefault(name, []).append(i)
        self.alive: dict[str, None] = {}
        self.moved: dict[str, None] = {}
        self.bytes = 0

    def growth(self, numbers: Sequence[int]) -> int:
        """Return the bytes that stay alive more after some kernels than before."""
        total = 0
        used: dict[str, int] = {}
        for i in numbers:
            for name in self.works[i].touches:
                size = self.size.get(name, 0)
                total += size if name not in self.alive and name not in used else 0
                used[name] = used.get(name, 0) + 1
                total -= size if self.left[name] == used[name] else 0
        return total

    def run(self, i: int) -> int:
        """Run kernel `i` and return the bytes alive during it."""
        names = self.works[i].touches
        for name in names:
            if name in self.alive:
                continue
            self.alive[name] = None
            # A result that can be written over an operand takes its place.
            operand = self._dying(i, name)
            if operand is None:
                self.bytes += self.size.get(name, 0)
            else:
                self.moved[operand] = None
        during = self.bytes
        for name in names:
            self.left[name] -= 1
            if not self.left[name] and name not in self.moved:
                self.bytes -= self.size.get(name, 0)
        return during

    def _dying(self, i: int, name: str) -> str | None:
        """Return an operand that nothing touches any more but the kernels that make a result, which can be written over it."""
        work, parts = self.works[i], self.writers.get(name, ())
        home = next((h for h in work.homes if h.name == name), None)
        if home is None or name in work.reads or not self.size.get(name) or parts[:1] != [i]:
            return None
        for h in work.homes:
            if h.name in self.moved or h.name in work.writes or self.left.get(h.name) != len(parts):
                continue
            if not self.size.get(h.name) or (h.type, h.order) != (home.type, home.order):
                continue
            if all(same_place(self.works[p], h.name, name) for p in parts):
                return h.name
        return None


def peak(
    works: Sequence[AnyWork],
    homes: Mapping[str, Home],
    kept: Mapping[str, None],
    scratch: Sequence[int] = (),
) -> int:
    """Return the most bytes alive at once; `scratch` are those that each kernel needs while it runs."""
    live = _Live(works, homes, kept)
    extra = scratch or [0] * len(works)
    return max((live.run(i) + extra[i] for i in range(len(works))), default=0)
