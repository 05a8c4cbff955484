"""`tapeout train`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tapeout.cli import options as o
from tapeout.support.errors import OptionError

if TYPE_CHECKING:
    from tapeout.api.trainer import Trainer
    from tapeout.cli.interrupt import StopRequest
    from tapeout.cli.progress import Progress
    from tapeout.cli.reading import Mapped
    from tapeout.cli.say import Speaker


@dataclass(frozen=True)
class Request:
    """What the user asked for, as it stands on the command line."""

    model: str
    data_text: str
    val_text: str | None
    val_split: float | None
    loss_text: str
    labels: str | None
    optimizer_text: str
    lr: float | None
    clip_norm: float | None
    precisions: tuple[str, ...]
    batch_size: int
    epochs: int
    trainable: tuple[str, ...]
    modes: tuple[str, ...]
    classes: int | None
    seed: int
    threads: int | None
    target: str
    tune: float | None
    steps_per_call: int | None
    inputs: tuple[str, ...]
    transforms: tuple[str, ...]
    output: str
    resume: str | None
    plot: str | None
    as_json: bool
    given: frozenset[str]
    """Names of the options that the user wrote, as opposed to defaults."""


@click.command(name="train")
@o.model
@o.data
@click.option("--val", "val_text", metavar="D2", help="Data to validate on after each epoch.")
@click.option(
    "--val-split",
    type=float,
    metavar="SHARE",
    help="Hold out this share of the data instead, such as 0.1.",
)
@o.together(o.rename, o.transform, o.loss, o.labels, o.optimizer, o.lr, o.clip_norm, o.batch_size)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="E",
    help="Passes over the data.",
)
@o.together(*o.changes, o.precision, o.seed, o.threads, o.target)
@click.option(
    "--steps-per-call",
    type=click.IntRange(min=1),
    metavar="K",
    help="Steps of one native call; default: as many as take about 50 ms. Results do not depend on it.",
)
@click.option(
    "-o",
    "--output",
    default="trained.onnx",
    show_default=True,
    metavar="FILE",
    help="The trained model.",
)
@click.option(
    "--resume", metavar="RUN", help="Go on from a checkpoint that an interrupted run left."
)
@click.option(
    "--tune",
    type=click.FloatRange(min=0.1),
    metavar="S",
    help="First spend about S seconds on finding out how the kernels of this step run fastest on this machine, as "
    "`tapeout tune` does. The results are the same bits; what was found is kept for later runs.",
)
@click.option("--plot", metavar="FILE.svg", help="Also write a picture of loss and accuracy.")
@o.as_json
@click.pass_context
def command(ctx: click.Context, /, **values: Any) -> int:  # noqa: ANN401 (checked by click)
    """Train a model on data and write it back as ONNX, weights changed and nothing else.

    The whole step (forward, loss, backward, update) is compiled to native code before the first batch, or comes from the
    cache. Which array feeds which input is worked out from names and shapes, and printed.

    \b
    tapeout train lenet.onnx --data mnist5k:train --val mnist5k:test --epochs 15 -o trained.onnx
    tapeout train net.onnx --data table.csv --loss mse --optimizer sgd:momentum=0.9 --lr 0.01
    tapeout train net.onnx --data x=a.npy,labels=b.npy --val-split 0.1 --trainable 'head.*'
    tapeout train big.onnx --data photos/ --replace-head 5 --trainable 'fc.*' --mode eval

    Ctrl-C finishes the running step, writes the weights so far and a checkpoint beside the output, and says how to go on.
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    source = click.core.ParameterSource.DEFAULT
    given = frozenset(name for name in values if ctx.get_parameter_source(name) != source)
    return run(Request(**values, given=given))


def run(request: Request) -> int:
    """Train as asked."""
    from tapeout.cli.interrupt import StopRequest
    from tapeout.cli.say import Speaker

    speaker = Speaker(json=request.as_json)
    output, plot = _outputs(request)
    with StopRequest() as stop:
        trainer = _trainer(request)
        train, held_out = _data(request, trainer)
        _introduce(speaker, request, trainer, train, held_out)
        if request.tune is not None:
            _tune(speaker, request.tune, request.batch_size, trainer, train)
        progress = _progress(speaker, stop, request, trainer, train)
        _fit(request, trainer, train, held_out, progress, output)
        trainer.export_onnx(output)
        if plot is not None:
            _plot(plot, request, trainer, progress)
        # Still inside: once the files are written, Ctrl-C must not say that nothing was.
        _close(speaker, request, trainer, progress, output, plot)
    return 0


