"""Writing `.npz`: as `numpy.savez`, but any name will do (`file` is a fine name of an output)."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.ir.op import Array

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same arrays give the same bytes, whenever they are written."""


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """Return the bytes of an `.npz` file that holds arrays by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(
                zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True
            ) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def npy_bytes(array: Array) -> bytes:
    """Return the bytes of an `.npy` file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()
