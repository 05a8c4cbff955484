"""Loops of a known number of rounds, written out at import: small models against onnxruntime, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import tapeout
from tapeout.autodiff.gradients import gradients
from tapeout.frontend.onnx import load, unrolled
from tapeout.oracle import graph as oracle
from tapeout.support.errors import OnnxImportError, UnsupportedOperator
from tests.onnx_models import parsed, run, run_elsewhere

X = np.arange(12, dtype=np.float32).reshape(6, 2)
NUMBERS = {
    "four": np.array(4, np.int64),
    "none": np.array(0, np.int64),
    "many": np.array(5000, np.int64),
    "yes": np.array(True),
    "no": np.array(False),
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "three": np.array(3, np.int64),
    "starts": np.array([0, 1, 3, 3], np.int64),
    "ends": np.array([1, 3, 3, 6], np.int64),
    "half": np.array(0.5, np.float32),
}

BODIES = {
    "carried": "y = Loop (four, yes, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { d = Identity (c)  w = Mul (v, half) }>",
    "rows": "z, y = Loop (four, yes, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w, float[6, 2] r) { d = Identity (c)  w = Mul (v, half)  r = Neg (v) }>",
    "no condition": "y = Loop (four, , x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { d = Identity (c)  w = Mul (v, half) }>",
    "parts": "y = Loop (four, yes) <body = b (int64 i, bool c) => (bool d, float[2] r) { d = Identity (c)  f = Gather (starts, i)  t = Gather (ends, i)  fs = Unsqueeze (f, zero)  ts = Unsqueeze (t, zero)  p = Slice (x, fs, ts, zero)  r = ReduceSum <keepdims = 0> (p, zero) }>",
    "until": "y = Loop (, yes, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { d = Less (i, three)  w = Mul (v, half) }>",
    "not at all": "y = Loop (four, no, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { d = Identity (c)  w = Mul (v, half) }>",
    "no rounds": "y = Loop (none, yes, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { d = Identity (c)  w = Mul (v, half) }>",
    "a number": "y = Loop (four, yes, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { d = Identity (c)  f = Cast <to = 1> (i)  w = Add (v, f) }>",
    "nested": "y = Loop (four, yes, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { d = Identity (c)  w = Loop (i, yes, v) <body = e (int64 j, bool f, float[6, 2] p) => (bool g, float[6, 2] q) { g = Identity (f)  q = Mul (p, half) }> }>",
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_as_onnxruntime(body: str) -> None:
    made = parsed(f"g (float[6, 2] x) => (y) {{ {body} }}", 18, **NUMBERS)
    want = run_elsewhere(made, {"x": X})
    np.testing.assert_allclose(run(made, {"x": X})["y"], want["y"], rtol=1e-6)


def test_items() -> None:
    """SequenceMap applies a body to the items of sequences, beside a tensor for all."""
    body = "n = Neg (x); s = SequenceConstruct (x, n); t = SequenceConstruct (n, n); m = SequenceMap (s, t, x) <body = b (float[6, 2] p, float[6, 2] q, float[6, 2] r) => (float[6, 2] o) { a = Mul (p, q)  o = Add (a, r) }>; y = ConcatFromSequence <axis = 0> (m)"
    made = parsed(f"g (float[6, 2] x) => (y) {{ {body} }}", 18)
    np.testing.assert_array_equal(run(made, {"x": X})["y"], np.concatenate([-X * X + X, X * X + X]))


def test_nodes_are_named_by_round_and_differentiated() -> None:
    made = parsed(f"g (float[6, 2] x) => (y) {{ {BODIES['parts']} }}", 18, **NUMBERS)
    graph = load(made)
    assert {n.loc.name.split("/")[1] for n in graph.nodes if "/" in n.loc.name} == {
        "0",
        "1",
        "2",
        "3",
    }
    step = tapeout.vjp(graph, of="y", wrt=["x"])
    cotangent = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = tapeout.compile(step)({"x": X, "cotangent/y": cotangent})["vjp/x"]
    np.testing.assert_array_equal(found, cotangent[[0, 1, 1, 3, 3, 3]])


SCANS = {
    "sums": "z, y = Scan (s, x) <num_scan_inputs = 1, body = b (float[2] c, float[2] v) => (float[2] d, float[2] r) { d = Add (c, v)  r = Mul (d, half) }>",
    "the last sum": "y, z = Scan (s, x) <num_scan_inputs = 1, body = b (float[2] c, float[2] v) => (float[2] d, float[2] r) { d = Add (c, v)  r = Mul (d, half) }>",
    "from the end": "z, y = Scan (s, x) <num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1], body = b (float[2] c, float[2] v) => (float[2] d, float[2] r) { d = Add (c, v)  r = Identity (d) }>",
    "one way in, the other out": "z, y = Scan (s, x) <num_scan_inputs = 1, scan_output_directions = [1], body = b (float[2] c, float[2] v) => (float[2] d, float[2] r) { d = Add (c, v)  r = Identity (d) }>",
    "other axes": "z, y = Scan (q, x) <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [-1], body = b (float[6] c, float[6] v) => (float[6] d, float[6] r) { d = Add (c, v)  r = Mul (d, v) }>",
    "two inputs, no state": "n = Neg (x); y = Scan (x, n) <num_scan_inputs = 2, body = b (float[2] u, float[2] v) => (float[2] r) { r = Mul (u, v) }>",
    "what lies around": "n = Neg (x); z, y = Scan (s, x) <num_scan_inputs = 1, body = b (float[2] c, float[2] v) => (float[2] d, float[2] r) { m = ReduceSum <keepdims = 0> (n, zero)  d = Add (c, m)  r = Mul (d, v) }>",
}  # fmt: skip
STORED = {"s": np.array([1, 2], np.float32), "q": np.arange(6, dtype=np.float32)}


@pytest.mark.parametrize("body", SCANS.values(), ids=SCANS.keys())
def test_scan(body: str) -> None:
    made = parsed(f"g (float[6, 2] x) => (y) {{ {body} }}", 17, **NUMBERS, **STORED)
    want = run_elsewhere(made, {"x": X})
    np.testing.assert_allclose(run(made, {"x": X})["y"], want["y"], rtol=1e-6)


@pytest.mark.parametrize("name", ["carried", "rows", "a number", "nested"])
def test_a_long_loop_is_one_operation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrolled, "SHORT", 0)
    body = BODIES[name].replace("Loop (i, yes", "Loop (three, yes")
    made = parsed(f"g (float[6, 2] x) => (y) {{ {body} }}", 18, **NUMBERS)
    assert any(n.op.name == "scan" for n in load(made).nodes)
    np.testing.assert_allclose(run(made, {"x": X})["y"], run_elsewhere(made, {"x": X})["y"])


def test_parameters_of_a_body_are_differentiated() -> None:
    """A weight that the body reads from around it gets the gradient of all rounds."""
    body = "z, y = Scan (s, x) <num_scan_inputs = 1, body = b (float[2] c, float[2] v) => (float[2] d, float[2] r) { p = Mul (c, w)  d = Add (p, v)  r = Identity (d) }>; l = ReduceSum <keepdims = 0> (y)"
    made = parsed(
        f"g (float[6, 2] x) => (l) {{ {body} }}", 17, w=np.array([0.5, 0.25], np.float32), **STORED
    )
    graph = load(made)
    found = oracle.run(gradients(graph, "l", ["w"]), {"x": X}).outputs["grad/w"]

    def total(w: np.ndarray) -> float:
        c, out = STORED["s"].astype(float), 0.0
        for v in X:
            c = c * w + v
            out += c.sum()
        return out

    w, e = np.array([0.5, 0.25]), np.eye(2) * 1e-6
    want = [(total(w + e[i]) - total(w - e[i])) / 2e-6 for i in range(2)]
    np.testing.assert_allclose(found, want, rtol=1e-5)


REFUSED = {
    "the condition must be known": (OnnxImportError, "y = Loop (, yes, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { s = ReduceSum <keepdims = 0> (v)  d = Less (s, half)  w = Mul (v, half) }>"),
    "true in every round": (UnsupportedOperator, "y = Loop (many, yes, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { d = Less (i, three)  w = Identity (v) }>"),
    "num_scan_inputs is 4": (OnnxImportError, "y = Scan (x) <num_scan_inputs = 4, body = b (float[2] v) => (float[2] r) { r = Neg (v) }>"),
    "random numbers in the body": (UnsupportedOperator, "y = Scan (x) <num_scan_inputs = 1, body = b (float[2] v) => (float[2] r) { r = RandomNormalLike (v) }>"),
    "no known shape": (UnsupportedOperator, "z, y = Loop (none, yes, x) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w, float[6, 2] r) { d = Identity (c)  w = Identity (v)  r = Neg (v) }>"),
    "the body takes 3 operands, 2 are given": (OnnxImportError, "y = Loop (four, yes) <body = b (int64 i, bool c, float[6, 2] v) => (bool d, float[6, 2] w) { d = Identity (c)  w = Identity (v) }>"),
    "first operand must be a sequence": (OnnxImportError, "y = SequenceMap (x) <body = b (float[6, 2] p) => (float[6, 2] o) { o = Neg (p) }>"),
}  # fmt: skip


@pytest.mark.parametrize(("message", "case"), REFUSED.items(), ids=REFUSED.keys())
def test_refused(message: str, case: tuple[type[Exception], str]) -> None:
    error, body = case
    with pytest.raises(error, match=message):
        load(parsed(f"g (float[6, 2] x) => (y) {{ {body} }}", 18, **NUMBERS))
