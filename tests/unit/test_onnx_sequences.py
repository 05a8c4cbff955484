"""Sequences and optionals, which are resolved at import: small models against onnxruntime, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import tapeout
from tapeout.frontend.onnx import load
from tapeout.support.errors import OnnxImportError, UnsupportedOperator
from tests.onnx_models import parsed, run, run_elsewhere

OPERATORS = {
    "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength",
    "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalHasElement", "OptionalGetElement",
}  # fmt: skip
X = np.arange(24, dtype=np.float32).reshape(2, 6, 2)
NUMBERS = {
    "two": np.array(2, np.int64),
    "sizes": np.array([1, 2, 3], np.int64),
    "last": np.array(-1, np.int64),
    "zero": np.array(0, np.int64),
    "one": np.array(1, np.int32),
}

BODIES = {
    "chunks": "s = SplitToSequence <axis=1> (x, two); y = SequenceAt (s, one)",
    "a shorter last chunk": "f = Constant <value_int=4> (); s = SplitToSequence <axis=1> (x, f); y = SequenceAt (s, last)",
    "parts": "s = SplitToSequence <axis=-2> (x, sizes); y = SequenceAt (s, last)",
    "singles": "s = SplitToSequence <axis=1> (x); y = SequenceAt (s, two)",
    "singles without their dimension": "s = SplitToSequence <axis=1, keepdims=0> (x); y = SequenceAt (s, two)",
    "length": "s = SplitToSequence <axis=1> (x, two); y = SequenceLength (s)",
    "join": "n = Neg (x); s = SequenceConstruct (x, n, x); y = ConcatFromSequence <axis=1> (s)",
    "stack": "n = Neg (x); s = SequenceConstruct (x, n); y = ConcatFromSequence <axis=-1, new_axis=1> (s)",
    "growing": "e = SequenceEmpty (); n = Neg (x); a = SequenceInsert (e, x); b = SequenceInsert (a, n, zero); y = ConcatFromSequence <axis=0> (b)",
    "shrinking": "n = Neg (x); s = SequenceConstruct (x, n, x); a = SequenceErase (s, zero); b = SequenceErase (a); y = SequenceAt (b, zero)",
    "identity": "s = SequenceConstruct (x, x); t = Identity (s); y = SequenceAt (t, zero)",
    "optional": "o = Optional (x); y = OptionalGetElement (o)",
    "something": "o = Optional (x); y = OptionalHasElement (o)",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_as_onnxruntime(body: str) -> None:
    made = parsed(f"g (float[2, 6, 2] x) => (y) {{ {body} }}", 18, **NUMBERS)
    want = run_elsewhere(made, {"x": X})
    got = run(made, {"x": X})
    np.testing.assert_array_equal(got["y"], want["y"])
    assert got["y"].dtype == want["y"].dtype


def test_a_gradient_passes_through() -> None:
    """A chunk and its sigmoid: the gated linear unit as the exporter writes it."""
    body = "t = Constant <value_int=3> (); s = SplitToSequence <axis=1> (x, t); a = SequenceAt (s, zero); b = SequenceAt (s, one); g = Sigmoid (b); y = Mul (a, g)"
    made = parsed(f"g (float[2, 6, 2] x) => (y) {{ {body} }}", 18, **NUMBERS)
    graph = tapeout.vjp(load(made), of="y", wrt=["x"])
    found = tapeout.compile(graph)({"x": X, "cotangent/y": np.ones((2, 3, 2), np.float32)})
    gate = 1 / (1 + np.exp(-X[:, 3:]))
    want = np.concatenate([gate, X[:, :3] * gate * (1 - gate)], 1)
    np.testing.assert_allclose(found["vjp/x"], want, rtol=1e-5, atol=1e-6)


REFUSED = [
    ("s = SequenceConstruct (x, x); y = Neg (s)", OnnxImportError, "operand 0 is a sequence of 2, a tensor is expected"),
    ("y = SequenceLength (x)", OnnxImportError, "a sequence is expected, got f32"),
    ("s = SequenceConstruct (x); y = SequenceAt (s, two)", OnnxImportError, "position 2 in a sequence of 1"),
    ("s = SequenceEmpty (); y = ConcatFromSequence <axis=0> (s)", OnnxImportError, "the sequence is empty"),
    ("y = SequenceConstruct (x)", UnsupportedOperator, "output 'y' is a sequence of 1, only tensors"),
    ("s = SplitToSequence <axis=1> (x, sizes, sizes); y = SequenceAt (s, zero)", OnnxImportError, "has 3 operands"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "error", "message"), REFUSED, ids=[m for *_, m in REFUSED])
def test_refused(body: str, error: type[Exception], message: str) -> None:
    made = parsed(f"g (float[2, 6, 2] x) => (y) {{ {body} }}", 18, **NUMBERS)
    with pytest.raises(error, match=message):
        load(made)
