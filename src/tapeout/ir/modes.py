"""Training or inference, node by node: dropout and batch normalisation behave differently in the two."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tapeout.support.errors import OptionError, nearest
from tapeout.support.patterns import check_matched

MODES = ("train", "eval", "as-exported")
Mode = str | Mapping[str, str]
"""One of `MODES` for every node, or one of them by glob."""


@dataclass(frozen=True)
class Modes:
    """The mode of each node.

    Attributes:
        rules: (glob, mode) pairs; the last whose glob matches decides, and `train` where none does.
    """

    rules: tuple[tuple[str, str], ...] = ()

    def of(self, *names: str) -> str:
        """Return the mode of a node that is known by any of these names."""
        for glob, mode in reversed(self.rules):
            if any(fnmatch.fnmatchcase(name, glob) for name in names):
                return mode
        return "train"

    def over(self, mode: Mode, where: str = "") -> Modes:
        """Return these modes with others laid over them.

        Raises:
            OptionError: A mode is none of `MODES`.
        """
        added = [("*", mode)] if isinstance(mode, str) else list(mode.items())
        for _, name in added:
            if name not in MODES:
                text = f"mode {name!r}: one of {', '.join(MODES)} is expected"
                raise OptionError(text, where=where, hint=nearest(str(name), MODES))
        kept = () if any(glob == "*" for glob, _ in added) else self.rules
        return Modes((*kept, *added))

    @property
    def is_inference(self) -> bool:
        """Whether every node is in mode `eval`."""
        rest = list(self.rules)
        while rest and rest[-1][1] == "eval":
            if rest.pop()[0] == "*":
                return True
        return False

    def check(self, names: Sequence[str], where: str = "") -> None:
        """Check that each glob names a node whose behaviour a mode changes.

        Args:
            names: What those nodes are known by.
            where: The model, for the error.

        Raises:
            OptionError: A glob names none.
        """
        globs = [glob for glob, _ in self.rules]
        kind = "dropout or batch normalisation (nor one of its parameters)"
        check_matched(globs, names, "mode", kind, where)
