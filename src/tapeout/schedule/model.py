"""The records that the steps of scheduling hand to each other.

Home   = where a kept value lives: a buffer of the program, its place in memory still open
Group  = nodes that become one kernel, each at a frame: its result's index in the group's axes
Work   = a kernel at level T and the homes that its buffers stand for
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Literal

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.kernel.compute import Buffer, Expr, ExprBuilder, Store
from tapeout.support.loc import UNKNOWN, Loc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.ir.type import TensorType
    from tapeout.kernel.compute import Kernel
    from tapeout.kernel.program import Space
    from tapeout.schedule.element import Index

Frame = tuple[Affine, ...]
GroupKind = Literal["loop", "contraction", "scatter", "copy", "region"]


@dataclass(frozen=True, slots=True)
class Home:
    """Where a kept value lives.

    Attributes:
        name: Unique in the program.
        type: Element type and logical shape.
        order: Dimensions from the slowest to the fastest in memory.
        space: As `program.Buffer.space`.
    """

    name: str
    type: TensorType
    order: tuple[int, ...]
    space: Space

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next, per dimension."""
        return strides(self.type.shape, self.order)

    def offset(self, index: Sequence[Affine]) -> Affine:
        """Return the element number of an index."""
        flat = Affine()
        for i, n in zip(index, self.strides, strict=True):
            flat = flat + i * n
        return flat


def strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a dense buffer whose dimensions lie in an order."""
    out, step = [0] * len(shape), 1
    for d in reversed(order):
        out[d] = step
        step *= max(int(shape[d]), 1)
    return tuple(out)


def row_major(rank: int) -> tuple[int, ...]:
    """Return the order 0, 1, 2 and so on."""
    return tuple(range(rank))


@dataclass(frozen=True)
class Region:
    """Homes at fixed distances from each other, and the home that spans them.

    Attributes:
        home: Of one dimension, as long as all its parts and the gaps between them.
        parts: Names of the homes inside, and their distance in bytes from the start, rising.
    """

    home: Home
    parts: tuple[tuple[str, int], ...]


@dataclass(eq=False)
class Group:
    """Nodes that become one kernel.

    Attributes:
        kind: Which kind of kernel.
        anchor: The node that founded the group; of a contraction group, the contraction.
        outer: Axes whose points are independent.
        inner: Axes that the reductions of the group run over; empty for a map.
        members: Nodes in order, with the index of their result in the axes. A frame over outer and inner axes together is full.
        late: Whether the group only serves updates.
    """

    kind: GroupKind
    anchor: Node
    outer: tuple[Axis, ...]
    inner: tuple[Axis, ...] = ()
    members: dict[Node, Frame] = field(default_factory=dict)
    late: bool = False

    @property
    def bases(self) -> dict[Value, Frame]:
        """The frames by value."""
        return {n.results[0]: f for n, f in self.members.items()}

    @property
    def points(self) -> int:
        """Number of points of the outer axes."""
        return prod(a.extent for a in self.outer)

    @property
    def depth(self) -> int:
        """Number of points of the inner axes."""
        return prod(a.extent for a in self.inner)

    def inner_index(self, reduced: Sequence[Axis]) -> Frame:
        """Return the inner axes as the index of a reduction's own reduced axes; those of size 1 stand at 0."""
        inner = iter([a for a in self.inner if a.extent != 1])
        return tuple(Affine.of(next(inner)) if a.extent != 1 else Affine() for a in reduced)

    def is_full(self, frame: Frame) -> bool:
        """Whether a frame depends on the inner axes."""
        return any(a in self.inner for i in frame for a in i.axes)


@dataclass(frozen=True, eq=False)
class Work:
    """One kernel at level T in its place.

    Attributes:
        kernel: Its buffers are called `b0`, `b1`, …, so that equal work is equal text.
        homes: What each buffer of the kernel stands for, in order.
        loc: Where the work came from.
        label: A readable name.
        late: Whether it comes after every check because it writes variables or only serves such work.
        parts: For a home that spans others, the names of those.
        sources: Where everything in it came from, what it computes for others included.
    """

    kernel: Kernel
    homes: tuple[Home, ...]
    loc: Loc = UNKNOWN
    label: str = ""
    late: bool = False
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources: tuple[Loc, ...] = ()

    @property
    def args(self) -> tuple[str, ...]:
        """Names of the homes, in order."""
        return tuple(h.name for h in self.homes)

    @cached_property
    def touches(self) -> tuple[str, ...]:
        """Homes that it reads or writes, the parts of spanning ones in their place."""
        return self._named("rw")

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Homes that it reads."""
        return self._named("r")

    @cached_property
    def writes(self) -> tuple[str, ...]:
        """Homes that it writes."""
        return self._named("w")

    def _named(self, access: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for home, buffer in zip(self.homes, self.kernel.buffers, strict=True):
            if any(a in buffer.access for a in access):
                found.update(dict.fromkeys(self.parts.get(home.name, (home.name,))))
        return tuple(found)


class Scope:
    """The buffers of one kernel while it is built."""

    def __init__(self) -> None:
        self.s = ExprBuilder()
        self._buffers: dict[str, Buffer] = {}
        self._access: dict[str, str] = {}
        self._homes: dict[str, Home] = {}

    def buffer(self, home: Home, access: str) -> Buffer:
        """Return the kernel's buffer for a home, and note how it is used."""
        if home.name not in self._buffers:
            name = f"b{len(self._buffers)}"
            shape = tuple(int(n) for n in home.type.shape)
            self._homes[home.name] = home
            self._buffers[home.name] = Buffer(name, home.type.dtype, shape, home.strides)
        known = self._access.get(home.name, "")
        self._access[home.name] = known if access in known else "".join(sorted(known + access))
        return self._buffers[home.name]

    def load(self, home: Home, index: Index, where: Sequence[Guard], other: float) -> Expr:
        """Return an element of a home."""
        return self.s.load(self.buffer(home, "r"), index, where, other)

    def store(self, home: Home, axes: tuple[Axis, ...], index: Frame, value: Expr) -> Store:
        """Return the stage that writes an element of a home."""
        return Store(self.buffer(home, "w").name, axes, index, value)

    @property
    def homes(self) -> tuple[Home, ...]:
        """The homes, in the order of the kernel's buffers."""
        return tuple(self._homes.values())

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The buffers with how they are used."""
        return tuple(
            Buffer(b.name, b.dtype, b.shape, b.strides, self._access[home])
            for home, b in self._buffers.items()
        )


Homes = dict["Value", Home]
