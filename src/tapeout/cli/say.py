"""Lines for people and JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


class Speaker:
    """Prints lines for people to standard output, or to standard error where standard output carries JSON.

    Args:
        json: Whether the command's result is printed as JSON.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.through: Callable[[str], None] | None = None
        """Prints instead while something else draws on the terminal."""

    def line(self, label: str, text: str = "") -> None:
        """Print a labelled line; further lines of the text stand below its first."""
        first, *rest = text.split("\n")
        self.text(f"{label:<11}{first}".rstrip())
        for more in rest:
            self.text(f"{'':11}{more}")

    def text(self, text: str) -> None:
        """Print text as it is."""
        if self.through is not None:
            self.through(text)
        else:
            click.echo(text, err=self.json)

    def result(self, data: dict[str, Any]) -> None:
        """Print the result as one line of JSON, if that was asked for."""
        if self.json:
            click.echo(json.dumps(plain(data), ensure_ascii=False))


def plain(x: object) -> object:
    """Return what JSON can hold: numbers that are not finite become null, numpy's become Python's, tuples lists."""
    if isinstance(x, dict):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [plain(v) for v in x]
    item = getattr(x, "item", None)
    x = item() if callable(item) else x
    if isinstance(x, float) and not math.isfinite(x):
        return None
    return x


def is_live(*, err: bool = False) -> bool:
    """Whether moving progress may be shown: a terminal reads it, and no continuous integration."""
    from tapeout.support import env

    stream = sys.stderr if err else sys.stdout
    return stream.isatty() and not env.is_ci()


def percent(share: float) -> str:
    """Return a share as `97.40 %`."""
    return f"{100 * share:.2f} %"


def number(x: float) -> str:
    """Return a loss so that it lines up: four digits after the point, or as a power where that says nothing."""
    return f"{x:.4f}" if x == 0 or 1e-3 <= abs(x) < 1e5 else f"{x:.3e}"
