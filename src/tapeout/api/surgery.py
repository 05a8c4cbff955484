"""Changing a model before it is trained on: cut it, give it another head, rename.

An imported model is changed in its file, so that `Trainer.export_onnx` writes that file with names, versions and metadata as
they were; a model made in Python is changed as a graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tapeout.ir import surgery as plain
from tapeout.ir.graph import Graph
from tapeout.support.errors import OptionError

if TYPE_CHECKING:
    from tapeout.frontend.onnx.session import Imported


def truncate(model: Graph, at: str | Sequence[str]) -> Graph:
    """Return the model that ends at `at`: an embedding, or the features in front of a head. Parameters of the rest are dropped.

    Args:
        model: A graph.
        at: The name of a value, of an output, or of a node (its first result), or several: the new outputs. Of a graph made in
            Python: names of outputs.

    Returns:
        Another graph; what is frozen and which modes hold stays. `notes` says what was done.

    Raises:
        OptionError: A name is unknown, or the graph was derived from a model (cut the model first).
    """
    names = [at] if isinstance(at, str) else list(at)
    if not names or not all(isinstance(n, str) for n in names):
        raise OptionError(f"truncate: at is {at!r}, a name or several are expected")
    imported = _imported(model, "truncate")
    if imported is None:
        return plain.truncate(model, names)
    from tapeout.frontend.onnx import surgery

    return surgery.truncate(model, imported, names)


def replace_head(
    model: Graph, classes: int, *, output: str | None = None, at: str | None = None, seed: int = 0
) -> Graph:
    """Return the model with a new last layer of `classes` results, whose weight and bias are drawn as `torch.nn.Linear` draws them.

    The last layer is the Gemm, MatMul (with its Add) or 1x1 convolution that is found by walking back from the output through
    Softmax, Flatten, Reshape, Identity and the like. The new tensors have the old ones' names and are trainable, whatever was
    frozen before; where something else reads an old tensor too, the new one gets a name of its own.

    Args:
        model: A graph that was imported from ONNX.
        classes: How many results the layer gets.
        output: The output whose layer it is, where the model has several.
        at: The layer's node by name, where none is recognised.
        seed: Seed of the new weights.

    Returns:
        Another graph; `notes` says which layer was replaced and what stands behind it.

    Raises:
        OptionError: No layer is recognised, there are several outputs, or the graph was not imported.
    """
    imported = _imported(model, "replace_head")
    if imported is None:
        raise OptionError(
            "replace_head: the graph was made in Python and has no file to change",
            where=model.name,
            hint="give the last layer another size where it is written",
        )
    from tapeout.frontend.onnx import surgery

    return surgery.replace_head(model, imported, classes, output=output, at=at, seed=seed)


def rename(model: Graph, names: Mapping[str, str]) -> Graph:
    """Return the model with other names for inputs, outputs and parameters, and in an imported one also for values and nodes.

    Args:
        model: A graph.
        names: Old names to new ones, all at once: two may be swapped.

    Raises:
        OptionError: An old name is unknown, a new one is taken, or the graph was derived from a model.
    """
    imported = _imported(model, "rename")
    if imported is None:
        return plain.rename(model, names)
    from tapeout.frontend.onnx import surgery

    return surgery.rename(model, imported, names)


def _imported(model: Graph, what: str) -> Imported | None:
    """Return what a graph was imported from; None for one made in Python."""
    if not isinstance(model, Graph):
        text = f"{what}: a Graph is expected, got {type(model).__name__}"
        raise OptionError(text, hint="tapeout.load_onnx returns one")
    if model.imported is None and model.origin is None:
        return None
    from tapeout.frontend.onnx.session import Imported

    if isinstance(model.imported, Imported):
        return model.imported
    raise OptionError(
        f"{what}: the graph was derived from an imported model, whose file does not describe it",
        where=model.name,
        hint=f"call {what} on the model, then derive",
    )
