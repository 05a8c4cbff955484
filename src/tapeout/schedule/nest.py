"""Loops and branches among the kernels of a program.

The body of a loop is fused like a graph of its own, but its inputs and outputs live in the buffers around: a step reads its slice of a
stack where the stack lies, and writes the next carries into the next slot. A `View` is such a part of another home; it moves on with
every step. Nothing is copied but an initial carry that is no kernel's result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapeout.ops import movement as mv
from tapeout.ops.control import Cond, Control, Scan
from tapeout.schedule.model import Home, Work, row_major
from tapeout.support.loc import UNKNOWN, Loc

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from tapeout.ir.graph import Graph, Node, Value
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType
    from tapeout.schedule.model import Homes


@dataclass(frozen=True, slots=True)
class View:
    """A home that is a part of another.

    Attributes:
        home: The part.
        of: What it is a part of.
        offset: Bytes from the start of that, in the first round.
        step: Bytes by which it moves on with every round of a loop.
        level: Which loop moves it, counted from the outermost of those around.
    """

    home: Home
    of: Home
    offset: int
    step: int = 0
    level: int = 0


@dataclass(frozen=True, eq=False)
class Nest:
    """A loop or a branch in its place among kernels.

    Attributes:
        bodies: The kernels of the loop's body, or those of both sides of the branch.
        views: The parts of homes that the bodies touch.
        homes: The homes around that it touches.
        reads: Names of those that it reads.
        writes: Names of those that it writes.
        count: Rounds of a loop; None for a branch.
        predicate: The bool that chooses the side of a branch.
        constants: The data of constants that the bodies read, by name of the home.
        loc: Where the work came from.
        label: A readable name.
    """

    bodies: tuple[tuple[AnyWork, ...], ...]
    views: tuple[View, ...]
    homes: tuple[Home, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    count: int | None = None
    predicate: Home | None = None
    constants: dict[str, Array] = field(default_factory=dict)
    loc: Loc = UNKNOWN
    label: str = ""
    late: bool = False

    @property
    def args(self) -> tuple[str, ...]:
        """Names of the homes, in order."""
        return tuple(h.name for h in self.homes)

    @property
    def touches(self) -> tuple[str, ...]:
        """Names of the homes that it reads or writes, and of parts of theirs that it fills before."""
        return self.args


AnyWork = Work | Nest


@dataclass(frozen=True)
class Around:
    """What a region finds around it.

    Attributes:
        prefix: Put before the names of its homes.
        level: How many loops are around its nodes.
        given: Where its inputs live.
        targets: Where its outputs must go.
        carried: Outputs that take the place of inputs at the end of a round, and where that is.
    """

    prefix: str = ""
    level: int = 0
    given: dict[Value, Home] = field(default_factory=dict)
    targets: tuple[tuple[Value, Home], ...] = ()
    carried: tuple[tuple[Value, Home], ...] = ()


def part_of(value: Value, inlined: Container[Value]) -> tuple[Value, int]:
    """Return the kept value that a value is a contiguous part of, itself if it is kept, and the bytes from its start."""
    offset = 0
    while value in inlined and _is_part(value):
        node = value.node
        assert node is not None
        if isinstance(node.op, mv.Slice):
            (source,) = node.operands
            offset += int(node.op.starts[0]) * (
                source.type.bytes // max(int(source.type.shape[0]), 1)
            )
        (value,) = node.operands
    return value, offset


def parts_chain(value: Value) -> Iterator[Value]:
    """Return a value and all that it is a contiguous part of, whether or not they are kept."""
    yield value
    while _is_part(value):
        assert value.node is not None
        (value,) = value.node.operands
        yield value


def _is_part(value: Value) -> bool:
    """Whether a value's elements are some that follow each other in its operand."""
    node = value.node
    if node is None:
        return False
    if isinstance(node.op, mv.Reshape):
        return True
    if not isinstance(node.op, mv.Slice) or not value.type.rank:
        return False
    shape, op = node.operands[0].type.shape, node.op
    whole = all(s == 0 for s in op.starts[1:]) and tuple(op.limits[1:]) == tuple(shape[1:])
    return whole and all(s == 1 for s in op.strides)


