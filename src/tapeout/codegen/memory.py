"""Loads and stores: whole vectors, the first few lanes, masked lanes, gathers; and their bounds tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapeout.codegen.partial import Partial, shuffle
from tapeout.codegen.text import (
    Value,
    constant,
    constant_mask,
    memory_type,
    register_type,
    vector,
)
from tapeout.ir.dtype import bool_, i64, u8
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from tapeout.codegen.partial import Addresses
    from tapeout.codegen.text import Function
    from tapeout.ir.dtype import DType
    from tapeout.kernel.target import Target


@dataclass(frozen=True, slots=True)
class Place:
    """Where a buffer of a kernel lives.

    Attributes:
        name: Its name in the kernel.
        dtype: Element type.
        size: Number of elements (of vectors, for registers).
        pointer: The operand that holds its address; empty for registers.
        slots: One stack slot per vector of a register buffer, which sroa turns into registers.
        lanes: Lanes of each slot.
        number: Which of the kernel's buffers in memory it is.
    """

    name: str
    dtype: DType
    size: int
    pointer: str = ""
    slots: tuple[str, ...] = ()
    lanes: int = 1
    number: int = 0


FAULT = "fault"
"""The block where a checked build reports an access out of bounds and leaves."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The ways into the block `FAULT`.

    Attributes:
        edges: The block that an access was tested in, its index, and the number of its buffer.
    """

    edges: list[tuple[str, str, int]] = field(default_factory=list)


class Memory:
    """Writes loads and stores into a function.

    Args:
        function: Where the instructions go.
        target: Says which masked accesses are instructions.
        faults: Set in a checked build.
    """

    def __init__(self, function: Function, target: Target, faults: Faults | None) -> None:
        """Write into `function`."""
        self._f = function
        self._faults = faults
        self._partial = Partial(function, target)
        self._spare = ""

    def load(
        self,
        place: Place,
        index: Value,
        lanes: int,
        active: int,
        mask: Value | None,
        other: float,
    ) -> Value:
        """Return elements from `index` on, or one per lane of a vector of indices."""
        if place.slots:
            self._refuse_partial(place, lanes, active, mask)
            slot = self._slot(place, index)
            return Value(
                self._f.do(f"load {register_type(place.dtype, lanes)}, ptr {slot}"),
                place.dtype,
                lanes,
            )
        if index.lanes > 1:
            index = self._as_scalar(index)
        if index.lanes > 1:
            return self._gather(place, index, active, mask, other)
        self._check(place, index, lanes, active, mask)
        raw = _raw(place.dtype)
        if lanes == 1:
            value = self._load_one(place, index, mask, other)
        elif mask is None and active == lanes:
            address = self._address(place, index)
            type_ = memory_type(place.dtype, lanes)
            value = self._f.do(f"load {type_}, ptr {address}, align {place.dtype.bytes}")
        else:
            rest = constant(other, raw, lanes)
            value = self._partial.load(self._addresses(place, index), active, mask, rest).text
        return self._from_memory(Value(value, raw, lanes), place.dtype)

    def store(
        self, place: Place, index: Value, value: Value, active: int, mask: Value | None
    ) -> None:
        """Write elements from `index` on."""
        lanes = value.lanes
        if place.slots:
            self._refuse_partial(place, lanes, active, mask)
            self._f.line(f"store {value}, ptr {self._slot(place, index)}")
            return
        if index.lanes > 1:
            raise CompileError(f"store to {place.name} has a vector of indices", where="codegen")
        self._check(place, index, lanes, active, mask)
        raw = self._to_memory(value)
        if lanes == 1:
            self._store_one(place, index, raw, mask)
        elif mask is None and active == lanes:
            address = self._address(place, index)
            self._f.line(f"store {raw}, ptr {address}, align {place.dtype.bytes}")
        else:
            self._partial.store(self._addresses(place, index), raw, active, mask)

    # --- parts -----------------------------------------------------------------------------------

    def _slot(self, place: Place, index: Value) -> str:
        if index.number is None:
            raise CompileError(
                f"register buffer {place.name} is indexed by {index.text}, which is no constant",
                where="codegen",
                hint="unroll the loop, or give the buffer the scope local",
            )
        if not 0 <= index.number < len(place.slots):
            raise CompileError(
                f"register buffer {place.name} has {len(place.slots)} vectors, not one at {index.number}",
                where="codegen",
            )
        return place.slots[index.number]

    def _refuse_partial(self, place: Place, lanes: int, active: int, mask: Value | None) -> None:
        if mask is None and active == lanes == place.lanes:
            return
        raise CompileError(
            f"register buffer {place.name} holds vectors of {place.lanes} lanes and is accessed by "
            f"{active} of {lanes} lanes{' with a mask' if mask else ''}",
            where="codegen",
        )

    def _address(self, place: Place, index: Value) -> str:
        type_ = memory_type(place.dtype)
        return self._f.pure(f"getelementptr inbounds {type_}, ptr {place.pointer}, {index}")

    def _addresses(self, place: Place, index: Value) -> Addresses:
        return lambda lane: self._address(place, self._later(index, lane))

    def _all(self, mask: Value | None, lanes: int, active: int) -> str:
        """The operand (with its type) of the lanes that are both active and true in the mask."""
        first = f"<{lanes} x i1> {constant_mask(lanes, active)}"
        if mask is None:
            return first
        if active == lanes:
            return str(mask)
        return f"{mask.type} {self._f.pure(f'and {first}, {mask.text}')}"

    def _to_memory(self, value: Value) -> Value:
        if value.dtype != bool_:
            return value
        text = self._f.pure(f"zext {value} to {vector('i8', value.lanes)}")
        return Value(text, u8, value.lanes)

    def _from_memory(self, raw: Value, dtype: DType) -> Value:
        if dtype != bool_:
            return Value(raw.text, dtype, raw.lanes)
        zero = constant(0, u8, raw.lanes)
        return Value(self._f.pure(f"icmp ne {raw}, {zero.text}"), bool_, raw.lanes)

    def _load_one(self, place: Place, index: Value, mask: Value | None, other: float) -> str:
        type_ = memory_type(place.dtype)
        address = self._address(place, index)
        if mask is None:
            return self._f.do(f"load {type_}, ptr {address}, align {place.dtype.bytes}")
        # No branch: an address that is always good stands in for one that may not be read.
        safe = self._f.pure(f"select {mask}, ptr {address}, ptr {self._spare_slot()}")
        value = self._f.do(f"load {type_}, ptr {safe}, align {place.dtype.bytes}")
        zero = constant(other, _raw(place.dtype))
        return self._f.pure(f"select {mask}, {type_} {value}, {zero}")

    def _spare_slot(self) -> str:
        if not self._spare:
            self._spare = self._f.alloca("i64", 8)
        return self._spare

    def _store_one(self, place: Place, index: Value, value: Value, mask: Value | None) -> None:
        address = self._address(place, index)
        if mask is None:
            self._f.line(f"store {value}, ptr {address}, align {place.dtype.bytes}")
            return
        write, after = self._f.label(), self._f.label()
        self._f.branch(mask.text, write, after)
        self._f.start(write)
        self._f.line(f"store {value}, ptr {address}, align {place.dtype.bytes}")
        self._f.jump(after)
        self._f.start(after)

    def _later(self, index: Value, by: int) -> Value:
        if by == 0:
            return index
        if index.number is not None:
            return constant(index.number + by, i64)
        return Value(self._f.pure(f"add {index}, {by}"), i64)

    def _gather(
        self, place: Place, index: Value, active: int, mask: Value | None, other: float
    ) -> Value:
        """One load per lane: on the CPUs of today no slower than their gather instructions."""
        whole = mask is None and active == index.lanes
        if whole and _every_second(index.steps):
            return self._load_every_second(place, index)
        if whole and len(set(index.steps)) == 1:
            one = self.load(place, self._lane(index, 0), 1, 1, None, other)
            return splat(self._f, one, index.lanes)
        out = constant(other, _raw(place.dtype), index.lanes)
        for lane in range(active):
            at = self._lane(index, lane)
            bit = None
            if mask is not None:
                bit = Value(self._f.pure(f"extractelement {mask}, i64 {lane}"), bool_)
            self._check(place, at, 1, 1, bit)
            item = Value(self._load_one(place, at, bit, other), out.dtype)
            text = self._f.pure(f"insertelement {out}, {item}, i64 {lane}")
            out = Value(text, out.dtype, index.lanes)
        return self._from_memory(out, place.dtype)

    def _as_scalar(self, index: Value) -> Value:
        """Return the first index of lanes that follow each other; other vectors as they are."""
        first = index.steps[0] if index.steps else 0
        if index.steps != tuple(range(first, first + index.lanes)):
            return index
        return self._later(Value(index.start, i64), first)

    def _lane(self, index: Value, lane: int) -> Value:
        """The index of one lane: a known distance from a scalar if possible, which needs no vector."""
        if index.steps:
            return self._later(Value(index.start, i64), index.steps[lane])
        return Value(self._f.pure(f"extractelement {index}, i64 {lane}"), i64)

    def _load_every_second(self, place: Place, index: Value) -> Value:
        """Two loads that overlap, so that the second ends with the last element, and one shuffle."""
        lanes = index.lanes
        type_ = memory_type(place.dtype, lanes)
        halves = []
        for skip in (0, lanes - 1):
            at = self._later(Value(index.start, i64), index.steps[0] + skip)
            self._check(place, at, lanes, lanes, None)
            address = self._address(place, at)
            halves.append(self._f.do(f"load {type_}, ptr {address}, align {place.dtype.bytes}"))
        picked = [2 * i if 2 * i < lanes else 2 * i + 1 for i in range(lanes)]
        mask = shuffle(picked, lanes)
        text = self._f.pure(f"shufflevector {type_} {halves[0]}, {type_} {halves[1]}, {mask}")
        return self._from_memory(Value(text, _raw(place.dtype), lanes), place.dtype)

    # --- bounds ----------------------------------------------------------------------------------

    def _check(
        self, place: Place, index: Value, lanes: int, active: int, mask: Value | None
    ) -> None:
        """Leave the kernel with a record where an access would touch what is not the buffer's."""
        if self._faults is None:
            return
        if index.number is not None and 0 <= index.number <= place.size - active and mask is None:
            return
        seen = f"inside {place.name} {index.text} {active} {mask.text if mask else ''}"
        if not self._f.first_time(seen):
            return
        inside = self._inside(place, index, lanes, active, mask)
        good = self._f.label()
        self._faults.edges.append((self._f.block, index.text, place.number))
        self._f.branch(inside, good, FAULT)
        self._f.start(good)

    def _inside(
        self, place: Place, index: Value, lanes: int, active: int, mask: Value | None
    ) -> str:
        limit = place.size - (active if mask is None else 1)
        if lanes == 1 or mask is None:
            inside = self._f.pure(f"icmp ule {index}, {limit}") if limit >= 0 else "false"
            if mask is None:
                return inside
            return self._f.pure(f"select {mask}, i1 {inside}, i1 true")
        at = ramp(self._f, index, lanes)
        past = constant(place.size, i64, lanes)
        outside = self._f.pure(f"icmp uge {at}, {past.text}")
        used = self._all(mask, lanes, active)
        bad = self._f.pure(f"and {used}, {outside}")
        bits = self._f.pure(f"bitcast {vector('i1', lanes)} {bad} to i{lanes}")
        return self._f.pure(f"icmp eq i{lanes} {bits}, 0")


