"""Writing what was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.support.files import write_atomic

if TYPE_CHECKING:
    from tapeout.api.trainer import Trainer
    from tapeout.ir.op import Array


def weights_of(trainer: Trainer) -> dict[str, Array]:
    """Return the present value of every parameter and every float state of the model by name."""
    return {**trainer.parameters, **statistics_of(trainer)}


def statistics_of(trainer: Trainer) -> dict[str, Array]:
    """Return the present value of the model's float states by name: running statistics, which a file holds beside parameters."""
    return {n: a for n, a in trainer.state.items() if trainer.state.type(n).dtype.is_float}


def export_onnx(trainer: Trainer, path: str | Path) -> None:
    """Write the original ONNX file with only trained initializers and statistics changed; a graph made in Python is written as a new file."""
    from tapeout.export import onnx as export

    model = trainer.model
    if isinstance(model.origin, bytes):
        trained = {n: trainer.parameters[n] for n, v in model.parameters.items() if v.trainable}
        export.write_weights(model.origin, {**trained, **statistics_of(trainer)}, path)
        return
    graph = trainer.inference()
    present = {**trainer.parameters, **trainer.state}
    now = tuple(
        replace(v, initial=present[v.name]) if v.name in present else v for v in graph.variables
    )
    export.save(replace(graph, variables=now), path, feed_parameters=False)


def save_weights(trainer: Trainer, path: str | Path) -> None:
    """Write the parameters and statistics as safetensors, whole or not at all."""
    from safetensors.numpy import save

    write_atomic(Path(path), [save(weights_of(trainer), metadata={"format": "tapeout weights 1"})])
