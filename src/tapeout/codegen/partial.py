"""Loads and stores of some lanes of a vector: the first few, or those of a mask.

A vector is taken register by register. LLVM 22 splits a masked load of several registers itself, and where it can prove one
half of the mask false it aborts or drops the mask of the other half; it also joins neighbouring masked loads and then does the
same. So AVX2 gets its own instruction by name, which LLVM leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tapeout.codegen.scalar import mangled
from tapeout.codegen.text import Value, constant_mask, register_type

if TYPE_CHECKING:
    from tapeout.codegen.text import Function
    from tapeout.ir.dtype import DType
    from tapeout.kernel.target import Target


def has_masks(target: Target) -> bool:
    """Whether registers of masks say which lanes an access touches."""
    return target.name in ("avx512", "avx512-bf16")


Addresses = Callable[[int], str]
"""From a lane to the operand with the address of its element."""


class Partial:
    """Writes partial loads and stores into a function.

    Args:
        function: Where the instructions go.
        target: Says how long a register is and which accesses are instructions.
    """

    def __init__(self, function: Function, target: Target) -> None:
        """Write into `function`."""
        self._f = function
        self._target = target

    def load(self, address: Addresses, active: int, mask: Value | None, rest: Value) -> Value:
        """Return the first `active` lanes that are true in the mask, and those of the constant `rest` elsewhere."""
        parts = []
        for start, lanes, live in self._registers(rest.dtype, rest.lanes, active):
            other = Value(rest.text, rest.dtype, lanes)
            if live == 0:
                parts.append(other)
            elif mask is None and live == lanes:
                parts.append(self._load_whole(address(start), rest.dtype, lanes))
            elif mask is None and not self._has_masked_load(rest.dtype):
                parts.append(self._load_pieces(address, start, live, other))
            else:
                parts.append(self._load_masked(address(start), mask, start, live, other))
        return self._join(parts)

    def store(self, address: Addresses, value: Value, active: int, mask: Value | None) -> None:
        """Write the first `active` lanes that are true in the mask."""
        for start, lanes, live in self._registers(value.dtype, value.lanes, active):
            part = self._slice(value, start, lanes)
            if live == 0:
                continue
            if mask is None and not has_masks(self._target):
                # A masked store is microcode on AMD before AVX-512: a few narrower stores are faster.
                self._store_pieces(address, start, live, part)
            else:
                self._store_masked(address(start), mask, start, live, part)

    def _registers(self, dtype: DType, lanes: int, active: int) -> Iterator[tuple[int, int, int]]:
        """First lane, number of lanes and number of active ones of each register."""
        per = min(lanes, self._target.lanes(dtype.bytes))
        for start in range(0, lanes, per):
            yield start, per, max(0, min(per, active - start))

    def _has_masked_load(self, dtype: DType) -> bool:
        if has_masks(self._target):
            return True
        return self._target.name == "avx2" and dtype.bits >= 32

    def _mask(self, mask: Value | None, start: int, lanes: int, live: int) -> str:
        """The operand, with its type, of the lanes of one register that may be touched."""
        type_ = f"<{lanes} x i1>"
        first = constant_mask(lanes, live)
        if mask is None:
            return f"{type_} {first}"
        part = mask.text
        if mask.lanes != lanes:
            picked = shuffle(range(start, start + lanes), lanes)
            part = self._f.pure(f"shufflevector {mask}, {mask.type} poison, {picked}")
        if live < lanes:
            part = self._f.pure(f"and {type_} {first}, {part}")
        return f"{type_} {part}"

    # --- loads -----------------------------------------------------------------------------------

    def _load_whole(self, address: str, dtype: DType, lanes: int) -> Value:
        text = self._f.do(f"load {register_type(dtype, lanes)}, ptr {address}, align {dtype.bytes}")
        return Value(text, dtype, lanes)

    def _load_masked(
        self, address: str, mask: Value | None, start: int, live: int, other: Value
    ) -> Value:
        operand = self._mask(mask, start, other.lanes, live)
        if self._has_avx_mask(other.dtype, other.lanes):
            return self._load_avx(address, operand, other)
        text = self._f.do(
            f"call {other.type} @llvm.masked.load.{mangled(other)}.p0("
            f"ptr align {other.dtype.bytes} {address}, {operand}, {other})"
        )
        return Value(text, other.dtype, other.lanes)

    def _has_avx_mask(self, dtype: DType, lanes: int) -> bool:
        return self._target.name == "avx2" and dtype.bits >= 32 and dtype.bits * lanes >= 128

    def _avx(self, operand: str, value: Value) -> tuple[str, str, str]:
        """The suffix of the instruction, the type it moves, and the mask as integers."""
        bits, lanes = value.dtype.bits, value.lanes
        suffix = ("pd" if bits == 64 else "ps") + (".256" if bits * lanes == 256 else "")
        wide = f"<{lanes} x i{bits}>"
        text = self._f.pure(f"sext {operand} to {wide}")
        return suffix, f"<{lanes} x {'double' if bits == 64 else 'float'}>", f"{wide} {text}"

    def _load_avx(self, address: str, operand: str, other: Value) -> Value:
        suffix, moved, wide = self._avx(operand, other)
        text = self._f.do(f"call {moved} @llvm.x86.avx.maskload.{suffix}(ptr {address}, {wide})")
        if moved != other.type:
            text = self._f.pure(f"bitcast {moved} {text} to {other.type}")
        chosen = self._f.pure(f"select {operand}, {other.type} {text}, {other}")
        return Value(chosen, other.dtype, other.lanes)

    def _load_pieces(self, address: Addresses, start: int, live: int, other: Value) -> Value:
        out, lanes = other, other.lanes
        for first, count in _pieces(live):
            piece = self._load_whole(address(start + first), other.dtype, count)
            if count == 1:
                text = self._f.pure(f"insertelement {out}, {piece}, i64 {first}")
            else:
                spread = shuffle(range(count), lanes)
                wide = self._f.pure(f"shufflevector {piece}, {piece.type} poison, {spread}")
                picked = [lanes + i - first if 0 <= i - first < count else i for i in range(lanes)]
                merge = shuffle(picked, lanes)
                text = self._f.pure(f"shufflevector {out}, {out.type} {wide}, {merge}")
            out = Value(text, other.dtype, lanes)
        return out

    def _join(self, parts: list[Value]) -> Value:
        """Concatenate vectors of equal length, pairwise."""
        while len(parts) > 1:
            merged = []
            for a, b in zip(parts[::2], parts[1::2], strict=True):
                lanes = 2 * a.lanes
                text = self._f.pure(f"shufflevector {a}, {b}, {shuffle(range(lanes), lanes)}")
                merged.append(Value(text, a.dtype, lanes))
            parts = merged
        return parts[0]

    # --- stores ----------------------------------------------------------------------------------

    def _slice(self, value: Value, start: int, lanes: int) -> Value:
        if lanes == value.lanes:
            return value
        if lanes == 1:
            text = self._f.pure(f"extractelement {value}, i64 {start}")
        else:
            picked = shuffle(range(start, start + lanes), lanes)
            text = self._f.pure(f"shufflevector {value}, {value.type} poison, {picked}")
        return Value(text, value.dtype, lanes)

    def _store_masked(
        self, address: str, mask: Value | None, start: int, live: int, part: Value
    ) -> None:
        operand = self._mask(mask, start, part.lanes, live)
        if self._has_avx_mask(part.dtype, part.lanes):
            self._store_avx(address, operand, part)
            return
        self._f.line(
            f"call void @llvm.masked.store.{mangled(part)}.p0({part}, "
            f"ptr align {part.dtype.bytes} {address}, {operand})"
        )

    def _store_avx(self, address: str, operand: str, part: Value) -> None:
        suffix, moved, wide = self._avx(operand, part)
        text = part.text
        if moved != part.type:
            text = self._f.pure(f"bitcast {part} to {moved}")
        self._f.line(
            f"call void @llvm.x86.avx.maskstore.{suffix}(ptr {address}, {wide}, {moved} {text})"
        )

    def _store_pieces(self, address: Addresses, start: int, live: int, part: Value) -> None:
        for first, count in _pieces(live):
            piece = self._slice(part, first, count)
            self._f.line(f"store {piece}, ptr {address(start + first)}, align {part.dtype.bytes}")


def shuffle(picked: range | list[int], lanes: int) -> str:
    """Return the mask operand of a shufflevector; lanes past the end of `picked` are poison."""
    items = [f"i32 {i}" for i in picked] + ["i32 poison"] * (lanes - len(picked))
    return f"<{lanes} x i32> <" + ", ".join(items) + ">"


def _pieces(live: int) -> Iterator[tuple[int, int]]:
    """Split the first `live` lanes into (start, count) with counts that are falling powers of two."""
    start = 0
    while start < live:
        count = 1 << (live - start).bit_length() - 1
        yield start, count
        start += count
