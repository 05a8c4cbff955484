"""`tapeout bisect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tapeout.cli import options as o

if TYPE_CHECKING:
    from tapeout.driver.bisect import Fault, Feed
    from tapeout.ir.graph import Graph


@click.command(name="bisect")
@click.argument("file", type=click.Path())
@click.option(
    "--loss",
    "loss_text",
    default="cross_entropy",
    show_default=True,
    metavar="LOSS",
    help="As for train; none takes the model alone. For ONNX files.",
)
@o.together(o.labels, o.optimizer, o.lr, o.clip_norm, *o.changes, o.dims)
@click.option(
    "--data",
    "data_text",
    metavar="D",
    help="Run on the first samples of this data; default: random numbers.",
)
@o.together(o.rename, o.transform, o.seed, o.as_json)
def command(
    file: str,
    loss_text: str,
    labels: str | None,
    optimizer_text: str,
    lr: float | None,
    clip_norm: float | None,
    trainable: tuple[str, ...],
    modes: tuple[str, ...],
    classes: int | None,
    dims: tuple[str, ...],
    data_text: str | None,
    inputs: tuple[str, ...],
    transforms: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> int:
    """Find the first pass or kernel that departs from its oracle; exit 1 if there is one.

    FILE is a .tape or an ONNX file. Every pass is compared with the graph before it, every launch with the graph, every
    native kernel with its loops. The oracles are slow: keep the batch small (--dims N=2 is the default).

    \b
    tapeout bisect net.onnx --loss cross_entropy --optimizer adam
    tapeout bisect 00-built.tape
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    from tapeout.cli.say import Speaker
    from tapeout.cli.spec import parse_dims
    from tapeout.cli.view import Source, Training
    from tapeout.driver.bisect import bisect
    from tapeout.driver.options import Options, resolve_target

    speaker = Speaker(json=as_json)
    if Path(file).suffix == ".tape":
        from tapeout.api.view import read

        graph = read(file)
    else:
        from tapeout.cli.reading import load_model

        model = load_model(
            file, trainable=trainable, modes=modes, classes=classes, dims=parse_dims(dims)
        )
        training = (
            None
            if loss_text == "none"
            else Training(loss_text, labels, optimizer_text, lr, clip_norm)
        )
        graph = Source(model, Path(file).name, training).step
    graph = graph.bind({})
    feed = _feed(graph, data_text, inputs, transforms, seed)
    fault = bisect(graph, Options(resolve_target("native")), feed, told=speaker.line)
    speaker.text(
        "every stage agrees with its oracle"
        if fault is None
        else f"the first to depart is\n{fault}"
    )
    speaker.result(_data(fault))
    return 0 if fault is None else 1


def _feed(
    graph: Graph,
    data_text: str | None,
    inputs: tuple[str, ...],
    transforms: tuple[str, ...],
    seed: int,
) -> Feed:
    from tapeout.driver.bisect import Feed, random_feed

    drawn = random_feed(graph, seed)
    if data_text is None:
        return drawn
    from tapeout.cli.reading import load_dataset
    from tapeout.data import infer_mapping

    wanted = {v.name: (v.type.dtype.numpy, (None, *v.type.shape[1:])) for v in graph.inputs}
    dataset = load_dataset(data_text, inputs, transforms)
    arrays = infer_mapping(dataset, wanted).apply(dataset.arrays)
    given = {v.name: arrays[v.name][: v.type.shape[0]] for v in graph.inputs if v.type.shape}
    return Feed({**drawn.inputs, **given}, drawn.variables)


def _data(fault: Fault | None) -> dict[str, object]:
    from dataclasses import asdict

    return {"agrees": fault is None, "fault": None if fault is None else asdict(fault)}
