"""From a model file to something that can be timed: a trainer or a compiled graph with every dimension bound, and a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapeout.api.compile import Executable
    from tapeout.api.trainer import Trainer
    from tapeout.ir.graph import Graph


@dataclass(frozen=True)
class Asked:
    """What of the command line decides the subject."""

    model: str
    loss_text: str
    labels: str | None
    optimizer_text: str
    lr: float | None
    clip_norm: float | None
    precisions: tuple[str, ...]
    trainable: tuple[str, ...]
    modes: tuple[str, ...]
    classes: int | None
    dims: tuple[str, ...]
    data_text: str | None
    inputs: tuple[str, ...]
    transforms: tuple[str, ...]
    batch_size: int | None
    threads: int | None
    predict: bool = False


@dataclass(frozen=True, eq=False)
class Subject:
    """What is timed.

    Attributes:
        runs: The trainer, or the compiled model of `--predict`.
        graph: The model, every dimension bound.
        batch: The arrays of a step, by input name.
        made_up: Whether nobody gave these arrays.
    """

    runs: Trainer | Executable
    graph: Graph
    batch: dict[str, Any]
    made_up: bool


def subject(asked: Asked) -> Subject:
    """Return what the command line asks for."""
    from tapeout.api.compile import compile
    from tapeout.api.example import example_batch
    from tapeout.api.trainer import Trainer
    from tapeout.cli.reading import label_of, load_model
    from tapeout.cli.spec import parse_dims, parse_loss, parse_optimizer, parse_precisions

    graph = load_model(
        asked.model,
        trainable=asked.trainable,
        modes=("eval",) if asked.predict else asked.modes,
        classes=asked.classes,
        dims=parse_dims(asked.dims),
    )
    graph = bound(graph, asked.batch_size)
    if asked.predict:
        program = compile(graph, threads=asked.threads)
        batch = _given(asked, graph, None)
        return Subject(program, graph, batch or example_batch(graph), batch is None)
    loss = parse_loss(asked.loss_text, graph, asked.labels)
    trainer = Trainer(
        graph,
        loss=loss,
        optimizer=parse_optimizer(asked.optimizer_text, asked.lr),
        threads=asked.threads,
        clip_norm=asked.clip_norm,
        precision=parse_precisions(asked.precisions),
    )
    batch = _given(asked, graph, label_of(loss))
    made = example_batch(trainer.graph_for("step")) if batch is None else batch
    return Subject(trainer, graph, made, batch is None)


def bound(graph: Graph, batch_size: int | None) -> Graph:
    """Return the model with every dimension bound: the first one of an input to the batch size, others as in its preview."""
    from tapeout.ir.type import Dim

    found = dict(graph.dims)
    for value in graph.inputs:
        first = value.type.shape[0] if value.type.shape else 0
        if isinstance(first, Dim) and first.expr[0] == "dim" and str(first.expr[1]) in found:
            found[str(first.expr[1])] = batch_size or _BATCH
    return graph.bind(found) if graph.dims else graph


_BATCH = 32


def _given(asked: Asked, graph: Graph, labels: str | None) -> dict[str, Any] | None:
    """Return a batch of the user's data, as large as the model takes."""
    if asked.data_text is None:
        return None
    from tapeout.cli.reading import load_dataset, mapped
    from tapeout.support.errors import DataError

    found = mapped(
        load_dataset(asked.data_text, asked.inputs, asked.transforms),
        graph,
        labels,
        asked.data_text,
    )
    rows = int(graph.inputs[0].type.shape[0])
    if found.samples < rows:
        raise DataError(
            f"holds {found.samples} samples, a batch has {rows}",
            where=asked.data_text,
            hint=f"--batch-size {found.samples}",
        )
    return {name: array[:rows] for name, array in found.arrays.items()}