def _outputs(request: Request) -> tuple[Path, Path | None]:
    from tapeout.cli.outputs import check_distinct, check_not_input, check_writable

    output = check_writable(request.output, suffixes=(".onnx",))
    check_not_input(output, request.model)
    plot = check_writable(request.plot, suffixes=(".svg",)) if request.plot else None
    check_distinct(output, plot)
    if request.val_text is not None and request.val_split is not None:
        raise OptionError("--val and --val-split exclude each other", hint="keep one of them")
    return output, plot


def _trainer(request: Request) -> Trainer:
    from tapeout.api.trainer import Trainer
    from tapeout.cli.reading import load_model
    from tapeout.cli.spec import parse_loss, parse_optimizer, parse_precisions

    if request.resume is not None:
        return _resumed(request)
    graph = load_model(
        request.model,
        trainable=request.trainable,
        modes=request.modes,
        classes=request.classes,
        seed=request.seed,
    )
    return Trainer(
        graph,
        loss=parse_loss(request.loss_text, graph, request.labels),
        optimizer=parse_optimizer(request.optimizer_text, request.lr),
        threads=request.threads,
        target=request.target,
        seed=request.seed,
        clip_norm=request.clip_norm,
        precision=parse_precisions(request.precisions),
    )


_FROM_RUN = {
    "loss_text": "--loss",
    "labels": "--labels",
    "optimizer_text": "--optimizer",
    "clip_norm": "--clip-norm",
    "precisions": "--precision",
    "trainable": "--trainable",
    "modes": "--mode",
    "classes": "--replace-head",
    "seed": "--seed",
}
"""Options that a checkpoint holds already."""


def _resumed(request: Request) -> Trainer:
    from tapeout.api.trainer import Trainer

    clash = [spelled for name, spelled in _FROM_RUN.items() if name in request.given]
    if clash:
        raise OptionError(
            f"{clash[0]} comes from the checkpoint and cannot be changed", where="--resume"
        )
    trainer = Trainer.restore(request.resume or "", threads=request.threads, target=request.target)
    if request.lr is not None:
        trainer.hyperparameters["lr"] = request.lr
    if trainer.epoch >= request.epochs:
        raise OptionError(
            f"the run has {trainer.epoch} epochs already",
            where="--epochs",
            hint=f"--epochs counts from the start: {trainer.epoch + 5}",
        )
    return trainer


def _data(request: Request, trainer: Trainer) -> tuple[Mapped, Mapped | None]:
    from tapeout.cli import reading
    from tapeout.data import DataMapping, split

    label = reading.label_of(trainer.loss)
    whole = reading.load_dataset(request.data_text, request.inputs, request.transforms)
    other = None
    if request.val_text is not None:
        other = reading.load_dataset(request.val_text, request.inputs, request.transforms)
    if request.val_split is not None:
        whole, other = split(whole, request.val_split, seed=trainer.seed)
    known = trainer.attachments.get("mapping")
    if known is None:
        train = reading.mapped(whole, trainer.model, label, request.data_text)
        trainer.attachments["mapping"] = train.mapping.to_data()
    else:
        train = reading.mapped_by(DataMapping.from_data(known), whole, request.data_text)
    if other is None:
        return train, None
    return train, reading.mapped_by(train.mapping, other, request.val_text or request.data_text)


def _introduce(
    speaker: Speaker, request: Request, trainer: Trainer, train: Mapped, held_out: Mapped | None
) -> None:
    found = trainer.model.parameters.values()
    trained = [v for v in found if v.trainable]
    frozen = (
        f", {len(trainer.model.parameters) - len(trained)} tensors frozen"
        if len(trained) < len(found)
        else ""
    )
    size = sum(v.type.size for v in trained)
    speaker.line(
        "model", f"{request.model}: {size:,} numbers to train in {len(trained)} tensors{frozen}"
    )
    for note in dict.fromkeys(trainer.notes):
        speaker.line("note", note)
    validation = f", {held_out.samples:,} to validate" if held_out else ""
    speaker.line("data", f"{train.samples:,} samples{validation}")
    for line in (*train.notes, *train.mapping.lines):
        speaker.line("", line)


