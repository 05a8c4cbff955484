"""`tapeout demo`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tapeout.cli import options as o
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from tapeout.api.trainer import Trainer
    from tapeout.cli.agree import Verdict
    from tapeout.cli.interrupt import StopRequest
    from tapeout.cli.progress import Progress
    from tapeout.cli.say import Speaker

EPOCHS, BATCH, RATE = 15, 32, 1e-3
"""Chosen so that a 2-core machine is done in a few seconds and the accuracy has levelled off."""


@dataclass(frozen=True)
class Falling:
    """Callback that lets the learning rate fall in equal steps, from `RATE` in the first epoch.

    A constant one leaves the last epochs jumping: runs that differ in rounding alone would part by
    a point.
    """

    epochs: int

    def on_epoch(self, trainer: Trainer, epoch: int, record: dict[str, float]) -> None:
        """Set the rate of the next epoch."""
        trainer.hyperparameters["lr"] = RATE * (1.0 - epoch / self.epochs)


@dataclass(frozen=True)
class Digits:
    """The digits as inputs of the model."""

    train: dict[str, Any]
    test: dict[str, Any]
    lines: tuple[str, ...]


@click.command(name="demo")
@click.option(
    "-o",
    "--output",
    default="demo-out",
    show_default=True,
    metavar="FOLDER",
    help="Where the results go.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=EPOCHS,
    show_default=True,
    metavar="E",
    help="Passes over the digits.",
)
@o.together(o.seed, o.threads)
@click.option(
    "--require-onnxruntime",
    is_flag=True,
    help="Fail (exit 1) unless onnxruntime is there and agrees.",
)
@o.as_json
def command(
    output: str,
    epochs: int,
    seed: int,
    threads: int | None,
    require_onnxruntime: bool,
    as_json: bool,
) -> int:
    """Train a LeNet on 5,000 real handwritten digits, end to end, in native code derived from the ONNX file.

    Leaves in FOLDER the trained model, the curves of loss and accuracy, and a page that shows every stage from the
    imported graph to the memory plan. Then onnxruntime, in a process of its own, judges the trained file.

    \b
    tapeout demo
    tapeout demo --epochs 30 --seed 1 -o /tmp/lenet
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    from tapeout.cli.interrupt import StopRequest
    from tapeout.cli.say import Speaker

    began = time.perf_counter()
    speaker = Speaker(json=as_json)
    folder = _folder(output)
    with StopRequest() as stop:
        trainer, digits = _prepare(speaker, seed, threads)
        progress = _fit(speaker, stop, trainer, digits, epochs, folder)
    after = trainer.evaluate(digits.test, batch_size=BATCH)
    files = _write(speaker, folder, trainer, progress)
    verdict = _verify(trainer, digits, files[0], folder)
    return _close(
        speaker,
        trainer,
        progress,
        after,
        verdict,
        files,
        time.perf_counter() - began,
        require_onnxruntime,
    )


def _folder(output: str) -> Path:
    from tapeout.cli.outputs import check_writable

    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise DataError("is not a folder", where=output, hint="choose another with -o")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as e:
        raise DataError(
            f"cannot make the folder: {e.strerror}", where=output, hint="choose another with -o"
        ) from None
    check_writable(folder / "lenet.onnx")
    return folder


def _prepare(speaker: Speaker, seed: int, threads: int | None) -> tuple[Trainer, Digits]:
    import tapeout
    from tapeout.cli.packaged import lenet

    path = lenet()
    digits = _digits()
    model = tapeout.load_onnx(path)
    trainer = tapeout.Trainer(
        model,
        loss=tapeout.losses.cross_entropy("logits", labels="labels"),
        optimizer=tapeout.optimizers.adam(lr=RATE),
        threads=threads,
        seed=seed,
    )
    size = sum(v.type.size for v in model.parameters.values())
    speaker.line(
        "model",
        f"{path.name}: LeNet-5 exported by PyTorch, {size:,} parameters in {len(model.parameters)} tensors",
    )
    speaker.line(
        "data",
        f"{len(digits.train['labels']):,} real handwritten digits to train, {len(digits.test['labels']):,} to test",
    )
    for line in digits.lines:
        speaker.line("", line)
    return trainer, digits


