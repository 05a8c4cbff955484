"""Optimisers and clipping, compiled, in f64: against their formulas in numpy, and against PyTorch where it is installed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tapeout

STEPS = 6
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {"lr": 0.1}),
    "momentum": ("sgd", {"lr": 0.1, "momentum": 0.9}),
    "nesterov": ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "decay": ("sgd", {"lr": 0.1, "weight_decay": 0.05}),
    "nesterov_decay": ("sgd", {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
    "adam": ("adam", {}),
    "adam_options": ("adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3}),
    "adam_decay": ("adam", {"lr": 0.01, "weight_decay": 0.1}),
    "adamw": ("adamw", {}),
    "adamw_options": ("adamw", {"lr": 0.01, "betas": (0.5, 0.7), "eps": 1e-2, "weight_decay": 0.3}),
    "adam_no_memory": ("adam", {"lr": 0.01, "betas": (0.0, 0.0)}),
}


def model() -> tapeout.Graph:
    """Return x [6, 4] -> y [6, 3], f64."""
    with tapeout.Builder("small", seed=3) as g:
        x = g.input("x", (6, 4), tapeout.f64)
        h = tapeout.nn.tanh(tapeout.nn.linear(x, 5, name="fc1"))
        g.output("y", tapeout.nn.linear(h, 3, name="fc2"))
    return g.graph()


def batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"x": rng.standard_normal((6, 4)), "target": rng.standard_normal((6, 3))}


def trainer(name: str, options: dict[str, Any], **more: Any) -> tapeout.Trainer:
    optimizer = getattr(tapeout.optimizers, name)(**options)
    return tapeout.Trainer(model(), loss=tapeout.losses.mse(), optimizer=optimizer, **more)


class ByHand:
    """The formulas of the papers, one tensor at a time."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.t = name, 0
        defaults = {"sgd": {}, "adam": {"lr": 1e-3}, "adamw": {"lr": 1e-3, "weight_decay": 0.01}}[
            name
        ]
        self.o = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "betas": (0.9, 0.999)}
        self.o.update({"eps": 1e-8, **defaults, **options})
        self.state: dict[str, list[np.ndarray]] = {}

    def step(self, w: dict[str, np.ndarray], g: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.t += 1
        update = self._sgd if self.name == "sgd" else self._adam
        return {n: update(n, w[n], g[n]) for n in w}

    def _sgd(self, name: str, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        g = g + self.o["weight_decay"] * w
        (buf,) = self.state.setdefault(name, [np.zeros_like(w)])
        buf = self.o["momentum"] * buf + g
        self.state[name] = [buf]
        step = g + self.o["momentum"] * buf if self.o["nesterov"] else buf
        return w - self.o["lr"] * step

    def _adam(self, name: str, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        lr, decay, (b1, b2) = self.o["lr"], self.o["weight_decay"], self.o["betas"]
        if self.name == "adamw":
            w = w - lr * decay * w
        else:
            g = g + decay * w
        m, v = self.state.setdefault(name, [np.zeros_like(w)] * 2)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        self.state[name] = [m, v]
        return w - lr * (m / (1 - b1**self.t)) / (np.sqrt(v / (1 - b2**self.t)) + self.o["eps"])


def norm(gradients: dict[str, np.ndarray]) -> float:
    return math.sqrt(sum(float(np.sum(g * g)) for g in gradients.values()))


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_formula(kind: str, clip_norm: float | None) -> None:
    name, options = OPTIMIZERS[kind]
    t, formula = trainer(name, options, clip_norm=clip_norm), ByHand(name, options)
    clipped = []
    for step in range(STEPS):
        w = dict(t.parameters)
        _, g = t.gradients(batch(step))
        result = t.step(batch(step))
        if clip_norm is not None:
            assert result["grad_norm"] == pytest.approx(norm(g), rel=1e-13)
            factor = min(1.0, clip_norm / (norm(g) + 1e-6))
            clipped.append(factor < 1)
            g = {n: a * factor for n, a in g.items()}
        for n, want in formula.step(w, g).items():
            np.testing.assert_allclose(t.parameters[n], want, rtol=1e-13, atol=1e-15)
    assert t.steps_done == STEPS
    if clip_norm is not None:
        assert any(clipped)


def test_clipping_leaves_small_gradients_alone() -> None:
    loose, free = trainer("sgd", {"lr": 0.1}, clip_norm=1e6), trainer("sgd", {"lr": 0.1})
    for step in range(3):
        result = loose.step(batch(step))
        assert set(result) == {"loss", "grad_norm"}
        assert result["loss"] == free.step(batch(step))["loss"]
    for name in free.parameters:
        np.testing.assert_array_equal(loose.parameters[name], free.parameters[name])


@pytest.mark.parametrize(
    "make",
    [
        lambda: tapeout.optimizers.sgd(-0.1),
        lambda: tapeout.optimizers.sgd(float("nan")),
        lambda: tapeout.optimizers.sgd(0.1, nesterov=True),
        lambda: tapeout.optimizers.adam(betas=(0.9, 1.0)),
        lambda: tapeout.optimizers.adam(eps=-1.0),
        lambda: tapeout.optimizers.adamw(weight_decay=float("inf")),
        lambda: trainer("sgd", {"lr": 0.1}, clip_norm=0.0),
        lambda: trainer("sgd", {"lr": 0.1}, clip_norm=float("nan")),
        lambda: trainer("sgd", {"lr": 0.1}, threads=0),
    ],
)
def test_options_out_of_range(make: Any) -> None:
    with pytest.raises(tapeout.OptionError):
        make()


@pytest.mark.torch
@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_as_torch(kind: str, clip_norm: float | None) -> None:
    import torch

    name, options = OPTIMIZERS[kind]
    t = trainer(name, options, clip_norm=clip_norm)
    weights = {n: torch.tensor(a, requires_grad=True) for n, a in t.parameters.items()}
    theirs = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    optimizer = theirs(list(weights.values()), foreach=False, **options)
    for step in range(STEPS):
        data = {n: torch.tensor(a) for n, a in batch(step).items()}
        h = torch.tanh(
            torch.nn.functional.linear(data["x"], weights["fc1.weight"], weights["fc1.bias"])
        )
        y = torch.nn.functional.linear(h, weights["fc2.weight"], weights["fc2.bias"])
        loss = torch.nn.functional.mse_loss(y, data["target"])
        optimizer.zero_grad()
        loss.backward()
        result = t.step(batch(step))
        if clip_norm is not None:
            size = torch.nn.utils.clip_grad_norm_(list(weights.values()), clip_norm)
            assert result["grad_norm"] == pytest.approx(size.item(), rel=1e-12)
        optimizer.step()
        assert result["loss"] == pytest.approx(loss.item(), rel=1e-12)
    for n, a in t.parameters.items():
        np.testing.assert_allclose(a, weights[n].detach().numpy(), rtol=1e-11, atol=1e-13)
