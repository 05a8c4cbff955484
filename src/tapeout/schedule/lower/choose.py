"""Chooses the axis that runs across the lanes of a vector.

Either one outer axis does, and every stage works on several outer points at once; or each stage runs its own axis across the
lanes, at one outer point after the other (a row at a time).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.kernel.compute import Apply, Load, LoopKernel, Reduce, Store
from tapeout.schedule.lower.exprs import postorder
from tapeout.schedule.lower.normal import offset_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.kernel.compute import Buffer, Expr, Stage

VECTOR_BYTES = 64
"""A vector of the loops holds this many bytes at most; narrower machines use several registers for it."""

_SAME, _ROW, _GATHER, _SCATTER, _DIVIDED = 0.3, 1.0, 0.6, 1.0, 1.5
_TREE = 6.0
COSTLY = frozenset(
    [
        "exp",
        "expm1",
        "log",
        "log1p",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
        "tanh",
        "sigmoid",
        "erf",
        "pow",
        "atan2",
    ]
)


@dataclass(frozen=True)
class Choice:
    """What runs across lanes.

    Attributes:
        outer: The outer axis that does; None if each stage uses its own.
        own: For each stage, its own axis that does, or None.
        cost: Estimated cycles of the whole kernel.
        reduces: Whether any stage is a reduction.
    """

    outer: Axis | None
    own: tuple[Axis | None, ...]
    cost: float
    reduces: bool = False


def width(kernel: LoopKernel) -> int:
    """Return how many lanes the vectors of a kernel have at most: as its widest float type fills."""
    found = postorder(*(s.value for s in kernel.stages))
    types = [e.dtype for e in found if e.dtype.is_float]
    types += [s.dtype for s in kernel.stages if isinstance(s, Reduce) and s.dtype.is_float]
    if not types:
        used = {e.buffer for e in found if isinstance(e, Load)}
        used |= {s.buffer for s in kernel.stages if isinstance(s, Store)}
        types = [b.dtype for b in kernel.buffers if b.name in used]
    return VECTOR_BYTES // max((t.bytes for t in types), default=8)


def lanes_for(extent: int, most: int) -> int:
    """Return the lanes for an axis: a power of two, no wider than the axis needs."""
    return most if extent >= most else 1 << (extent - 1).bit_length()


def choose(kernel: LoopKernel) -> Choice:
    """Return the cheapest choice by the cost model."""
    buffers = {b.name: b for b in kernel.buffers}
    most = width(kernel)
    stages = [_Stage(s, buffers) for s in kernel.stages]
    points = prod(a.extent for a in kernel.axes)

    own: list[Axis | None] = []
    total = 0.0
    for s in stages:
        options = [(s.cost(x, most) * points, x) for x in (None, *s.axes)]
        cost, axis = min(options, key=lambda o: o[0])
        own.append(axis)
        total += cost + (_TREE * points if axis is not None and s.reduces else 0.0)
    reduces = any(s.reduces for s in stages)
    best = Choice(None, tuple(own), total, reduces)
    for x in kernel.axes:
        cost = sum(s.cost(x, most) * points / x.extent for s in stages)
        if cost < best.cost:
            best = Choice(x, (None,) * len(stages), cost, reduces)
    return best


class _Stage:
    """The cost model of one stage."""

    def __init__(self, stage: Stage, buffers: Mapping[str, Buffer]) -> None:
        self.axes = stage.axes
        self.reduces = isinstance(stage, Reduce)
        self.points = prod(a.extent for a in stage.axes)
        exprs = postorder(stage.value)
        self.work = 1.0 + sum(_work(e) for e in exprs)
        self.loads = [
            (offset_of(e, buffers), all(isinstance(i, Affine) for i in e.index), e.where)
            for e in exprs
            if isinstance(e, Load)
        ]
        self.places = (
            [buffers[stage.buffer].offset(stage.index)] if isinstance(stage, Store) else []
        )
        self.gathers = [g for e in exprs if isinstance(e, Load) for g in _entries(e)]

    def cost(self, axis: Axis | None, most: int) -> float:
        """Return the cycles per outer point, or per line along `axis` if that is an outer axis; None: one lane."""
        if axis is None:
            return self.points * (self.work + len(self.loads) + len(self.places))
        lanes = lanes_for(axis.extent, most)
        vectors = self.points * -(-axis.extent // lanes)
        if axis in self.axes:
            vectors //= axis.extent
        per = self.work
        for offset, affine, where in self.loads:
            per += _access(offset, axis, lanes, _GATHER) if affine else _GATHER * lanes
            per += sum(0.5 for g in where if axis in g.index.axes)
        per += sum(_access(offset, axis, lanes, _SCATTER) for offset in self.places)
        return vectors * per


def _entries(load: Load) -> list[Expr]:
    return [i for i in load.index if not isinstance(i, Affine)]


def _access(offset: Affine, axis: Axis, lanes: int, apart: float) -> float:
    if axis not in offset.axes:
        return _SAME
    if any(not isinstance(a, Axis) and axis in a.of.axes for a, _ in offset.terms):
        return _DIVIDED * lanes
    return _ROW if offset.coefficient(axis) == 1 else apart * lanes


def _work(e: Expr) -> float:
    if not isinstance(e, Apply):
        return 0.0
    return 12.0 if e.op in COSTLY else 4.0 if e.op in ("div", "sqrt", "rsqrt", "rem") else 1.0


def stage_work(stages: Sequence[Stage]) -> float:
    """Return the estimated work of one outer point, in element operations."""
    total = 0.0
    for s in stages:
        points = prod(a.extent for a in s.axes)
        exprs = postorder(s.value)
        total += points * (
            1 + sum(_work(e) for e in exprs) + sum(isinstance(e, Load) for e in exprs)
        )
    return total
