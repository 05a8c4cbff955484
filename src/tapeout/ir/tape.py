"""`.tape` files: the text, and beside it the tensors that it names by hash."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir.attribute import hash_of
from tapeout.ir.dtype import ALL, DType
from tapeout.ir.graph import Graph, Module
from tapeout.ir.parse import parse_graph, parse_module
from tapeout.ir.tensor import Tensor
from tapeout.ir.text import print_graph, print_module, tensors_of
from tapeout.support.errors import ParseError
from tapeout.support.files import write_atomic
from tapeout.support.reading import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tapeout.ir.op import Array

TEXT_LIMIT = 1 << 30
DATA_LIMIT = 1 << 40


def write_tape(path: Path, content: Graph | Module) -> None:
    """Write a graph or module to `NAME.tape`, and its larger tensors to `NAME.tensors.safetensors`.

    Each file is written all or nothing, the tensors first. A file name `NAME.tape` is expected but not needed.

    Raises:
        TapeoutError: An attribute cannot be written as text.
        DataError: A file cannot be written.
    """
    graphs = content.graphs if isinstance(content, Module) else (content,)
    tensors = tensors_of(graphs, content.variables)
    text = print_module(content) if isinstance(content, Module) else print_graph(content)
    if tensors:
        write_atomic(side_file(path), b"".join(_pack(tensors)))
    write_atomic(path, text.encode())


def read_tape(path: Path) -> Graph | Module:
    """Return the graph or module of a `.tape` file with its tensors; without its side file, initial values may be missing.

    Raises:
        ParseError: The text or the side file is damaged.
        DataError: A file cannot be read.
    """
    try:
        text = read_file(path, TEXT_LIMIT).decode()
    except UnicodeDecodeError as e:
        raise ParseError(f"no UTF-8 text: {e.reason} at byte {e.start}", where=str(path)) from None
    side = side_file(path)
    tensors = _unpack(read_file(side, DATA_LIMIT), str(side)) if side.exists() else None
    if is_module(text):
        return parse_module(text, tensors, path.name)
    return parse_graph(text, tensors, path.name)


def side_file(path: Path) -> Path:
    """Return the file of the tensors that belongs to a `.tape` file."""
    return path.with_suffix(".tensors.safetensors")


def is_module(text: str) -> bool:
    """Whether a text starts as a module does, not as a graph."""
    return any(line.startswith("module ") for line in text.split("\n", 20)[:20])


def _pack(tensors: Mapping[str, Array]) -> Iterator[bytes]:
    """Yield the pieces of a safetensors file: the length of the header, the header, the data."""
    head: dict[str, object] = {}
    end = 0
    for name, array in tensors.items():
        code = _code(Tensor(array).dtype)
        shape = list(map(int, array.shape))
        head[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    for array in tensors.values():
        yield array.tobytes()


def _unpack(data: bytes, where: str) -> dict[str, Array]:
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
