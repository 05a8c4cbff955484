"""The ten training workloads, each written once over a few kinds of layers.

A network is a function `build(net, x)` that calls methods of `net` and returns scores of shape [rows, classes]. Each engine brings
its own `net` (`benchmarks/engines`), so that all of them compute the same formula from the same numbers: parameters and batches come
from numpy's generators with fixed seeds, in PyTorch's layouts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

SGD = ("sgd", {"lr": 0.01, "momentum": 0.9})
SGD_DECAY = ("sgd", {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4})
ADAM = ("adam", {"lr": 1e-3})
ADAMW = ("adamw", {"lr": 3e-4, "weight_decay": 0.01})

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """A parameter: its shape, and its first values: normal numbers times `scale`, or `scale` everywhere if `constant`."""

    shape: Shape
    scale: float
    constant: bool = False


class Nothing:
    """Stands for every tensor while parameters are collected: any use of it gives it back."""

    def __getattr__(self, name: str) -> Nothing:
        return self

    def __call__(self, *args: object, **options: object) -> Nothing:
        return self

    def __add__(self, other: object) -> Nothing:
        return self

    def __getitem__(self, index: object) -> Nothing:
        return self


class Collector:
    """The `net` that computes nothing and notes which parameters and running statistics a network has."""

    def __init__(self) -> None:
        self.parameters: dict[str, Parameter] = {}
        self.statistics: dict[str, tuple[int, float]] = {}

    def __getattr__(self, name: str) -> Callable[..., Nothing]:
        return lambda *args, **options: Nothing()

    def parameter(self, name: str, shape: Shape, scale: float = 0.02) -> Nothing:
        self.parameters[name] = Parameter(shape, scale)
        return Nothing()

    def _filled(self, name: str, size: int, value: float) -> None:
        self.parameters[name] = Parameter((size,), value, constant=True)

    def linear(self, x: object, name: str, inside: int, outside: int, bias: bool = True) -> Nothing:
        self.parameter(f"{name}.weight", (outside, inside), inside**-0.5)
        if bias:
            self._filled(f"{name}.bias", outside, 0.0)
        return Nothing()

    def conv(
        self, x: object, name: str, inside: int, outside: int, kernel: int, stride: int = 1, pad: int = 0,
        groups: int = 1, bias: bool = False,
    ) -> Nothing:  # fmt: skip
        fan = inside // groups * kernel * kernel
        self.parameter(
            f"{name}.weight", (outside, inside // groups, kernel, kernel), (2 / fan) ** 0.5
        )
        if bias:
            self._filled(f"{name}.bias", outside, 0.0)
        return Nothing()

    def batch_norm(self, x: object, name: str, size: int) -> Nothing:
        self._filled(f"{name}.weight", size, 1.0)
        self._filled(f"{name}.bias", size, 0.0)
        self.statistics |= {f"{name}.mean": (size, 0.0), f"{name}.var": (size, 1.0)}
        return Nothing()

    def layer_norm(self, x: object, name: str, size: int) -> Nothing:
        self._filled(f"{name}.weight", size, 1.0)
        self._filled(f"{name}.bias", size, 0.0)
        return Nothing()

    def embedding(self, x: object, name: str, count: int, size: int) -> Nothing:
        return self.parameter(f"{name}.weight", (count, size))

    def attention(self, x: object, name: str, size: int, heads: int, causal: bool) -> Nothing:
        self.linear(x, f"{name}.qkv", size, 3 * size)
        return self.linear(x, f"{name}.out", size, size)

    def lstm(self, x: object, name: str, size: int, depth: int) -> Nothing:
        for i in range(depth):
            for part in ("input", "hidden"):
                self.parameter(f"{name}.{i}.{part}", (4 * size, size), (3 * size) ** -0.5)
                self._filled(f"{name}.{i}.{part}_bias", 4 * size, 0.0)
        return Nothing()


# --- networks -----------------------------------------------------------------------------------------


def _perceptron(*sizes: int) -> Callable[[Any, Any], Any]:
    def build(net: Any, x: Any) -> Any:
        for i, (inside, outside) in enumerate(pairwise(sizes)):
            x = net.linear(x, f"fc{i}", inside, outside)
            x = net.relu(x) if i < len(sizes) - 2 else x
        return x

    return build


def _lenet(net: Any, x: Any) -> Any:
    x = net.max_pool(net.relu(net.conv(x, "conv1", 1, 6, 5, pad=2, bias=True)), 2, 2)
    x = net.max_pool(net.relu(net.conv(x, "conv2", 6, 16, 5, bias=True)), 2, 2)
    x = net.relu(net.linear(net.flatten(x), "fc1", 400, 120))
    return net.linear(net.relu(net.linear(x, "fc2", 120, 84)), "fc3", 84, 10)


def _unit(
    net: Any, x: Any, name: str, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1,
    act: str = "relu",
) -> Any:  # fmt: skip
    """Return convolution, batch normalisation and an activation."""
    x = net.conv(x, name, inside, outside, kernel, stride, kernel // 2, groups)
    x = net.batch_norm(x, f"{name}.norm", outside)
    return getattr(net, act)(x) if act else x


def _resnet18(net: Any, x: Any) -> Any:
    """ResNet-18 for 32 x 32 pictures: a stem of 3 x 3 without pooling."""
    x, inside = _unit(net, x, "stem", 3, 64, 3), 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride, name = (2 if stage and not block else 1), f"layer{stage}.{block}"
            y = _unit(net, x, f"{name}.conv1", inside, width, 3, stride)
            y = _unit(net, y, f"{name}.conv2", width, width, 3, act="")
            past = (
                _unit(net, x, f"{name}.past", inside, width, 1, stride, act="") if stride > 1 else x
            )
            x, inside = net.relu(y + past), width
    return net.linear(net.mean_pool(x), "fc", 512, 10)


def _resnet50(net: Any, x: Any) -> Any:
    """ResNet-50 v1.5: the stride stands at the 3 x 3 convolution."""
    x, inside = net.max_pool(_unit(net, x, "stem", 3, 64, 7, 2), 3, 2, 1), 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride, name = (2 if stage and not block else 1), f"layer{stage}.{block}"
            y = _unit(net, x, f"{name}.conv1", inside, width, 1)
            y = _unit(net, y, f"{name}.conv2", width, width, 3, stride)
            y = _unit(net, y, f"{name}.conv3", width, 4 * width, 1, act="")
            past = (
                x if block else _unit(net, x, f"{name}.past", inside, 4 * width, 1, stride, act="")
            )
            x, inside = net.relu(y + past), 4 * width
    return net.linear(net.mean_pool(x), "fc", 2048, 1000)


_INVERTED = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip


def _mobilenetv2(net: Any, x: Any) -> Any:
    x, inside, number = _unit(net, x, "stem", 3, 32, 3, 2, act="relu6"), 32, 0
    for widen, width, blocks, first in _INVERTED:
        for block in range(blocks):
            stride, wide, name = (first if not block else 1), inside * widen, f"block{number}"
            y = _unit(net, x, f"{name}.up", inside, wide, 1, act="relu6") if widen > 1 else x
            y = _unit(net, y, f"{name}.depth", wide, wide, 3, stride, wide, "relu6")
            y = _unit(net, y, f"{name}.down", wide, width, 1, act="")
            x = x + y if stride == 1 and inside == width else y
            inside, number = width, number + 1
    x = net.mean_pool(_unit(net, x, "head", 320, 1280, 1, act="relu6"))
    return net.linear(x, "fc", 1280, 1000)


def _layer(net: Any, x: Any, name: str, size: int, heads: int, causal: bool) -> Any:
    """Return a pre-norm transformer layer."""
    inner = net.layer_norm(x, f"{name}.norm1", size)
    x = x + net.attention(inner, f"{name}.attention", size, heads, causal)
    inner = net.linear(net.layer_norm(x, f"{name}.norm2", size), f"{name}.up", size, 4 * size)
    return x + net.linear(net.gelu(inner, tanh=causal), f"{name}.down", 4 * size, size)


def _gpt(depth: int, size: int, heads: int, tokens: int, words: int) -> Callable[[Any, Any], Any]:
    """GPT-2's decoder: learned positions, tanh GELU, no dropout, a head of its own."""

    def build(net: Any, x: Any) -> Any:
        x = net.embedding(x, "token", words, size) + net.parameter("position", (tokens, size))
        for i in range(depth):
            x = _layer(net, x, f"layer{i}", size, heads, causal=True)
        x = net.linear(net.layer_norm(x, "norm", size), "head", size, words, bias=False)
        return net.rows(x, words)

    return build


