"""The oracle of programs: every launch through the oracle of kernels, in one arena."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.kernel.program import Check, executed
from tapeout.oracle import kernel as kernel_oracle
from tapeout.support.errors import DataError, VerifyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.ir.op import Array
    from tapeout.kernel.loops import Param
    from tapeout.kernel.program import Buffer, Launch, Program, Times

POISON = 0xFF
"""Every float type reads NaN from bytes of this value."""


def run(
    program: Program,
    arena: Array | bytearray,
    inputs: Mapping[str, Array],
    *,
    poison: bool = True,
    seed: int | None = None,
) -> int:
    """Run a program in place.

    Args:
        program: What to run.
        arena: `program.arena` bytes (u8), starting with the variables at the offsets of `program.layout`.
        inputs: One contiguous array per input, of its type.
        poison: Whether the transient part of the arena is filled with `POISON` first.
        seed: See `oracle.kernel.run`.

    Returns:
        0, or the code of the first check that failed; then no variable has been written.

    Raises:
        DataError: An input is missing or does not fit.
        VerifyError: The program breaks a rule of its representation.
    """
    memory = (
        np.frombuffer(arena, np.uint8) if isinstance(arena, bytearray) else arena.view(np.uint8)
    )
    if memory.size < program.arena:
        raise DataError(f"the arena has {memory.size} bytes, {program.name} needs {program.arena}")
    if poison:
        memory[program.layout.bytes : program.arena] = POISON
    whole = {
        b.name: _view(program, b, memory, inputs) for b in program.buffers.values() if not b.of
    }

    def view(name: str, times: Times) -> Array:
        return whole[name] if name in whole else _part(program, name, times, whole)

    for item, times in executed(program.items, lambda name, at: bool(view(name, at)[0])):
        if not isinstance(item, Check):
            _launch(program, item, {n: view(n, times) for n in item.args}, seed)
        elif view(item.buffer, times)[0]:
            return item.code
    return 0


def _launch(program: Program, item: Launch, views: Mapping[str, Array], seed: int | None) -> None:
    kernel = program.kernels[item.kernel]
    if len(kernel.params) != len(item.args):
        raise VerifyError(
            f"{item.kernel} takes {len(kernel.params)} buffers, {len(item.args)} are passed",
            where=f"{program.name}: {item.label}",
        )
    for param, name in zip(kernel.params, item.args, strict=True):
        space = program.buffers[name].space
        if "w" in param.access and space in ("input", "constant"):
            raise VerifyError(f"{item.kernel} writes {name!r}, an {space}", where=item.label)
        if "w" in param.access and space == "variable" and not item.update:
            raise VerifyError(
                f"{item.kernel} writes variable {name!r} in a launch that is no update"
            )
    args = {p.name: _as(views[a], p) for p, a in zip(kernel.params, item.args, strict=True)}
    kernel_oracle.run(kernel, args, seed)


def _as(array: Array, param: Param) -> Array:
    """Return the memory of a buffer as elements of a param's type."""
    dtype = param.dtype.numpy
    if array.dtype == dtype:
        return array
    return array.view(np.uint8)[: param.size * dtype.itemsize].view(dtype)


def _view(program: Program, buffer: Buffer, memory: Array, inputs: Mapping[str, Array]) -> Array:
    dtype = buffer.type.dtype.numpy
    if buffer.space == "input":
        return _input(buffer, inputs)
    source = np.frombuffer(program.data, np.uint8) if buffer.space == "constant" else memory
    end = buffer.offset + buffer.bytes
    if end > (len(program.data) if buffer.space == "constant" else program.arena):
        raise VerifyError(f"buffer {buffer.name!r} ends at byte {end}, past the end of its space")
    view: Array = source[buffer.offset : end].view(dtype)
    return view


def _part(program: Program, name: str, times: Times, whole: Mapping[str, Array]) -> Array:
    """Return what a part of another buffer stands for at some iterations."""
    buffer = program.buffers[name]
    base, start = program.place(name, times)
    stop = start + buffer.bytes
    memory = whole[base.name].view(np.uint8)
    if not 0 <= start <= stop <= memory.size:
        raise VerifyError(
            f"buffer {name!r} lies at {start}, {stop} of {base.name!r}, which has {memory.size} bytes",
            where=f"{program.name}: iterations {list(times)}",
        )
    found: Array = memory[start:stop].view(buffer.type.dtype.numpy)
    return found


def _input(buffer: Buffer, inputs: Mapping[str, Array]) -> Array:
    array = inputs.get(buffer.name)
    if array is None:
        raise DataError(f"input {buffer.name!r} is missing")
    if array.dtype != buffer.type.dtype.numpy or array.shape != buffer.type.shape:
        raise DataError(
            f"input {buffer.name!r} is {array.dtype}{array.shape}, {buffer.type} is expected"
        )
    return np.ascontiguousarray(array).reshape(-1)
