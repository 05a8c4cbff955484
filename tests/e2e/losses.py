"""Losses written with loops and Python's math alone, to compare the compiled ones with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


def cross_entropy(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    axis: int = 1,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    weight: Sequence[float] | None = None,
    reduction: str = "mean",
    kind: str = "logits",
) -> float:
    """Return the cross-entropy of scores (`logits`, `log_probabilities` or `probabilities`) against class indices."""
    rows = np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis]).tolist()
    total, mass = 0.0, 0.0
    for row, label in zip(rows, labels.reshape(-1).tolist(), strict=True):
        if label == ignore_index:
            continue
        log_p = _log_probabilities(row, kind)
        share = [1.0] * len(row) if weight is None else list(weight)
        hard = -share[label] * log_p[label]
        soft = -sum(w * p for w, p in zip(share, log_p, strict=True)) / len(row)
        total += (1 - label_smoothing) * hard + label_smoothing * soft
        mass += share[label]
    return total / mass if reduction == "mean" else total


def _log_probabilities(row: list[float], kind: str) -> list[float]:
    if kind == "log_probabilities":
        return row
    if kind == "probabilities":
        return [math.log(p) for p in row]
    top = max(row)
    total = top + math.log(sum(math.exp(s - top) for s in row))
    return [s - total for s in row]


def mse(y: float, t: float) -> float:
    return (y - t) ** 2


def l1(y: float, t: float) -> float:
    return abs(y - t)


def huber(y: float, t: float, delta: float = 1.0) -> float:
    gap = abs(y - t)
    return gap * gap / 2 if gap <= delta else delta * (gap - delta / 2)


def bce_with_logits(y: float, t: float) -> float:
    # -t log(sigmoid(y)) - (1-t) log(1-sigmoid(y)), in the form that does not overflow.
    return max(y, 0.0) - y * t + math.log1p(math.exp(-abs(y)))


def elementwise(
    each: Callable[..., float], y: np.ndarray, t: np.ndarray, reduction: str, **options: float
) -> float:
    """Return the mean or the sum of a loss of one element."""
    found = [
        each(a, b, **options) for a, b in zip(y.ravel().tolist(), t.ravel().tolist(), strict=True)
    ]
    total = math.fsum(found)
    return total / len(found) if reduction == "mean" else total


def differences(
    loss: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-4
) -> np.ndarray:
    """Return the gradient of a loss by central differences of fourth order."""
    found = np.zeros_like(x)
    for at in np.ndindex(*x.shape):

        def moved(by: float, at: tuple[int, ...] = at) -> float:
            y = x.copy()
            y[at] += by * step
            return loss(y)

        found[at] = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * step)
    return found


@dataclass(frozen=True)
class Case:
    """Scores of a shape, with options of `cross_entropy`.

    Attributes:
        id: Name in reports.
        shape: Shape of the scores.
        options: Options of the loss.
        axis: Where the classes are.
        ignored: How many labels are `ignore_index`.
    """

    id: str
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    axis: int = 1
    ignored: int = 0

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Return scores f64 and labels i64, always the same."""
        rng = np.random.default_rng(sum(self.id.encode()))
        shape = tuple(n for i, n in enumerate(self.shape) if i != self.axis)
        labels = rng.integers(0, self.shape[self.axis], shape)
        labels.reshape(-1)[: self.ignored] = self.options.get("ignore_index", -100)
        return rng.standard_normal(self.shape) * 2, labels


WEIGHT = (0.3, 1.7, 0.0, 1.1, 0.9)
CROSS_ENTROPY = [
    Case("plain", (4, 5)),
    Case("sum", (4, 5), {"reduction": "sum"}),
    Case("one_row", (1, 5)),
    Case("two_classes", (6, 2)),
    Case("ignored", (6, 5), ignored=2),
    Case("ignored_other", (6, 5), {"ignore_index": 2}, ignored=3),
    Case("weight", (7, 5), {"weight": WEIGHT}),
    Case("weight_sum", (7, 5), {"weight": WEIGHT, "reduction": "sum"}),
    Case("smoothing", (4, 5), {"label_smoothing": 0.1}),
    Case("smoothing_all", (4, 5), {"label_smoothing": 1.0}),
    Case(
        "everything",
        (9, 5),
        {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": -1},
        ignored=2,
    ),
    Case(
        "everything_sum",
        (9, 5),
        {"weight": WEIGHT, "label_smoothing": 0.2, "reduction": "sum"},
        ignored=2,
    ),
    Case("images", (2, 5, 3, 2), {"weight": WEIGHT}, ignored=1),
    Case("sequence", (3, 4, 5), {"axis": -1}, axis=2, ignored=1),
    Case("sequence_found", (3, 4, 5), axis=2),
]
