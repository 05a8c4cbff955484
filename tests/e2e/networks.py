"""What several end-to-end tests share: the recorded networks and how to train them as the records did."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tapeout
from benchmarks.reference.fixed_batches import fixed_batch
from benchmarks.reference.settings import OPTIMIZERS as SETTINGS
from benchmarks.reference.settings import STEPS
from tapeout.passes.precision import widen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tapeout.training.optimizers import Optimizer

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
RECORDS = ROOT / "tests" / "records"
NETS = ("mlp", "lenet")
OPTIMIZERS = ("sgd", "adam", "adamw")
LARGER = tuple(m for m in SETTINGS if m not in NETS)
"""Models that were trained with one optimiser."""


def optimizer_of(model: str) -> str:
    """Return the first optimiser that a model was trained with."""
    return next(iter(SETTINGS[model]))


def record(model: str, optimizer: str) -> dict[str, Any]:
    """Return what PyTorch computed; tests/records/README.md says what is in it."""
    return json.loads((RECORDS / f"parity_{model}_{optimizer}.json").read_text())


def load(model: str, dtype: str = "float32") -> tapeout.Graph:
    """Return a recorded network, in f64 if asked."""
    graph = tapeout.load_onnx(MODELS / f"{model}.onnx")
    return graph.then(widen) if dtype == "float64" else graph


def make_optimizer(settings: Mapping[str, Any]) -> Optimizer:
    """Return the optimiser of a record's `optimizer` entry."""
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return getattr(tapeout.optimizers, options.pop("name"))(**options)


def batch_of(model: str, step: int, dtype: str = "float32") -> dict[str, NDArray[Any]]:
    """Return batch number `step` of the records in a dtype."""
    batch = fixed_batch(model, step)
    return {k: a.astype(dtype) if a.dtype.kind == "f" else a for k, a in batch.items()}


@dataclass
class Run:
    """What training left behind; `gradients` are those of the first step, `final` has running statistics as well."""

    losses: list[float] = field(default_factory=list)
    gradients: dict[str, NDArray[Any]] = field(default_factory=dict)
    final: dict[str, NDArray[Any]] = field(default_factory=dict)


def train(model: str, optimizer: str, dtype: str, steps: int = STEPS, **options: Any) -> Run:
    """Train as the records did, in native code.

    Args:
        model: Its name.
        optimizer: `sgd`, `adam` or `adamw`, with the settings of the record.
        dtype: `float32` or `float64`.
        steps: How many.
        options: Further options of the trainer.
    """
    trainer = tapeout.Trainer(
        load(model, dtype),
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=make_optimizer(record(model, optimizer)["optimizer"]),
        **options,
    )
    run = Run()
    for step in range(steps):
        run.losses.append(trainer.step(batch_of(model, step, dtype))["loss"])
    run.final = {**dict(trainer.parameters), **statistics(trainer)}
    return run


def statistics(trainer: tapeout.Trainer) -> dict[str, NDArray[Any]]:
    """Return the running statistics by name."""
    names = [v.name for v in trainer.model.variables if v.kind == "state"]
    return {n: trainer.session.read(n) for n in names if "running" in n}


def first_gradients(model: str, dtype: str) -> tuple[float, dict[str, NDArray[Any]]]:
    """Return loss and gradients of the first recorded batch at the initial weights."""
    trainer = tapeout.Trainer(
        load(model, dtype), loss=tapeout.losses.cross_entropy("logits"), optimizer=None
    )
    return trainer.gradients(batch_of(model, 0, dtype))


def relative(got: float, want: float) -> float:
    """Return |got - want| / |want|."""
    return abs(got - want) / abs(want)


def largest(array: NDArray[Any]) -> float:
    """Return the largest magnitude of an array."""
    return float(np.max(np.abs(array)))