def _vit(net: Any, x: Any) -> Any:
    """ViT-Ti/16: a class token, GELU by erf, no dropout."""
    size = 192
    x = net.patches(net.conv(x, "patch", 3, size, 16, 16, bias=True))
    x = net.with_first(net.parameter("class", (1, 1, size)), x) + net.parameter(
        "position", (197, size)
    )
    for i in range(12):
        x = _layer(net, x, f"layer{i}", size, 3, causal=False)
    return net.linear(net.layer_norm(x, "norm", size)[:, 0], "fc", size, 1000)


def _lstm(net: Any, x: Any) -> Any:
    """A language model of two LSTM layers."""
    x = net.lstm(net.embedding(x, "token", 1000, 256), "lstm", 256, 2)
    return net.rows(net.linear(x, "head", 256, 1000), 1000)


# --- the table ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """One training step to time.

    Attributes:
        name: How it is called on the command line.
        build: The network.
        batch: Samples in a step.
        shape: Shape of a sample: a picture, a vector, or so many tokens of which each is followed by one to predict.
        classes: How many labels, or words, there are.
        optimizer: Its name and options.
        gflop: Multiply-adds of products and convolutions, forward and backward, times two, in 10^9.
        words: Whether samples are tokens.
    """

    name: str
    build: Callable[[Any, Any], Any] = field(repr=False)
    batch: int
    shape: Shape
    classes: int
    optimizer: tuple[str, dict[str, float]]
    gflop: float
    words: bool = False

    @property
    def is_picture(self) -> bool:
        """Whether layouts of channels matter."""
        return len(self.shape) == 3

    @property
    def samples(self) -> int:
        """What a step processes: samples, or tokens."""
        return self.batch * (self.shape[0] if self.words else 1)

    @cached_property
    def net(self) -> Collector:
        """The parameters and statistics."""
        found = Collector()
        self.build(found, Nothing())
        return found

    def weights(self) -> dict[str, np.ndarray]:
        """Return the first values of the parameters by name."""
        made = {}
        for i, (name, p) in enumerate(self.net.parameters.items()):
            if p.constant:
                made[name] = np.full(p.shape, p.scale, np.float32)
            else:
                rng = np.random.default_rng((0, i))
                made[name] = rng.standard_normal(p.shape, np.float32) * np.float32(p.scale)
        return made

    def batches(self, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (inputs, labels) that are used in turn."""
        rng = np.random.default_rng(1)
        return [self._batch(rng) for _ in range(count)]

    def _batch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if self.words:
            text = rng.integers(0, self.classes, (self.batch, self.shape[0] + 1))
            return np.ascontiguousarray(text[:, :-1]), text[:, 1:].reshape(-1).copy()
        x = rng.standard_normal((self.batch, *self.shape), np.float32)
        return x, rng.integers(0, self.classes, self.batch)


