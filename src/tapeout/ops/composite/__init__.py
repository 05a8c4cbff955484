"""Formulas with a gradient rule of their own, decomposed after differentiation: softmax, losses, pooling, normalisation."""

from tapeout.ops.composite import attention, linear, loss, norm, pool, softmax

__all__ = ["attention", "linear", "loss", "norm", "pool", "softmax"]
