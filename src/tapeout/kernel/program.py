"""Programs: kernels launched in order over buffers at fixed places of one arena.

    Program = name, buffers[Buffer], items[Launch | Check], kernels{symbol: loops.Kernel}, layout
    Layout  = where the variables live: the same for every entry point and specialisation of a module

The arena is one block of memory: first the persistent part (parameters, then state, then hyper-parameters: `Layout`), then the
transient part (gradients, activations, scratch, outputs) of the program that runs. Inputs stay where the caller has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.ir.type import TensorType
    from tapeout.kernel.loops import Kernel
    from tapeout.support.loc import Loc

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
            `Program.data`).
        first: Number of the first item that writes it (-1: before the program).
        last: Number of the last item that reads it (len(items): after the program).
    """

    name: str
    type: TensorType
    order: tuple[int, ...]
    space: Space
    offset: int
    first: int = -1
    last: int = -1

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
    """

    kernel: str
    args: tuple[str, ...]
    loc: Loc
    label: str = ""
    flops: int = 0
    bytes: int = 0
    update: bool = False


@dataclass(frozen=True)
class Check:
    """Stop the program with code `code` (> 0) when the bool in `buffer` is true; nothing has been updated then."""

    buffer: str
    code: int
    message: str


Item = Launch | Check


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
