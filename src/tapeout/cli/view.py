"""`tapeout view`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tapeout.cli import options as o
from tapeout.support.errors import OptionError

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph
    from tapeout.kernel.program import Program
    from tapeout.view.html import Stage

GRAPH_STAGES = ("import", "backward", "optimized")
PROGRAM_STAGES = ("kernels", "memory")
_SUFFIXES = (".html", ".svg", ".dot", ".onnx", ".tape")
_EXPLANATIONS = {
    "import": "The model as it was read, every operator in terms of tapeout's own.",
    "backward": "The training step: the model, the loss, the derivatives that the chain rule gives, and the updates.",
    "optimized": "The step after every pass: composites spelled out, constants folded, repetitions removed.",
    "kernels": "The launches of the step, in order.",
}


@click.command(name="view")
@click.argument("file", type=click.Path())
@click.option(
    "--stage",
    type=click.Choice([*GRAPH_STAGES, *PROGRAM_STAGES]),
    help="Which stage; default: all of them on a page, the import in any other format.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The picture: .html, .svg, .dot, .onnx or .tape; default: NAME.html here.",
)
@click.option(
    "--loss",
    "loss_text",
    default="cross_entropy",
    show_default=True,
    metavar="LOSS",
    help="As for train; none shows the model alone.",
)
@o.together(o.labels, o.optimizer, o.lr, o.clip_norm, *o.changes, o.dims)
def command(
    file: str,
    stage: str | None,
    output: str | None,
    loss_text: str,
    labels: str | None,
    optimizer_text: str,
    lr: float | None,
    clip_norm: float | None,
    trainable: tuple[str, ...],
    modes: tuple[str, ...],
    classes: int | None,
    dims: tuple[str, ...],
) -> None:
    """Draw a model (or a .tape file), and what is derived from it: backward part, passes, kernels, memory plan.

    The page needs nothing but a browser: pan, zoom, search, click on a node. It holds no weights.

    \b
    tapeout view lenet.onnx                               writes lenet.html
    tapeout view lenet.onnx --stage backward -o step.svg
    tapeout view lenet.onnx --stage memory --dims N=64 -o memory.svg
    tapeout view 03-simplify.tape -o simplify.dot
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    from tapeout.cli.outputs import check_not_input, check_writable
    from tapeout.cli.reading import load_model
    from tapeout.cli.say import Speaker
    from tapeout.cli.spec import parse_dims

    target = check_writable(output or f"{Path(file).stem}.html", suffixes=_SUFFIXES)
    check_not_input(target, file)
    if target.suffix != ".html":
        stage = stage or "import"
        _check_format(stage, target)
    if Path(file).suffix == ".tape":
        from tapeout.api.view import read

        source = Source(read(file), Path(file).name)
    else:
        bound = parse_dims(dims)
        graph = load_model(file, trainable=trainable, modes=modes, classes=classes, dims=bound)
        training = (
            None
            if loss_text == "none"
            else Training(loss_text, labels, optimizer_text, lr, clip_norm)
        )
        source = Source(graph, Path(file).name, training)
    _write(source, stage, target)
    Speaker().line("wrote", str(target))


def _check_format(stage: str, target: Path) -> None:
    fits = {"memory": (".svg",), "kernels": (".tape",)}.get(
        stage, (".svg", ".dot", ".onnx", ".tape")
    )
    if target.suffix not in fits:
        raise OptionError(
            f"the stage {stage!r} cannot be written as {target.suffix}",
            where=str(target),
            hint=f"{', '.join((*fits, '.html'))} can",
        )


@dataclass(frozen=True)
class Training:
    """How the training step is derived."""

    loss: str
    labels: str | None
    optimizer: str
    lr: float | None
    clip_norm: float | None


@dataclass(frozen=True, eq=False)
class Source:
    """A graph and its later stages, each made when it is asked for.

    Attributes:
        graph: As it was read.
        name: The file's name.
        training: How to derive the step; None: the graph alone is shown.
    """

    graph: Graph
    name: str
    training: Training | None = None

    @cached_property
    def step(self) -> Graph:
        """The training step, or the graph itself; every dimension bound, unbound ones at their preview."""
        from tapeout.api.compile import training_step
        from tapeout.cli.spec import parse_loss, parse_optimizer

        if self.training is None:
            return self.graph.bind({})
        t = self.training
        loss = parse_loss(t.loss, self.graph, t.labels)
        found = training_step(
            self.graph, loss, parse_optimizer(t.optimizer, t.lr), clip_norm=t.clip_norm
        )
        return found.bind({})

    @cached_property
    def optimized(self) -> Graph:
        """The step after every pass."""
        from tapeout.api.stages import optimized

        return optimized(self.step)

    @cached_property
    def program(self) -> Program:
        """The step as launches."""
        from tapeout.api.stages import scheduled

        return scheduled(self.optimized)

    def of(self, stage: str) -> Graph:
        """Return the graph of a stage."""
        return {
            "import": lambda: self.graph,
            "backward": lambda: self.step,
            "optimized": lambda: self.optimized,
        }[stage]()


def _write(source: Source, stage: str | None, target: Path) -> None:
    from tapeout.support.files import write_atomic

    if target.suffix in (".onnx", ".tape") and stage in GRAPH_STAGES:
        _write_graph(source.of(stage), target)
        return
    write_atomic(target, _text(source, stage, target).encode("utf-8"))


def _write_graph(graph: Graph, target: Path) -> None:
    if target.suffix == ".onnx":
        from tapeout.api.load import save_onnx

        save_onnx(graph, target)
        return
    from tapeout.ir.text import write_tape

    write_tape(target, graph)


def _text(source: Source, stage: str | None, target: Path) -> str:
    from tapeout.view import dot, html, memory, svg

    if target.suffix == ".html":
        return html.render(source.name, _stages(source, stage))
    if stage == "memory":
        return memory.document(source.program)
    if stage == "kernels":
        from tapeout.kernel.text import print_program

        return print_program(source.program)
    assert stage is not None
    render = svg.render if target.suffix == ".svg" else dot.render
    return render(source.of(stage))


def _stages(source: Source, stage: str | None) -> list[Stage]:
    from tapeout.view.html import Stage

    wanted = (
        (stage,)
        if stage
        else ("import", *(("backward",) if source.training else ()), "optimized", "kernels")
    )
    return [
        Stage(
            name,
            source.program if name in PROGRAM_STAGES else source.of(name),
            _EXPLANATIONS.get(name, ""),
        )
        for name in wanted
    ]
