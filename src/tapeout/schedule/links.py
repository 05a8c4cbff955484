"""Which group must run before which, kept free of cycles while groups grow.

Each group has a level above those of all groups it depends on, so that a search for a path between two groups never leaves the
band of levels between them.
"""

from __future__ import annotations

SEARCH_LIMIT = 4000
"""Groups that one search for a path may visit; beyond, a path is assumed."""


class Links:
    """A graph of numbered groups without cycles."""

    def __init__(self) -> None:
        self._before: list[dict[int, None]] = []
        self._after: list[dict[int, None]] = []
        self._level: list[int] = []

    def add(self) -> int:
        """Return the number of a new group that depends on nothing."""
        self._before.append({})
        self._after.append({})
        self._level.append(0)
        return len(self._level) - 1

    def level(self, group: int) -> int:
        """Return a number above those of all groups that must run before."""
        return self._level[group]

    def before(self, group: int) -> tuple[int, ...]:
        """Return the groups that a group depends on directly."""
        return tuple(self._before[group])

    def leads_to(self, first: int, second: int) -> bool:
        """Return whether `second` depends on `first`, directly or not."""
        floor = self._level[first]
        stack, seen = [second], {second: None}
        while stack:
            group = stack.pop()
            if group == first:
                return True
            for b in self._before[group]:
                if b not in seen and self._level[b] >= floor:
                    seen[b] = None
                    stack.append(b)
            if len(seen) > SEARCH_LIMIT:
                return True
        return False

    def between(self, first: int, second: int) -> bool:
        """Return whether a third group stands between two: it depends on `first`, and `second` on it."""
        return any(a != second and self.leads_to(a, second) for a in self._after[first])

    def merge(self, source: int, target: int) -> None:
        """Let `target` stand for both groups; the caller has made sure that no third stands between them."""
        for b in self._before[source]:
            del self._after[b][source]
            if b != target:
                self._before[target][b] = self._after[b][target] = None
        for a in self._after[source]:
            del self._before[a][source]
            if a != target:
                self._after[target][a] = self._before[a][target] = None
        self._before[target].pop(source, None)
        self._after[target].pop(source, None)
        self._before[source], self._after[source] = {}, {}
        self._raise(target, max((self._level[b] + 1 for b in self._before[target]), default=0))
        for a in self._after[target]:
            self._raise(a, self._level[target] + 1)

    def link(self, first: int, second: int) -> None:
        """Say that `second` depends on `first`; the caller has made sure that no cycle arises."""
        if first == second:
            return
        self._before[second][first] = None
        self._after[first][second] = None
        self._raise(second, self._level[first] + 1)

    def _raise(self, group: int, level: int) -> None:
        if self._level[group] >= level:
            return
        self._level[group] = level
        stack = [group]
        while stack:
            g = stack.pop()
            for a in self._after[g]:
                if self._level[a] <= self._level[g]:
                    self._level[a] = self._level[g] + 1
                    stack.append(a)

    def in_order(self) -> list[int]:
        """Return all groups, each after those it depends on, otherwise by number."""
        return sorted(range(len(self._level)), key=lambda g: (self._level[g], g))
