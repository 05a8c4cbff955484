"""A multilayer perceptron written with the builder alone: no ONNX file, no framework.

    python examples/builder_mlp.py

It learns to tell two interleaved spirals apart, prints the loss as it falls, and writes the trained model as ONNX.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import tapeout


def build() -> tapeout.Graph:
    """Return a graph from points [N, 2] to scores [N, 2]."""
    with tapeout.Builder("spirals") as g:
        x = g.input("x", ("N", 2))
        h = tapeout.nn.tanh(tapeout.nn.linear(x, 64, name="fc1"))
        h = tapeout.nn.relu(tapeout.nn.linear(h, 64, name="fc2"))
        scale = g.parameter("scale", (64,), init=tapeout.init.ones())
        g.output("logits", tapeout.nn.linear(h * scale, 2, name="fc3"))
    return g.graph()


def spirals(count: int, seed: int) -> dict[str, np.ndarray]:
    """Return points on two spirals and which one each lies on."""
    rng = np.random.Generator(np.random.Philox(seed))
    labels = np.arange(count) % 2
    turn = np.sqrt(rng.random(count)) * 2.5 * np.pi
    radius = turn / (2.5 * np.pi)
    angle = turn + np.pi * labels
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    points += 0.01 * rng.standard_normal(points.shape)
    return {"x": points.astype(np.float32), "labels": labels.astype(np.int64)}


def main(out: Path) -> None:
    """Train and write the model."""
    trainer = tapeout.Trainer(
        build(),
        loss=tapeout.losses.cross_entropy("logits", labels="labels"),
        optimizer=tapeout.optimizers.adam(lr=3e-3),
    )
    train, test = spirals(2000, seed=1), spirals(500, seed=2)
    print(f"before: accuracy {trainer.evaluate(test)['accuracy']:.1%}")
    history = trainer.fit(train, epochs=40, batch_size=50)
    for i in range(0, 40, 8):
        print(f"epoch {i + 1:2}  loss {history.epochs[i]['loss']:.4f}")
    print(f"after:  accuracy {trainer.evaluate(test)['accuracy']:.1%}")
    trainer.export_onnx(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "spirals.onnx"))
