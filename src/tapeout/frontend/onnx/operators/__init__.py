"""What each operator means, by family. Importing this package fills the table of `registry`."""

from tapeout.frontend.onnx.operators import (
    activation,
    attention,
    constants,
    index,
    logic,
    loss,
    math,
    nn,
    norm,
    pool,
    reduce,
    resize,
    sequence,
    shape,
)

__all__ = [
    "activation",
    "attention",
    "constants",
    "index",
    "logic",
    "loss",
    "math",
    "nn",
    "norm",
    "pool",
    "reduce",
    "resize",
    "sequence",
    "shape",
]
