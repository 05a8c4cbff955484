"""Compiles kernels in several processes at once, while others are still being scheduled.

LLVM, as llvmlite binds it, works behind one lock in each process, so threads gain nothing. Helpers are processes of their own that get
kernels as data and give back object code; where none can be started, or one ends, this process does their work. The code of
a kernel is the same whoever compiles it.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tapeout.codegen.assemble import assemble, content_key
from tapeout.codegen.emit import KernelEmitter
from tapeout.codegen.machine import resolve
from tapeout.kernel.math import legalize
from tapeout.kernel.text import print_kernel
from tapeout.support import env

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.codegen.cache import KernelCache
    from tapeout.kernel import loops
    from tapeout.kernel.target import Target

FEWEST = 24
"""Kernels to compile from which on helpers are worth their start."""
MOST = 7
"""Most helpers."""
_WIDTH = 8


class Crew:
    """Compiles kernels for one class of machines.

    Args:
        target: Machine class.
        checked: Test the bounds of every load and store.
        cache: Where objects are kept; None keeps none.
        helpers: Most processes beside this one; by default as TAPEOUT_JOBS says, else one for each further core.
    """

    def __init__(
        self,
        target: Target,
        *,
        checked: bool = False,
        cache: KernelCache | None = None,
        helpers: int | None = None,
    ) -> None:
        self._target, self._checked, self._cache = target, checked, cache
        self._helpers = min(MOST, env.jobs() - 1 if helpers is None else helpers)
        self._keys: dict[str, str] = {}
        self._done: dict[str, bytes] = {}
        self._queue: queue.SimpleQueue[loops.Kernel | None] = queue.SimpleQueue()
        self._given = 0
        self._threads: list[threading.Thread] = []

    def submit(self, kernel: loops.Kernel) -> None:
        """Take a kernel; it may be compiled from now on."""
        name = kernel.name
        if name in self._keys:
            return
        self._keys[name] = self._key(kernel)
        found = None if self._cache is None else self._cache.get(self._keys[name])
        if found is not None:
            self._done[name] = found
            return
        self._queue.put(kernel)
        self._given += 1
        if self._given == FEWEST:
            self._start()

    def objects(self, kernels: Mapping[str, loops.Kernel]) -> dict[str, bytes]:
        """Return the object code of kernels by symbol, and let helpers go.

        Raises:
            CompileError: A kernel holds what a CPU thread cannot do.
        """
        for kernel in kernels.values():
            self.submit(kernel)
        with contextlib.suppress(queue.Empty):
            while True:
                kernel_or_end = self._queue.get_nowait()
                # Those that were taken and that nothing needs after all are left out.
                if kernel_or_end is not None and kernel_or_end.name in kernels:
                    self._keep(kernel_or_end, self._compile(kernel_or_end))
        self.close()
        for kernel in kernels.values():
            if kernel.name not in self._done:
                self._keep(kernel, self._compile(kernel))
        return {symbol: self._done[kernel.name] for symbol, kernel in kernels.items()}

    def close(self) -> None:
        """Let helpers end what they are at, and go."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        for _ in self._threads:
            self._queue.put(None)
        for t in self._threads:
            t.join()
        self._threads = []

    def _key(self, kernel: loops.Kernel) -> str:
        # By the kernel's own text, so that a hit needs no formulas and no LLVM IR.
        if self._cache is None:
            return ""
        facts = f"checked {self._checked} {self._target!r}\n"
        return content_key("kernel", resolve(self._target), facts + print_kernel(kernel))

    def _keep(self, kernel: loops.Kernel, code: bytes) -> None:
        self._done[kernel.name] = code
        if self._cache is not None:
            self._cache.put(self._keys[kernel.name], code)

    def _compile(self, kernel: loops.Kernel) -> bytes:
        return compile_kernel(kernel, self._target, self._checked)

    # -- helpers ------------------------------------------------------------------------------------

    def _start(self) -> None:
        for _ in range(self._helpers):
            process = _process()
            if process is None:
                return
            thread = threading.Thread(target=self._feed, args=(process,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """Hand kernels to a helper, one after the other, until there is none left or it fails."""
        assert process.stdin is not None and process.stdout is not None
        # A helper that fails leaves its kernel to others.
        with contextlib.suppress(OSError, EOFError, ValueError, RecursionError), process:
            while (kernel := self._queue.get()) is not None:
                write(process.stdin, pickle.dumps((kernel, self._target, self._checked)))
                code = read(process.stdout)
                if code:
                    self._keep(kernel, code)


def compile_kernel(kernel: loops.Kernel, target: Target, checked: bool) -> bytes:
    """Return the object code of a verified kernel.

    Raises:
        CompileError: The kernel holds what a CPU thread cannot do.
    """
    return assemble(KernelEmitter(legalize(kernel, target), target, checked).text(), target)


def write(stream: IO[bytes], data: bytes) -> None:
    """Write a message, its length before it."""
    stream.write(len(data).to_bytes(_WIDTH, "little") + data)
    stream.flush()


def read(stream: IO[bytes]) -> bytes:
    """Read a message.

    Raises:
        EOFError: The stream has ended.
    """
    size = int.from_bytes(_exactly(stream, _WIDTH), "little")
    return _exactly(stream, size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _process() -> subprocess.Popen[bytes] | None:
    """Start a helper, None where this process is no plain interpreter."""
    if getattr(sys, "frozen", False) or not Path(sys.executable or "").name.startswith("python"):
        return None
    root = str(Path(__file__).parents[2])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); from tapeout.codegen.helper import main; main()"
    )
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
