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
MODELS = ("mlp", "lenet", "resnet", "mobilenet", "convnext", "unet", "gpt", "bert", "vit", "lstm")
"""The models that there are batches for."""

SHAPES: dict[str, tuple[int, ...]] = {
    "mlp": (784,),
    "lenet": (1, 28, 28),
    "resnet": (3, 32, 32),
    "mobilenet": (3, 32, 32),
    "convnext": (3, 32, 32),
    "vit": (3, 16, 16),
}
"""Model of pictures -> shape of one sample of its input `x`."""

_SEED = 2026
_BLOCK = 4
"""A template has cells of 4 by 4 pixels, so that convolutions find something to see."""


def fixed_batch(model: str, step: int, batch: int = BATCH) -> dict[str, NDArray[Any]]:
    """Return batch number `step` of a made-up problem that can be learned.

    Args:
        model: One of `MODELS`.
        step: Number of the step, from 0.
        batch: Rows.

    Returns:
        The model's inputs by name, and `labels`. Every float is exact in f32: for a run in f64 cast them.
    """
    if model in SHAPES:
        return _pictures(SHAPES[model], step, batch)
    return {"unet": _fields, "gpt": _counting, "bert": _sentences, "lstm": _series}[model](
        step, batch
    )


def _pictures(shape: tuple[int, ...], step: int, batch: int) -> dict[str, NDArray[Any]]:
    """Return `x` f32[batch, *shape] and `labels` i64[batch].

    With one colour, about a third of a picture is 0, as in pictures of digits.
    """
    pixels = int(np.prod(shape))
    side = shape[-1] if len(shape) == 3 else 28
    planes, cells = pixels // side**2, side // _BLOCK
    grid = _uniform(CLASSES * planes * cells * cells, 0).reshape(CLASSES, planes, cells, cells)
    templates = np.kron(grid, np.ones((_BLOCK, _BLOCK))).reshape(CLASSES, pixels)
    labels = _whole(batch, 1, step, CLASSES)
    noise = _uniform(batch * pixels, 2 + step).reshape(batch, pixels)
    x = templates[labels] * 0.75 + noise * 0.5
    # Digits have a background; photographs are fed with about mean 0 and deviation 1.
    x = np.maximum(x - 0.4375, 0.0) if planes == 1 else (x - 0.625) * 4
    x = x.astype(np.float32)
    return {"x": x.reshape(batch, *shape), "labels": labels}


def _fields(step: int, batch: int) -> dict[str, NDArray[Any]]:
    """Return `x` f32[batch, 1, 16, 16] of fields in three shades, and the field of each pixel, `labels` i64[batch, 16, 16]."""
    cells = _whole(batch * 16, 2, step, 3).reshape(batch, 4, 4)
    labels = np.kron(cells, np.ones((_BLOCK, _BLOCK), np.int64))
    noise = _uniform(batch * 256, 2 + step).reshape(batch, 16, 16)
    x = (labels * 0.5 + noise * 0.75 - 0.75).astype(np.float32)
    return {"x": x[:, None], "labels": labels}


def _counting(step: int, batch: int) -> dict[str, NDArray[Any]]:
    """Return `ids` i64[batch, 16], each row counting by 1 or by 2 from somewhere, and the ids that follow, `labels`."""
    start, stride = _whole(batch, 3, step, 32), 1 + _whole(batch, 4, step, 2)
    whole = (start[:, None] + stride[:, None] * np.arange(17)) % 32
    return {"ids": whole[:, :-1].copy(), "labels": whole[:, 1:].copy()}


def _sentences(step: int, batch: int) -> dict[str, NDArray[Any]]:
    """Return `ids` and `attention_mask` i64[batch, 12], words mostly of the class's own, and `labels` i64[batch]."""
    labels = _whole(batch, 5, step, 4)
    own = 4 + labels[:, None] * 7 + _whole(batch * 12, 6, step, 7).reshape(batch, 12)
    other = 4 + _whole(batch * 12, 7, step, 28).reshape(batch, 12)
    ids = np.where(_whole(batch * 12, 8, step, 4).reshape(batch, 12) > 0, own, other)
    length = 4 + _whole(batch, 9, step, 9)
    mask = (np.arange(12) < length[:, None]).astype(np.int64)
    return {"ids": np.where(mask > 0, ids, 0), "attention_mask": mask, "labels": labels}


def _series(step: int, batch: int) -> dict[str, NDArray[Any]]:
    """Return `x` f32[batch, 16, 8] near one of five courses, and which one, `labels` i64[batch]."""
    courses = _uniform(5 * 16 * 8, 0).reshape(5, 16, 8)
    labels = _whole(batch, 10, step, 5)
    noise = _uniform(batch * 128, 2 + step).reshape(batch, 16, 8)
    return {"x": (courses[labels] * 2 + noise - 1.5).astype(np.float32), "labels": labels}


def _whole(count: int, stream: int, step: int, below: int) -> NDArray[np.int64]:
    """Return i64[count] in 0..below-1."""
    words = np.random.Philox(np.random.SeedSequence((_SEED, stream, step))).random_raw(count)
    return (words % np.uint64(below)).astype(np.int64)


def _uniform(count: int, stream: int) -> NDArray[np.float64]:
    """Return f64[count], multiples of 2^-53 in [0, 1)."""
    words = np.random.Philox(np.random.SeedSequence((_SEED, 0, stream))).random_raw(count)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
