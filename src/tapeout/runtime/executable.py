"""A program that can be run: its code, the memory it works in, and the arrays it is given."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.runtime.arena import Arena, shaped
from tapeout.runtime.jit import Library, raise_fault
from tapeout.runtime.pool import SYMBOL, Pool, shared_pool
from tapeout.support.errors import DataError, OptionError, TapeoutError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.ir.op import Array
    from tapeout.kernel.program import Buffer, Program, Slot

_Entry = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)
_Steps = ctypes.CFUNCTYPE(
    ctypes.c_int64,
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
    *(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p),
)
_FAULT = -1


class Executable:
    """A program bound to memory.

    Args:
        program: What to run; its kernels need not be there.
        objects: Object code by symbol: kernels, driver, thread pool.
        entry: Symbol of the driver; found among the objects if empty.
        checked: Whether the objects test bounds. Memory that a run has not written is poisoned then.
        threads: Number of threads; results do not depend on it.
        guard: Put an arena made here between two pages that fault.
        arena: Memory to work in, which other programs of the same layout may share; made if None.
        clocks: Whether the driver times its launches.

    Raises:
        TapeoutError: The objects do not fit together.
        BudgetError: There is not enough memory.
    """

    def __init__(
        self,
        program: Program,
        objects: Mapping[str, bytes],
        *,
        entry: str = "",
        checked: bool = False,
        threads: int = 1,
        guard: bool = False,
        arena: Arena | None = None,
        clocks: bool = False,
    ) -> None:
        """Link the code and bind it."""
        self.program = program
        self.checked = checked
        self._pool_code = objects[SYMBOL]
        entry = entry or _find_entry(objects)
        fault = [f"{entry}__fault"] if checked else []
        code = [data for name, data in objects.items() if name != SYMBOL]
        timed = [f"{entry}__clocks"] if clocks else []
        many = f"{entry}__steps"
        self._library = Library(code, [entry, many, *fault, *timed])
        self._entry = _Entry(self._library[entry])
        self._steps = _Steps(self._library[many])
        self._faults = [(ctypes.c_int64 * 4).from_address(self._library[f]) for f in fault]
        self._clocks = [_clocks(self._library[t], len(program.launches)) for t in timed]
        self._inputs = (ctypes.c_void_p * max(1, len(program.inputs)))()
        self._wanted = _wanted(program)
        self._data = _aligned_copy(program.data)
        self._constants = int(self._data.ctypes.data)
        self._echoed = _inputs_that_are_outputs(program)
        self._echo: dict[str, Array] = {}
        self._pool: Pool | None = None
        self._threads = 1
        self.arena = arena if arena is not None else Arena(program.arena, guard)
        self.bind(self.arena)
        self.set_threads(threads)

    # --- binding ---------------------------------------------------------------------------------

    def bind(self, arena: Arena) -> None:
        """Work in other memory, which holds the variables at the same places.

        Raises:
            TapeoutError: It is too small.
        """
        if arena.bytes < self.program.arena:
            raise TapeoutError(
                f"an arena of {arena.bytes} bytes is given, {self.program.arena} are needed",
                where=self.program.name,
            )
        self.arena = arena
        self._scalars = {n: self._view(b) for n, b in self.program.scalar_outputs.items()}

    @property
    def threads(self) -> int:
        """Number of threads."""
        return self._threads

    def set_threads(self, threads: int) -> None:
        """Run with another number of threads from now on; results stay the same.

        Raises:
            OptionError: The number is not positive.
        """
        if threads < 1:
            raise OptionError(f"threads is {threads}, at least 1 is expected")
        self._threads = threads
        self._pool = None
        self._ready_pool()  # now, so that no run allocates

    def _ready_pool(self) -> Pool | None:
        """The pool to run with, made when first needed and again in a forked child."""
        if self._threads == 1:
            return None
        if self._pool is None or self._pool.process != os.getpid():
            self._pool = shared_pool(self._threads, self._pool_code)
        return self._pool

    # --- running ---------------------------------------------------------------------------------

    def run(self, inputs: Mapping[str, Array]) -> int:
        """Run the program once.

        Args:
            inputs: An array for each of the program's inputs, of its type; not copied if contiguous.

        Returns:
            0, or the code of the check that stopped it before anything was updated.

        Raises:
            DataError: An input is missing or does not fit.
            TapeoutError: A checked build met an access out of bounds (a fault of the compiler).
        """
        kept = self._set_inputs(inputs)
        code = self._call()
        if self._echoed:
            named = zip(self.program.inputs, kept, strict=True)
            self._echo = {n: a for n, a in named if n in self._echoed}
        return code

    def run_if_fit(self, inputs: Mapping[str, Array]) -> int | None:
        """Run the program once if every input is an array just as the program takes it; return None if one is not.

        Nothing is copied and nothing converted: the shortest way for a caller who runs a program again and again. What else
        `inputs` holds plays no part.
        """
        found = self.addresses_if_fit(inputs)
        if found is None or self._echoed:
            return None
        for n, address in enumerate(found):
            self._inputs[n] = address
        return self._call()

    def addresses_if_fit(self, inputs: Mapping[str, Array]) -> list[int] | None:
        """Return the addresses of the inputs, None if one is not an array just as the program takes it."""
        found = []
        for name, dtype, shape in self._wanted:
            array = inputs.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
                return None
            flags = array.flags
            if not flags.c_contiguous or not flags.aligned:
                return None
            found.append(array.__array_interface__["data"][0])
        return found

    def _call(self) -> int:
        """Run on the addresses that are set."""
        if self.checked:
            self.arena.poison(self.program.layout.bytes)
        pool = self._pool
        if self._threads > 1 and (pool is None or pool.process != os.getpid()):
            pool = self._ready_pool()
        if pool is None:
            code = self._entry(self.arena.address, self._inputs, None, self._constants)
        else:
            with pool.lock:
                code = self._entry(self.arena.address, self._inputs, pool.address, self._constants)
        if code == _FAULT:
            self._raise_fault()
        return int(code)

    def take_times(self) -> Array:
        """Return what the clocks have counted since they were last asked, and set them to 0.

        Returns:
            i64[launches + 1, 2]: nanoseconds and number of runs of each launch in the order of the text, then of the program.

        Raises:
            OptionError: The driver has no clocks.
        """
        if not self._clocks:
            raise OptionError("the program has no clocks", hint="build it with clocks=True")
        (record,) = self._clocks
        found = record.copy()
        record[...] = 0
        return found

    def run_steps(self, addresses: Array) -> tuple[Array, int]:
        """Run the program many times in one native call.

        Args:
            addresses: u64[steps, inputs], the addresses of the inputs of each step, contiguous; whoever calls keeps the memory alive.

        Returns:
            What the program's `scalar_outputs` held after each step that ended well, a row of eight bytes each (`scalar_columns` reads them), and 0 or the code of the
            check that stopped the step after those, before it updated anything.

        Raises:
            TapeoutError: As `run`; or the build is checked, which has memory to poison before each step.
        """
        if self.checked:
            raise TapeoutError("a checked build runs step by step", where=self.program.name)
        steps = len(addresses)
        results = np.zeros((steps, max(1, len(self.program.scalar_outputs))), np.uint64)
        code = ctypes.c_int32()
        pool = self._ready_pool()
        arena, data = self.arena.address, self._constants
        given, kept = addresses.ctypes.data, results.ctypes.data
        if pool is None:
            done = self._steps(arena, given, None, data, steps, kept, ctypes.addressof(code))
        else:
            with pool.lock:
                done = self._steps(
                    arena, given, pool.address, data, steps, kept, ctypes.addressof(code)
                )
        return results[:done], int(code.value)

    def _raise_fault(self) -> None:
        for record in self._faults:
            held = list(record)
            record[0] = 0
            raise_fault(held)

    def _set_inputs(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Take the addresses of the inputs; return the arrays that must live while the program runs."""
        kept = []
        for n, name in enumerate(self.program.inputs):
            if name not in inputs:
                raise DataError(
                    f"no array for the input {name!r}",
                    where=self.program.name,
                    hint=nearest(name, inputs),
                )
            array = self._fitting(name, inputs[name])
            self._inputs[n] = array.ctypes.data
            kept.append(array)
        return kept

    def _fitting(self, name: str, given: Array) -> Array:
        type_ = self.program.buffers[name].type
        array = np.asarray(given)
        if array.dtype != type_.dtype.numpy or array.shape != type_.shape:
            raise DataError(
                f"input {name!r} is {array.dtype}{list(array.shape)}, {type_} is expected",
                where=self.program.name,
            )
        if array.flags.c_contiguous and array.flags.aligned:
            return array
        return array.copy(order="C")

    # --- reading and writing ---------------------------------------------------------------------

    def output(self, name: str) -> Array:
        """Return a copy of an output of the last run.

        Raises:
            OptionError: There is no output of that name.
        """
        outputs = self.program.outputs
        if name not in outputs:
            raise OptionError(f"no output is called {name!r}", hint=nearest(name, outputs))
        return np.array(self._view(self.program.buffers[outputs[name]]))

    def scalar_values(self) -> dict[str, float]:
        """Return the `scalar_outputs` of the last run."""
        return {name: view.item() for name, view in self._scalars.items()}

    def scalar_columns(self, results: Array) -> dict[str, list[float]]:
        """Return the `scalar_outputs` of every step from what `run_steps` returned."""
        columns = {}
        for n, (name, b) in enumerate(self.program.scalar_outputs.items()):
            column = np.ascontiguousarray(results[:, n])
            size = 8 // b.type.dtype.bytes
            columns[name] = column.view(b.type.dtype.numpy)[::size].tolist()
        return columns

    def outputs(self) -> dict[str, Array]:
        """Return copies of all outputs of the last run, by name."""
        return {name: self.output(name) for name in self.program.outputs}

    def variable(self, name: str) -> Array:
        """Return a copy of a parameter, state or hyper-parameter.

        Raises:
            OptionError: There is no variable of that name.
        """
        return self._variable_view(name).copy()

    def set_variable(self, name: str, value: Array) -> None:
        """Write a variable.

        Raises:
            OptionError: There is no variable of that name.
            DataError: The array does not have its shape, or would lose precision.
        """
        view = self._variable_view(name)
        array = np.asarray(value)
        if array.shape != view.shape or not np.can_cast(array.dtype, view.dtype, "same_kind"):
            raise DataError(
                f"variable {name!r} is {view.dtype}{list(view.shape)}, "
                f"given is {array.dtype}{list(array.shape)}"
            )
        view[...] = array

    def _variable_view(self, name: str) -> Array:
        slots: dict[str, Slot] = self.program.layout.slot
        if name not in slots:
            raise OptionError(f"no variable is called {name!r}", hint=nearest(name, slots))
        type_ = slots[name].type
        order = tuple(range(len(type_.shape)))
        return self.arena.view(slots[name].offset, type_.dtype, type_.shape, order)

    def _view(self, buffer: Buffer) -> Array:
        type_ = buffer.type
        if buffer.space == "input":
            return self._echo[self.program.inputs[buffer.offset]]
        if buffer.space == "constant":
            return shaped(self._data[buffer.offset :], type_.dtype, type_.shape, buffer.order)
        return self.arena.view(buffer.offset, type_.dtype, type_.shape, buffer.order)


