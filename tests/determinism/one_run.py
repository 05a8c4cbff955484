"""Trains in a process of its own and prints, as JSON, every bit that must not depend on how it was run.

    python tests/determinism/one_run.py ROWS...

Each model trains twice: compiled anew if the cache is empty, and again from the cache.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tapeout
from tapeout.driver.manifest import to_json
from tapeout.kernel.program import Program
from tapeout.passes.precision import widen

MODELS = Path(__file__).resolve().parents[2] / "models"
STEPS = 3


def points(rows: int) -> tuple[tapeout.Graph, dict[str, np.ndarray]]:
    """Return a small network written with the builder, and data of many rows."""
    with tapeout.Builder("points", seed=7) as g:
        x = g.input("x", ("N", 5))
        h = tapeout.nn.tanh(tapeout.nn.linear(x, 9, name="fc1"))
        g.output("logits", tapeout.nn.linear(h, 4, name="fc2"))
    rng = np.random.Generator(np.random.Philox(key=[1, rows]))
    data = {"x": rng.standard_normal((rows, 5)).astype(np.float32)}
    return g.graph(), {**data, "labels": rng.integers(0, 4, rows)}


def lenet(rows: int) -> tuple[tapeout.Graph, dict[str, np.ndarray]]:
    """Return LeNet, and random pictures."""
    rng = np.random.Generator(np.random.Philox(key=[2, rows]))
    data = {"x": rng.standard_normal((rows, 1, 28, 28)).astype(np.float32)}
    graph = tapeout.load_onnx(MODELS / "lenet.onnx")
    return graph, {**data, "labels": rng.integers(0, 10, rows)}


def recurrent(rows: int) -> tuple[tapeout.Graph, dict[str, np.ndarray]]:
    """Return a recurrence over twelve steps, wide enough for its products to be shared by threads."""
    rng = np.random.Generator(np.random.Philox(key=[3, rows]))
    hidden = 48
    with tapeout.Builder("recurrent", seed=7) as g:
        x = g.input("x", ("N", 12, hidden))
        w = g.parameter("w", (hidden, hidden), tapeout.init.normal(0.1))
        start = x[:, 0] * 0.0

        def step(
            carries: list[Any], slices: list[Any], rest: list[Any]
        ) -> tuple[list[Any], list[Any]]:
            return [(slices[0] + carries[0] @ rest[0]).tanh()], []

        (hs,), _ = g.scan(step, [start], [x.transpose([1, 0, 2])], [w])
        g.output("logits", tapeout.nn.linear(hs[12], 4, name="fc"))
    data = {"x": rng.standard_normal((rows, 12, hidden)).astype(np.float32)}
    return g.graph(), {**data, "labels": rng.integers(0, 4, rows)}


def attentive(rows: int) -> tuple[tapeout.Graph, dict[str, np.ndarray]]:
    """Return a layer of a causal transformer, long enough for attention in blocks, over a table of rows."""
    rng = np.random.Generator(np.random.Philox(key=[4, rows]))
    width, length = 48, 260
    with tapeout.Builder("attentive", seed=7) as g:
        x = g.input("x", ("N", length), "i64")
        h = tapeout.nn.embedding(x, 50, width, name="tokens")
        a = tapeout.nn.layer_norm(h, name="norm1")
        h = h + tapeout.nn.multi_head_attention(a, 3, name="attention", causal=True)
        a = tapeout.nn.linear(tapeout.nn.layer_norm(h, name="norm2"), 96, name="up")
        h = h + tapeout.nn.linear(tapeout.nn.gelu(a), width, name="down")
        g.output("logits", tapeout.nn.linear(h.mean(1), 4, name="head"))
    data = {"x": rng.integers(0, 50, (rows, length))}
    return g.graph(), {**data, "labels": rng.integers(0, 4, rows)}


def wide(
    made: tuple[tapeout.Graph, dict[str, np.ndarray]],
) -> tuple[tapeout.Graph, dict[str, np.ndarray]]:
    """Return the same in f64."""
    graph, data = made
    return graph.then(widen), {**data, "x": data["x"].astype(np.float64)}


def bits(graph: tapeout.Graph, data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Train a few steps and return losses, digests of all variables and gradients, and what was compiled."""
    trainer = tapeout.Trainer(
        graph,
        loss=tapeout.losses.cross_entropy("logits", label_smoothing=0.1),
        optimizer=tapeout.optimizers.adamw(1e-2),
        clip_norm=1.0,
    )
    loss, gradients = trainer.gradients(data)
    results = [dict(trainer.step(data)) for _ in range(STEPS)]
    evaluated = trainer.evaluate(data)
    return {
        "losses": [float(loss).hex(), *(v.hex() for r in results for v in r.values())],
        "evaluated": [v.hex() for v in evaluated.values()],
        "gradients": {n: _digest(a) for n, a in gradients.items()},
        "variables": {n: _digest(trainer.session.read(n)) for n in trainer.session.variables},
        "predictions": _digest(trainer.predict({"x": data["x"]})["logits"]),
        "programs": [_program(e.program) for e in trainer.session._entries],
        "kernels": [i.kernel for e in trainer.session._entries for i in e.program.launches],
    }


def _program(program: Program) -> str:
    """Return a digest of launches, buffers and offsets; a program from the cache has no kernels beside it."""
    manifest = json.loads(to_json(program))
    del manifest["kernels"]
    return _digest(json.dumps(manifest).encode())


def _digest(data: np.ndarray | bytes) -> str:
    raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
    return hashlib.sha256(raw).hexdigest()[:16]


def main() -> None:
    """Run the command line."""
    found: dict[str, Any] = {}
    for rows in map(int, sys.argv[1:]):
        made = {"points": points(rows)}
        if rows == 17:
            made |= {"lenet": lenet(rows), "points f64": wide(points(rows))}
            made["recurrent"] = recurrent(rows)
            made["attentive"] = attentive(3)
        for name, (graph, data) in made.items():
            first, again = bits(graph, data), bits(graph, data)
            assert first == again, f"{name} with {rows} rows: two runs in one process differ"
            found[f"{name} {rows}"] = first
    print(json.dumps(found))


if __name__ == "__main__":
    main()
