"""The reference page of supported operators, made from the table: `python -m tapeout.frontend.onnx.reference`."""

from __future__ import annotations

from itertools import groupby

from tapeout.frontend.onnx.read import NEWEST_OPSET, OLDEST_OPSET
from tapeout.frontend.onnx.registry import table
from tapeout.frontend.onnx.tensors import ELEMENT_NAMES

_HEAD = f"""# ONNX operators

<!-- Made by `python -m tapeout.frontend.onnx.reference`; a test compares. -->

Models of opset {OLDEST_OPSET} to {NEWEST_OPSET} are imported, with these operators of the domain `ai.onnx` and with functions of the
model's own. `tapeout check MODEL` tells for a model which of its nodes are supported and which pass a
gradient on. Element types: {", ".join(ELEMENT_NAMES)}.

A version is the first with its meaning; later ones that only allow more element types are the same. An
operand that must be known at import may be a constant, follow from shapes, or be bound by `values=`.

An operator without a row that ONNX defines as a function of others (`LinearAttention`, `CausalConvWithState`, `FlexAttention`) is
written out by that definition, as the installed package `onnx` has it.

| operator | versions | what to know |
|---|---|---|
"""


def page() -> str:
    """Return the text of docs/reference/onnx-support.md."""
    rows = [
        ("If", "1", "both branches give the same types, unless the condition is known at import"),
        ("Loop", "1", "number of rounds, condition: known at import"),
        ("Scan", "8", "sequence_lens of version 8 is not supported"),
        ("SequenceMap", "17", "the sequence: known at import"),
    ]
    for name, group in groupby(table(), key=lambda v: v.name):
        versions = list(group)
        notes = dict.fromkeys(v.note for v in versions if v.note)
        rows.append((name, ", ".join(str(v.since) for v in versions), "; ".join(notes)))
    return _HEAD + "".join(f"| `{n}` | {v} | {w} |\n" for n, v, w in sorted(rows))


if __name__ == "__main__":
    print(page(), end="")
