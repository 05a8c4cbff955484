"""Sequences and optionals: they exist while a model is imported, and leave nothing of themselves in the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapeout.ops.sym import Sym


@dataclass(frozen=True)
class Listed:
    """A sequence of values whose length is known.

    Attributes:
        items: The values, in order.
    """

    items: tuple[Sym, ...]

    @property
    def type(self) -> str:
        """What it is, for messages."""
        return f"a sequence of {len(self.items)}"


@dataclass(frozen=True)
class Nothing:
    """An optional that holds nothing."""

    @property
    def type(self) -> str:
        """What it is, for messages."""
        return "an empty optional"


Held = Listed | Nothing
"""What is no value of the graph."""