def fixed_values(nodes: Sequence[Node]) -> dict[Value, None]:
    """Return the values that loops and branches read or make: they lie row-major, for slices to be contiguous."""
    found: dict[Value, None] = {}
    for node in nodes:
        if isinstance(node.op, Control):
            found.update(dict.fromkeys(node.results))
            found.update(dict.fromkeys(v for o in node.operands for v in parts_chain(o)))
    return found


def initial_slots(
    nodes: Sequence[Node], homes: Homes, movable: Callable[[Value], bool]
) -> dict[Value, View]:
    """Return the initial carries that their makers can write straight into the history of a loop.

    Args:
        nodes: In order.
        homes: Where values live; changed for those returned.
        movable: Whether a value's maker may write it elsewhere.
    """
    found: dict[Value, View] = {}
    for node in nodes:
        if not isinstance(node.op, Scan):
            continue
        for i in range(node.op.carries):
            value = node.operands[i]
            if value in found or not movable(value):
                continue
            found[value] = _slot(node, i, homes)
            homes[value] = found[value].home
    return found


def _slot(node: Node, i: int, homes: Homes) -> View:
    """Return the slot of an initial carry."""
    op, history, value = node.op, homes[node.results[i]], node.operands[i]
    assert isinstance(op, Scan)
    home = Home(f"{history.name}.start", value.type, row_major(value.type.rank), "activation")
    start = op.length if op.reverse and i not in op.finals else 0
    return View(home, history, start * value.type.bytes)


@dataclass(frozen=True)
class Nester:
    """Makes nests of nodes with regions.

    Attributes:
        homes: Where each kept value lives.
        inlined: Values that are evaluated wherever they are read.
        slots: Initial carries that are written into their history by what makes them.
        around: What is around the graph of the nodes.
        fuse: Gives the kernels of a region and the data of its constants.
        copy: Gives the kernel that copies one home into another.
    """

    homes: Homes
    inlined: Container[Value]
    slots: dict[Value, View]
    around: Around
    fuse: Callable[[Graph, Around], tuple[tuple[AnyWork, ...], dict[str, Array]]]
    copy: Callable[[Home, Home, Loc], Work]

    def build(self, node: Node) -> list[AnyWork]:
        """Return the kernels and the nest of a node, in order."""
        if isinstance(node.op, Scan):
            return self._loop(node, node.op)
        assert isinstance(node.op, Cond)
        return [self._branch(node, node.op)]

    def _loop(self, node: Node, op: Scan) -> list[AnyWork]:
        made = _Parts(self, node)
        body, n, last = op.body, op.carries, max(op.length - 1, 0)
        sign, level = (-1 if op.reverse else 1), self.around.level
        before: list[AnyWork] = []
        given: dict[Value, Home] = {}
        targets: list[tuple[Value, Home]] = []
        carried: list[tuple[Value, Home]] = []

        def moving(base: Home, type_: TensorType, offset: int, at: int, name: str) -> Home:
            """Return the part of a stack that the slot `at` of round 0 is the first of."""
            size = type_.bytes
            return made.view(name, type_, base, offset + at * size, sign * size, level)

        for i, x in enumerate(body.inputs):
            operand = node.operands[i]
            if i < n:
                history = self.homes[node.results[i]]
                before += self._start(node, i, made)
                made.written.append(history)
                if i in op.finals:
                    given[x] = history
                    carried.append((body.outputs[i][1], history))
                    continue
                first, second = (op.length, last) if op.reverse else (0, 1)
                given[x] = moving(history, x.type, 0, first, f"c{i}")
                target = moving(history, x.type, 0, second, f"c{i}.next")
                targets.append((body.outputs[i][1], target))
            elif i < n + op.xs:
                base, offset = made.source(operand)
                start = last if op.reverse else 0
                given[x] = moving(base, x.type, offset, start, f"x{i - n}")
            else:
                given[x] = made.part(operand, f"k{i - n - op.xs}")
        for i, (_, y) in enumerate(body.outputs[n:], n):
            stack = self.homes[node.results[i]]
            start = last if op.reverse else 0
            targets.append((y, moving(stack, y.type, 0, start, f"y{i - n}")))
            made.written.append(stack)
        label = f"loop {node.loc.name}".strip()
        if not op.length:
            return [*before, made.nest(((),), {}, label, count=0)]
        inside = Around(made.prefix, level + 1, given, tuple(targets), tuple(carried))
        works, constants = self.fuse(body, inside)
        return [*before, made.nest((works,), constants, label, count=op.length)]

    def _start(self, node: Node, i: int, made: _Parts) -> list[AnyWork]:
        """Return the copy of an initial carry into its slot; none if its maker wrote it there."""
        value = node.operands[i]
        slot = _slot(node, i, self.homes)
        known = self.slots.get(value)
        if known is not None and known.of is slot.of:
            made.views.append(known)
            made.read.append(known.home)
            return []
        source = made.part(value, f"start{i}")
        made.views.append(slot)
        made.read.append(slot.home)
        return [self.copy(source, slot.home, node.loc)]

    def _branch(self, node: Node, op: Cond) -> Nest:
        made = _Parts(self, node)
        predicate = made.part(node.operands[0], "if")
        sides: list[tuple[AnyWork, ...]] = []
        constants: dict[str, Array] = {}
        homes = [made.part(v, f"x{i}") for i, v in enumerate(node.operands[1:])]
        made.written += [self.homes[r] for r in node.results]
        for body in (op.then, op.otherwise):
            given = dict(zip(body.inputs, homes, strict=True))
            outputs = (v for _, v in body.outputs)
            targets = tuple((v, self.homes[r]) for v, r in zip(outputs, node.results, strict=True))
            prefix = f"{made.prefix}{body.name}/"
            inside = Around(prefix, self.around.level, given, targets)
            works, data = self.fuse(body, inside)
            sides.append(works)
            constants |= data
        label = f"branch {node.loc.name}".strip()
        return made.nest(tuple(sides), constants, label, predicate=predicate)


