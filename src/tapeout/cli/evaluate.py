"""`tapeout eval`."""

from __future__ import annotations

import click

from tapeout.cli import options as o


@click.command(name="eval")
@o.together(
    o.model,
    o.data,
    o.rename,
    o.transform,
    o.loss,
    o.labels,
    o.batch_size,
    o.precision,
    o.threads,
    o.target,
    o.as_json,
)
def command(
    model: str,
    data_text: str,
    inputs: tuple[str, ...],
    transforms: tuple[str, ...],
    loss_text: str,
    labels: str | None,
    batch_size: int,
    precisions: tuple[str, ...],
    threads: int | None,
    target: str,
    as_json: bool,
) -> None:
    """Print the loss, and for class labels the accuracy, of a model on data. The model runs in inference mode.

    \b
    tapeout eval trained.onnx --data mnist5k:test
    tapeout eval net.onnx --data table.csv --loss mse --json
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    from tapeout.api.trainer import Trainer
    from tapeout.cli import reading
    from tapeout.cli.say import Speaker, number, percent
    from tapeout.cli.spec import parse_loss, parse_precisions

    speaker = Speaker(json=as_json)
    graph = reading.load_model(model, modes=("eval",))
    loss = parse_loss(loss_text, graph, labels)
    trainer = Trainer(
        graph,
        loss=loss,
        optimizer=None,
        threads=threads,
        target=target,
        precision=parse_precisions(precisions),
    )
    dataset = reading.load_dataset(data_text, inputs, transforms)
    found = reading.mapped(dataset, graph, reading.label_of(loss), data_text)
    speaker.line("data", f"{found.samples:,} samples")
    for line in (*found.notes, *found.mapping.lines):
        speaker.line("", line)
    with reading.naming(data_text):
        figures = trainer.evaluate(found.arrays, batch_size=batch_size)
    speaker.line("loss", number(figures["loss"]))
    if "accuracy" in figures:
        speaker.line("accuracy", percent(figures["accuracy"]))
    speaker.result({**figures, "samples": found.samples})
