"""Programs: kernels launched in order over buffers at fixed places of one arena.

    Program = name, buffers[Buffer], items[Launch | Check | Loop | Branch], kernels{symbol: loops.Kernel}, layout
    Loop    = count, items          Branch = bool buffer, then, otherwise
    Layout  = where the variables live: the same for every entry point and specialisation of a module

The arena is one block of memory: first the persistent part (parameters, then state, then hyper-parameters: `Layout`), then the
transient part (gradients, activations, scratch, outputs) of the program that runs. Inputs stay where the caller has them.

A buffer may be a part of another (`of`). Inside of a loop such a part moves on with every iteration, by `step` bytes: this is how a step
reads its slice of a stack and writes its carries, without a copy. Items are numbered in the order of the text, loops and
branches before what is inside of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tapeout.ir.type import TensorType
    from tapeout.kernel.loops import Kernel
    from tapeout.support.loc import Loc

Times = tuple[int, ...]
"""The iterations that the loops around an item are at, outermost first."""

ALIGN = 64
"""Every offset in the arena is a multiple of this number of bytes."""

Space = Literal["input", "variable", "constant", "gradient", "activation", "output"]


@dataclass(frozen=True)
class Buffer:
    """A tensor in memory.

    Attributes:
        name: Unique in the program.
        type: Element type and logical shape.
        order: Dimensions from the slowest to the fastest in memory; (0, 1, 2, …) is row-major.
        space: `input` lives with the caller; `constant` in the program's data; all others in the arena.
        offset: Bytes from the start of the arena (for `input`: the position in `Program.inputs`; for `constant`: from the start of
            `Program.data`; for a part of another buffer: from the start of that).
        first: Number of the first item that writes it (-1: before the program).
        last: Number of the last item that reads it (`Program.count`: after the program).
        of: Name of the buffer that this one is a part of; empty for most.
        step: Bytes by which a part moves on with every iteration (negative: back).
        level: Which loop moves it, counted from the outermost of those around.
    """

    name: str
    type: TensorType
    order: tuple[int, ...]
    space: Space
    offset: int
    first: int = -1
    last: int = -1
    of: str = ""
    step: int = 0
    level: int = 0

    @property
    def bytes(self) -> int:
        """Bytes it takes, before rounding up to `ALIGN`."""
        return self.type.bytes


@dataclass(frozen=True)
class Launch:
    """One call of a kernel.

    Attributes:
        kernel: Symbol in `Program.kernels`.
        args: Names of the buffers, in the order of the kernel's params.
        loc: Where the work came from.
        label: A readable name for profiles and pictures, such as `conv2d+bias+relu conv1/Conv`.
        flops: Floating-point operations (2 for a multiply-add), by the analytic model.
        bytes: Bytes read and written, by the analytic model.
        update: Whether it writes variables (such launches come after every check).
        sources: Where everything in it came from, what it computes for others included; known to profiles only, no part of the text.
        form: What the structure of its kernel at level T is called, for a program that is being tuned; no part of the text.
    """

    kernel: str
    args: tuple[str, ...]
    loc: Loc
    label: str = ""
    flops: int = 0
    bytes: int = 0
    update: bool = False
    sources: tuple[Loc, ...] = field(default=(), compare=False)
    form: str = field(default="", compare=False)


@dataclass(frozen=True)
class Check:
    """Stop the program with code `code` (> 0) when the bool in `buffer` is true; nothing has been updated then."""

    buffer: str
    code: int
    message: str


@dataclass(frozen=True)
class Loop:
    """Run items several times; parts of buffers that it moves start at their offset.

    Attributes:
        count: How often, known when the program is made.
        items: What is run.
        loc: Where the work came from.
        label: A readable name.
    """

    count: int
    items: tuple[Item, ...]
    loc: Loc
    label: str = ""


@dataclass(frozen=True)
class Branch:
    """Run one of two lists of items.

    Attributes:
        buffer: Holds a bool: true chooses `then`.
        then: What is run if it is true.
        otherwise: What is run if it is false.
        loc: Where the work came from.
        label: A readable name.
    """

    buffer: str
    then: tuple[Item, ...]
    otherwise: tuple[Item, ...]
    loc: Loc
    label: str = ""


Item = Launch | Check | Loop | Branch


def numbered(items: Iterable[Item]) -> Iterator[Item]:
    """Return every item in the order of the text: loops and branches, then what is inside of them."""
    pending = [iter(items)]
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
            continue
        yield item
        if isinstance(item, Loop):
            pending.append(iter(item.items))
        elif isinstance(item, Branch):
            pending.append(iter((*item.then, *item.otherwise)))


def executed(
    items: Iterable[Item], test: Callable[[str, Times], bool]
) -> Iterator[tuple[Launch | Check, Times]]:
    """Return launches and checks in the order in which they run, with the iterations of the loops around.

    Args:
        items: What to run.
        test: Gives the content of a bool buffer at the moment.
    """
    pending: list[tuple[Iterator[Item], Times]] = [(iter(items), ())]
    while pending:
        inside, times = pending[-1]
        item = next(inside, None)
        if item is None:
            pending.pop()
        elif isinstance(item, Loop):
            rounds = [(iter(item.items), (*times, t)) for t in range(item.count)]
            pending += reversed(rounds)
        elif isinstance(item, Branch):
            chosen = item.then if test(item.buffer, times) else item.otherwise
            pending.append((iter(chosen), times))
        else:
            yield item, times


@dataclass(frozen=True)
class Slot:
    """Where a variable lives: byte offset from the start of the arena."""

    name: str
    type: TensorType
    kind: str
    offset: int


@dataclass(frozen=True)
class Layout:
    """The persistent part of the arena. Trainable parameters come first and lie in the order that moments and gradients share."""

    slots: tuple[Slot, ...]
    bytes: int

    @property
    def slot(self) -> dict[str, Slot]:
        """Slots by variable name."""
        return {s.name: s for s in self.slots}


@dataclass(frozen=True, eq=False)
class Program:
    """A graph turned into launches.

    Attributes:
        name: The entry point: `step`, `gradients`, `evaluate`, `predict` or a user's graph name.
        inputs: Names of the input buffers in the order in which the caller passes pointers.
        outputs: Output name to buffer name (an output may live in an input, a variable or a constant buffer).
        buffers: By name.
        items: In order.
        kernels: By symbol.
        layout: The persistent part.
        arena: Bytes of the whole arena: `layout.bytes` and the transient part.
        data: The constants.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]
    buffers: Mapping[str, Buffer]
    items: tuple[Item, ...]
    kernels: Mapping[str, Kernel]
    layout: Layout
    arena: int
    data: bytes = b""
    input_types: Mapping[str, TensorType] = field(default_factory=dict)

    @cached_property
    def numbered(self) -> tuple[Item, ...]:
        """Every item in the order of its number."""
        return tuple(numbered(self.items))

    @property
    def count(self) -> int:
        """How many items there are, those inside of loops and branches included."""
        return len(self.numbered)

    @property
    def launches(self) -> tuple[Launch, ...]:
        """Every launch in the order of the text."""
        return tuple(i for i in self.numbered if isinstance(i, Launch))

    @property
    def flops(self) -> int:
        """Floating-point operations of a run, by the analytic model; of a branch, those of the side that has more."""
        return _flops(self.items)

    @cached_property
    def scalar_outputs(self) -> dict[str, Buffer]:
        """The outputs of one number that the arena holds: what a run of many steps keeps of each."""
        found = {name: self.buffers[b] for name, b in self.outputs.items()}
        apart = ("input", "constant")
        return {
            n: b for n, b in found.items() if b.type.size == 1 and b.space not in apart and not b.of
        }

    def place(self, name: str, times: Times = ()) -> tuple[Buffer, int]:
        """Return the buffer that a buffer is a part of at last, and how many bytes from the start of that it lies.

        Args:
            name: A buffer; one that is no part gives itself and 0.
            times: The iterations of the loops around.
        """
        buffer, shift = self.buffers[name], 0
        while buffer.of:
            shift += buffer.offset
            if buffer.step:
                shift += buffer.step * times[buffer.level]
            buffer = self.buffers[buffer.of]
        return buffer, shift


def _flops(items: Iterable[Item]) -> int:
    total = 0
    for item in items:
        if isinstance(item, Launch):
            total += item.flops
        elif isinstance(item, Loop):
            total += item.count * _flops(item.items)
        elif isinstance(item, Branch):
            total += max(_flops(item.then), _flops(item.otherwise))
    return total
