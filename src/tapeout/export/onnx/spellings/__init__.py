"""How operations are written in ONNX, by family. Importing this package fills the table."""

from tapeout.export.onnx.spellings import combine, index, move, native, product, sample

__all__ = ["combine", "index", "move", "native", "product", "sample"]
