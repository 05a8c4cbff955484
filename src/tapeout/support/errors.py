"""The errors a user can meet. Each says what is wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class TapeoutError(Exception):
    """Base of all errors that tapeout raises on purpose.

    Args:
        message: What is wrong, in one sentence, with expected and got.
        where: The place: file, node, tensor or line; empty when there is none.
        hint: How to mend it; empty when unknown.
    """

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        self.message, self.where, self.hint = message, where, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class OptionError(TapeoutError):
    """A call or a command was given an option that does not exist or does not fit."""


class OnnxImportError(TapeoutError):
    """The model file cannot be read or breaks the ONNX rules."""


class UnsupportedOperator(OnnxImportError):
    """The model holds operators that tapeout does not import; all of them are named at once."""


class ShapeError(TapeoutError):
    """Types or shapes of the operands do not fit the operation."""


class UnboundDimension(ShapeError):
    """A named dimension has no number yet where one is needed."""


class NotDifferentiable(TapeoutError):
    """A gradient is asked for through an operation that has none."""


class VerifyError(TapeoutError):
    """A graph, kernel or program breaks an invariant of its representation."""


class ParseError(TapeoutError):
    """A `.tape` text cannot be read."""


class CompileError(TapeoutError):
    """A graph cannot be scheduled, lowered or turned into machine code."""


class DataError(TapeoutError):
    """The data fed to a model do not fit it, or a file of data cannot be read."""


class CheckpointError(TapeoutError):
    """A checkpoint is damaged or does not fit the model."""


class BudgetError(TapeoutError):
    """Carrying on would need more memory or time than the stated limit."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return a hint such as `did you mean 'fc1.weight'?`, or the known names when none is near."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(repr(n) for n in names[:8])
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"there are: {shown}{more}" if names else "there are none"
