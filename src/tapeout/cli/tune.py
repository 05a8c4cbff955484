"""`tapeout tune`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from tapeout.cli import options as o
from tapeout.cli.profile import subject_options


@click.command(name="tune")
@o.together(o.model, *subject_options)
@click.option("--predict", is_flag=True, help="The model in inference mode, no training step.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    metavar="S",
    help="When to stop, about. What was found until then is kept, and the next run goes on from there.",
)
@o.as_json
def command(
    seconds: float,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 (checked by click)
) -> None:
    """Try other ways to run the kernels of a training step on this machine, and keep the fastest.

    Each way gives the same bits. Winners stand in the cache, by the structure of the kernel: every later compilation on this
    machine uses them, of this model and of any other with such kernels. `tapeout cache clear` forgets them.

    \b
    tapeout tune gpt2.onnx --batch-size 2 --seconds 120
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    from tapeout.api.tune import tune
    from tapeout.cli.say import Speaker
    from tapeout.cli.subject import Asked, subject

    speaker = Speaker(json=as_json)
    found = subject(Asked(**asked))
    result = tune(
        found.runs,
        found.batch,
        seconds=seconds,
        progress=lambda line: speaker.line("", line),
    )
    speaker.line("tuned", str(result))
    speaker.result(asdict(result))
