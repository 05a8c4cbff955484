"""`tapeout gradcheck`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tapeout.cli import options as o
from tapeout.support.errors import OptionError

if TYPE_CHECKING:
    from tapeout.api.gradcheck import GradcheckReport


@click.command(name="gradcheck")
@o.model
@click.option(
    "--all", "all_entries", is_flag=True, help="Check every entry of every parameter, not a sample."
)
@click.option(
    "--loss",
    "loss_text",
    metavar="LOSS",
    help="As for train; default: all outputs times fixed random weights.",
)
@o.labels
@click.option(
    "--data", "data_text", metavar="D", help="One batch to check on; default: random numbers."
)
@o.together(o.rename, o.transform)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    metavar="B",
    help="How many samples of the data.",
)
@o.together(*o.changes, o.seed)
@click.option(
    "--zero",
    "zeros",
    multiple=True,
    metavar="NAME=REASON",
    help="A parameter whose gradient is zero, and why.",
)
@o.as_json
def command(
    model: str,
    all_entries: bool,
    loss_text: str | None,
    labels: str | None,
    data_text: str | None,
    inputs: tuple[str, ...],
    transforms: tuple[str, ...],
    samples: int,
    trainable: tuple[str, ...],
    modes: tuple[str, ...],
    classes: int | None,
    seed: int,
    zeros: tuple[str, ...],
    as_json: bool,
) -> int:
    """Compare native gradients with finite differences in f64; exit 1 unless all are right.

    \b
    tapeout gradcheck lenet.onnx
    tapeout gradcheck lenet.onnx --all --loss cross_entropy --data mnist5k:test
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    import tapeout
    from tapeout.cli import reading
    from tapeout.cli.say import Speaker
    from tapeout.cli.spec import parse_loss

    speaker = Speaker(json=as_json)
    graph = reading.load_model(model, trainable=trainable, modes=modes, classes=classes, seed=seed)
    loss = None if loss_text is None else parse_loss(loss_text, graph, labels)
    batch = None
    if data_text is not None:
        dataset = reading.load_dataset(data_text, inputs, transforms)
        found = reading.mapped(
            dataset, graph, None if loss is None else reading.label_of(loss), data_text
        )
        batch = {name: array[:samples] for name, array in found.arrays.items()}
    report = tapeout.gradcheck(
        graph, loss, batch, all_entries=all_entries, seed=seed, zero_gradients=_reasons(zeros)
    )
    speaker.text(str(report))
    speaker.text(f"worst error {report.worst:.1e}: {'passed' if report else 'FAILED'}")
    speaker.result(_data(report))
    return 0 if report else 1


def _reasons(zeros: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in zeros:
        name, equals, reason = item.partition("=")
        if not equals or not reason.strip():
            raise OptionError(f"{item!r}: NAME=REASON is expected", where="--zero")
        found[name] = reason.strip()
    return found


def _data(report: GradcheckReport) -> dict[str, Any]:
    rows = [{**asdict(p), "passed": p.passed} for p in report.parameters]
    return {"passed": bool(report), "worst": report.worst, "parameters": rows}
