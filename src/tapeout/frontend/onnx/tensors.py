"""Tensors of a model file as arrays. Every size is checked before memory is taken."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir import dtype as dt
from tapeout.support.errors import DataError, OnnxImportError
from tapeout.support.reading import read_contained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array

# TensorProto.DataType -> (element type, field that holds it when raw_data does not)
_TYPES: dict[int, tuple[DType, str]] = {
    1: (dt.f32, "float_data"),
    2: (dt.u8, "int32_data"),
    3: (dt.i8, "int32_data"),
    4: (dt.u16, "int32_data"),
    5: (dt.i16, "int32_data"),
    6: (dt.i32, "int32_data"),
    7: (dt.i64, "int64_data"),
    9: (dt.bool_, "int32_data"),
    10: (dt.f16, "int32_data"),
    11: (dt.f64, "double_data"),
    12: (dt.u32, "uint64_data"),
    13: (dt.u64, "uint64_data"),
    16: (dt.bf16, "int32_data"),
}
_NAMES = [
    "undefined",
    "float",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "string",
    "bool",
    "float16",
    "double",
    "uint32",
    "uint64",
    "complex64",
    "complex128",
    "bfloat16",
    "float8e4m3fn",
    "float8e4m3fnuz",
    "float8e5m2",
    "float8e5m2fnuz",
    "uint4",
    "int4",
    "float4e2m1",
    "float8e8m0",
    "uint2",
    "int2",
]
ELEMENT_NAMES = tuple(_NAMES[code] for code in sorted(_TYPES))
"""The supported element types, as ONNX calls them."""

_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
EXTERNAL = 1
"""`data_location` of a tensor that lies in another file."""
_LIMIT = 1 << 46
"""No tensor has more bytes, not even one that is empty along another dimension."""


def element_code(dtype: DType) -> int:
    """Return ONNX's number of an element type."""
    return next(code for code, (known, _) in _TYPES.items() if known == dtype)


def element_type(code: int, where: str) -> DType:
    """Return the element type of a `TensorProto.DataType`.

    Raises:
        OnnxImportError: There is no such type, or it is one without gradients or arithmetic here.
    """
    if code in _TYPES:
        return _TYPES[code][0]
    name = _NAMES[code] if 0 <= code < len(_NAMES) else f"number {code}"
    known = ", ".join(ELEMENT_NAMES)
    raise OnnxImportError(f"element type {name} is not supported; {known} are", where=where)


def type_code(dtype: DType) -> int:
    """Return the `TensorProto.DataType` of an element type."""
    return next(code for code, (known, _) in _TYPES.items() if known == dtype)


def is_float(tensor: onnx.TensorProto) -> bool:
    """Return whether the tensor has a float type that can be trained."""
    return tensor.data_type in _TYPES and _TYPES[tensor.data_type][0].is_float


def decode(tensor: onnx.TensorProto, where: str, folder: Path | None) -> Array:
    """Return the tensor's content, read-only.

    Args:
        tensor: The message.
        where: File and tensor, for errors.
        folder: The model's folder, in which external data must lie.

    Raises:
        OnnxImportError: The shape, the type and the payload contradict each other, or external data
            lie outside the folder.
    """
    dtype = element_type(tensor.data_type, where)
    shape = tuple(int(n) for n in tensor.dims)
    wanted = _checked_bytes(shape, dtype, where)
    if tensor.HasField("segment"):
        raise OnnxImportError("tensors in segments are not supported", where=where)
    if tensor.data_location == EXTERNAL:
        data = _external(tensor, wanted, where, folder)
        return _from_raw(data, dtype, shape, wanted, where)
    return _inline(tensor, dtype, shape, wanted, where)


def _checked_bytes(shape: Sequence[int], dtype: DType, where: str) -> int:
    if any(n < 0 for n in shape):
        raise OnnxImportError(f"shape {list(shape)} has a negative size", where=where)
    if len(shape) > 32:
        raise OnnxImportError(f"rank {len(shape)} is above the limit of 32", where=where)
    if math.prod(max(n, 1) for n in shape) * dtype.bytes > _LIMIT:
        raise OnnxImportError(f"shape {list(shape)} is larger than any tensor can be", where=where)
    return math.prod(shape) * dtype.bytes