def _tune(
    speaker: Speaker, seconds: float, batch_size: int, trainer: Trainer, train: Mapped
) -> None:
    """Tune the step on the first batch; the trainer is as before afterwards."""
    from tapeout.api.tune import tune

    batch = {name: array[:batch_size] for name, array in train.arrays.items()}
    found = tune(trainer, batch, seconds=seconds, progress=lambda line: speaker.line("tune", line))
    speaker.line("tuned", str(found))


def _progress(
    speaker: Speaker, stop: StopRequest, request: Request, trainer: Trainer, train: Mapped
) -> Progress:
    from tapeout.cli.progress import Progress

    return Progress(
        speaker,
        stop,
        train.samples,
        request.batch_size,
        request.epochs,
        first=trainer.epoch,
        skipped=trainer.batch,
    )


def _fit(
    request: Request,
    trainer: Trainer,
    train: Mapped,
    held_out: Mapped | None,
    progress: Progress,
    output: Path,
) -> None:
    from tapeout.cli.interrupt import Interrupted
    from tapeout.cli.progress import Stopped
    from tapeout.cli.reading import naming

    def data_text() -> str:
        """What is being read: validation follows the last step of an epoch."""
        validating = progress.at == progress.per_epoch and request.val_text
        return request.val_text if validating and request.val_text else request.data_text

    try:
        with progress, naming(data_text):
            trainer.fit(
                train.arrays,
                epochs=request.epochs - trainer.epoch,
                batch_size=request.batch_size,
                validation_data=None if held_out is None else held_out.arrays,
                callbacks=[progress],
                steps_per_call=request.steps_per_call,
            )
    except Stopped:
        raise Interrupted(save_interrupted(trainer, request, output)) from None


def save_interrupted(trainer: Trainer, request: Request, output: Path) -> str:
    """Write weights and checkpoint beside the output and return what to tell the user."""
    weights = output.with_suffix(".interrupted.onnx")
    run = output.with_suffix(".interrupted.ckpt")
    trainer.export_onnx(weights)
    trainer.save(run)
    return (
        f"after {trainer.steps_done} steps the weights so far are in {weights}, "
        f"the state of the run in {run}\n  go on with: {_again(request, run)}"
    )


def _again(request: Request, run: Path) -> str:
    """Return the command that goes on with a run."""
    words = ["tapeout", "train", request.model, "--data", request.data_text]
    words += ["--val", request.val_text] if request.val_text else []
    words += ["--val-split", str(request.val_split)] if request.val_split else []
    words += _data_options(request)
    words += ["--batch-size", str(request.batch_size), "--epochs", str(request.epochs)]
    words += ["--plot", request.plot] if request.plot else []
    return shlex.join([*words, "-o", request.output, "--resume", str(run)])


def _data_options(request: Request) -> list[str]:
    """Return how the arrays of the data were named and changed, as options."""
    names = [word for value in request.inputs for word in ("--input", value)]
    return [*names, *(word for value in request.transforms for word in ("--transform", value))]


def _plot(path: Path, request: Request, trainer: Trainer, progress: Progress) -> None:
    from tapeout.cli.curves import write_plot

    title = f"{Path(request.model).name} on {request.data_text}"
    write_plot(
        path,
        title,
        progress.record,
        progress.per_epoch,
        first=progress.first + progress.skipped / progress.per_epoch,
    )


def _close(
    speaker: Speaker,
    request: Request,
    trainer: Trainer,
    progress: Progress,
    output: Path,
    plot: Path | None,
) -> None:
    from tapeout.cli.say import number, percent
    from tapeout.support.units import seconds_text

    last = progress.record.epochs[-1]
    seconds = sum(e["seconds"] for e in progress.record.epochs)
    figures = [f"loss {number(last['loss'])}"]
    if "val_accuracy" in last:
        figures.append(f"validation accuracy {percent(last['val_accuracy'])}")
    speaker.line(
        "done", f"{trainer.steps_done} steps in {seconds_text(seconds)}, {', '.join(figures)}"
    )
    speaker.line("wrote", "\n".join(str(p) for p in (output, plot) if p is not None))
    again = ["tapeout", "eval", str(output), "--data", request.val_text or request.data_text]
    speaker.line("next", shlex.join([*again, *_data_options(request)]))
    speaker.result(
        {
            "output": str(output),
            "plot": None if plot is None else str(plot),
            "epochs": progress.record.epochs,
            "steps": trainer.steps_done,
            "compile_seconds": trainer.compile_seconds,
            "kernels": trainer.kernels,
            "arena_bytes": trainer.memory.total,
        }
    )