def splat(f: Function, x: Value, lanes: int) -> Value:
    """Return a scalar in every lane."""
    if lanes == 1:
        return x
    known = (x.text, (0,) * lanes) if x.dtype == i64 else ("", ())
    if not x.text.startswith("%"):
        return Value(f"splat ({x})", x.dtype, lanes, *known)
    type_ = register_type(x.dtype, lanes)
    first = f.pure(f"insertelement {type_} poison, {x}, i64 0")
    text = f.pure(f"shufflevector {type_} {first}, {type_} poison, <{lanes} x i32> zeroinitializer")
    return Value(text, x.dtype, lanes, *known)


def ramp(f: Function, start: Value, lanes: int) -> Value:
    """Return `start, start+1, …`, one per lane."""
    if lanes == 1:
        return start
    known = (start.text, tuple(range(lanes)))
    steps = "<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">"
    if start.number == 0:
        return Value(steps, i64, lanes, *known)
    return Value(f.pure(f"add {splat(f, start, lanes)}, {steps}"), i64, lanes, *known)


def _every_second(steps: tuple[int, ...]) -> bool:
    """Whether lanes lie two apart, in a vector long enough that two loads and a shuffle are fewer instructions."""
    return len(steps) >= 4 and steps == tuple(range(steps[0], steps[0] + 2 * len(steps), 2))


def _raw(dtype: DType) -> DType:
    return u8 if dtype == bool_ else dtype