def _digits() -> Digits:
    from tapeout.data import infer_mapping, mnist5k

    train, test = mnist5k()
    mapping = infer_mapping(train, {"x": ("float32", (None, 1, 28, 28))}, labels="labels")
    return Digits(
        mapping.apply(train.arrays), mapping.apply(test.arrays), (*train.notes, *mapping.lines)
    )


def _fit(
    speaker: Speaker, stop: StopRequest, trainer: Trainer, digits: Digits, epochs: int, folder: Path
) -> Progress:
    from tapeout.cli.interrupt import Interrupted
    from tapeout.cli.progress import Progress, Stopped
    from tapeout.cli.say import percent

    progress = Progress(speaker, stop, len(digits.train["labels"]), BATCH, epochs)
    before = trainer.evaluate(digits.test, batch_size=BATCH)
    progress.record.before = before
    speaker.line("untrained", f"test accuracy {percent(before['accuracy'])}")
    try:
        with progress:
            trainer.fit(
                digits.train,
                epochs,
                BATCH,
                validation_data=digits.test,
                callbacks=[progress, Falling(epochs)],
            )
    except Stopped:
        weights = folder / "lenet.interrupted.onnx"
        trainer.export_onnx(weights)
        raise Interrupted(
            f"after {trainer.steps_done} steps the weights so far are in {weights}"
        ) from None
    return progress


def _write(
    speaker: Speaker, folder: Path, trainer: Trainer, progress: Progress
) -> tuple[Path, Path, Path]:
    from tapeout.api.view import view
    from tapeout.cli.curves import write_plot

    model, plot, page = folder / "lenet.onnx", folder / "loss.svg", folder / "lenet.html"
    trainer.export_onnx(model)
    write_plot(plot, "LeNet on 4,000 handwritten digits", progress.record, progress.per_epoch)
    view(trainer, page)
    told = {
        model: "the trained model",
        plot: "loss and accuracy",
        page: "every stage, to be opened in a browser",
    }
    width = max(len(str(path)) for path in told)
    speaker.line("wrote", "\n".join(f"{path!s:<{width}}   {what}" for path, what in told.items()))
    return model, plot, page


def _verify(trainer: Trainer, digits: Digits, model: Path, folder: Path) -> Verdict:
    from tapeout.cli.agree import judge

    inputs = {"x": digits.test["x"]}
    return judge(model, inputs, trainer.predict(inputs, batch_size=BATCH), folder)


def _close(
    speaker: Speaker,
    trainer: Trainer,
    progress: Progress,
    after: dict[str, float],
    verdict: Verdict,
    files: tuple[Path, Path, Path],
    seconds: float,
    require: bool,
) -> int:
    from tapeout.cli.say import percent
    from tapeout.support.units import seconds_text

    step = sorted(progress.record.step_seconds)[len(progress.record.step_seconds) // 2]
    speaker.line(
        "trained", f"test accuracy {percent(after['accuracy'])}, {seconds_text(seconds)} in all"
    )
    speaker.line(
        "native",
        f"{trainer.kernels} kernels, arena {trainer.memory.total:,} bytes, step of {BATCH} samples {seconds_text(step)}",
    )
    speaker.line("agreement", _agreement(verdict))
    speaker.line(
        "next", "tapeout train YOUR.onnx --data YOUR.npz -o trained.onnx\ntapeout check YOUR.onnx"
    )
    speaker.result(
        {
            "untrained_accuracy": progress.record.before["accuracy"],
            "accuracy": after["accuracy"],
            "loss": after["loss"],
            "compile_seconds": trainer.compile_seconds,
            "kernels": trainer.kernels,
            "arena_bytes": trainer.memory.total,
            "step_seconds": step,
            "seconds": seconds,
            "onnxruntime": {
                "available": verdict.available,
                "difference": verdict.difference,
                "agrees": verdict.agrees,
            },
            "files": [str(f) for f in files],
        }
    )
    wrong = verdict.available and not verdict.agrees
    return 1 if wrong or (require and not verdict.agrees) else 0


def _agreement(verdict: Verdict) -> str:
    from tapeout.cli.agree import LIMIT

    if not verdict.available:
        return "not checked: onnxruntime is not installed (pip install onnxruntime)"
    if verdict.problem:
        return f"{verdict.engine} failed: {verdict.problem}"
    found = f"{verdict.engine} on {verdict.samples:,} samples: logits differ by at most {verdict.difference:.1e}"
    return found if verdict.agrees else f"{found}, more than {LIMIT:g}"
