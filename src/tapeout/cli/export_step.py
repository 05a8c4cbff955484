"""`tapeout export-step`."""

from __future__ import annotations

import click

from tapeout.cli import options as o


@click.command(name="export-step")
@o.together(o.model, o.loss, o.labels, o.optimizer, o.lr, o.clip_norm, *o.changes, o.dims)
@click.option("-o", "--output", required=True, metavar="FILE", help="The step as ONNX.")
def command(
    model: str,
    loss_text: str,
    labels: str | None,
    optimizer_text: str,
    lr: float | None,
    clip_norm: float | None,
    trainable: tuple[str, ...],
    modes: tuple[str, ...],
    classes: int | None,
    dims: tuple[str, ...],
    output: str,
) -> None:
    """Write the whole training step as plain ONNX, for any runtime.

    A parameter or state P is the input P with its initial value in the file; what it becomes is the output P.next.
    Feed the outputs back as inputs and you train.

    \b
    tapeout export-step lenet.onnx --loss cross_entropy --optimizer adam --dims N=64 -o step.onnx
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    import tapeout
    from tapeout.cli import reading
    from tapeout.cli.outputs import check_not_input, check_writable
    from tapeout.cli.say import Speaker
    from tapeout.cli.spec import parse_dims, parse_loss, parse_optimizer

    path = check_writable(output, suffixes=(".onnx",))
    check_not_input(path, model)
    graph = reading.load_model(
        model, trainable=trainable, modes=modes, classes=classes, dims=parse_dims(dims)
    )
    step = tapeout.training_step(
        graph,
        parse_loss(loss_text, graph, labels),
        parse_optimizer(optimizer_text, lr),
        clip_norm=clip_norm,
    )
    tapeout.save_onnx(step, path)
    speaker = Speaker()
    speaker.line(
        "wrote",
        f"{path}: {len(step.nodes):,} nodes, {len(step.updates):,} tensors that a step changes",
    )
    speaker.line("inputs", ", ".join(f"{v.name} {v.type}" for v in step.inputs))
    speaker.line(
        "state", "every parameter and state P is an input; feed its output P.next back as P"
    )
