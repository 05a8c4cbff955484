"""What a training run leaves behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tapeout.api.trainer import Trainer


class Callback(Protocol):
    """Told what happens during `fit`; every method may be left out."""

    def on_step(self, trainer: Trainer, step: int, loss: float) -> None:
        """Called after each step; `step` counts from 1 within `fit`."""

    def on_steps(self, trainer: Trainer, step: int, losses: Sequence[float]) -> None:
        """Called in the place of `on_step` after the steps of each native call, `step` being the last one and `losses` those of all."""

    def on_epoch(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Called after each epoch with its figures; `epoch` counts from 1."""


@dataclass
class History:
    """Figures of a run.

    Attributes:
        steps: Loss of every step.
        epochs: One record per epoch: `loss` (mean over samples), `samples_per_second`, `seconds`, and with validation data `val_loss`
            and `val_accuracy`.
        interrupted: Whether the run was stopped before its end.
    """

    steps: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    interrupted: bool = False

    def __getitem__(self, name: str) -> list[float]:
        """Return one figure over the epochs."""
        return [e[name] for e in self.epochs if name in e]


class StepResult(Mapping[str, float]):
    """The scalar outputs of a step; they become floats when read, from a copy taken when the step returned."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any]) -> None:
        """Hold 0-d arrays by name."""
        self._values = values

    def __getitem__(self, name: str) -> float:
        return float(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{k!r}: {self[k]!r}" for k in self) + "}"