def _inline(
    tensor: onnx.TensorProto, dtype: DType, shape: tuple[int, ...], wanted: int, where: str
) -> Array:
    filled = [f for f in _FIELDS if len(getattr(tensor, f))]
    if tensor.HasField("raw_data") and (filled or not wanted or len(tensor.raw_data)):
        filled.append("raw_data")
    if len(filled) > 1:
        raise OnnxImportError(f"has two payloads: {' and '.join(filled)}", where=where)
    if tensor.external_data:
        raise OnnxImportError("names external data but says that it is stored inside", where=where)
    if not filled:
        if wanted:
            text = f"{dtype}{list(shape)} needs {wanted} bytes, none are there"
            raise OnnxImportError(text, where=where)
        return np.zeros(shape, dtype.numpy)
    if filled == ["raw_data"]:
        return _from_raw(tensor.raw_data, dtype, shape, wanted, where)
    return _from_field(tensor, filled[0], dtype, shape, where)


def _from_raw(data: bytes, dtype: DType, shape: tuple[int, ...], wanted: int, where: str) -> Array:
    if len(data) != wanted:
        text = f"{dtype}{list(shape)} needs {wanted} bytes, {len(data)} are there"
        raise OnnxImportError(text, where=where)
    stored = np.dtype(np.uint8) if dtype == dt.bool_ else dtype.numpy
    array = np.frombuffer(data, stored.newbyteorder("<")).astype(stored, copy=False)
    return (array != 0 if dtype == dt.bool_ else array).reshape(shape)


def _from_field(
    tensor: onnx.TensorProto, field: str, dtype: DType, shape: tuple[int, ...], where: str
) -> Array:
    expected = _TYPES[tensor.data_type][1]
    if field != expected:
        text = f"a payload of {dtype} belongs in {expected}, found {field}"
        raise OnnxImportError(text, where=where)
    numbers = getattr(tensor, field)
    if len(numbers) != math.prod(shape):
        text = f"{list(shape)} needs {math.prod(shape)} entries, {field} has {len(numbers)}"
        raise OnnxImportError(text, where=where)
    if dtype in (dt.f16, dt.bf16):
        return _integers(numbers, dt.u16, where).view(dtype.numpy).reshape(shape)
    if dtype.is_float:
        return np.asarray(numbers, dtype.numpy).reshape(shape)
    if dtype == dt.bool_:
        return np.asarray(np.asarray(numbers, np.int64) != 0).reshape(shape)
    return _integers(numbers, dtype, where).reshape(shape)


def _integers(numbers: Sequence[int], dtype: DType, where: str) -> Array:
    wide = np.array(numbers, np.uint64 if dtype in (dt.u32, dt.u64) else np.int64)
    narrow = wide.astype(dtype.numpy)
    if not np.array_equal(narrow.astype(wide.dtype), wide):
        raise OnnxImportError(f"an entry does not fit into {dtype}", where=where)
    return narrow


def _external(tensor: onnx.TensorProto, wanted: int, where: str, folder: Path | None) -> bytes:
    if any(len(getattr(tensor, f)) for f in _FIELDS) or tensor.raw_data:
        raise OnnxImportError("has two payloads: external data and one inside", where=where)
    entries = {e.key: e.value for e in tensor.external_data}
    if len(entries) != len(tensor.external_data):
        raise OnnxImportError("external data state an entry twice", where=where)
    location = entries.get("location", "")
    if folder is None:
        hint = "load the model by its path"
        text = f"its data lie in the file {location!r}, but the model was not read from a folder"
        raise OnnxImportError(text, where=where, hint=hint)
    offset = _number(entries.get("offset", "0"), "offset", where)
    length = _number(entries.get("length", str(wanted)), "length", where)
    if length != wanted:
        text = f"needs {wanted} bytes, its external data have {length}"
        raise OnnxImportError(text, where=where)
    try:
        return read_contained(folder, location, offset, length)
    except DataError as error:
        hint = "external data must be a plain file inside the model's folder"
        text = f"external data {location!r}: {error.message}"
        raise OnnxImportError(text, where=where, hint=hint) from error


def _number(text: str, what: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise OnnxImportError(f"external data have the {what} {text!r}", where=where)
    return int(text)
