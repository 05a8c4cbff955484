"""Finding the files that come with tapeout."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tapeout.support.errors import DataError


def lenet() -> Path:
    """Return the path of the LeNet that the demo trains: in the installed package, else in the source tree.

    Raises:
        DataError: It is in neither place.
    """
    package = Path(str(resources.files("tapeout")))
    for path in (package / "models" / "lenet.onnx", package.parents[1] / "models" / "lenet.onnx"):
        if path.is_file():
            return path
    raise DataError(
        "the demo's model is missing from the installation",
        where="models/lenet.onnx",
        hint="install tapeout again",
    )
