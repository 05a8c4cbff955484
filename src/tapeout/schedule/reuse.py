"""Lets a kernel write its result over an operand that dies there: less memory, fewer cache lines."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from tapeout.kernel.compute import ContractionKernel, LoopKernel, Store
from tapeout.schedule.lower.exprs import loads
from tapeout.schedule.model import Work
from tapeout.schedule.nest import Nest
from tapeout.schedule.rehome import rehomed

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from tapeout.kernel.compute import Load, Stage
    from tapeout.schedule.model import Home
    from tapeout.schedule.nest import AnyWork


def reuse(works: Sequence[AnyWork], fixed: Container[str]) -> tuple[AnyWork, ...]:
    """Return the kernels with results written over dying operands.

    A result takes the place of an operand of the same type and layout when the kernel is the last that touches the operand and
    reads it only at the element that it then writes. Several kernels in a row may do so together, each for its own elements.

    Args:
        works: In the order in which they run.
        fixed: Homes that stay where they are: outputs, checks, parts of regions, and what loops and branches touch.
    """
    last = {name: i for i, work in enumerate(works) for name in work.touches}
    writers: dict[str, list[int]] = {}
    for i, work in enumerate(works):
        for name in work.writes:
            writers.setdefault(name, []).append(i)
    became: dict[str, Home] = {}
    out: list[AnyWork] = []
    for i, work in enumerate(works):
        if isinstance(work, Nest):
            out.append(work)
            continue
        taken: dict[str, None] = {}
        for home in work.homes:
            if home.name in fixed or home.name not in work.writes or home.name in work.reads:
                continue
            if home.space != "activation" or writers[home.name][0] != i:
                continue
            parts = [works[n] for n in writers[home.name]]
            end = writers[home.name][-1]
            if not _in_parts(home.name, parts, works[i : end + 1]):
                continue
            dying = [
                h
                for h in _common(parts)
                if h.space == "activation"
                and (last[h.name], h.type, h.order) == (end, home.type, home.order)
                and h.name not in fixed
                and h.name not in taken
                and h.name not in work.writes
            ]
            operand = next(
                (h for h in dying if all(same_place(p, h.name, home.name) for p in parts)), None
            )
            if operand is not None:
                taken[operand.name] = None
                became[home.name] = became.get(operand.name, operand)
        out.append(_moved(work, became))
    return tuple(out)


def in_place(works: Sequence[AnyWork], carried: Sequence[str], own: str) -> tuple[AnyWork, ...]:
    """Return the kernels of a round with next carries written over the old ones where nothing reads those any more.

    Args:
        works: In the order in which they run; the copies of next carries come last.
        carried: Homes of carries that live in one place.
        own: How the names of the round's own homes begin.
    """
    for name in carried:
        works = _written_over(works, name, own)
    return tuple(works)


def _written_over(works: Sequence[AnyWork], carry: str, own: str) -> Sequence[AnyWork]:
    """Return the kernels without the copy into a carry, if what makes its source can write there itself."""
    last = next((w for w in reversed(works) if carry in w.writes), None)
    if not isinstance(last, Work) or len(last.homes) != 2 or carry in last.reads:
        return works
    source, target = (h for h in sorted(last.homes, key=lambda h: h.name == carry))
    touching = [i for i, w in enumerate(works) if source.name in w.touches and w is not last]
    others = [i for i, w in enumerate(works) if carry in w.touches and w is not last]
    makers = [i for i in touching if source.name in works[i].writes]
    if len(makers) != 1 or not source.name.startswith(own) or source.type != target.type:
        return works
    maker = works[makers[0]]
    if not isinstance(maker, Work) or touching[0] != makers[0] or source.order != target.order:
        return works
    if (
        any(isinstance(works[i], Nest) for i in (*touching, *others))
        or max(others, default=-1) > makers[0]
    ):
        return works
    if carry in maker.touches and not _same_place(maker, carry, source.name):
        return works
    became = {source.name: target}
    return [_moved(w, became) if isinstance(w, Work) else w for w in works if w is not last]


def _moved(work: Work, became: Mapping[str, Home]) -> Work:
    homes = tuple(became.get(h.name, h) for h in work.homes)
    if homes == work.homes:
        return work
    if len(dict.fromkeys(h.name for h in homes)) == len(homes):
        return replace(work, homes=homes)
    names = (b.name for b in work.kernel.buffers)
    return rehomed(work.kernel, dict(zip(names, homes, strict=True)), work)


def _same_place(work: Work, operand: str, result: str) -> bool:
    """Whether a kernel reads an operand only at the element that it writes to a result, and not after it wrote."""
    kernel = work.kernel
    names = {h.name: b.name for h, b in zip(work.homes, kernel.buffers, strict=True)}
    if operand not in names or result not in names:
        return False
    if isinstance(kernel, LoopKernel):
        # In a map all values of a point are made before the first is written.
        together = all(isinstance(s, Store) and not s.axes for s in kernel.stages)
        return _same_in(kernel.stages, names[operand], names[result], together=together)
    if not isinstance(kernel, ContractionKernel):
        return False
    if any(e.buffer == names[operand] for e in loads(kernel.a, kernel.b)):
        return False
    return _same_in(kernel.stages, names[operand], names[result], together=False)


def _same_in(stages: Sequence[Stage], operand: str, result: str, *, together: bool) -> bool:
    store = next(s for s in stages if isinstance(s, Store) and s.buffer == result)
    written = False
    for stage in stages:
        found = [e for e in loads(stage.value) if e.buffer == operand]
        if found and ((written and not together) or stage.axes != store.axes):
            return False
        if not all(_reads_at(e, store) for e in found):
            return False
        written = written or stage is store
    return True


def _reads_at(e: Load, store: Store) -> bool:
    return not e.where and e.index == store.index


def same_place(work: AnyWork, operand: str, result: str) -> bool:
    """Return whether a kernel reads an operand only at the element that it writes to a result, and not after it wrote."""
    return not isinstance(work, Nest) and _same_place(work, operand, result)


def _in_parts(name: str, parts: Sequence[AnyWork], span: Sequence[AnyWork]) -> bool:
    """Whether each of several kernels in a row writes elements of a result that no other writes or reads."""
    if len(parts) == 1:
        return True
    if len(parts) != len(span) or any(isinstance(p, Nest) or name in p.reads for p in parts):
        return False
    stores = [s for p in parts if not isinstance(p, Nest) for s in _stores(p, name)]
    return all(_apart(a, b) for a, b in combinations(stores, 2))


def _stores(work: Work, name: str) -> list[Store]:
    names = {b.name for h, b in zip(work.homes, work.kernel.buffers, strict=True) if h.name == name}
    stages = work.kernel.stages if isinstance(work.kernel, LoopKernel | ContractionKernel) else ()
    return [s for s in stages if isinstance(s, Store) and s.buffer in names]


def _apart(a: Store, b: Store) -> bool:
    """Whether two stores differ in the rest of an index by a step, as the parities of a strided gradient do."""
    for x, y in zip(a.index, b.index, strict=True):
        steps = {c for _, c in (*x.terms, *y.terms)}
        if len(steps) == 1 and (x.const - y.const) % steps.pop():
            return True
    return False


def _common(parts: Sequence[AnyWork]) -> list[Home]:
    """Return the homes that all of several kernels touch, in the order of the first."""
    return [h for h in parts[0].homes if all(h in p.homes for p in parts)]