def _wanted(program: Program) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """Return name, dtype and shape of each input."""
    types = [(n, program.buffers[n].type) for n in program.inputs]
    return [(n, np.dtype(t.dtype.numpy), tuple(map(int, t.shape))) for n, t in types]


def _find_entry(objects: Mapping[str, bytes]) -> str:
    found = [s for s in objects if s.startswith("tapeout_") and s != SYMBOL]
    if len(found) != 1:
        raise TapeoutError(f"one driver is expected among the objects, found {found}")
    return found[0]


def _clocks(address: int, launches: int) -> Array:
    """Return the record of a driver with clocks as an array over its memory."""
    words = (ctypes.c_int64 * (2 * (launches + 1))).from_address(address)
    found: Array = np.ctypeslib.as_array(words)
    return found.reshape(launches + 1, 2)


def _inputs_that_are_outputs(program: Program) -> dict[str, None]:
    found = (program.buffers[b] for b in program.outputs.values())
    return {program.inputs[b.offset]: None for b in found if b.space == "input"}


def _aligned_copy(data: bytes) -> Array:
    """Return the constants at an address that 64 divides."""
    raw = np.zeros(len(data) + 128, np.uint8)
    start = -raw.ctypes.data % 64
    raw[start : start + len(data)] = np.frombuffer(data, np.uint8)
    return raw[start:]
