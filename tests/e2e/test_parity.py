"""Parity with PyTorch: the same losses, gradients and weights as it recorded, step by step.

The records hold 32 entries, the norm and four signed sums of each tensor; where PyTorch is installed,
`test_parity_live.py` compares every entry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.reference.summary import distance, summarise
from tests.e2e import networks
from tests.e2e.networks import NETS, OPTIMIZERS

F64_LOSS = 1e-9
F64_TENSOR = 1e-7
F32_LOSS = 1e-5
F32_GRADIENT = 1e-4


def gaps(got: dict[str, np.ndarray], want: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return how far each tensor lies from its recorded summary, relative to its largest entry."""
    assert set(got) == set(want)
    return {name: gap(summarise(name, got[name]), want[name]) for name in want}


def gap(got: dict[str, Any], want: dict[str, Any]) -> float:
    """Return the largest difference of two summaries: of entries, of the norm, of the signed sums.

    Norm and sums are compared relative to the norm, as they hold the differences of all entries.
    """
    assert got["places"] == want["places"], "the largest entry is another one"
    entries = np.subtract(got["values"], want["values"]) / want["max_abs"]
    sums = np.subtract(got["projections"], want["projections"]) / want["norm"]
    size = [got["max_abs"] / want["max_abs"] - 1, got["norm"] / want["norm"] - 1]
    return float(np.max(np.abs(np.concatenate([entries, sums, size]))))


@pytest.mark.parametrize("model", NETS)
def test_gradients_in_both_precisions(model: str) -> None:
    reference = networks.record(model, "sgd")["float64"]
    loss, exact = networks.first_gradients(model, "float64")
    assert networks.relative(loss, reference["losses"][0]) <= F64_LOSS
    assert max(gaps(exact, reference["gradients"]).values()) <= F64_TENSOR

    loss, narrow = networks.first_gradients(model, "float32")
    assert networks.relative(loss, reference["losses"][0]) <= F32_LOSS
    # Every entry against our own f64, which the lines above have just compared with PyTorch's.
    for name, gradient in narrow.items():
        assert gradient.dtype == np.float32
        assert distance(gradient, exact[name]) <= F32_GRADIENT, name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", NETS)
def test_twenty_steps(model: str, optimizer: str) -> None:
    reference = networks.record(model, optimizer)
    exact = networks.train(model, optimizer, "float64")
    for got, want in zip(exact.losses, reference["float64"]["losses"], strict=True):
        assert networks.relative(got, want) <= F64_LOSS
    assert max(gaps(exact.final, reference["float64"]["final"]).values()) <= F64_TENSOR

    narrow = networks.train(model, optimizer, "float32")
    assert networks.relative(narrow.losses[0], reference["float64"]["losses"][0]) <= F32_LOSS
    theirs = reference["float32"]["final_distance"]
    for name, tensor in narrow.final.items():
        ours = distance(tensor, exact.final[name])
        assert ours <= 2 * max(theirs[name]), f"{name}: ours {ours:.1e}, PyTorch's {theirs[name]}"
