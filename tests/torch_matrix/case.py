"""What one line of the matrix is: a module, what it is fed, and the ways it is exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import nn

EXPORTED_BATCH = 2
"""Rows that the exporters are shown."""
FED_BATCH = 3
"""Rows that a model with an open batch is then run with."""


@dataclass(frozen=True)
class Variant:
    """One way to export.

    Attributes:
        name: As in the record.
        exporter: `legacy` traces TorchScript, `dynamo` uses torch.export.
        opset: Version of the operator set.
        dynamic: Whether the batch stays open.
        folds: Whether the exporter is left to optimise: parameters may be folded and renamed.
    """

    name: str
    exporter: Literal["legacy", "dynamo"]
    opset: int
    dynamic: bool = False
    folds: bool = False


VARIANTS = {
    v.name: v
    for v in (
        Variant("legacy14", "legacy", 14),
        Variant("legacy17", "legacy", 17, dynamic=True),
        Variant("dynamo18", "dynamo", 18),
        Variant("dynamo23", "dynamo", 23, dynamic=True),
        Variant("legacy17-folded", "legacy", 17, folds=True),
        Variant("dynamo18-folded", "dynamo", 18, folds=True),
    )
}
PLAIN = tuple(v.name for v in VARIANTS.values() if not v.folds)


@dataclass(frozen=True)
class Feed:
    """One argument.

    Attributes:
        shape: Its sizes; "N" is the batch.
        kind: `float` (normal), `positive`, `int` (0 … below - 1), `bool` or `mask` (1s, some 0s at the end).
        below: Bound of integers.
    """

    shape: tuple[int | str, ...]
    kind: Literal["float", "positive", "int", "bool", "mask"] = "float"
    below: int = 0

    @property
    def batch_axis(self) -> int | None:
        """The axis of the batch, None where there is none."""
        return self.shape.index("N") if "N" in self.shape else None

    def tensor(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Return a sample."""
        import torch

        shape = [batch if n == "N" else int(n) for n in self.shape]
        if self.kind == "int":
            return torch.randint(self.below, shape, generator=generator)
        if self.kind == "bool":
            return torch.rand(shape, generator=generator) < 0.3
        if self.kind == "mask":
            made = torch.ones(shape, dtype=torch.int64)
            made[-1, -2:] = 0
            return made
        made = torch.randn(shape, generator=generator)
        return made.abs() + 0.5 if self.kind == "positive" else made


@dataclass(frozen=True)
class Case:
    """One module.

    Attributes:
        name: As in the record and on the page.
        build: Makes it; called under a fixed seed.
        feeds: Its arguments.
        train: Whether it trains as in `module.train()`; else it is differentiated in evaluation mode.
        classes: Classes of its scores; the loss is then cross entropy. None: a weighted mean of squares.
        variants: The ways it is exported.
        single: Whether the model computes parts in f32 whatever its weights are, so that no f64 run of it is exact.
    """

    name: str
    build: Callable[[], nn.Module]
    feeds: tuple[Feed, ...]
    train: bool = True
    classes: int | None = None
    variants: tuple[str, ...] = PLAIN
    single: bool = False


FOLDED = tuple(VARIANTS)
"""For cases whose folded exports are looked at, too."""


def f(*shape: int | str) -> Feed:
    """Return an argument of normal numbers."""
    return Feed(shape)


def ids(below: int, *shape: int | str) -> Feed:
    """Return an argument of indices."""
    return Feed(shape, "int", below)


def by_name(cases: Sequence[Case]) -> dict[str, Case]:
    """Return cases by name.

    Raises:
        ValueError: Two have the same.
    """
    found = {c.name: c for c in cases}
    if len(found) != len(cases):
        names = [c.name for c in cases]
        raise ValueError(f"two cases are called {sorted({n for n in names if names.count(n) > 1})}")
    return found
