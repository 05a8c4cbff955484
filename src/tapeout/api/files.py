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
    """Return every parameter's present value by name."""
    return {n: trainer.parameters[n] for n in trainer.parameters}


def export_onnx(trainer: Trainer, path: str | Path) -> None:
    """Write the original ONNX file with only trained initializers changed; a graph made in Python is written as a new file."""
    from tapeout.export import onnx as export

    model = trainer.model
    if isinstance(model.origin, bytes):
        trained = {n: trainer.parameters[n] for n, v in model.parameters.items() if v.trainable}
        export.write_weights(model.origin, trained, path)
        return
    graph = trainer.inference()
    now = tuple(
        replace(v, initial=trainer.parameters[v.name]) if v.name in trainer.parameters else v
        for v in graph.variables
    )
    export.save(replace(graph, variables=now), path, feed_parameters=False)


def save_weights(trainer: Trainer, path: str | Path) -> None:
    """Write the parameters as safetensors, whole or not at all."""
    from safetensors.numpy import save

    write_atomic(Path(path), [save(weights_of(trainer), metadata={"format": "tapeout weights 1"})])
