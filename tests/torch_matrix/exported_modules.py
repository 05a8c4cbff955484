"""Modules for the tests of export_torch: names that get in each other's way, and what cannot be exported."""

from __future__ import annotations

import torch
from torch import nn


class Tangled(nn.Module):
    """A tied weight, parameters called like an argument and like a node, a scalar, a table, a frozen and an unused one."""

    def __init__(self, dropout: float = 0.25) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.x = nn.Parameter(torch.rand(4) + 0.5)
        self.linear = nn.Parameter(torch.rand(4) + 0.5)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.fixed = nn.Parameter(torch.rand(4), requires_grad=False)
        self.unused = nn.Parameter(torch.rand(3))
        self.register_buffer("table", torch.rand(4))
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.bn = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        h = self.bn(self.b(self.a(x * self.x))) * self.linear
        return {"logits": self.drop(h * self.scale + self.table + self.fixed), "more": (h, None, x)}


class Keywords(nn.Module):
    """Takes a tensor and a choice by name only."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor, double: bool = False) -> torch.Tensor:
        return self.inner(x) * mask * (2 if double else 1)


class Twice(nn.Module):
    """Returns one tensor twice."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x.relu()
        return y, y


class TwoRows(nn.Module):
    """Works for two rows only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 4) + torch.ones(2, 1)


def mlp() -> nn.Module:
    """Return a network without traps."""
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


BAD = {
    "random pool": lambda: (nn.FractionalMaxPool2d(2, 3), torch.rand(2, 2, 6, 6)),
    "fixed size": lambda: (TwoRows(), torch.rand(2, 4)),
    "twice": lambda: (Twice(), torch.rand(2, 4)),
}
"""Modules that cannot be written, each with an example."""