_ALL = (
    Workload("mlp-tiny", _perceptron(64, 32, 10), 32, (64,), 10, SGD, 0.00032),
    Workload("mlp", _perceptron(784, 512, 512, 10), 128, (784,), 10, SGD, 0.41078),
    Workload("lenet", _lenet, 64, (1, 28, 28), 10, ADAM, 0.14489),
    Workload("lstm", _lstm, 32, (64,), 1000, ADAM, 16.03, words=True),
    Workload("mobilenetv2", _mobilenetv2, 16, (3, 96, 96), 1000, SGD_DECAY, 5.34),
    Workload("resnet18-cifar", _resnet18, 32, (3, 32, 32), 10, SGD_DECAY, 106.53),
    Workload("resnet50-224", _resnet50, 4, (3, 224, 224), 1000, SGD_DECAY, 97.2),
    Workload("vit-tiny", _vit, 8, (3, 224, 224), 1000, ADAMW, 59.71),
    Workload("gpt-nano", _gpt(4, 256, 8, 128, 4096), 8, (128,), 4096, ADAMW, 27.38, words=True),
    Workload(
        "gpt2-124m", _gpt(12, 768, 12, 256, 50257), 2, (256,), 50257, ADAMW, 393.99, words=True
    ),
)
WORKLOADS = {w.name: w for w in _ALL}
