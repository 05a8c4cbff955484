"""The plot of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tapeout.cli.progress import Record
    from tapeout.view.plot import Curve


def write_plot(
    path: Path, title: str, record: Record, per_epoch: int, *, first: float = 0.0
) -> None:
    """Write loss and, where there is one, accuracy over epochs as SVG.

    Args:
        path: The file.
        title: Heading.
        record: What the run left.
        per_epoch: Steps of an epoch.
        first: Where the run began, in epochs.

    Raises:
        DataError: The file cannot be written.
    """
    from tapeout.cli.say import percent
    from tapeout.support.files import write_atomic
    from tapeout.view.plot import Curve, Panel, render, smoothed

    xs = [first + (i + 1) / per_epoch for i in range(len(record.steps))]
    window = max(1, min(per_epoch, len(xs) // 8))
    curves = [
        Curve("each step", xs, record.steps, "forward", faint=True),
        Curve(f"mean of {window} steps", xs, smoothed(record.steps, window), "forward"),
    ]
    panels = [Panel("loss", "epoch", [*curves, *_validation(record, "loss", first)])]
    accuracy = _validation(record, "accuracy", first)
    if accuracy:
        panels.append(Panel("accuracy", "epoch", accuracy, percent=True))
    last = record.epochs[-1].get("val_accuracy") if record.epochs else None
    note = "" if last is None else f"validation accuracy {percent(last)}"
    write_atomic(path, render(title, panels, note).encode("utf-8"))


def _validation(record: Record, figure: str, first: float) -> list[Curve]:
    from tapeout.view.plot import Curve

    points = [
        (int(first) + i + 1.0, e[f"val_{figure}"])
        for i, e in enumerate(record.epochs)
        if f"val_{figure}" in e
    ]
    if figure in record.before:
        points.insert(0, (first, record.before[figure]))
    if not points:
        return []
    return [
        Curve("validation", [p[0] for p in points], [p[1] for p in points], "backward", marks=True)
    ]
