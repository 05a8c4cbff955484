"""A few numbers that stand for a tensor, so that a record of many tensors stays small.

The two sides compute them from tensors of their own. Entries are compared directly at up to 32 places;
a fault elsewhere shows in the norm, or in one of four sums with fixed random signs.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROJECTIONS = 4
SAMPLES = 32
_SEED = 77


def summarise(name: str, tensor: NDArray[Any], samples: int = SAMPLES) -> dict[str, Any]:
    """Return the summary of a tensor.

    Args:
        name: Name of the parameter; it decides places and signs.
        tensor: Any shape, float.
        samples: How many entries are looked at.

    Returns:
        `max_abs`, `norm` (Euclidean), `projections` (sums with random signs), `places` (flat
        indices, the largest entry among them) and the `values` there.
    """
    flat = np.asarray(tensor, np.float64).reshape(-1)
    chosen = places(name, flat, samples)
    return {
        "max_abs": float(np.max(np.abs(flat))),
        "norm": float(np.sqrt(np.sum(flat * flat))),
        "projections": [float(np.sum(flat * sign)) for sign in signs(name, flat.size)],
        "places": [int(i) for i in chosen],
        "values": [float(v) for v in flat[chosen]],
    }


def places(name: str, flat: NDArray[Any], samples: int = SAMPLES) -> NDArray[np.int64]:
    """Return up to `samples` sorted indices into a flat tensor: random ones and the largest entry's."""
    words = _words(name, 0, samples - 1)
    random = (words % np.uint64(flat.size)).astype(np.int64)
    return np.unique(np.append(random, np.argmax(np.abs(flat))))


def signs(name: str, size: int) -> list[NDArray[np.float64]]:
    """Return four vectors f64[size] of +1 and -1."""
    words = [_words(name, 1 + k, size) for k in range(PROJECTIONS)]
    return [1.0 - 2.0 * (w >> np.uint64(63)).astype(np.float64) for w in words]


def distance(tensor: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return max |tensor - reference| over the reference's largest entry."""
    wide = np.asarray(reference, np.float64)
    gap = np.max(np.abs(np.asarray(tensor, np.float64) - wide))
    return float(gap / np.max(np.abs(wide)))


def _words(name: str, stream: int, count: int) -> NDArray[np.uint64]:
    key = (_SEED, zlib.crc32(name.encode()), stream)
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
