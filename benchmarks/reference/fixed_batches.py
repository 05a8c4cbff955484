"""The batches that both sides of a comparison with PyTorch train on, the same bits everywhere.

Only numpy's raw Philox words and exact operations are used: neither depends on a version of numpy,
a package of data, or the machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 16
CLASSES = 10
SHAPES: dict[str, tuple[int, ...]] = {"mlp": (784,), "lenet": (1, 28, 28)}
"""Model name -> shape of one sample of its input `x`."""

_SEED = 2026
_SIDE, _BLOCK = 7, 4
"""A template has 7 by 7 cells of 4 by 4 pixels, so that convolutions find something to see."""


def fixed_batch(model: str, step: int, batch: int = BATCH) -> dict[str, NDArray[Any]]:
    """Return batch number `step` of a made-up problem of ten classes that can be learned.

    Args:
        model: `mlp` or `lenet`.
        step: Number of the step, from 0.
        batch: Rows.

    Returns:
        `x` f32[batch, *sample] in [0, 1), about a third of it exact zeros as in pictures of digits,
        and `labels` i64[batch]. For a run in f64 cast `x`: every entry is exact in f32.
    """
    shape = SHAPES[model]
    pixels = int(np.prod(shape))
    cells = _uniform(CLASSES * _SIDE * _SIDE, 0).reshape(CLASSES, _SIDE, _SIDE)
    templates = np.kron(cells, np.ones((_BLOCK, _BLOCK))).reshape(CLASSES, pixels)
    words = np.random.Philox(np.random.SeedSequence((_SEED, 1, step))).random_raw(batch)
    labels = (words % CLASSES).astype(np.int64)
    noise = _uniform(batch * pixels, 2 + step).reshape(batch, pixels)
    x = np.maximum(templates[labels] * 0.75 + noise * 0.5 - 0.4375, 0.0).astype(np.float32)
    return {"x": x.reshape(batch, *shape), "labels": labels}


def _uniform(count: int, stream: int) -> NDArray[np.float64]:
    """Return f64[count], multiples of 2^-53 in [0, 1)."""
    words = np.random.Philox(np.random.SeedSequence((_SEED, 0, stream))).random_raw(count)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
