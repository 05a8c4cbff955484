"""`tapeout check`."""

from __future__ import annotations

import click

from tapeout.cli import options as o


@click.command(name="check")
@o.together(o.model, o.dims, o.precision, *o.changes, o.as_json)
def command(
    model: str,
    dims: tuple[str, ...],
    precisions: tuple[str, ...],
    trainable: tuple[str, ...],
    modes: tuple[str, ...],
    classes: int | None,
    as_json: bool,
) -> int:
    """Say whether a model can be imported, differentiated and compiled, and what training it takes; exit 1 if not.

    Names everything that stands in the way at once: operators, shapes, parameters that no gradient reaches. The
    figures are those of a training step with Adam, for a batch of 32 unless --dims says otherwise.

    \b
    tapeout check model.onnx
    tapeout check model.onnx --dims N=64 --json | python -m json.tool
    tapeout check model.onnx --replace-head 10 --trainable 'fc.*'
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    import tapeout
    from tapeout.cli.reading import changed_file, existing, load_model, trainable_globs
    from tapeout.cli.say import Speaker
    from tapeout.cli.spec import parse_dims, parse_modes, parse_precisions

    existing(model)
    speaker = Speaker(json=as_json)
    bound, mode = parse_dims(dims) or None, parse_modes(modes)
    precision = parse_precisions(precisions)
    if classes is None:
        globs = trainable_globs(trainable)
        report = tapeout.check(model, bound, precision=precision, trainable=globs, mode=mode)
    else:
        graph = load_model(model, trainable=trainable, modes=modes, classes=classes)
        trains = {n: v.trainable for n, v in graph.parameters.items()}
        file = changed_file(graph)
        report = tapeout.check(file, bound, precision=precision, trainable=trains, mode=mode)
        report.name = model
        speaker.text("\n".join(graph.notes))
    speaker.text(str(report))
    speaker.result(report.to_json())
    return 0 if report else 1
