"""Training by PyTorch from the weights in models/*.onnx: the independent opinion on tapeout's.

    python benchmarks/reference/torch_reference.py            write tests/records/parity_*.json
    python benchmarks/reference/torch_reference.py --check    compare with them instead

Importable where torch and onnx are installed: live tests call `train_losses`.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "models"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

import nets  # noqa: E402  (found through the path above, as is the next)

from benchmarks.reference.fixed_batches import BATCH, fixed_batch  # noqa: E402
from benchmarks.reference.summary import distance, summarise  # noqa: E402

RECORDS = ROOT / "tests" / "records"
MODELS = ("mlp", "lenet")
STEPS = 20
VARIANTS = 8
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05, "momentum": 0.9},
    "adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    "adamw": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
}
_CLASSES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def load_net(model: str, dtype: str) -> torch.nn.Module:
    """Return the network of models/`model`.onnx with the weights that the file holds.

    Args:
        model: `mlp` or `lenet`.
        dtype: `float32` or `float64`.

    Raises:
        RuntimeError: The file's initializers are not the network's parameters.
    """
    graph = onnx.load(ROOT / "models" / f"{model}.onnx").graph
    names = {name for name, _ in nets.NETS[model]().named_parameters()}
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in names}
    net = nets.NETS[model]()
    net.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in found.items()})
    return net.to(_DTYPES[dtype])


def make_optimizer(net: torch.nn.Module, optimizer: str) -> torch.optim.Optimizer:
    """Return a PyTorch optimiser with the settings of `OPTIMIZERS`, one plain loop over tensors."""
    return _CLASSES[optimizer](net.parameters(), foreach=False, **OPTIMIZERS[optimizer])


def train_losses(
    model: str, optimizer: str, dtype: str, steps: int = STEPS, variant: int = 0
) -> dict[str, Any]:
    """Train on `fixed_batch(model, 0)`, `fixed_batch(model, 1)`, … with mean cross-entropy.

    Args:
        model: `mlp` or `lenet`.
        optimizer: A key of `OPTIMIZERS`.
        dtype: `float32` or `float64`.
        steps: How many.
        variant: Another way to compute the same numbers, for how far rounding alone carries a run:
            the rows of each batch are rotated by it, and odd variants compute without oneDNN.

    Returns:
        `losses`: one float per step, each before its update; `gradients` and `final`: parameter
        name -> array in `dtype`, of the first step and after the last.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the switch of oneDNN warns about GPUs
            with torch.backends.mkldnn.flags(enabled=variant % 2 == 0):
                return _train(model, optimizer, dtype, steps, variant)
    finally:
        torch.set_num_threads(threads)


def _train(model: str, optimizer: str, dtype: str, steps: int, variant: int) -> dict[str, Any]:
    net = load_net(model, dtype)
    update = make_optimizer(net, optimizer)
    losses: list[float] = []
    gradients: dict[str, NDArray[Any]] = {}
    for step in range(steps):
        batch = {k: np.roll(a, variant, axis=0) for k, a in fixed_batch(model, step).items()}
        update.zero_grad()
        logits = net(torch.from_numpy(batch["x"]).to(_DTYPES[dtype]))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch["labels"]))
        loss.backward()
        losses.append(float(loss.detach()))
        if step == 0:
            gradients = {k: p.grad.numpy().copy() for k, p in net.named_parameters()}
        update.step()
    final = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    return {"losses": losses, "gradients": gradients, "final": final}


def parity_record(model: str, optimizer: str) -> dict[str, Any]:
    """Return what tests/records/README.md describes, as plain data."""
    wide = train_losses(model, optimizer, "float64")
    narrow = [train_losses(model, optimizer, "float32", variant=v) for v in range(VARIANTS)]
    record: dict[str, Any] = {
        "model": model,
        "optimizer": {"name": optimizer, **OPTIMIZERS[optimizer]},
        "batch": BATCH,
        "steps": STEPS,
        "torch": torch.__version__.partition("+")[0],
        "float64": {"losses": wide["losses"]},
        "float32": {"losses": narrow[0]["losses"]},
    }
    for part in ("gradients", "final"):
        record["float64"][part] = {k: summarise(k, a) for k, a in wide[part].items()}
        record["float32"][f"{part}_distance"] = {
            k: [distance(run[part][k], a) for run in narrow] for k, a in wide[part].items()
        }
    return record


def _check(path: Path, record: dict[str, Any]) -> bool:
    """Return whether a recorded run and a fresh one agree as far as rounding goes, and say so."""
    old = json.loads(path.read_text())
    want, got = np.array(old["float64"]["losses"]), np.array(record["float64"]["losses"])
    worst = float(np.max(np.abs(got / want - 1)))
    places = [
        np.max(np.abs(np.subtract(new["values"], was["values"]))) / was["max_abs"]
        for part in ("gradients", "final")
        for new, was in zip(
            record["float64"][part].values(), old["float64"][part].values(), strict=True
        )
    ]
    print(f"{path.name}: losses within {worst:.1e}, entries within {max(places):.1e}")
    return worst < 1e-9 and max(places) < 1e-7


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args()
    good = True
    for model in MODELS:
        for optimizer in OPTIMIZERS:
            path = RECORDS / f"parity_{model}_{optimizer}.json"
            record = parity_record(model, optimizer)
            if options.check:
                good = _check(path, record) and good
                continue
            path.write_text(json.dumps(record, indent=1) + "\n")
            losses = record["float64"]["losses"]
            print(f"{path.name}: loss {losses[0]:.6f} to {losses[-1]:.6f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
