"""Parity with PyTorch: the same losses, gradients and weights as it recorded, step by step.

The records hold 32 entries, the norm and four signed sums of each tensor; where PyTorch is installed,
`test_parity_live.py` compares every entry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.reference.summary import SAMPLES, distance, summarise
from tests.e2e import networks
from tests.e2e.networks import LARGER, NETS, OPTIMIZERS, optimizer_of

F64_LOSS = 1e-9
F64_TENSOR = 1e-7
F32_LOSS = 1e-5
F32_GRADIENT = 1e-4


def gaps(
    got: dict[str, np.ndarray], want: dict[str, dict[str, Any]], samples: int = SAMPLES
) -> dict[str, float]:
    """Return how far each tensor lies from its recorded summary, relative to its largest entry."""
    assert set(got) == set(want)
    return {name: gap(summarise(name, got[name], samples), want[name]) for name in want}


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


@pytest.mark.parametrize("model", LARGER)
def test_twenty_steps_of_larger_models(model: str, unchecked: None) -> None:
    """Running statistics are among what is compared: they follow the population's variance, ONNX's rule."""
    optimizer = optimizer_of(model)
    reference = networks.record(model, optimizer)
    wide = reference["float64"]
    exact = networks.train(model, optimizer, "float64")
    np.testing.assert_allclose(exact.losses, wide["losses"], rtol=F64_LOSS)
    assert max(gaps(exact.final, wide["final"], reference["samples"]).values()) <= F64_TENSOR
    assert wide["losses"][-1] <= 0.8 * wide["losses"][0]

    narrow = networks.train(model, optimizer, "float32", threads=2)
    assert networks.relative(narrow.losses[0], wide["losses"][0]) <= F32_LOSS
    assert narrow.losses[-1] <= 0.8 * narrow.losses[0]
    theirs = reference["float32"]["final_distance"]
    for name, tensor in narrow.final.items():
        ours = distance(tensor, exact.final[name])
        assert ours <= 2 * max(theirs[name]), f"{name}: ours {ours:.1e}, PyTorch's {theirs[name]}"

    few = networks.train(model, optimizer, "float32", steps=4, threads=1)
    for threads in (3, 7):
        same = networks.train(model, optimizer, "float32", steps=4, threads=threads)
        assert same.losses == few.losses == narrow.losses[:4]
        for name, tensor in few.final.items():
            assert np.array_equal(tensor, same.final[name]), f"{name} with {threads} threads"


@pytest.mark.slow
@pytest.mark.parametrize("model", LARGER)
def test_gradients_of_larger_models(model: str, unchecked: None) -> None:
    reference = networks.record(model, optimizer_of(model))
    loss, exact = networks.first_gradients(model, "float64")
    assert networks.relative(loss, reference["float64"]["losses"][0]) <= F64_LOSS
    found = gaps(exact, reference["float64"]["gradients"], reference["samples"])
    assert max(found.values()) <= F64_TENSOR
    _, narrow = networks.first_gradients(model, "float32")
    for name, gradient in narrow.items():
        assert distance(gradient, exact[name]) <= F32_GRADIENT, name


def test_every_model_is_compared() -> None:
    kept = {path.stem for path in networks.MODELS.glob("*.onnx")} - {"lenet_legacy_opset9"}
    assert kept == {*NETS, *LARGER}
