"""Several kernels as one: a grid over axes that all of them share, and inside of each task one kernel after the other.

A task of batched products works on operands that no other task touches. Run one after the other for one point of the shared axes,
kernels find what the last one made in the cache, and what nothing else reads never leaves it: it lies in a local buffer of the task.

Each kernel is lowered as if the shared axes stood at 0; its loops are then written into the task, with the place of the point added to
the indices. Nothing here knows how a kernel is lowered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.ir.dtype import i64
from tapeout.kernel.compute import (
    Buffer,
    ContractionKernel,
    ExprBuilder,
    Index,
    Load,
    LoopKernel,
    Numerics,
)
from tapeout.kernel.compute import Store as StageStore
from tapeout.schedule.lower.exprs import Rewriter, postorder, shared_load
from tapeout.schedule.lower.finish import finish
from tapeout.schedule.lower.grid import open_chunk, open_grid, open_loops, plan_grid
from tapeout.schedule.lower.inline import inlined
from tapeout.schedule.lower.lower import lower
from tapeout.schedule.lower.result import Lowered, LoweredLaunch
from tapeout.schedule.lower.room import Room, Wish, share_room
from tapeout.schedule.lower.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.ir.dtype import DType
    from tapeout.kernel.compute import Expr, Stage
    from tapeout.kernel.loops import Expr as LoopExpr
    from tapeout.kernel.target import Target

_POINT = "point"
"""The local buffer that holds the numbers of a task's point, for kernels that use them as values."""


@dataclass(frozen=True)
class Link:
    """One kernel of a chain.

    Attributes:
        kernel: A loop or contraction kernel.
        names: What each of its buffers is called in the chain.
        axes: Its axes that are the shared ones, in their order.
    """

    kernel: LoopKernel | ContractionKernel
    names: tuple[str, ...]
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class ChainKernel:
    """Kernels that run one after the other at each point of shared axes.

    Attributes:
        axes: The shared axes; their points are independent of each other.
        links: The kernels in order.
        local: The buffers that nothing outside of the chain needs.
    """

    axes: tuple[Axis, ...]
    links: tuple[Link, ...]
    local: tuple[str, ...]


def lower_chain(chain: ChainKernel, target: Target, most_bytes: int) -> Lowered | None:
    """Return a chain as one launch, None if what a task keeps to itself takes more than `most_bytes`."""
    return _ChainLowering(chain, target).lower(most_bytes)


@dataclass(frozen=True)
class _Place:
    """Where a buffer of a part lies: a buffer of the chain, and elements per step along each shared axis."""

    buffer: str
    steps: tuple[int, ...]


