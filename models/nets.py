"""The networks of this folder in PyTorch; parameters are called as in the files."""

from __future__ import annotations

import torch
from torch import nn

SEED = 20260
"""Seed of PyTorch's generator when the initial weights are drawn."""


class Mlp(nn.Module):
    """784-128-64-10 with ReLU: images f32[N, 784] -> logits f32[N, 10]."""

    example_shape = (784,)

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of flat images."""
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling: images f32[N, 1, 28, 28] -> logits f32[N, 10]."""

    example_shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


class TinyMlp(nn.Module):
    """The Mlp's operators on a few numbers, for the opset matrix: f32[N, 8] -> f32[N, 3]."""

    example_shape = (8,)

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return class probabilities, so that the file ends in Softmax."""
        return torch.softmax(self.fc2(torch.relu(self.fc1(x))), dim=-1)


class TinyLeNet(nn.Module):
    """The LeNet's operators on a few numbers, for the matrix: f32[N, 1, 12, 12] -> f32[N, 3]."""

    example_shape = (1, 12, 12)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 5, padding=2)
        self.conv2 = nn.Conv2d(2, 3, 3)
        self.fc1 = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc1(x.reshape(x.shape[0], -1))


NETS: dict[str, type[nn.Module]] = {
    "mlp": Mlp,
    "lenet": LeNet,
    "tiny_mlp": TinyMlp,
    "tiny_lenet": TinyLeNet,
}


def build(name: str) -> nn.Module:
    """Return the network with the initial weights of `SEED`, in evaluation mode."""
    torch.manual_seed(SEED)
    return NETS[name]().eval()
