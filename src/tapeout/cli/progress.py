"""What a training run shows while it runs: a moving line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tapeout.cli.say import is_live, number, percent
from tapeout.support.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tapeout.api.trainer import Memory, Trainer
    from tapeout.cli.interrupt import StopRequest
    from tapeout.cli.say import Speaker

_PLAIN_EVERY = 20.0
"""Seconds between lines within an epoch, where there is no terminal."""

_LIVE_EVERY = 0.1
"""Seconds between movements on a terminal; drawing costs more than a small step."""


_RECENT = 501
"""Steps whose times tell the present speed."""


class Stopped(Exception):
    """Ends `fit` between two steps, because the user asked for it."""


@dataclass
class Record:
    """What the run left for the plot and the closing lines.

    Attributes:
        steps: Loss of each step.
        epochs: One record per epoch.
        step_seconds: Time of each step after the first, data handling included.
        before: Validation figures before the first step, when they were taken.
    """

    steps: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)


class Progress:
    """Callback of `Trainer.fit` that shows how far it is.

    Args:
        speaker: Where lines go.
        stop: Whether the user asked to stop.
        samples: Rows of an epoch.
        batch_size: Rows of a batch.
        first: Number of epochs that were done before.
        last: Number of the last epoch, from 1.
        skipped: Batches of the first epoch that were done before.
    """

    def __init__(
        self,
        speaker: Speaker,
        stop: StopRequest,
        samples: int,
        batch_size: int,
        last: int,
        *,
        first: int = 0,
        skipped: int = 0,
    ) -> None:
        self.speaker, self.stop = speaker, stop
        self.per_epoch = -(-samples // batch_size)
        self.samples, self.batch_size = samples, batch_size
        self.first, self.last, self.skipped = first, last, skipped
        self.record = Record()
        self.left = (last - first) * self.per_epoch - skipped
        self.epoch, self.at = first, skipped
        self._live: _Status | None = None
        self._shown = self._last = self._validation = self._compiled = 0.0

    def __enter__(self) -> Self:
        if is_live(err=self.speaker.json):
            self._live = _Status(err=self.speaker.json)
            self._live.start()
            self._live.update("compiling …")
            self.speaker.through = self._live.print
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self.speaker.through = None
            self._live.stop()

    def on_step(self, trainer: Trainer, step: int, loss: float) -> None:
        """Note the loss; tell about compilation after the first step, of progress now and then."""
        self.on_steps(trainer, step, [loss])

    def on_steps(self, trainer: Trainer, step: int, losses: Sequence[float]) -> None:
        """The same for the steps of one native call."""
        now, loss = time.perf_counter(), losses[-1]
        first = not self.record.steps
        self.record.steps += losses
        self.at += len(losses)
        self.left -= len(losses)
        if first:
            # Before the first step there was nothing to save; from now on there is.
            self.stop.armed = True
            self._shown = now
            tell_compilation(self.speaker, trainer)
        else:
            self.record.step_seconds += [(now - self._last) / len(losses)] * len(losses)
        self._last, self._compiled = now, trainer.compile_seconds
        # After an epoch's last step `on_epoch` stops, so that the run stands at the start of the next one.
        if self.stop.asked and self.at < self.per_epoch:
            raise Stopped
        if now - self._shown >= (_LIVE_EVERY if self._live is not None else _PLAIN_EVERY):
            self._shown = now
            self._show(loss)

    def on_epoch(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Print the epoch's line."""
        self.epoch, self.at = self.first + epoch, 0
        self.record.epochs.append(dict(record))
        now = time.perf_counter()
        compiled = trainer.compile_seconds - self._compiled
        took = max(0.0, now - self._last - compiled) if "val_loss" in record else 0.0
        self._validation = min(took, self._validation) if len(self.record.epochs) > 1 else took
        self._last = self._shown = now
        self.speaker.line("epoch", self._epoch_line(record))
        if self.stop.asked and self.left:
            raise Stopped

    def _epoch_line(self, record: dict[str, float]) -> str:
        width = len(str(self.last))
        parts = [f"{self.epoch:>{width}}/{self.last}", f"loss {number(record['loss'])}"]
        if "val_loss" in record:
            parts.append(f"val loss {number(record['val_loss'])}")
        if "val_accuracy" in record:
            parts.append(f"val accuracy {percent(record['val_accuracy'])}")
        rate = self._rate() or record["samples_per_second"]  # one step alone has no usual time
        parts.append(f"{rate:,.0f} samples/s")
        parts.append(seconds_text(record["seconds"]))
        if self.left:
            parts.append(f"left {seconds_text(self._time_left())}")
        return "   ".join(parts)

    def _step_seconds(self) -> float:
        """Return the usual time of a step: a median, which compiling for a short last batch does not move."""
        recent = self.record.step_seconds[-_RECENT:]
        return sorted(recent)[len(recent) // 2] if recent else 0.0

    def _rate(self) -> float:
        seconds = self._step_seconds()
        return self.batch_size / seconds if seconds else 0.0

    def _time_left(self) -> float:
        """Return about how long the rest takes: steps, and validations at the quickest seen so far."""
        return self.left * self._step_seconds() + (self.last - self.epoch) * self._validation

    def _show(self, loss: float) -> None:
        parts = [
            f"epoch {self.epoch + 1}/{self.last}",
            f"step {self.at}/{self.per_epoch}",
            f"loss {number(loss)}",
        ]
        seen = self.record.epochs[-1] if self.record.epochs else self.record.before
        accuracy = seen.get("val_accuracy", seen.get("accuracy"))
        parts += [f"accuracy {percent(accuracy)}"] if accuracy is not None else []
        rate = self._rate()
        parts += [f"{rate:,.0f} samples/s"] if rate else []
        parts.append(f"left {seconds_text(self._time_left())}")
        text = "  ".join(parts)
        if self._live is not None:
            self._live.update(text)
        else:
            self.speaker.line("", text)


def tell_compilation(speaker: Speaker, trainer: Trainer) -> None:
    """Print what was compiled, how long it took, and the memory of a step."""
    speaker.line(
        "compiled",
        f"{trainer.kernels} kernels in {seconds_text(trainer.compile_seconds)}, {trainer.threads} threads",
    )
    speaker.line("memory", memory_text(trainer.memory))


def memory_text(memory: Memory) -> str:
    """Return the memory of a step in one line."""
    parts = [
        f"parameters {bytes_text(memory.parameters)}",
        f"optimiser state {bytes_text(memory.optimizer_state)}",
        f"gradients {bytes_text(memory.gradients)}",
        f"activations {bytes_text(memory.activations)}",
    ]
    return f"{bytes_text(memory.total)}: {', '.join(parts)}"


class _Status:
    """A line at the bottom of a terminal that is drawn anew; other lines scroll above it."""

    def __init__(self, *, err: bool) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._text = Text
        self._console = Console(stderr=err, highlight=False)
        # Drawn when told to, not by a thread of its own: cores belong to the training.
        self._live = Live(Text(""), console=self._console, auto_refresh=False, transient=True)

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def update(self, text: str) -> None:
        # Text, not markup: names of the user's may hold brackets.
        line = self._text(text, style="dim", overflow="ellipsis", no_wrap=True)
        self._live.update(line, refresh=True)

    def print(self, text: str) -> None:
        self._console.print(self._text(text), soft_wrap=True)
