"""How a model was read, as plain data: what a file of a run keeps, to read the model so again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.frontend.onnx.session import Imported
from tapeout.ir.modes import Modes

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph

Data = dict[str, Any]


def to_data(graph: Graph) -> Data | None:
    """Return the dimensions, shapes, values and modes that a graph was read with; None for one that was not read from ONNX."""
    imported = graph.imported
    if not isinstance(imported, Imported):
        return None
    o = imported.options
    modes = o.mode if isinstance(o.mode, Modes) else Modes().over(o.mode)
    arrays = {name: np.asarray(a) for name, a in o.values.items()}
    return {
        "dims": {name: int(n) for name, n in o.dims.items()},
        "shapes": {k: [None if n is None else int(n) for n in s] for k, s in o.shapes.items()},
        "values": {k: [a.dtype.str, list(a.shape), a.ravel().tolist()] for k, a in arrays.items()},
        "modes": [list(rule) for rule in modes.rules],
    }


def from_data(data: Mapping[str, Any]) -> Data:
    """Return the arguments of `load` that `to_data` wrote down.

    Raises:
        KeyError, TypeError, ValueError: The data are nothing that it wrote.
    """
    return {
        "dims": {str(name): int(n) for name, n in data["dims"].items()},
        "shapes": {str(name): tuple(shape) for name, shape in data["shapes"].items()},
        "values": {
            str(name): np.asarray(numbers, np.dtype(dtype)).reshape(shape)
            for name, (dtype, shape, numbers) in data["values"].items()
        },
        "mode": Modes(tuple((str(glob), str(mode)) for glob, mode in data["modes"])),
    }
