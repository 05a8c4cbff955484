"""How operations are written in ONNX, by family. Importing this package fills the table."""

from tapeout.export.onnx.spellings import (
    combine,
    control,
    index,
    move,
    native,
    norm,
    product,
    sample,
)

__all__ = ["combine", "control", "index", "move", "native", "norm", "product", "sample"]
