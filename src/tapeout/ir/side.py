"""The file beside a `.tape` file that holds the tensors which the text names by hash (safetensors format)."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir.attribute import hash_of
from tapeout.ir.dtype import ALL, DType
from tapeout.ir.tensor import Tensor
from tapeout.support.errors import ParseError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tapeout.ir.op import Array


def side_file(path: Path) -> Path:
    """Return the file of the tensors that belongs to a `.tape` file."""
    return path.with_suffix(".tensors.safetensors")


def pack(tensors: Mapping[str, Array]) -> bytes:
    """Return a safetensors file: the length of the header, the header, the data."""
    head: dict[str, object] = {}
    end = 0
    for name, array in tensors.items():
        code = _code(Tensor(array).dtype)
        shape = list(map(int, array.shape))
        head[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(a.tobytes() for a in tensors.values())])


def unpack(data: bytes, where: str) -> dict[str, Array]:
    """Return the tensors of a side file by hash.

    Raises:
        ParseError: The file is damaged, or a tensor does not have the hash that names it.
    """
    try:
        (length,) = struct.unpack("<Q", data[:8])
        head = json.loads(data[8 : 8 + length])
        body = memoryview(data)[8 + length :]
        found = {
            name: _entry(body, entry) for name, entry in head.items() if name != "__metadata__"
        }
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError, struct.error) as e:
        raise ParseError(f"no valid safetensors file: {e}", where=where) from None
    for name, array in found.items():
        if hash_of(Tensor(array)) != name:
            raise ParseError(f"the content of tensor #{name} is damaged", where=where)
    return found


def _entry(body: memoryview, entry: Mapping[str, Any]) -> Array:
    dtype = _CODES[entry["dtype"]]
    start, stop = entry["data_offsets"]
    if not 0 <= start <= stop <= len(body):
        raise ValueError("a tensor lies outside the file")
    array: Array = np.frombuffer(body[start:stop], dtype.numpy).reshape(entry["shape"])
    return array


def _code(dtype: DType) -> str:
    """Return the name of an element type in safetensors files: F32, BF16, I64, BOOL."""
    return dtype.name.upper()


_CODES = {_code(d): d for d in ALL}
