"""Reading models and writing graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph

Trainable = str | Sequence[str] | Callable[[str], bool]


def load_onnx(
    model: str | Path | bytes | Any,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, Any] | None = None,
    trainable: Trainable = "*",
    mode: str | Mapping[str, str] = "train",
) -> Graph:
    """Read an ONNX model as a graph; parameters keep their initializer names.

    Args:
        model: A path, the bytes of a file, or an `onnx.ModelProto`. External data are read from the model's own folder only.
        dims: Numbers for named dimensions; the others are bound at the first batch.
        shapes: Shapes by input name.
        values: Constants for inputs that decide a shape, an axis or a k.
        trainable: Which parameters train: a glob, several ("!" in front excludes), or a function of the name.
        mode: `train`, `eval` or `as-exported` for dropout and batch normalisation, or one of these by glob.

    Raises:
        OnnxImportError: The file is no ONNX model, is damaged, or breaks the rules of ONNX.
        UnsupportedOperator: Operators that tapeout does not import, all at once.
        ShapeError: Shapes do not fit.
    """
    from tapeout.frontend import onnx as front

    return front.load(
        model, dims=dims, shapes=shapes, values=values, trainable=trainable, mode=mode
    )


def save_onnx(graph: Graph, path: str | Path) -> None:
    """Write any graph as plain ONNX, readable by any runtime.

    A parameter or state `p` is the input `p` with its initial value as initializer; its update is the output `p.next`. The
    mapping stands in the file's metadata.

    Raises:
        DataError: The place cannot be written.
    """
    from tapeout.export import onnx as export

    export.save(graph, path)
