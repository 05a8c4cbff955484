"""Formulas with a gradient rule of their own, decomposed after differentiation: softmax, losses, pooling, normalisation."""

from tapeout.ops.composite import (
    attention,
    custom,
    index,
    linear,
    loss,
    norm,
    order,
    pool,
    recurrent,
    resample,
    softmax,
)

__all__ = [
    "attention",
    "custom",
    "index",
    "linear",
    "loss",
    "norm",
    "order",
    "pool",
    "recurrent",
    "resample",
    "softmax",
]
