"""`tapeout check`."""

from __future__ import annotations

import click

from tapeout.cli import options as o


@click.command(name="check")
@o.together(o.model, o.dims, o.trainable, o.mode, o.as_json)
def command(
    model: str, dims: tuple[str, ...], trainable: tuple[str, ...], mode: str, as_json: bool
) -> int:
    """Say whether a model can be imported, differentiated and compiled, and what training it takes; exit 1 if not.

    Names everything that stands in the way at once: operators, shapes, parameters that no gradient reaches. The
    figures are those of a training step with Adam, for a batch of 32 unless --dims says otherwise.

    \b
    tapeout check model.onnx
    tapeout check model.onnx --dims N=64 --json | python -m json.tool
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    import tapeout
    from tapeout.cli.reading import existing, trainable_globs
    from tapeout.cli.say import Speaker
    from tapeout.cli.spec import parse_dims

    existing(model)
    speaker = Speaker(json=as_json)
    report = tapeout.check(
        model, parse_dims(dims) or None, trainable=trainable_globs(trainable), mode=mode
    )
    speaker.text(str(report))
    speaker.result(report.to_json())
    return 0 if report else 1
