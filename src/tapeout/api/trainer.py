"""The trainer: a model, a loss and an optimiser, compiled for each binding of dimensions that it meets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.api.batches import Batch, Data, DataSource, array_of, fit_array, not_finite, rows_of
from tapeout.api.binding import bind_dims
from tapeout.api.example import likely_labels
from tapeout.api.history import History, StepResult
from tapeout.api.session import CheckFailed, Entry, Session
from tapeout.api.steps import Pace, Runner
from tapeout.api.views import Hyperparameters, Parameters, State
from tapeout.driver.step import (
    GRAD,
    GRADIENT_NOT_FINITE,
    LOSS,
    NOT_FINITE,
    STEP,
    evaluate_entry,
    gradient_entry,
    loss_entry,
    predict_entry,
    step_entry,
)
from tapeout.ir.graph import Graph
from tapeout.ir.precision import Choice, Precision
from tapeout.passes.mixed import layers_of
from tapeout.support.errors import DataError, OptionError, ShapeError, nearest
from tapeout.training.losses import Loss, as_loss

if TYPE_CHECKING:
    from tapeout.ir.op import Array
    from tapeout.training.optimizers import Optimizer


RNG_SEED = "rng.seed"
"""The hyper-parameter that models with random operations read."""


@dataclass(frozen=True)
class Memory:
    """Bytes of the arena of a training step, exact.

    Attributes:
        parameters: Parameters.
        optimizer_state: States: moments, counters, statistics, and hyper-parameters.
        gradients: Gradients of trainable parameters.
        activations: Everything else that lives during a step: values kept for the backward pass, scratch, outputs.
        total: The whole arena.
    """

    parameters: int
    optimizer_state: int
    gradients: int
    activations: int
    total: int


class Trainer:
    """Trains a model with one native call a step.

    Args:
        model: A graph, or the path of an ONNX file.
        loss: One of `tapeout.losses`, the name of a scalar output, or a function over Sym.
        optimizer: One of `tapeout.optimizers`; None for gradients only.
        target: `native` (this machine), or the name of a target class.
        threads: Threads to run with; None: TAPEOUT_THREADS or the cores of this process. Results do not depend on it.
        seed: Seed of the order of samples and of random operations.
        clip_norm: Scale all gradients together so that their norm is at most this; None: no clipping.
        precision: `bf16`: products and convolutions read bf16 and add in f32, activations are kept in bf16; parameters, their
            gradients, optimiser states, statistics and losses stay f32. `{"head*": "f32"}` excepts layers by glob, of a node's
            or a weight's name. None: everything in the types of the model.
        checked: Test the bounds of every memory access (slow); None: as TAPEOUT_CHECKED says.
        guard: Put the arena between two inaccessible pages.

    Raises:
        OptionError: The loss names an unknown output, nothing is trainable, …
        TapeoutError: The model cannot be read or differentiated.
    """

    def __init__(
        self,
        model: Graph | str | Path,
        *,
        loss: Loss | str | Callable[..., Any],
        optimizer: Optimizer | None,
        target: str = "native",
        threads: int | None = None,
        seed: int = 0,
        clip_norm: float | None = None,
        precision: Choice | None = None,
        checked: bool | None = None,
        guard: bool = False,
    ) -> None:
        """Prepare; compilation happens here for a model without unbound dimensions, else at the first batch."""
        if not isinstance(model, Graph):
            from tapeout.api.load import load_onnx

            model = load_onnx(model)
        self.model = model
        self.loss, self.optimizer, self.clip_norm = as_loss(loss), optimizer, clip_norm
        self.precision = Precision.of(precision, "precision")
        if not self.precision.is_full:
            self.precision.check(layers_of(model), model.name)
        self.seed = seed
        self.notes: list[str] = list(model.notes)
        self.attachments: dict[str, Any] = {}
        """Plain data that checkpoints carry along, such as how arrays of a data set feed the inputs."""
        self.epoch = 0
        self.batch = 0
        self.rows = 0
        self._evaluation: Graph | None = None
        self._entries: dict[tuple[Any, ...], Entry] = {}
        self._last: Entry | None = None
        # The preview binding shows every fault of model, loss and optimiser now rather than at the first batch.
        preview = self._graph("step" if optimizer else "gradients", model.dims, {})
        gradient_entry(model, self.loss, None, None, self.notes)
        self._dims: dict[str, int] = dict(model.dims)
        self.session = Session(
            preview.variables, target=target, threads=threads, checked=checked, guard=guard
        )
        if RNG_SEED in self.session.variables:
            self.session.write(RNG_SEED, np.asarray(seed, np.int64))
        self.label_names = [v.name for v in preview.inputs if v.name not in model.input]
        self.input_names = [v.name for v in model.inputs]
        self._names = (*self.input_names, *self.label_names)
        self.parameters = Parameters(self.session, model)
        self.state = State(self.session, model)
        self.hyperparameters = Hyperparameters(self.session)
        if not model.dims:
            self._entry("step" if optimizer else "gradients", {}, {})

    # -- one batch --------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> StepResult:
        """Run one training step: forward, loss, backward, update, in one native call.

        Args:
            batch: Arrays by input name, labels included.

        Returns:
            `loss` (and `grad_norm` with clipping), floats when read.

        Raises:
            DataError: An array is missing or does not fit, an index is out of range, or the loss is not finite; nothing was updated.
        """
        self._need_optimizer()
        # Mostly a batch is like the one before: then nothing is looked up, converted or copied.
        if self._last is not None:
            try:
                found = self._last.run_if_fit(batch)
            except CheckFailed as failed:
                raise _refused(failed, batch) from None
            if found is not None:
                return StepResult(found)
        entry = self._entry_for("step", batch)
        names = dict.fromkeys(entry.program.inputs)
        self._last = entry if all(n in names for n in self._names) else None
        return StepResult(self._run(entry, batch))

    def steps(
        self, batches: Sequence[Batch], steps_per_call: int | None = None
    ) -> list[StepResult]:
        """Run one training step on each batch, many of them in one native call: the same bits as `step` on each.

        Args:
            batches: Arrays by input name, labels included. What needs no conversion is not copied.
            steps_per_call: Steps of one native call; None: as many as take about 50 ms, so that Ctrl-C is heard.

        Returns:
            What `step` returns, for each batch.

        Raises:
            DataError: As `step`, naming the batch; those before it were done, and it updated nothing.
        """
        self._need_optimizer()
        run, results = self._runner(Pace(steps_per_call), "batch", 0), list[StepResult]()
        for columns, _ in run.listed(batches):
            rows = zip(*columns.values(), strict=True)
            results += [StepResult(dict(zip(columns, row, strict=True))) for row in rows]
        return results

    def gradients(
        self, batch: Batch, wrt: Sequence[str] | None = None
    ) -> tuple[float, dict[str, Array]]:
        """Return the loss and gradients by name; nothing is updated.

        Args:
            batch: Arrays by input name, labels included.
            wrt: Names of parameters or inputs; None: all trainable parameters.
        """
        entry = self._entry_for("gradients", batch, None if wrt is None else tuple(wrt))
        found = self._run(entry, batch)
        return float(found[LOSS]), {
            n.removeprefix(GRAD): a for n, a in found.items() if n.startswith(GRAD)
        }

    def loss_of(self, batch: Batch) -> float:
        """Return the loss of a batch in training mode; nothing is updated."""
        return float(self._run(self._entry_for("loss", batch), batch)[LOSS])

    # -- many batches -----------------------------------------------------------------------------------------------

    def fit(
        self,
        data: Data,
        epochs: int = 1,
        batch_size: int | None = None,
        shuffle: bool = True,
        validation_data: Data | None = None,
        metrics: Sequence[str] = ("accuracy",),
        callbacks: Iterable[Any] = (),
        steps_per_call: int | None = None,
    ) -> History:
        """Train for some epochs.

        Args:
            data: Mapping of arrays (with `batch_size`), or a re-iterable of mappings or (inputs, labels) pairs.
            epochs: Passes over the data.
            batch_size: Rows of a batch; the last one may be shorter.
            shuffle: Whether a mapping is read in a new order each epoch, fixed by seed and epoch.
            validation_data: Evaluated after each epoch.
            metrics: Which figures beside the loss.
            callbacks: Objects with `on_step(trainer, step, loss)`, `on_steps(trainer, step, losses)` or `on_epoch(trainer, epoch, record)`.
            steps_per_call: Steps of one native call where the data lie in memory (a mapping of arrays, or a list of batches); results are
                the same. None: as many as take about 50 ms, but one at a time if a callback has `on_step` and no `on_steps`.

        Raises:
            DataError: The data do not fit; a one-shot iterator with several epochs.
        """
        names = [*self.input_names, *self.label_names]
        source = DataSource(data, names, batch_size)
        if source.is_one_shot and epochs > 1:
            raise DataError(
                "data is a one-shot iterator, which the first epoch uses up",
                hint="pass a list or a DataLoader",
            )
        history = History()
        callbacks = list(callbacks)
        if steps_per_call is None and any(_wants_each_step(c) for c in callbacks):
            steps_per_call = 1
        run = self._runner(Pace(steps_per_call), "step", 1)
        first, skip = self.epoch, self.rows
        for epoch in range(first, first + epochs):
            record = self._epoch(
                source, epoch, skip if epoch == first else 0, shuffle, history, callbacks, run
            )
            self.epoch, self.batch, self.rows = epoch + 1, 0, 0
            if validation_data is not None:
                found = self.evaluate(validation_data, batch_size or 256, metrics)
                record.update({f"val_{k}": v for k, v in found.items()})
            history.epochs.append(record)
            _tell(callbacks, "on_epoch", self, epoch + 1 - first, record)
        return history

    def _epoch(
        self,
        source: DataSource,
        epoch: int,
        skip: int,
        shuffle: bool,
        history: History,
        callbacks: Sequence[Any],
        run: Runner,
    ) -> dict[str, float]:
        self._need_optimizer()
        start = time.perf_counter()
        total, rows = 0.0, 0
        done = len(history.steps)
        for columns, counts in run.epoch(
            source, shuffle=shuffle, seed=self.seed, epoch=epoch, skip=skip
        ):
            losses = columns[LOSS]
            for loss, count in zip(losses, counts, strict=True):
                total, rows = total + loss * count, rows + count
            self.batch, self.rows = self.batch + len(losses), self.rows + sum(counts)
            if self.rows == source.rows:  # what a callback saves now goes on with the next epoch
                self.epoch, self.batch, self.rows = epoch + 1, 0, 0
            history.steps += losses
            _tell_steps(callbacks, self, done, losses)
            done += len(losses)
        seconds = time.perf_counter() - start
        record = {"samples_per_second": rows / seconds, "seconds": seconds}
        if rows:
            return {"loss": total / rows, **record}
        if skip:  # the run was resumed at the end of the epoch
            return record
        raise DataError("data is empty")

    def evaluate(
        self, data: Data, batch_size: int | None = None, metrics: Sequence[str] = ("accuracy",)
    ) -> dict[str, float]:
        """Return the mean loss and the metrics over data, the model in inference mode; nothing is updated."""
        unknown = [m for m in metrics if m != "accuracy"]
        if unknown:
            raise OptionError(
                f"metric {unknown[0]!r} is unknown", hint=nearest(unknown[0], ["accuracy"])
            )
        source = DataSource(data, [*self.input_names, *self.label_names], batch_size)
        total, weight, correct, counted = 0.0, 0, 0, 0
        for batch in source.batches(shuffle=False, seed=0, epoch=0):
            found = self._run(self._entry_for("evaluate", batch), batch)
            # A batch counts by the labels that take part; one without any has no mean.
            n = int(found.get("counted", rows_of(batch)))
            total, weight = total + (float(found[LOSS]) * n if n else 0.0), weight + n
            correct += int(found.get("correct", 0))
            counted += int(found.get("counted", 0))
        if not weight:
            raise DataError("data is empty, or every label is ignored")
        result = {"loss": total / weight}
        if counted and "accuracy" in metrics:
            result["accuracy"] = correct / counted
        return result

    def predict(self, inputs: Mapping[str, Any], batch_size: int | None = None) -> dict[str, Array]:
        """Return the model's outputs for arrays by input name, the model in inference mode."""
        source = DataSource(inputs, self.input_names, batch_size, what="inputs")
        parts: dict[str, list[Array]] = {}
        for batch in source.batches(shuffle=False, seed=0, epoch=0):
            for name, array in self._run(self._entry_for("predict", batch), batch).items():
                parts.setdefault(name, []).append(array)
        return {n: a[0] if len(a) == 1 else np.concatenate(a) for n, a in parts.items()}

    # -- memory, compilation ----------------------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        """Bytes of the arena of the training step that was compiled last (or gradients, without an optimiser).

        Raises:
            OptionError: No dimension is bound yet; use `memory_for`.
        """
        kind = "step" if self.optimizer else "gradients"
        found = [e for (k, *_), e in self._entries.items() if k == kind]
        if not found:
            raise OptionError(
                "dimensions are not bound yet", hint="run a step first, or call memory_for(N=…)"
            )
        return self._memory(found[-1])

    def memory_for(self, **dims: int) -> Memory:
        """Return the exact bytes of a training step for a binding, without running it."""
        return self._memory(
            self._entry("step" if self.optimizer else "gradients", {**self.model.dims, **dims}, {})
        )

    def _memory(self, entry: Entry) -> Memory:
        slots = entry.program.layout.slots
        parameters = sum(s.type.bytes for s in slots if s.kind == "parameter")
        persistent = entry.program.layout.bytes
        buffers = entry.program.buffers.values()
        gradients = _covered(
            (b.offset, b.bytes) for b in buffers if b.space == "gradient" and not b.of
        )
        total = entry.program.arena
        return Memory(
            parameters, persistent - parameters, gradients, total - persistent - gradients, total
        )

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling (or loading from the cache) so far."""
        return self.session.compile_seconds

    @property
    def kernels(self) -> int:
        """Number of distinct kernels in use."""
        return self.session.kernels

    @property
    def threads(self) -> int:
        """Threads that the native code runs with."""
        return self.session.threads

    def recompile(self) -> None:
        """Compile anew at the next batch, with what tuning has found since."""
        self._entries.clear()
        self._last = None

    def graph_for(self, kind: str = "step", batch: Batch | None = None) -> Graph:
        """Return the graph of an entry point as it enters the passes.

        Args:
            kind: `step`, `gradients`, `loss`, `evaluate` or `predict`.
            batch: Binds the dimensions by its shapes; None: as last bound.
        """
        if batch is None:
            shapes = likely_labels(self.model.bind(self._dims), self.label_names)
            return self._graph(kind, self._dims, shapes)
        shapes = {n: tuple(np.shape(array_of(a))) for n, a in batch.items()}
        dims = bind_dims(self.model, {n: s for n, s in shapes.items() if n in self.model.input})
        known = {n: s for n, s in shapes.items() if n in self.label_names}
        return self._graph(kind, dims, known)

    def step_graph(self) -> Graph:
        """Return the training step (or the gradients) as it enters the passes, dimensions as last bound."""
        kind = "step" if self.optimizer else "gradients"
        return self._graph(kind, self._dims, {})

    # -- files ------------------------------------------------------------------------------------------------------

    def export_onnx(self, path: str | Path) -> None:
        """Write the original ONNX file with only trained initializers and statistics changed (or a new file for a graph made in Python)."""
        from tapeout.api.files import export_onnx

        export_onnx(self, path)

    def save_weights(self, path: str | Path) -> None:
        """Write the parameters and statistics as safetensors."""
        from tapeout.api.files import save_weights

        save_weights(self, path)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint from which training goes on bit for bit."""
        from tapeout.api.checkpoint import save

        save(self, path)

    @classmethod
    def restore(
        cls, path: str | Path, model: Graph | str | Path | None = None, **options: Any
    ) -> Trainer:
        """Return a trainer that goes on where a checkpoint was written.

        Args:
            path: The checkpoint.
            model: The model, where the checkpoint does not hold it (a graph made in Python).
            options: `loss=`, `optimizer=` where they are functions of the user's; `threads=`, `target=` as wanted.
        """
        from tapeout.api.checkpoint import restore

        return restore(path, model, options)

    @property
    def steps_done(self) -> int:
        """Number of optimiser steps so far."""
        return int(self.session.read(STEP)) if self.optimizer else 0

    # -- inside -----------------------------------------------------------------------------------------------------

    def _run(self, entry: Entry, batch: Batch) -> dict[str, Array]:
        inputs = {}
        for name, type_ in entry.program.input_types.items():
            if name not in batch:
                raise DataError(f"the batch has no array {name!r}", hint=nearest(name, batch))
            inputs[name] = fit_array(name, batch[name], type_)
        try:
            return entry.run(inputs)
        except CheckFailed as failed:
            raise _refused(failed, inputs) from None

    def _runner(self, pace: Pace, word: str, first: int) -> Runner:
        return Runner(self.step, lambda b: self._entry_for("step", b), _refused, pace, word, first)

    def _need_optimizer(self) -> None:
        if self.optimizer is None:
            raise OptionError(
                "the trainer has no optimizer", hint="pass optimizer=, or call gradients()"
            )

    def _entry_for(self, kind: str, batch: Batch, wrt: tuple[str, ...] | None = None) -> Entry:
        shapes = {n: tuple(np.shape(array_of(a))) for n, a in batch.items()}
        key = (kind, wrt, *sorted(shapes.items()))
        found = self._entries.get(key)
        if found is None:
            known = {
                n: s for n, s in shapes.items() if n in self.model.input or n in self.label_names
            }
            if kind != "predict" and rows_of(batch) == 0:
                raise DataError("the batch has no rows")
            dims = bind_dims(self.model, {n: s for n, s in known.items() if n in self.model.input})
            try:
                found = self._entries[key] = self._entry(kind, dims, known, wrt)
            except ShapeError as e:  # the model was built before; what does not fit is the batch
                raise DataError(e.message, where=e.where, hint=e.hint) from None
        return found

    def _entry(
        self,
        kind: str,
        dims: Mapping[str, int],
        shapes: Mapping[str, tuple[int, ...]],
        wrt: tuple[str, ...] | None = None,
    ) -> Entry:
        if kind in ("step", "gradients"):
            self._dims = dict(dims)
        key: tuple[Any, ...] = (kind, wrt, "dims", *sorted(dims.items()))
        found = self._entries.get(key)
        labels = {n: s for n, s in shapes.items() if n in self.label_names}
        if found is not None and not _takes(found, labels):
            # It was made before labels were seen, and took another dimension for the classes.
            key = (*key, *sorted(labels.items()))
            found = self._entries.get(key)
        if found is None:
            found = self._entries[key] = self.session.prepare(self._graph(kind, dims, shapes, wrt))
        return found

    def _graph(
        self,
        kind: str,
        dims: Mapping[str, int],
        shapes: Mapping[str, tuple[int, ...]],
        wrt: tuple[str, ...] | None = None,
    ) -> Graph:
        labels = {n: s for n, s in shapes.items() if n not in self.model.input}
        if kind in ("evaluate", "predict"):
            bound = self.inference().bind(dims)
            return (
                predict_entry(bound, self.precision)
                if kind == "predict"
                else evaluate_entry(bound, self.loss, labels, self.precision)
            )
        bound = self.model.bind(dims)
        if kind == "loss":
            return loss_entry(bound, self.loss, labels, self.precision)
        if kind == "gradients":
            return gradient_entry(bound, self.loss, wrt, labels, precision=self.precision)
        assert self.optimizer is not None
        return step_entry(bound, self.loss, self.optimizer, self.clip_norm, labels, self.precision)

    def inference(self) -> Graph:
        """Return the model in inference mode."""
        if self._evaluation is None:
            self._evaluation = self.model.evaluation() if self.model.evaluation else self.model
        return self._evaluation


def _takes(entry: Entry, labels: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether an entry point takes labels of these shapes, as far as it takes them at all."""
    types = entry.program.input_types
    return all(types[n].shape == s for n, s in labels.items() if n in types)


