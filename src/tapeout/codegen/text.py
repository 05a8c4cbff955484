"""LLVM IR as text: types, constants, and one function at a time.

Text that LLVM parses is several times faster to make than objects of a builder library (docs/adr/0005-text-emitter.md), and
it can be read, compared and cached as it is.

Values are operands as they stand in an instruction: `%v12`, `7`, `splat (float 0x3FF0000000000000)`. Values start with `v`,
parameters with `p`, blocks with `b`, so that no two names collide.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tapeout.ir.dtype import DType, bf16, bool_, f16, f32, f64, i64

if TYPE_CHECKING:
    from collections.abc import Iterator

# Narrow floats are held as their bits: every operation on them widens to f32 anyway, and no LLVM
# back end has to know the types.
_REGISTER = {"f32": "float", "f64": "double", "f16": "i16", "bf16": "i16", "bool": "i1"}


class Value(NamedTuple):
    """An operand with its element type and number of lanes.

    Attributes:
        text: The operand.
        dtype: Element type.
        lanes: Number of lanes.
        start: Of a vector of indices whose lanes lie at known distances: the i64 scalar they are counted from.
        steps: The distance of each lane from `start`; empty if unknown.
    """

    text: str
    dtype: DType
    lanes: int = 1
    start: str = ""
    steps: tuple[int, ...] = ()

    @property
    def type(self) -> str:
        """The LLVM type of the operand."""
        return register_type(self.dtype, self.lanes)

    def __str__(self) -> str:
        return f"{self.type} {self.text}"

    @property
    def number(self) -> int | None:
        """The value of a constant i64 scalar (an index), else None."""
        if self.lanes != 1 or self.dtype != i64 or self.text.startswith("%"):
            return None
        return int(self.text)


def vector(scalar: str, lanes: int) -> str:
    """Return the LLVM type of `lanes` scalars; one lane is the scalar itself."""
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


def register_type(dtype: DType, lanes: int = 1) -> str:
    """Return the LLVM type of a value in registers: a bool is `i1`, f16 and bf16 are their bits."""
    return vector(_REGISTER.get(dtype.name) or f"i{dtype.bits}", lanes)


def memory_type(dtype: DType, lanes: int = 1) -> str:
    """Return the LLVM type of a value in memory, where a bool takes a byte."""
    return vector("i8", lanes) if dtype == bool_ else register_type(dtype, lanes)


def constant(value: float, dtype: DType, lanes: int = 1) -> Value:
    """Return a number as an operand, in every lane; floats are rounded to the type."""
    text = _number(value, dtype)
    if lanes == 1:
        return Value(text, dtype)
    known = ("0", (int(value),) * lanes) if dtype == i64 else ("", ())
    return Value(f"splat ({register_type(dtype)} {text})", dtype, lanes, *known)


def _number(value: float, dtype: DType) -> str:
    if dtype == bool_:
        return "true" if value else "false"
    if dtype in (f16, bf16):
        with np.errstate(over="ignore"):
            return str(int(np.asarray(value, dtype.numpy).view(np.uint16)))
    if dtype in (f32, f64):
        with np.errstate(over="ignore"):
            rounded = float(np.float32(value)) if dtype == f32 else float(value)
        return f"0x{struct.unpack('>Q', struct.pack('>d', rounded))[0]:016X}"
    return str(int(value))


def constant_mask(lanes: int, active: int) -> str:
    """Return the operand of type `<lanes x i1>` whose first `active` lanes are true."""
    return "<" + ", ".join(f"i1 {'true' if i < active else 'false'}" for i in range(lanes)) + ">"


class Function:
    """The body of a function while it is written.

    Instructions without effect are shared: asking again for one that was made in this block, or in one that encloses it, gives
    the same value. Every `alloca` goes to the entry block, where sroa turns it into registers.
    """

    def __init__(self) -> None:
        """Start in the entry block."""
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._count = 0
        self._known: dict[str, str] = {}
        self._made: list[str] = []
        self.block = "entry"

    def _fresh(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def pure(self, instruction: str) -> str:
        """Return the value of an instruction without effect."""
        known = self._known.get(instruction)
        if known is not None:
            return known
        name = self.do(instruction)
        self._known[instruction] = name
        self._made.append(instruction)
        return name

    def first_time(self, fact: str) -> bool:
        """Whether a fact is new in this block and those that enclose it; it is known from now on."""
        if fact in self._known:
            return False
        self._known[fact] = ""
        self._made.append(fact)
        return True

    def do(self, instruction: str) -> str:
        """Write an instruction that must happen here, such as a load, and return its value."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"  {name} = {instruction}")
        return name

    def line(self, instruction: str) -> None:
        """Write an instruction that has no value."""
        self._lines.append(f"  {instruction}")

    def alloca(self, type_: str, align: int, count: int = 1) -> str:
        """Return the address of memory on the stack, undefined at first."""
        name = f"%{self._fresh('a')}"
        many = f", i64 {count}" if count != 1 else ""
        self._entry.append(f"  {name} = alloca {type_}{many}, align {align}")
        return name

    def label(self) -> str:
        """Return a new name of a block."""
        return self._fresh("b")

    def start(self, label: str) -> None:
        """End the present block and start another; what ends it has been written."""
        self._lines.append(f"{label}:")
        self.block = label

    def jump(self, label: str) -> None:
        """End the block by going on at `label`."""
        self.line(f"br label %{label}")

    def branch(self, condition: str, then: str, otherwise: str, weights: str = "") -> None:
        """End the block by going on at one of two."""
        self.line(f"br i1 {condition}, label %{then}, label %{otherwise}{weights}")

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Forget, at the end, the values made inside: the code after it may not have passed there."""
        mark = len(self._made)
        yield
        for instruction in self._made[mark:]:
            del self._known[instruction]
        del self._made[mark:]

    def finish(self, header: str) -> str:
        """Return the text of the whole function; the last block has been ended."""
        return "\n".join([header + " {", "entry:", *self._entry, *self._lines, "}"]) + "\n"
