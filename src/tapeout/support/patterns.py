"""Names chosen by globs: `head.*`, several of which `!bn*` excludes, or a function of the name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence

from tapeout.support.errors import OptionError, nearest

Pattern = str | Sequence[str] | Callable[[str], bool]
"""A glob, globs of which the last that matches decides (`!` in front excludes), or a function of the name."""


def globs_of(pattern: Pattern, what: str) -> list[str]:
    """Return the globs of a pattern; none for a function.

    Args:
        pattern: What the user gave.
        what: The option's name, for the error.

    Raises:
        OptionError: It is nothing of the kind.
    """
    if callable(pattern):
        return []
    if isinstance(pattern, str):
        return [pattern]
    if isinstance(pattern, Sequence) and all(isinstance(glob, str) for glob in pattern):
        return list(pattern)
    raise OptionError(f"{what} is {pattern!r}: a glob, a list of globs or a function is expected")


def matcher(pattern: Pattern, what: str) -> Callable[[str], bool]:
    """Return the test of a name. Of several globs the last that matches decides; exclusions alone take all but them."""
    if callable(pattern):
        return pattern
    globs = globs_of(pattern, what)

    def matches(name: str) -> bool:
        chosen = bool(globs) and globs[0].startswith("!")
        for glob in globs:
            if fnmatch.fnmatchcase(name, glob.removeprefix("!")):
                chosen = not glob.startswith("!")
        return chosen

    return matches


def check_matched(
    globs: Iterable[str], names: Sequence[str], what: str, kind: str, where: str = ""
) -> None:
    """Check that each glob names something; `*` always does.

    Raises:
        OptionError: One does not; the hint names the nearest.
    """
    for glob in globs:
        plain = glob.removeprefix("!")
        if plain != "*" and not fnmatch.filter(names, plain):
            text = f"{what}: no {kind} is called {plain!r}"
            raise OptionError(text, where=where, hint=nearest(plain, names))
