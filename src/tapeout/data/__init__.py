"""From data on disk (what `--data` accepts) to named arrays, a model's inputs, and batches.

    dataset = load("train.npz")         # name -> array; sizes agree, all numbers are finite
    mapping = infer_mapping(dataset, {"x": ("float32", (None, 1, 28, 28))}, labels="labels")
    order = epoch_order(dataset.samples, seed=0, epoch=0)
    for batch in batches(mapping.apply(dataset.arrays), 32, order):
        ...

Every fault of a file is a `DataError` that names the file and the array, found in time and memory
bounded by the file's size.
"""

from tapeout.data.batching import batches, epoch_order, split
from tapeout.data.dataset import Dataset
from tapeout.data.digits import mnist5k
from tapeout.data.load import load
from tapeout.data.mapping import DataMapping, InputRule, infer_mapping
from tapeout.data.transform import evaluate

__all__ = [
    "DataMapping",
    "Dataset",
    "InputRule",
    "batches",
    "epoch_order",
    "evaluate",
    "infer_mapping",
    "load",
    "mnist5k",
    "split",
]
