"""The element type in which each node computes: f32, or bf16 inputs with f32 sums, chosen by glob."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tapeout.support.errors import OptionError, nearest
from tapeout.support.patterns import check_matched

PRECISIONS = ("f32", "bf16")
Choice = str | Mapping[str, str]
"""One of `PRECISIONS` for every layer, or one of them by glob; layers that no glob matches are in bf16."""


@dataclass(frozen=True)
class Precision:
    """The precision of each layer.

    Attributes:
        rules: (glob, precision) pairs; the last whose glob matches decides, and `f32` where none does.
    """

    rules: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, choice: Choice | None, where: str = "") -> Precision:
        """Return the precision that a user asks for.

        Raises:
            OptionError: A precision is none of `PRECISIONS`.
        """
        if choice is None:
            return cls()
        rules = {"*": choice} if isinstance(choice, str) else {"*": "bf16", **choice}
        for name in rules.values():
            if name not in PRECISIONS:
                text = f"precision {name!r}: one of {', '.join(PRECISIONS)} is expected"
                raise OptionError(text, where=where, hint=nearest(str(name), PRECISIONS))
        return cls(tuple(rules.items()))

    @property
    def is_full(self) -> bool:
        """Whether everything computes in the types of the model."""
        return all(name == "f32" for _, name in self.rules)

    def at(self, *names: str) -> str:
        """Return the precision of a node that is known by any of these names."""
        for glob, precision in reversed(self.rules):
            if any(fnmatch.fnmatchcase(name, glob) for name in names):
                return precision
        return "f32"

    def check(self, names: Sequence[str], where: str = "") -> None:
        """Check that each glob names a layer.

        Args:
            names: What layers with a product or a convolution, and their weights, are known by.
            where: The model, for the error.

        Raises:
            OptionError: A glob names none.
        """
        globs = [glob for glob, _ in self.rules]
        check_matched(globs, names, "precision", "layer with a product (nor its weight)", where)

    def __str__(self) -> str:
        """Return the text that the command line takes."""
        return ",".join(n if g == "*" else f"{g}={n}" for g, n in self.rules) or "f32"