def _covered(blocks: Iterable[tuple[int, int]]) -> int:
    """Return how many bytes blocks (offset, size) cover; a region and the parts inside of it count once."""
    total = end = 0
    for start, size in sorted(blocks):
        total += max(0, start + size - max(start, end))
        end = max(end, start + size)
    return total


def _refused(failed: CheckFailed, batch: Batch) -> DataError:
    """Return the error of a batch that a check refused."""
    inputs = {n: array_of(a) for n, a in batch.items()}
    where = not_finite(inputs)
    if where:
        return DataError(where, hint="clean the data; nothing was updated")
    hint = _culprit(failed.message, inputs)
    return DataError(f"{failed.message}; nothing was updated", hint=hint)


def _wants_each_step(callback: Any) -> bool:
    """Whether a callback looks at the trainer after each step."""
    return hasattr(callback, "on_step") and not hasattr(callback, "on_steps")


def _tell_steps(
    callbacks: Iterable[Any], trainer: Trainer, done: int, losses: Sequence[float]
) -> None:
    """Tell of the steps of one native call, of which `done` came before."""
    for callback in callbacks:
        if hasattr(callback, "on_steps"):
            callback.on_steps(trainer, done + len(losses), losses)
        elif hasattr(callback, "on_step"):
            for n, loss in enumerate(losses, done + 1):
                callback.on_step(trainer, n, loss)


def _tell(callbacks: Iterable[Any], event: str, *args: Any) -> None:
    for callback in callbacks:
        told = getattr(callback, event, None)
        if told is not None:
            told(*args)


def _culprit(message: str, inputs: Mapping[str, Array]) -> str:
    """Return what may help: ranges of the integer inputs, or what tames a loss that ran away."""
    if message in (NOT_FINITE, GRADIENT_NOT_FINITE):
        return "lower the learning rate, or clip the gradients (clip_norm=)"
    for name, array in inputs.items():
        if array.dtype.kind in "iu" and array.size and name in message:
            return f"{name} holds values from {array.min()} to {array.max()}"
    ranges = [
        f"{n} {a.min()}…{a.max()}" for n, a in inputs.items() if a.dtype.kind in "iu" and a.size
    ]
    return "integer inputs hold: " + ", ".join(ranges) if ranges else ""