class _ChainLowering:
    """Lowers one chain."""

    def __init__(self, chain: ChainKernel, target: Target) -> None:
        self.chain, self.target = chain, target
        self.whole: dict[str, Buffer] = {}
        self.wishes: dict[str, Wish] = {}
        self.launches: list[tuple[LoweredLaunch, dict[str, _Place]]] = []
        self.points = prod(a.extent for a in chain.axes)
        self.uses_point = False

    def lower(self, most_bytes: int) -> Lowered | None:
        """Return the launch."""
        for number, link in enumerate(self.chain.links):
            self._part(number, link)
        rooms, size = share_room(tuple(self.wishes.values()))
        if size > most_bytes:
            return None
        flops = sum(launch.flops for launch, _ in self.launches)
        grid = plan_grid([a.extent for a in self.chain.axes], float(max(flops, 1)))
        self.w = Writer()
        with open_grid(self.w, self.chain.axes, grid) as task:
            names = {d: self.w.alloc(d, 1, n, "local", f"room_{d.name}") for d, n in rooms.sizes}
            cut, *inside = self.chain.axes[grid.axis :]
            with open_chunk(self.w, cut, task) as at, open_loops(self.w, inside) as bind:
                self._write({**task.bind, cut: at, **bind}, rooms, names)
        done = finish(self.w, tuple(self.whole.values()), Numerics())
        bytes_ = self.points * sum(launch.bytes for launch, _ in self.launches)
        return Lowered((LoweredLaunch(done.kernel, done.args, self.points * flops, bytes_),))

    # -- parts --------------------------------------------------------------------------------------

    def _part(self, number: int, link: Link) -> None:
        """Lower one kernel with the shared axes at 0, and note where its buffers lie."""
        part = _Part(link, number, frozenset(self.chain.local))
        lowered = lower(part.kernel, self.target)
        for name, buffer in part.whole.items():
            self.whole.setdefault(name, replace(buffer, name=name))
        places = part.places
        self.uses_point = self.uses_point or part.uses_point
        for s in lowered.scratch:
            name = f"{number}.{s.name}"
            self.wishes[name] = Wish(name, s.dtype, s.size, -1, -1)
            places[s.name] = _Place(name, ())
        for launch in lowered.launches:
            for arg in launch.args:
                self._touch(places[arg].buffer, part.local)
            self.launches.append((launch, places))

    def _touch(self, name: str, local: Mapping[str, Buffer]) -> None:
        """Note that the next launch touches a buffer that may be a local one."""
        at = len(self.launches)
        if name in local and name not in self.wishes:
            self.wishes[name] = Wish(name, local[name].dtype, local[name].span, at, at)
        known = self.wishes.get(name)
        if known is not None:
            first = at if known.first < 0 else known.first
            self.wishes[name] = replace(known, first=first, last=at)

    # -- the task -----------------------------------------------------------------------------------

    def _write(self, bind: Mapping[Axis, Affine], rooms: Room, names: Mapping[DType, str]) -> None:
        """Write the loops of all parts for one point."""
        if self.uses_point:
            point = self.w.alloc(i64, 1, len(self.chain.axes), "local", _POINT)
            for n, axis in enumerate(self.chain.axes):
                self.w.store(point, self.w.i64(n), self.w.named(self.w.index(bind[axis])))
        for n, (launch, places) in enumerate(self.launches):
            found: dict[str, tuple[str, LoopExpr | None]] = {}
            for param, arg in zip(launch.kernel.params, launch.args, strict=True):
                place = places[arg]
                if place.buffer in rooms.places:
                    start = rooms.places[place.buffer]
                    name = names[param.dtype]
                    found[param.name] = (name, self.w.i64(start) if start else None)
                    continue
                if place.buffer == _POINT:
                    found[param.name] = (_POINT, None)
                    continue
                found[param.name] = (place.buffer, self._base(place, bind))
                used = self.w.read if "r" in param.access else {}
                used[place.buffer] = None
                if "w" in param.access:
                    self.w.written[place.buffer] = None
            self.w.add(inlined(launch.kernel, f"c{n}_", found))

    def _base(self, place: _Place, bind: Mapping[Axis, Affine]) -> LoopExpr | None:
        at = Affine()
        for axis, step in zip(self.chain.axes, place.steps, strict=True):
            at = at + bind[axis] * step
        if at.is_constant and not at.const:
            return None
        return self.w.named(self.w.index(at))


