"""The table of operators: which function imports which operator from which version on.

    @op("Relu", since=6)
    def relu(call: Call, x: Sym) -> Sym:
        return x.relu()

Operands arrive in the operator's order; one without a default must be there, `None` is a missing optional one, `*xs` takes
any number. Attributes are read from the call; one that is not read makes the import fail, so none is ignored. `since` is the
first version of the operator set with this meaning: versions that only widened the list of element types have no entry.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.frontend.onnx.listed import Held
    from tapeout.ops.sym import Sym

Results = "Sym | Held | tuple[Sym | Held | None, ...]"
Importer = Callable[..., "Sym | Held | tuple[Sym | Held | None, ...]"]
F = TypeVar("F", bound=Importer)


@dataclass(frozen=True)
class Version:
    """One meaning of an operator.

    Attributes:
        name: The operator.
        since: First version of the operator set that gives it this meaning.
        run: Appends the operator's nodes.
        operands: Names of the operands; those from `required` on may be missing.
        required: How many must be there.
        variadic: Whether the last operand may come any number of times.
        note: What is not supported, for the reference page.
        holds: Whether it takes sequences and optionals.
    """

    name: str
    since: int
    run: Importer
    operands: tuple[str, ...]
    required: int
    variadic: bool
    note: str
    holds: bool = False

    def __call__(self, call: Call, *operands: Sym | Held | None) -> tuple[Sym | Held | None, ...]:
        """Append the operator's nodes and return its results."""
        results = self.run(call, *operands)
        return results if isinstance(results, tuple) else (results,)


_TABLE: dict[str, dict[int, Version]] = {}


def op(*names: str, since: int = 1, note: str = "", holds: bool = False) -> Callable[[F], F]:
    """Enter a function as the meaning of operators from a version on."""

    def enter(run: F) -> F:
        for name in names:
            add(name, since, run, note, holds=holds)
        return run

    return enter


def add(name: str, since: int, run: Importer, note: str = "", *, holds: bool = False) -> None:
    """Enter a function in the table; for operators that are one line each."""
    operands = list(inspect.signature(run).parameters.values())[1:]
    variadic = bool(operands) and operands[-1].kind is inspect.Parameter.VAR_POSITIONAL
    required = sum(p.default is inspect.Parameter.empty for p in operands)
    versions = _TABLE.setdefault(name, {})
    if since in versions:
        raise ValueError(f"{name} has two meanings since version {since}")
    versions[since] = Version(
        name, since, run, tuple(p.name for p in operands), required, variadic, note, holds
    )


@cache
def find(name: str, opset: int) -> Version | None:
    """Return the meaning of an operator in a version of the operator set, None where there is none."""
    _load()
    fitting = [since for since in _TABLE.get(name, ()) if since <= opset]
    return _TABLE[name][max(fitting)] if fitting else None


def table() -> list[Version]:
    """Return every entry, by name and version."""
    _load()
    return [v for _, by in sorted(_TABLE.items()) for _, v in sorted(by.items())]


def _load() -> None:
    import tapeout.frontend.onnx.operators  # noqa: F401  (fills the table)
