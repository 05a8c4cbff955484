"""Optimisers: the formulas of `torch.optim`, with its defaults.

An optimiser declares a few states per parameter and writes one update formula for all of them, so that the schedule finds the
same expression over contiguous memory and makes one sweep of it. Hyper-parameters are run-time scalars in f64; what depends
on them alone is computed once in f64, as PyTorch does on the host, and cast to the type of the parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.support.errors import OptionError

if TYPE_CHECKING:
    from tapeout.ops.sym import Sym


@dataclass(frozen=True)
class Sgd:
    """`buf = momentum*buf + g; w -= lr*buf` (with Nesterov: `g + momentum*buf`), `g` including `weight_decay*w`."""

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    @property
    def hyper(self) -> dict[str, float]:
        """Run-time scalars and their initial values."""
        return (
            {"lr": self.lr, "weight_decay": self.weight_decay}
            if self.weight_decay
            else {"lr": self.lr}
        )

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states per parameter, all zero at first."""
        return ("sgd.momentum",) if self.momentum else ()

    def scalars(self, hyper: Mapping[str, Sym], step: Sym) -> dict[str, Sym]:
        """Return the f64 scalars that the update formula reads."""
        return dict(hyper)

    def update(
        self, w: Sym, g: Sym, state: Mapping[str, Sym], scalar: Mapping[str, Sym]
    ) -> tuple[Sym, dict[str, Sym]]:
        """Return the new parameter and its new states."""
        if "weight_decay" in scalar:
            g = g + w * scalar["weight_decay"]
        if not self.momentum:
            return w - g * scalar["lr"], {}
        buf = state["sgd.momentum"] * self.momentum + g
        step = g + buf * self.momentum if self.nesterov else buf
        return w - step * scalar["lr"], {"sgd.momentum": buf}


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980), with decoupled weight decay (arXiv 1711.05101) when `decoupled`."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    decoupled: bool

    @property
    def hyper(self) -> dict[str, float]:
        """Run-time scalars and their initial values."""
        return (
            {"lr": self.lr, "weight_decay": self.weight_decay}
            if self.weight_decay
            else {"lr": self.lr}
        )

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states per parameter, all zero at first."""
        return ("adam.m", "adam.v")

    def scalars(self, hyper: Mapping[str, Sym], step: Sym) -> dict[str, Sym]:
        """Return the f64 scalars that the update formula reads; `step` counts from 1."""
        b1, b2 = self.betas
        out = {
            "step_size": hyper["lr"] / (1.0 - step.like(b1) ** step),
            "root_correction": (1.0 - step.like(b2) ** step).sqrt(),
        }
        if "weight_decay" in hyper:
            decay = hyper["weight_decay"]
            out["decay"] = 1.0 - hyper["lr"] * decay if self.decoupled else decay
        return out

    def update(
        self, w: Sym, g: Sym, state: Mapping[str, Sym], scalar: Mapping[str, Sym]
    ) -> tuple[Sym, dict[str, Sym]]:
        """Return the new parameter and its new states."""
        b1, b2 = self.betas
        if "decay" in scalar and self.decoupled:
            w = w * scalar["decay"]
        elif "decay" in scalar:
            g = g + w * scalar["decay"]
        m = state["adam.m"] + (g - state["adam.m"]) * (1.0 - b1)
        v = state["adam.v"] * b2 + g * g * (1.0 - b2)
        root = v.sqrt() / scalar["root_correction"] + self.eps
        return w - m / root * scalar["step_size"], {"adam.m": m, "adam.v": v}


Optimizer = Sgd | Adam


def sgd(lr: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> Sgd:
    """Return stochastic gradient descent (`torch.optim.SGD`)."""
    _in_range(lr=lr, momentum=momentum, weight_decay=weight_decay)
    if nesterov and not momentum:
        raise OptionError("nesterov needs a momentum above 0")
    return Sgd(lr, momentum, nesterov, weight_decay)


def adam(
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Adam:
    """Return Adam (`torch.optim.Adam`); `weight_decay` is added to the gradient."""
    _in_range(lr=lr, eps=eps, weight_decay=weight_decay)
    return Adam(lr, _known_betas(betas), eps, weight_decay, decoupled=False)


def adamw(
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Adam:
    """Return AdamW (`torch.optim.AdamW`); `weight_decay` shrinks the weights themselves."""
    _in_range(lr=lr, eps=eps, weight_decay=weight_decay)
    return Adam(lr, _known_betas(betas), eps, weight_decay, decoupled=True)


BY_NAME: dict[str, Callable[..., Optimizer]] = {"sgd": sgd, "adam": adam, "adamw": adamw}


def _known_betas(betas: tuple[float, float]) -> tuple[float, float]:
    b1, b2 = betas
    if not (0.0 <= b1 < 1.0 and 0.0 <= b2 < 1.0):
        raise OptionError(f"betas are {betas}, both must lie in [0, 1)")
    return (b1, b2)


def _in_range(**numbers: float) -> None:
    for name, x in numbers.items():
        if not x >= 0.0 or x == float("inf"):
            raise OptionError(f"{name} is {x}, it must be a number of at least 0")
