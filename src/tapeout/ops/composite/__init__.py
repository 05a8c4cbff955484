"""Formulas with a gradient rule of their own, decomposed after differentiation: softmax, losses, pooling."""

from tapeout.ops.composite import attention, linear, loss, pool, softmax

__all__ = ["attention", "linear", "loss", "pool", "softmax"]
