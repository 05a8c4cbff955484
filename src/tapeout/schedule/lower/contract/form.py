"""What may be chosen freely about a contraction in tiles: every form takes each sum in the same order, so the bits are the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

Rows = Literal["direct", "panels", "lines", "windows", "local"]
Columns = Literal["direct", "panels"]


_TEXT = re.compile(
    r"([mn])(\d+)x(\d+) (direct|panels|lines|windows|local) (direct|panels) panels=(\d+) steps=(\d+)"
)


@dataclass(frozen=True)
class Form:
    """One way to run a contraction in tiles.

    Attributes:
        swap: Whether the n axes are the rows.
        rows: Rows of a whole tile.
        registers: Registers across the columns of a whole tile.
        a: How the rows are read: where they are, from a copy in panels, from a copy of lines along k, from one copy in panels
            that overlapping windows share, or evaluated tile by tile.
        b: How the columns are read: where they are, or from a copy in panels.
        panels: Most panels of one task.
        steps: Most steps of k in one block.
    """

    swap: bool
    rows: int
    registers: int
    a: Rows
    b: Columns
    panels: int
    steps: int

    def __str__(self) -> str:
        """Return a short text that names the form."""
        side = "n" if self.swap else "m"
        tile = f"{side}{self.rows}x{self.registers}"
        return f"{tile} {self.a} {self.b} panels={self.panels} steps={self.steps}"

    @staticmethod
    def parse(text: str) -> Form | None:
        """Return the form that a text names, None if it names none."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        side, rows, registers, a, b, panels, steps = found.groups()
        return Form(
            side == "n",
            int(rows),
            int(registers),
            cast("Rows", a),
            cast("Columns", b),
            int(panels),
            int(steps),
        )
