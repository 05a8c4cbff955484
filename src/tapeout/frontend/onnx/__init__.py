"""ONNX models as graphs. The package `onnx` is imported when a model is."""

from __future__ import annotations

from tapeout.frontend.onnx.load import load

__all__ = ["load"]
