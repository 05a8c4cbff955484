"""Graphs and trained weights as ONNX files. The package `onnx` is imported when one is written."""

from __future__ import annotations

from tapeout.export.onnx.save import save
from tapeout.export.onnx.weights import write_weights

__all__ = ["save", "write_weights"]
