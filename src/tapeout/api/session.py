"""Entry points of one module over one memory: compiled as they are needed, the variables shared."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tapeout.driver.options import Options, resolve_target
from tapeout.driver.pipeline import compile_graph
from tapeout.kernel.program import Check
from tapeout.runtime.arena import Arena
from tapeout.runtime.executable import Executable
from tapeout.schedule.layout import plan_variables
from tapeout.support import env
from tapeout.support.errors import OptionError, TapeoutError, nearest

if TYPE_CHECKING:
    from tapeout.driver.pipeline import Compiled
    from tapeout.ir.graph import Graph, Variable
    from tapeout.ir.op import Array
    from tapeout.kernel.program import Program
    from tapeout.kernel.target import Target


class CheckFailed(TapeoutError):
    """A check of the program fired; nothing was updated."""


class Session:
    """The variables of a module in one arena, and the entry points compiled for it.

    The arena starts with the persistent part; it grows when an entry point needs a larger transient part, and never while one runs.

    Args:
        variables: All variables of the module, in the order of their declaration.
        target: `native` or the name of a target class.
        threads: Threads to run with; None: as the environment says.
        checked: Test the bounds of every memory access; None: as the environment says.
        guard: Put the arena between two inaccessible pages.
    """

    def __init__(
        self,
        variables: Sequence[Variable],
        *,
        target: str = "native",
        threads: int | None = None,
        checked: bool | None = None,
        guard: bool = False,
    ) -> None:
        """Lay out the variables and give them their initial values."""
        options = Options(runnable_target(target))
        self.options = options if checked is None else replace(options, checked=checked)
        self.threads = env.threads() if threads is None else threads
        if self.threads < 1:
            raise OptionError(f"threads is {self.threads}, it must be at least 1")
        self.variables = {v.name: v for v in variables}
        self.layout = plan_variables(list(variables))
        self.compile_seconds = 0.0
        self._guard = guard
        self._kernels: set[str] = set()
        self._entries: list[Entry] = []
        self.arena = Arena(self.layout.bytes, guard)
        for v in variables:
            if v.initial is not None:
                self.write(v.name, v.initial)

    @property
    def kernels(self) -> int:
        """Number of distinct kernels in use."""
        return len(self._kernels)

    def read(self, name: str) -> Array:
        """Return a copy of a variable.

        Raises:
            OptionError: There is none of that name.
        """
        return self._view(name).copy()

    def memory(self, name: str) -> Array:
        """Return the memory of a variable itself, valid until the next entry point is prepared."""
        return self._view(name)

    def write(self, name: str, array: Array) -> None:
        """Set a variable to an array of its shape and dtype."""
        self._view(name)[...] = array

    def prepare(self, graph: Graph) -> Entry:
        """Compile an entry point (or load it from the cache); nothing is allocated after this returns."""
        start = time.perf_counter()
        compiled = compile_graph(graph, self.layout, self.options)
        self.make_room(compiled.program.arena)
        entry = Entry(self, compiled)
        self._entries.append(entry)
        self._kernels.update(i.kernel for i in compiled.program.launches)
        self.compile_seconds += time.perf_counter() - start
        return entry

    def make_room(self, size: int) -> None:
        """Let the arena have at least so many bytes; entry points go on in the larger one."""
        if self.arena.bytes >= size:
            return
        larger = Arena(size, self._guard)
        larger.memory[: self.layout.bytes] = self.arena.memory[: self.layout.bytes]
        self.arena = larger
        for entry in self._entries:
            entry.bind(larger)

    def _view(self, name: str) -> Array:
        slot = self.layout.slot.get(name)
        if slot is None:
            raise OptionError(
                f"no variable is called {name!r}", hint=nearest(name, self.layout.slot)
            )
        order = tuple(range(slot.type.rank))
        return self.arena.view(slot.offset, slot.type.dtype, slot.type.shape, order)


def runnable_target(name: str) -> Target:
    """Return the target class of a name.

    Raises:
        OptionError: There is none, or its code would stop this machine with an illegal instruction.
    """
    from tapeout.codegen.machine import host_runs

    target = resolve_target(name)
    if not host_runs(target):
        raise OptionError(
            f"this machine lacks instructions of the target {name!r}", hint="use 'native'"
        )
    return target


class Entry:
    """One entry point for one binding of dimensions."""

    def __init__(self, session: Session, compiled: Compiled) -> None:
        """Link the code and bind it to the session's arena."""
        self.program: Program = compiled.program
        self.cached = compiled.cached
        self.gives_scalars = len(self.program.scalar_outputs) == len(self.program.outputs)
        self.many = self.gives_scalars and not session.options.checked
        """Whether `run_steps` is there: a checked build has memory to poison before each step."""
        self._messages = {i.code: i.message for i in self.program.numbered if isinstance(i, Check)}
        self._native = Executable(
            compiled.program,
            compiled.objects,
            entry=compiled.entry,
            checked=session.options.checked,
            threads=session.threads,
            arena=session.arena,
        )

    def bind(self, arena: Arena) -> None:
        """Work in another arena, whose persistent part is the same."""
        self._native.bind(arena)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and return copies of the outputs.

        Raises:
            CheckFailed: A check fired; nothing was updated.
        """
        self._test(self._native.run(inputs))
        return self._native.outputs()

    def run_if_fit(self, inputs: Mapping[str, Any]) -> dict[str, float] | None:
        """Run once on arrays that are just as the program takes them, and return its outputs, all of them scalars.

        Returns:
            The outputs; None if an input is missing or would have to be converted, or an output is no scalar: nothing ran then.

        Raises:
            CheckFailed: A check fired; nothing was updated.
        """
        if not self.gives_scalars:
            return None
        code = self._native.run_if_fit(inputs)
        if code is None:
            return None
        if code:
            self._test(code)
        return self._native.scalar_values()

    def addresses_if_fit(self, inputs: Mapping[str, Any]) -> list[int] | None:
        """Return the addresses of arrays that are just as the program takes them, None if one is not."""
        return self._native.addresses_if_fit(inputs)

    def run_steps(self, addresses: Array) -> tuple[dict[str, list[float]], CheckFailed | None]:
        """Run once for each row of addresses of the inputs, in one native call.

        Args:
            addresses: u64[steps, inputs], contiguous; the caller keeps what they point to alive.

        Returns:
            The outputs of the steps that ended well, and what stopped the one after them before it updated anything.
        """
        results, code = self._native.run_steps(addresses)
        columns = self._native.scalar_columns(results)
        return columns, CheckFailed(self._message(code)) if code else None

    def _test(self, code: int) -> None:
        if code:
            raise CheckFailed(self._message(code))

    def _message(self, code: int) -> str:
        return self._messages.get(code, f"the program stopped with code {code}")
