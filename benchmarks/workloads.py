"""Training workloads, each built with tapeout's builder and with PyTorch from the same numbers.

`mlp` and `lenet` are the sizes that peers are usually timed with; weights and batches come from fixed seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Workload:
    """One training step to time.

    Attributes:
        name: How it is called on the command line.
        batch: Rows per step.
        shape: Shape of one input.
        parameters: Name to shape; weights [out, in, ...], biases [out].
        optimizer: Name and options, equal in both engines.
        flops: Multiply-adds of forward and backward times two, per step.
    """

    name: str
    batch: int
    shape: tuple[int, ...]
    parameters: dict[str, tuple[int, ...]]
    optimizer: tuple[str, dict[str, float]]
    flops: float

    def weights(self) -> dict[str, np.ndarray]:
        """Return initial values by name."""
        out = {}
        for i, (name, shape) in enumerate(self.parameters.items()):
            rng = np.random.default_rng((0, i))
            scale = 0.0 if len(shape) == 1 else float(np.prod(shape[1:])) ** -0.5
            out[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
        return out

    def batches(self, count: int = 4) -> Iterator[dict[str, np.ndarray]]:
        """Yield batches that are used in turn."""
        rng = np.random.default_rng(1)
        for _ in range(count):
            x = rng.standard_normal((self.batch, *self.shape)).astype(np.float32)
            yield {"x": x, "labels": rng.integers(0, 10, self.batch)}


def _mlp(*sizes: int) -> dict[str, tuple[int, ...]]:
    out: dict[str, tuple[int, ...]] = {}
    for i, (a, b) in enumerate(pairwise(sizes)):
        out[f"fc{i}.weight"], out[f"fc{i}.bias"] = (b, a), (b,)
    return out


_LENET = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (120, 400),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
    "fc3.weight": (10, 84),
    "fc3.bias": (10,),
}
_SGD = ("sgd", {"lr": 0.01, "momentum": 0.9})

WORKLOADS = {
    w.name: w
    for w in (
        Workload("mlp", 128, (784,), _mlp(784, 512, 512, 10), _SGD, 0.41078e9),
        Workload("mlp-tiny", 32, (64,), _mlp(64, 32, 10), _SGD, 0.00032e9),
        Workload("lenet", 64, (1, 28, 28), _LENET, ("adam", {"lr": 1e-3}), 0.14489e9),
    )
}


def tapeout_step(w: Workload, threads: int) -> Callable[[dict[str, np.ndarray]], Any]:
    """Return a function that runs one step of tapeout and returns the loss."""
    import tapeout

    start = w.weights()
    with tapeout.Builder(w.name) as g:
        p = {n: g.parameter(n, a.shape, init=a) for n, a in start.items()}
        y = g.input("x", ("N", *w.shape))
        if w.name == "lenet":
            for i in (1, 2):
                pad = 2 if i == 1 else 0
                y = y.conv(p[f"conv{i}.weight"], strides=[1, 1], low=[pad] * 2, high=[pad] * 2)
                y = (y + p[f"conv{i}.bias"].reshape([-1, 1, 1])).relu()
                y = tapeout.nn.max_pool2d(y, 2)
            y = tapeout.nn.flatten(y)
        layers = [
            n.removesuffix(".weight") for n in p if n.startswith("fc") and n.endswith(".weight")
        ]
        for i, layer in enumerate(layers):
            y = y @ p[f"{layer}.weight"].transpose() + p[f"{layer}.bias"]
            y = y.relu() if i < len(layers) - 1 else y
        g.output("logits", y)
    make, options = w.optimizer
    trainer = tapeout.Trainer(
        g.graph(),
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=getattr(tapeout.optimizers, make)(**options),
        threads=threads,
    )
    return lambda batch: trainer.step(batch)["loss"]


def torch_step(w: Workload, threads: int) -> Callable[[dict[str, np.ndarray]], Any]:
    """Return a function that runs one step of PyTorch eager and returns the loss."""
    import torch
    from torch.nn import functional as f

    torch.set_num_threads(threads)
    p = {n: torch.from_numpy(a).requires_grad_() for n, a in w.weights().items()}
    layers = [n.removesuffix(".weight") for n in p if n.startswith("fc") and n.endswith(".weight")]
    make, options = w.optimizer
    cls = torch.optim.SGD if make == "sgd" else torch.optim.Adam
    optimizer = cls(list(p.values()), fused=True, **options)
    ready: dict[int, tuple[Any, Any]] = {}

    def step(batch: dict[str, np.ndarray]) -> float:
        if id(batch) not in ready:
            ready[id(batch)] = torch.from_numpy(batch["x"]), torch.from_numpy(batch["labels"])
        y, labels = ready[id(batch)]
        optimizer.zero_grad(set_to_none=True)
        if w.name == "lenet":
            for i in (1, 2):
                y = f.conv2d(
                    y, p[f"conv{i}.weight"], p[f"conv{i}.bias"], padding=2 if i == 1 else 0
                )
                y = f.max_pool2d(f.relu(y), 2)
            y = y.flatten(1)
        for i, layer in enumerate(layers):
            y = f.linear(y, p[f"{layer}.weight"], p[f"{layer}.bias"])
            y = f.relu(y) if i < len(layers) - 1 else y
        loss = f.cross_entropy(y, labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


ENGINES = {"tapeout": tapeout_step, "torch": torch_step}
