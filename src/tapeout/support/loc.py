"""Provenance: where a node came from, kept through every pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

AGAIN = "again"
"""The role of a node that computes anew, for the backward pass, what the forward pass computed."""


@dataclass(frozen=True, slots=True)
class Loc:
    """The source of a node.

    Attributes:
        file: The model file or Python source, empty when unknown.
        name: The ONNX node (with its scope), or `function:line` of the user's code.
        role: `forward`, `backward` (a derivative of the node named), `again` (computed anew for the backward pass), `loss`, `update`
            or `check`.
    """

    file: str = ""
    name: str = ""
    role: str = "forward"

    def as_role(self, role: str) -> Loc:
        """Return the same place in another role."""
        return self if role == self.role else replace(self, role=role)

    def __str__(self) -> str:
        place = f"{self.file}:{self.name}" if self.file else self.name
        return place if self.role == "forward" else f"{place} ({self.role})"

    def __bool__(self) -> bool:
        return bool(self.file or self.name or self.role != "forward")


UNKNOWN = Loc()
