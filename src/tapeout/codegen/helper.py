"""A program that compiles kernels: from its input as data, to its output as object code. It ends with its input."""

from __future__ import annotations

import contextlib
import pickle
import sys

from tapeout.codegen.crew import compile_kernel, read, write
from tapeout.support.errors import TapeoutError


def main() -> None:
    """Compile what comes in; an empty answer says that it could not be compiled."""
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            # From the process that started this one, and from nobody else.
            kernel, target, checked = pickle.loads(read(sys.stdin.buffer))  # noqa: S301
            try:
                code = compile_kernel(kernel, target, checked)
            except TapeoutError:
                code = b""
            write(sys.stdout.buffer, code)
