"""How the models of models/ are trained where tapeout is compared with PyTorch."""

from __future__ import annotations

from typing import Any

STEPS = 20
VARIANTS = 8
_SGD = {"lr": 0.05, "momentum": 0.9}
_ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
_THREE = {"sgd": _SGD, "adam": _ADAM, "adamw": {**_ADAM, "weight_decay": 0.01}}
OPTIMIZERS: dict[str, dict[str, dict[str, Any]]] = {
    "mlp": _THREE,
    "lenet": _THREE,
    "resnet": {"sgd": {"lr": 0.1, "momentum": 0.5}},
    "mobilenet": {"sgd": {"lr": 0.1, "momentum": 0.5}},
    "convnext": {"sgd": {"lr": 0.05, "momentum": 0.5}},
    "unet": {"sgd": {**_SGD, "lr": 0.1}},
    "gpt": {"sgd": {**_SGD, "lr": 0.2}},
    "bert": {"sgd": {"lr": 0.1, "momentum": 0.5}},
    "vit": {"sgd": {"lr": 0.02, "momentum": 0.5}},
    "lstm": {"sgd": {"lr": 1.0, "momentum": 0.9}},
}
"""Model -> optimiser -> settings, so chosen that the loss falls by a fifth and more within 20 steps."""

SAMPLES: dict[str, int] = {name: 32 if name in ("mlp", "lenet") else 8 for name in OPTIMIZERS}
"""Model -> how many entries of each tensor are recorded; models of many small tensors record fewer."""
