"""Finds kernels that run one after the other at each point of axes that all of them share.

Products whose operands both belong to a point of some axes (a sequence and a head), and what is computed from them point by point
of these axes, become one launch: its tasks find in the cache what the kernel before has made, and what only they need never lies in
memory as a whole. Nothing here knows what the kernels compute; index maps decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import ContractionKernel, Index, LoopKernel, Store
from tapeout.schedule.lower.chain import ChainKernel, Link
from tapeout.schedule.lower.exprs import loads as loads_of
from tapeout.schedule.lower.exprs import postorder
from tapeout.schedule.lower.normal import offset_of
from tapeout.schedule.model import Work
from tapeout.schedule.order import dependencies

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from tapeout.kernel.compute import Expr
    from tapeout.schedule.model import Home
    from tapeout.schedule.nest import AnyWork

LEAST_TASKS = 4
"""With fewer points of the shared axes, kernels are better dealt to threads one by one."""

LEAST_WORK = 1 << 17
"""Multiply-adds of all products of a point from which a task is worth its while."""

MOST_LINKS = 8
"""Kernels of a chain: its code is one function, and compilers take more than twice as long for one twice as large."""

_SKIPPED = 8

At = tuple[tuple[int, int], ...]
"""For each shared axis the dimension of a buffer that moves along it, and by how much."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Works that become one launch.

    Attributes:
        works: In order.
        axes: For each work, its axes that are the shared ones.
        local: Names of the homes that only these works touch.
    """

    works: tuple[Work, ...]
    axes: tuple[tuple[Axis, ...], ...]
    local: tuple[str, ...]

    @property
    def homes(self) -> dict[str, Home]:
        """What all works touch, by name."""
        return {h.name: h for w in self.works for h in w.homes}

    def kernel(self) -> tuple[ChainKernel, dict[str, str]]:
        """Return the kernel, its buffers numbered, and the name of the home behind each of them."""
        names = {name: f"h{n}" for n, name in enumerate(self.homes)}
        links = []
        for work, axes in zip(self.works, self.axes, strict=True):
            assert isinstance(work.kernel, LoopKernel | ContractionKernel)
            links.append(Link(work.kernel, tuple(names[h.name] for h in work.homes), axes))
        local = tuple(names[name] for name in self.local)
        return ChainKernel(self.axes[0], tuple(links), local), {v: k for k, v in names.items()}


def chained(
    works: Sequence[AnyWork], kept: Container[str], fits: Callable[[Chain], bool]
) -> list[AnyWork | Chain]:
    """Return the works with those that go well together as chains.

    Args:
        works: In the order in which they run.
        kept: Homes that must lie in memory: outputs, checks and the like.
        fits: Whether a task of a chain has room for what it keeps to itself; shorter chains are tried if it has not.
    """
    touching: dict[str, list[int]] = {}
    for i, work in enumerate(works):
        for name in work.touches:
            touching.setdefault(name, []).append(i)
    before = dependencies(works)
    out: list[AnyWork | Chain] = []
    i = 0
    while i < len(works):
        found = None
        for most in range(MOST_LINKS, 1, -1):
            draft = _started(works[i], i)
            if draft is None:
                break
            end = _extended(draft, works, before, most)
            chain = draft.finished(touching, kept)
            if chain is None or fits(chain):
                found = chain
                break
        if draft is None or found is None:
            out.append(works[i])
            i += 1
            continue
        members = dict.fromkeys(draft.numbers)
        out += [works[n] for n in range(i, end) if n not in members]
        out.append(found)
        i = end
    return out


def _extended(
    draft: _Draft, works: Sequence[AnyWork], before: Sequence[tuple[int, ...]], most: int
) -> int:
    """Let a chain take what follows it; return the number of the first work behind it and those that it passed over."""
    skipped: list[int] = []
    end = draft.numbers[0] + 1
    for n in range(end, len(works)):
        work = works[n]
        if work.late or not isinstance(work, Work):
            break
        if len(draft.numbers) == most:
            break
        if draft.take(work, n):
            end = n + 1
            continue
        # What comes after the chain anyway ends it; what does not need it may run first.
        members = dict.fromkeys(draft.numbers)
        if any(b in members for b in before[n]) or len(skipped) == _SKIPPED:
            break
        skipped.append(n)
    return end


@dataclass
class _Draft:
    """A chain while it is put together.

    Attributes:
        numbers: Of its works.
        works: Its works.
        axes: For each work its shared axes.
        at: Where each home that it touches moves along the shared axes; None if it moves in another way, or in several.
        written: Homes that it writes.
    """

    numbers: list[int]
    works: list[Work]
    axes: list[tuple[Axis, ...]]
    at: dict[str, At | None] = field(default_factory=dict)
    written: dict[str, None] = field(default_factory=dict)

    def take(self, work: Work, number: int) -> bool:
        """Take a work that shares the axes, if its points then need nothing of each other; return whether it was taken."""
        axes = self._axes_in(work)
        if axes is None or not _is_regular(work, axes):
            return False
        places = _places(work, axes)
        written = {**self.written, **dict.fromkeys(work.writes)}
        for name, at in places.items():
            if name in written and (at is None or self.at.get(name, at) != at):
                return False
        for name in work.writes:
            if name in self.at and self.at[name] != places[name]:
                return False
        self.add(work, number, axes, places)
        return True

    def add(
        self, work: Work, number: int, axes: tuple[Axis, ...], places: Mapping[str, At | None]
    ) -> None:
        """Append a work whose shared axes are `axes`."""
        self.numbers.append(number)
        self.works.append(work)
        self.axes.append(axes)
        for name, at in places.items():
            self.at[name] = at if self.at.get(name, at) == at else None
        self.written.update(dict.fromkeys(work.writes))

    def _axes_in(self, work: Work) -> tuple[Axis, ...] | None:
        """Return which axes of a work are the shared ones, by where homes move that both touch."""
        free = _free_axes(work)
        shared = self.axes[0]
        found: dict[int, Axis] = {}
        for name, index in _accesses(work):
            at = self.at.get(name)
            if at is None:
                continue
            for n, (dim, step) in enumerate(at):
                i = index[dim]
                axis = _mover(i, step, shared[n].extent, free)
                if axis is not None and axis not in found.values():
                    found.setdefault(n, axis)
        if len(found) < len(shared):
            return None
        return tuple(found[n] for n in range(len(shared)))

    def finished(self, touching: Mapping[str, Sequence[int]], kept: Container[str]) -> Chain | None:
        """Return the chain, None if it saves nothing."""
        products = [w for w in self.works if isinstance(w.kernel, ContractionKernel)]
        members = dict.fromkeys(self.numbers)
        local = tuple(
            name
            for name in self.written
            if name not in kept
            and _is_transient(name, self.works)
            and all(n in members for n in touching[name])
        )
        if len(products) < 2 or not self._hands_on():
            return None
        return Chain(tuple(self.works), tuple(self.axes), local)

    def _hands_on(self) -> bool:
        """Whether a work reads what another one before it writes."""
        written: dict[str, None] = {}
        for work in self.works:
            if any(name in written for name in work.reads):
                return True
            written.update(dict.fromkeys(work.writes))
        return False


def _is_transient(name: str, works: Iterable[Work]) -> bool:
    return any(h.name == name and h.space == "activation" for w in works for h in w.homes)


def _started(work: AnyWork, number: int) -> _Draft | None:
    """Return a chain that begins with a work: a product whose operands both move along some axes."""
    if not isinstance(work, Work) or work.late or not isinstance(work.kernel, ContractionKernel):
        return None
    axes = tuple(a for a in work.kernel.batch if a.extent > 1)
    points = prod(a.extent for a in axes)
    k = work.kernel
    once = prod(a.extent for a in (*k.m, *k.n, *k.k))
    if points < LEAST_TASKS or once < LEAST_WORK or not _is_regular(work, axes):
        return None
    if _side_by_side(k, axes):
        return None
    places = _places(work, axes)
    if any(places[name] is None for name in work.writes):
        return None
    draft = _Draft([], [], [])
    draft.add(work, number, axes, places)
    return draft


def _side_by_side(kernel: ContractionKernel, axes: Sequence[Axis]) -> bool:
    """Whether points of some axes are neighbours in memory: lanes should run along these, and no task have but one of them."""
    buffers = {b.name: b for b in kernel.buffers}
    places = [offset_of(e, buffers) for e in loads_of(kernel.a, kernel.b)]
    return any(at.coefficient(a) == 1 for at in places for a in axes)


def _free_axes(work: Work) -> tuple[Axis, ...]:
    """Return the axes of a work whose points are independent and that no operand stays the same along."""
    kernel = work.kernel
    if isinstance(kernel, ContractionKernel):
        return kernel.batch
    return kernel.axes if isinstance(kernel, LoopKernel) else ()


def _values(work: Work) -> list[Expr]:
    kernel = work.kernel
    assert isinstance(kernel, LoopKernel | ContractionKernel)
    factors = [kernel.a, kernel.b] if isinstance(kernel, ContractionKernel) else []
    return [*factors, *(s.value for s in kernel.stages)]


def _accesses(work: Work) -> list[tuple[str, tuple[Affine | Expr, ...]]]:
    """Return the home and the index of every load and store."""
    kernel = work.kernel
    if not isinstance(kernel, LoopKernel | ContractionKernel):
        return []
    homes = {b.name: h.name for b, h in zip(kernel.buffers, work.homes, strict=True)}
    found: list[tuple[str, tuple[Affine | Expr, ...]]] = [
        (homes[s.buffer], s.index) for s in kernel.stages if isinstance(s, Store)
    ]
    return found + [(homes[e.buffer], e.index) for e in loads_of(*_values(work))]


def _is_regular(work: Work, axes: Sequence[Axis]) -> bool:
    """Whether a work can be written for one point of axes: every place is a sum of multiples of them and of something else."""
    kernel = work.kernel
    if not isinstance(kernel, LoopKernel | ContractionKernel) or work.parts:
        return False
    for e in postorder(*_values(work)):
        if isinstance(e, Index) and not _is_sum(e.index, axes):
            return False
    for load in loads_of(*_values(work)):
        if any(a in axes for g in load.where for a in g.index.axes):
            return False
    return all(
        _is_sum(i, axes) for _, index in _accesses(work) for i in index if isinstance(i, Affine)
    )


def _is_sum(index: Affine, axes: Sequence[Axis]) -> bool:
    return not any(
        a in axes for atom, _ in index.terms if not isinstance(atom, Axis) for a in atom.of.axes
    )


def _places(work: Work, axes: Sequence[Axis]) -> dict[str, At | None]:
    """Return where each home that a work touches moves along axes."""
    found: dict[str, At | None] = {}
    for name, index in _accesses(work):
        at = _place(index, axes)
        found[name] = at if found.get(name, at) == at else None
    return found


def _place(index: Sequence[Affine | Expr], axes: Sequence[Axis]) -> At | None:
    """Return the dimension that moves along each axis and by how much, if what belongs to one point is apart from all else."""
    found: list[tuple[int, int]] = []
    for axis in axes:
        dims = [d for d, i in enumerate(index) if isinstance(i, Affine) and axis in i.axes]
        if len(dims) != 1:
            return None
        i = index[dims[0]]
        assert isinstance(i, Affine)
        step = i.coefficient(axis)
        rest = i - Affine.of(axis) * step
        lo, hi = rest.range
        if step < 1 or lo < 0 or hi >= step or any(a in axes for a in rest.axes):
            return None
        found.append((dims[0], step))
    return tuple(found)


def _mover(index: Affine | Expr, step: int, extent: int, free: Sequence[Axis]) -> Axis | None:
    """Return the axis of some extent along which an index moves by a step."""
    if not isinstance(index, Affine):
        return None
    return next((a for a in free if a.extent == extent and index.coefficient(a) == step), None)
