"""Parity with the PyTorch that is installed, every entry of every tensor. The tolerances are those of test_parity.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.reference.summary import distance
from tests.e2e import networks
from tests.e2e.networks import LARGER, NETS, OPTIMIZERS, optimizer_of

pytestmark = pytest.mark.torch
VARIANTS = 8


def torch_run(model: str, optimizer: str, dtype: str, variant: int = 0) -> dict[str, Any]:
    """Train in PyTorch; imported here because torch may be absent."""
    from benchmarks.reference.torch_reference import train_losses

    return train_losses(model, optimizer, dtype, variant=variant)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", NETS)
def test_every_entry(model: str, optimizer: str) -> None:
    wide = torch_run(model, optimizer, "float64")
    exact = networks.train(model, optimizer, "float64")
    np.testing.assert_allclose(exact.losses, wide["losses"], rtol=1e-9)
    for name, tensor in exact.final.items():
        assert distance(tensor, wide["final"][name]) <= 1e-7, name

    narrow = networks.train(model, optimizer, "float32")
    theirs = [torch_run(model, optimizer, "float32", v)["final"] for v in range(VARIANTS)]
    for name, tensor in narrow.final.items():
        limit = 2 * max(distance(run[name], wide["final"][name]) for run in theirs)
        assert distance(tensor, wide["final"][name]) <= limit, name


@pytest.mark.parametrize("model", LARGER)
def test_every_entry_of_larger_models(model: str, unchecked: None) -> None:
    wide = torch_run(model, optimizer_of(model), "float64")
    exact = networks.train(model, optimizer_of(model), "float64")
    np.testing.assert_allclose(exact.losses, wide["losses"], rtol=1e-9)
    assert set(exact.final) == set(wide["final"])
    for name, tensor in exact.final.items():
        assert distance(tensor, wide["final"][name]) <= 1e-7, name


@pytest.mark.parametrize("model", NETS)
def test_every_gradient(model: str) -> None:
    wide = torch_run(model, "sgd", "float64")
    for dtype, of_loss, of_gradient in (("float64", 1e-9, 1e-7), ("float32", 1e-5, 1e-4)):
        loss, gradients = networks.first_gradients(model, dtype)
        assert networks.relative(loss, wide["losses"][0]) <= of_loss
        for name, gradient in gradients.items():
            assert distance(gradient, wide["gradients"][name]) <= of_gradient, name
