"""Changes of a model's file: cut it, give it another head, rename. What is not changed stays as it was, to the byte."""

from __future__ import annotations

from tapeout.frontend.onnx.surgery.head import replace_head
from tapeout.frontend.onnx.surgery.rename import rename
from tapeout.frontend.onnx.surgery.truncate import truncate

__all__ = ["rename", "replace_head", "truncate"]
