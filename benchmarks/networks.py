"""Larger networks to time, as PyTorch modules; `python benchmarks/networks.py NAME FILE` writes one as ONNX.

The file carries PyTorch's initial weights of seed 0, so that both engines start from the same numbers. It is written when a
benchmark runs, into a temporary folder: tens of megabytes do not belong into a repository.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
ADAMW = {"lr": 3e-4, "weight_decay": 0.01}


@dataclass(frozen=True)
class Network:
    """One network to train.

    Attributes:
        name: How it is called on the command line.
        batch: Samples per step.
        shape: Shape of one sample: a picture, or so many tokens.
        classes: How many labels there are, or tokens.
        flops: Multiply-adds of forward and backward times two, per step.
        optimizer: Its name and its options.
    """

    name: str
    batch: int
    shape: tuple[int, ...]
    classes: int
    flops: float
    optimizer: tuple[str, dict[str, float]] = ("sgd", SGD)

    @property
    def is_text(self) -> bool:
        """Whether samples are tokens, each of which the network tells the next of."""
        return len(self.shape) == 1

    def batches(self, count: int = 4) -> list[dict[str, np.ndarray]]:
        """Return batches that are used in turn."""
        rng = np.random.default_rng(1)
        return [self._batch(rng) for _ in range(count)]

    def _batch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shape = (self.batch, *self.shape)
        if self.is_text:
            tokens = rng.integers(0, self.classes, (self.batch, self.shape[0] + 1))
            return {"x": np.ascontiguousarray(tokens[:, :-1]), "labels": tokens[:, 1:].copy()}
        x = rng.standard_normal(shape).astype(np.float32)
        return {"x": x, "labels": rng.integers(0, self.classes, self.batch)}


NETWORKS = {
    n.name: n
    for n in (
        Network("resnet18-cifar", 32, (3, 32, 32), 10, 106.53e9),
        Network("mobilenetv2", 16, (3, 96, 96), 1000, 5.34e9),
        Network("gpt-nano", 8, (128,), 4096, 27.38e9, ("adamw", ADAMW)),
    )
}


def build(name: str) -> Any:
    """Return a network in PyTorch, in training mode, with the weights of seed 0."""
    import torch

    torch.manual_seed(0)
    makers = {"resnet18-cifar": _resnet18, "mobilenetv2": _mobilenetv2, "gpt-nano": _gpt}
    return makers[name]().train()


def _unit(
    inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1, act: Any = None
) -> list[Any]:
    from torch import nn

    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outside), *([act()] if act else [])]


def _around(inner: Any, past: Any = None, after: Any = None) -> Any:
    """Return a module that adds what goes past another to it."""
    from torch import nn

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.past, self.after = inner, past or nn.Identity(), after or nn.Identity()

        def forward(self, x: Any) -> Any:
            return self.after(self.inner(x) + self.past(x))

    return Around()


def _resnet18() -> Any:
    from torch import nn

    layers, inside = _unit(3, 64, 3, act=nn.ReLU), 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            inner = [*_unit(inside, width, 3, stride, act=nn.ReLU), *_unit(width, width, 3)]
            past = nn.Sequential(*_unit(inside, width, 1, stride)) if stride > 1 else None
            layers.append(_around(nn.Sequential(*inner), past, nn.ReLU()))
            inside = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def _mobilenetv2() -> Any:
    from torch import nn

    layers, inside = _unit(3, 32, 3, 2, act=nn.ReLU6), 32
    for widen, width, blocks, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(blocks):
            stride, wide = (first if not block else 1), inside * widen
            inner = _unit(inside, wide, 1, act=nn.ReLU6) if widen > 1 else []
            inner += _unit(wide, wide, 3, stride, wide, nn.ReLU6) + _unit(wide, width, 1)
            whole = nn.Sequential(*inner)
            layers.append(_around(whole) if stride == 1 and inside == width else whole)
            inside = width
    layers += _unit(320, 1280, 1, act=nn.ReLU6)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


def _gpt(width: int = 256, heads: int = 8, depth: int = 4) -> Any:
    """Return GPT-2's decoder: learned positions, pre-norm, tanh GELU, no dropout, a head of its own."""
    import torch
    from torch import nn

    network = NETWORKS["gpt-nano"]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            q, k, v = self.qkv(x).reshape(n, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(n, t, width))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Embedding(network.classes, width)
            self.position = nn.Parameter(0.02 * torch.randn(network.shape[0], width))
            self.blocks = nn.Sequential(*(_layer() for _ in range(depth)))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, network.classes, bias=False)

        def forward(self, x: Any) -> Any:
            return self.head(self.norm(self.blocks(self.token(x) + self.position)))

    def _layer() -> Any:
        wide = [nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)]
        return nn.Sequential(
            _around(nn.Sequential(nn.LayerNorm(width), Attention())),
            _around(nn.Sequential(nn.LayerNorm(width), *wide)),
        )

    return Gpt()


def export(name: str, path: str) -> None:
    """Write a network in training mode."""
    import torch

    network = NETWORKS[name]
    kind = torch.int64 if network.is_text else torch.float32
    x = torch.zeros((network.batch, *network.shape), dtype=kind)
    torch.onnx.export(
        build(name), (x,), path, dynamo=False, opset_version=17, input_names=["x"], output_names=["logits"],
        training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
    )  # fmt: skip


def tapeout_step(
    network: Network, threads: int, path: str
) -> Callable[[dict[str, np.ndarray]], Any]:
    """Return a function that runs one step of tapeout on the file and returns the loss."""
    import tapeout

    kind, options = network.optimizer
    trainer = tapeout.Trainer(
        tapeout.load_onnx(path, mode="train"),
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=getattr(tapeout.optimizers, kind)(**options),
        threads=threads,
    )
    return lambda batch: trainer.step(batch)["loss"]


def torch_step(network: Network, threads: int, path: str) -> Callable[[dict[str, np.ndarray]], Any]:
    """Return a function that runs one step of PyTorch eager and returns the loss."""
    import torch

    torch.set_num_threads(threads)
    module = build(network.name)
    kind, options = network.optimizer
    make = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[kind]
    optimizer = make(module.parameters(), fused=True, **options)

    def step(batch: dict[str, np.ndarray]) -> float:
        x, labels = torch.from_numpy(batch["x"]), torch.from_numpy(batch["labels"])
        optimizer.zero_grad(set_to_none=True)
        logits = module(x).flatten(0, -2)
        loss = torch.nn.functional.cross_entropy(logits, labels.flatten())
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


ENGINES = {"tapeout": tapeout_step, "torch": torch_step}

if __name__ == "__main__":
    export(sys.argv[1], sys.argv[2])
