"""IDX files, the format of MNIST and its relatives: `train-images-idx3-ubyte`, plain or `.gz`."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.data.bounded import count_bytes, open_stream, read_exactly
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 8
_NAME = re.compile(r"^(?P<stem>.*?)[-_.]?(?P<what>images|labels)[-_.]idx[1-8][-_.]ubyte(\.gz)?$")


def is_idx(path: Path) -> bool:
    """Return whether a file is called like an IDX file of images or labels."""
    return _NAME.match(path.name) is not None


def read_idx(path: Path) -> Array:
    """Return the array of one IDX file, in native byte order.

    Raises:
        DataError: Not IDX, cut short, longer than stated, or a header that lies about the sizes.
    """
    where = str(path)
    with open_stream(path) as (stream, available):
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
            raise DataError("is not an IDX file: its first four bytes are wrong", where=where)
        axes = magic[3]
        if not 1 <= axes <= _MOST_AXES:
            raise DataError(
                f"the header states {axes} axes; 1 to {_MOST_AXES} are accepted", where=where
            )
        sizes = stream.read(4 * axes)
        if len(sizes) < 4 * axes:
            raise DataError("is cut short in its header", where=where)
        shape = struct.unpack(f">{axes}I", sizes)
        dtype = np.dtype(_DTYPES[magic[2]])
        size = count_bytes(shape, dtype.itemsize, available, where)
        data = read_exactly(stream, size, where)
    flat = np.frombuffer(data, dtype) if size else np.empty(0, dtype)
    return flat.reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def find_idx(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the IDX files of a folder: `{"t10k": {"images": path, "labels": path}, …}`, sorted."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _NAME.match(path.name):
            found.setdefault(match["stem"], {}).setdefault(match["what"], path)
    return found


def read_idx_pair(files: dict[str, Path], where: str) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return `x` (images) and `labels` of one pair of files.

    Args:
        files: "images" and "labels" -> path, as in `find_idx`.
        where: The folder or prefix, for messages.

    Raises:
        DataError: No images, or as in `read_idx`.
    """
    if "images" not in files:
        raise DataError("has a file of labels and none of images", where=where)
    arrays = {"x": read_idx(files["images"])}
    if "labels" not in files:
        return arrays, (f"{where}: no file of labels stands beside {files['images'].name}",)
    arrays["labels"] = read_idx(files["labels"])
    return arrays, ()