class _Parts:
    """Collects the homes and views that a node with regions touches."""

    def __init__(self, nester: Nester, node: Node) -> None:
        self.nester, self.node = nester, node
        self.prefix = f"{nester.homes[node.results[0]].name.removesuffix('.0')}/"
        self.views: list[View] = []
        self.read: list[Home] = []
        self.written: list[Home] = []

    def source(self, operand: Value) -> tuple[Home, int]:
        """Return the home that an operand lies in, and how many bytes from its start; note that it is read."""
        base, offset = part_of(operand, self.nester.inlined)
        home = self.nester.homes[base]
        self.read.append(home)
        return home, offset

    def part(self, operand: Value, name: str) -> Home:
        """Return the home of an operand, a view if it is a part of another."""
        base, offset = self.source(operand)
        if part_of(operand, self.nester.inlined)[0] is operand:
            return base
        return self.view(name, operand.type, base, offset)

    def view(
        self, name: str, type_: TensorType, of: Home, offset: int, step: int = 0, level: int = 0
    ) -> Home:
        """Return a new part of a home."""
        home = Home(f"{self.prefix}{name}", type_, row_major(type_.rank), of.space)
        self.views.append(View(home, of, offset, step, level))
        return home

    def nest(
        self,
        bodies: tuple[tuple[AnyWork, ...], ...],
        constants: dict[str, Array],
        label: str,
        *,
        count: int | None = None,
        predicate: Home | None = None,
    ) -> Nest:
        """Return the nest."""
        homes = {h.name: h for h in (*self.read, *self.written)}
        return Nest(
            bodies,
            tuple(self.views),
            tuple(homes.values()),
            tuple(dict.fromkeys(h.name for h in self.read)),
            tuple(dict.fromkeys(h.name for h in self.written)),
            count,
            predicate,
            constants,
            self.node.loc,
            label,
        )
