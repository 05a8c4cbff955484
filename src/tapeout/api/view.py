"""Pictures of anything: one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapeout.api.compile import Executable
from tapeout.api.stages import optimized, scheduled
from tapeout.api.trainer import Trainer
from tapeout.ir.graph import Graph
from tapeout.support.errors import OptionError
from tapeout.support.files import write_atomic

if TYPE_CHECKING:
    from tapeout.view.html import Stage


def view(anything: Graph | Trainer | Executable | str | Path, path: str | Path) -> None:
    """Write a page that shows a graph, its parameters, kernels and memory; it needs nothing but a browser.

    Args:
        anything: A graph, a trainer (model, training step, optimised step, kernels, memory), a compiled graph, or the path of an
            ONNX or `.tape` file.
        path: The `.html` file to write.

    Raises:
        OptionError: It is none of these.
        DataError: The place cannot be written.
    """
    from tapeout.view.html import render

    title, stages = _stages(anything)
    write_atomic(path, render(title, stages).encode())


def _stages(anything: Any) -> tuple[str, list[Stage]]:
    from tapeout.view.html import Stage

    if isinstance(anything, Trainer):
        return _trainer_stages(anything)
    if isinstance(anything, Executable):
        anything = anything.graph
    if isinstance(anything, (str, Path)):
        anything = read(anything)
    if not isinstance(anything, Graph):
        raise OptionError(
            f"{type(anything).__name__} cannot be shown",
            hint="pass a Graph, a Trainer, a compiled graph or the path of a model",
        )
    graph = optimized(anything)
    return anything.name, [
        Stage("import", anything),
        Stage("optimized", graph),
        Stage("kernels", scheduled(graph)),
    ]


def _trainer_stages(trainer: Trainer) -> tuple[str, list[Stage]]:
    from tapeout.view.html import Stage

    step = trainer.step_graph()
    graph = optimized(step)
    return trainer.model.name, [
        Stage("import", trainer.model),
        Stage("backward", step),
        Stage("optimized", graph),
        Stage("kernels", scheduled(graph)),
    ]


def read(path: str | Path) -> Graph:
    """Return the graph of an ONNX or `.tape` file."""
    from tapeout.api.load import load_onnx

    if Path(path).suffix != ".tape":
        return load_onnx(path)
    from tapeout.ir.parse import read_tape

    found = read_tape(Path(path))
    if not isinstance(found, Graph):
        raise OptionError(
            f"{path} holds a module of {len(found.graphs)} graphs",
            hint="give the file of one graph",
        )
    return found
