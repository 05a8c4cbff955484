"""Trained weights in the file they came from, all else as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tapeout.export.onnx.writer import ELEMENT_TYPES, raw_bytes
from tapeout.ir.dtype import bf16, f16, from_numpy
from tapeout.support.errors import DataError, nearest
from tapeout.support.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

    from tapeout.ir.op import Array

_FIELDS = {"f32": "float_data", "f64": "double_data", "f16": "int32_data", "bf16": "int32_data"}
_LIMIT = (1 << 31) - 1
"""No protobuf message is longer."""


def write_weights(origin: bytes, weights: Mapping[str, Array], path: str | Path) -> None:
    """Write an ONNX file with new values for some of its tensors.

    Args:
        origin: The original file. Names, operators, versions, metadata and the order of everything
            stay; a tensor keeps the field that it is stored in.
        weights: New values by name of an initializer, or of the result of a Constant node; shape and
            element type as in the file.
        path: Where to write. An older file there is replaced when the new one is complete.

    Raises:
        DataError: A name is unknown, a shape or type differs, or the file cannot be written; then
            nothing is left behind.
    """
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(origin)
    stored = dict(_stored(model.graph))
    for name, array in weights.items():
        if name not in stored:
            text = f"the original has no tensor {name!r}"
            raise DataError(text, where=str(path), hint=nearest(name, stored))
        _replace(stored[name], np.asarray(array), str(path))
    if model.ByteSize() > _LIMIT:
        raise DataError("the model does not fit into one file of 2 GiB", where=str(path))
    write_atomic(Path(path), model.SerializeToString(deterministic=True))


def _stored(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t
    for tensor in graph.initializer:
        yield tensor.name, tensor


def _replace(tensor: onnx.TensorProto, array: Array, path: str) -> None:
    dtype = from_numpy(array.dtype)
    if tensor.data_type != ELEMENT_TYPES[dtype] or tuple(tensor.dims) != array.shape:
        text = f"tensor {tensor.name!r} has shape {list(tensor.dims)} in the original"
        raise DataError(f"{text}, the new value is {dtype}{list(array.shape)}", where=path)
    field = _FIELDS.get(dtype.name, "")
    if field and len(getattr(tensor, field)):
        numbers = array.view(np.uint16) if dtype in (f16, bf16) else array
        tensor.ClearField(field)
        getattr(tensor, field).extend(numbers.ravel().tolist())
        return
    tensor.raw_data = raw_bytes(array)