class _Part:
    """One kernel with the shared axes at 0.

    Attributes:
        kernel: The kernel; its buffers have names of their own.
        places: Where each of its buffers lies.
        whole: The buffers of the chain that it touches, those of the task left out.
        local: Those of the task.
    """

    def __init__(self, link: Link, number: int, local: frozenset[str]) -> None:
        self.link, self.number = link, number
        kernel = link.kernel
        self._named = dict(zip((b.name for b in kernel.buffers), link.names, strict=True))
        self._given = {b.name: b for b in kernel.buffers}
        self._local_names = local
        self._zero = {a: Affine() for a in link.axes}
        self.places: dict[str, _Place] = {}
        self.whole: dict[str, Buffer] = {}
        self.local: dict[str, Buffer] = {}
        self.uses_point = False
        self._buffers: dict[tuple[str, tuple[int, ...]], Buffer] = {}
        self._s = ExprBuilder()
        self.kernel = self._reduced(kernel)

    def _reduced(self, kernel: LoopKernel | ContractionKernel) -> LoopKernel | ContractionKernel:
        shared = self.link.axes
        factors = [kernel.a, kernel.b] if isinstance(kernel, ContractionKernel) else []
        roots = [*factors, *(s.value for s in kernel.stages)]
        whole = {
            id(e): self._value(e)
            for e in postorder(*roots)
            if isinstance(e, Index) and any(a in shared for a in e.index.axes)
        }
        rewrite = Rewriter(self._s, {}, {}, self._load, whole)
        factors = [rewrite(e) for e in factors]
        stages = tuple(self._stage(s, rewrite) for s in kernel.stages)
        buffers = tuple(self._buffers.values())
        if isinstance(kernel, LoopKernel):
            axes = tuple(a for a in kernel.axes if a not in shared)
            return replace(kernel, buffers=buffers, axes=axes, stages=stages)
        batch = tuple(a for a in kernel.batch if a not in shared)
        stores = tuple(s for s in stages if isinstance(s, StageStore))
        a, b = factors
        return replace(kernel, buffers=buffers, batch=batch, a=a, b=b, stages=stores)

    def _value(self, e: Index) -> Expr:
        """Return an index as a value: what depends on the point of the task is read from a buffer."""
        s = self._s
        found = s.index(e.index.substitute(self._zero))
        size = len(self.link.axes)
        point = Buffer(_POINT, i64, (size,), (1,), "r")
        for n, axis in enumerate(self.link.axes):
            step = e.index.coefficient(axis)
            if step:
                at = s.load(point, (Affine((), n),))
                found = s.add(found, s.mul(at, s.const(step, i64)))
        self._buffers[_POINT, ()] = point
        self.places[_POINT] = _Place(_POINT, ())
        self.uses_point = True
        return found

    def _stage(self, stage: Stage, rewrite: Rewriter) -> Stage:
        value = rewrite(stage.value)
        if not isinstance(stage, StageStore):
            return replace(stage, value=value)
        buffer, index = self._at(stage.buffer, stage.index, "w")
        fixed = tuple(i for i in index if isinstance(i, Affine))
        return replace(stage, buffer=buffer.name, index=fixed, value=value)

    def _load(self, e: Load) -> Expr:
        buffer, index = self._at(e.buffer, e.index, "r")
        return shared_load(self._s, replace(e, buffer=buffer.name, index=index))

    def _at(
        self, name: str, index: Sequence[Affine | Expr], access: str
    ) -> tuple[Buffer, tuple[Affine | Expr, ...]]:
        """Return the buffer of the part, and the index in it, that an index of a buffer of the kernel becomes."""
        given, called = self._given[name], self._named[name]
        if called in self._local_names:
            return self._own(given, called, index, access)
        flat = Affine()
        for i, step in zip(index, given.strides, strict=True):
            if isinstance(i, Affine):
                flat = flat + i * step
        steps = tuple(flat.coefficient(a) for a in self.link.axes)
        buffer = self._buffer((called, steps), given, access)
        self.places[buffer.name] = _Place(called, steps)
        self.whole.setdefault(called, given)
        return buffer, tuple(
            i.substitute(self._zero) if isinstance(i, Affine) else i for i in index
        )

    def _own(
        self, given: Buffer, called: str, index: Sequence[Affine | Expr], access: str
    ) -> tuple[Buffer, tuple[Affine | Expr, ...]]:
        """Return the same for a buffer of the task: it holds what belongs to one point."""
        inside = tuple(i.substitute(self._zero) if isinstance(i, Affine) else i for i in index)
        extents = [
            _left(n, i, self.link.axes) if isinstance(i, Affine) else n
            for n, i in zip(given.shape, index, strict=True)
        ]
        order = sorted(range(len(extents)), key=lambda d: (-given.strides[d], d))
        strides = dense(extents, order, given.dtype.bytes)
        own = replace(given, shape=tuple(extents), strides=strides)
        buffer = self._buffer((called, ()), own, access)
        self.places[buffer.name] = _Place(called, ())
        self.local[called] = buffer
        return buffer, inside

    def _buffer(self, key: tuple[str, tuple[int, ...]], like: Buffer, access: str) -> Buffer:
        known = self._buffers.get(key)
        name = f"b{len(self._buffers)}" if known is None else known.name
        modes = access if known is None else "".join(sorted({*known.access, access}))
        self._buffers[key] = replace(like, name=name, access=modes)
        return self._buffers[key]


def _left(extent: int, index: Affine, shared: Sequence[Axis]) -> int:
    """Return how much of a dimension belongs to one point of shared axes."""
    return min((index.coefficient(a) for a in shared if a in index.axes), default=extent)


def dense(extents: Sequence[int], order: Sequence[int], element: int) -> tuple[int, ...]:
    """Return the strides of a buffer of a task; lines at distances of 2 KiB get one more line of the cache."""
    strides, step = [0] * len(extents), 1
    for n, d in enumerate(reversed(order)):
        strides[d] = step
        step *= max(extents[d], 1)
        if n == 0 and step * element % 2048 == 0:
            step += 64 // element
    return tuple(strides)
