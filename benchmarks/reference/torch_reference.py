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
from benchmarks.reference.settings import (  # noqa: E402
    OPTIMIZERS,
    SAMPLES,
    STEPS,
    VARIANTS,
)
from benchmarks.reference.summary import distance, summarise  # noqa: E402

RECORDS = ROOT / "tests" / "records"
_CLASSES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class PopulationBatchNorm(torch.nn.BatchNorm2d):
    """Batch normalisation whose running variance follows that of the population: ONNX's rule. PyTorch's follows the sample's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the batch normalised by itself, and move the running statistics."""
        with torch.no_grad():
            mean = x.mean((0, 2, 3))
            variance = x.var((0, 2, 3), unbiased=False)
            self.running_mean += self.momentum * (mean - self.running_mean)
            self.running_var += self.momentum * (variance - self.running_var)
        return torch.nn.functional.batch_norm(
            x, None, None, self.weight, self.bias, training=True, eps=self.eps
        )


def load_net(model: str, dtype: str) -> torch.nn.Module:
    """Return the network of models/`model`.onnx in training mode, with the weights that the file holds.

    Args:
        model: A key of `OPTIMIZERS`.
        dtype: `float32` or `float64`.

    Raises:
        RuntimeError: The file's initializers are not the network's parameters.
    """
    graph = onnx.load(ROOT / "models" / f"{model}.onnx").graph
    net = nets.NETS[model]().train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.__class__ = PopulationBatchNorm
    names = {n: s for n, s in net.state_dict().items() if not n.endswith("num_batches_tracked")}
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in names}
    missing = net.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in found.items()}, False)
    if set(missing.missing_keys) & set(names):
        raise RuntimeError(f"{model}.onnx lacks {missing.missing_keys}")
    return net.to(_DTYPES[dtype])


def make_optimizer(net: torch.nn.Module, model: str, optimizer: str) -> torch.optim.Optimizer:
    """Return a PyTorch optimiser with the settings of `OPTIMIZERS`, one plain loop over tensors."""
    settings = OPTIMIZERS[model][optimizer]
    return _CLASSES[optimizer](net.parameters(), foreach=False, **settings)


def states(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the running statistics by name."""
    return {n: b for n, b in net.named_buffers() if "running" in n}


def train_losses(
    model: str,
    optimizer: str,
    dtype: str,
    steps: int = STEPS,
    variant: int = 0,
    *,
    mixed: bool = False,
) -> dict[str, Any]:
    """Train on `fixed_batch(model, 0)`, `fixed_batch(model, 1)`, … with mean cross-entropy.

    Args:
        model: A key of `OPTIMIZERS`.
        optimizer: One of its optimisers.
        dtype: `float32` or `float64`.
        steps: How many.
        variant: Another way to compute the same numbers, for how far rounding alone carries a run:
            the rows of each batch are rotated by it, and odd variants compute without oneDNN.
        mixed: Whether forward pass and loss run under autocast to bf16.

    Returns:
        `losses`: one float per step, each before its update; `gradients` and `final`: name -> array
        in `dtype`, of parameters at the first step, and of parameters and running statistics after
        the last.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the switch of oneDNN warns about GPUs
            with torch.backends.mkldnn.flags(enabled=variant % 2 == 0):
                return _train(model, optimizer, dtype, steps, variant, mixed)
    finally:
        torch.set_num_threads(threads)


def _train(
    model: str, optimizer: str, dtype: str, steps: int, variant: int, mixed: bool
) -> dict[str, Any]:
    net = load_net(model, dtype)
    update = make_optimizer(net, model, optimizer)
    losses: list[float] = []
    gradients: dict[str, NDArray[Any]] = {}
    for step in range(steps):
        batch = {k: np.roll(a, variant, axis=0) for k, a in fixed_batch(model, step).items()}
        update.zero_grad()
        labels = torch.from_numpy(batch.pop("labels"))
        fed = [torch.from_numpy(np.ascontiguousarray(a)) for a in batch.values()]
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = net(*(a.to(_DTYPES[dtype]) if a.is_floating_point() else a for a in fed))
            if model == "gpt":  # the classes stand last
                logits = logits.transpose(1, 2)
            loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        losses.append(float(loss.detach()))
        if step == 0:
            gradients = {k: p.grad.numpy().copy() for k, p in net.named_parameters()}
        update.step()
    after = {**dict(net.named_parameters()), **states(net)}
    final = {name: p.detach().numpy().copy() for name, p in after.items()}
    return {"losses": losses, "gradients": gradients, "final": final}


def parity_record(model: str, optimizer: str) -> dict[str, Any]:
    """Return what tests/records/README.md describes, as plain data."""
    wide = train_losses(model, optimizer, "float64")
    narrow = [train_losses(model, optimizer, "float32", variant=v) for v in range(VARIANTS)]
    record: dict[str, Any] = {
        "model": model,
        "optimizer": {"name": optimizer, **OPTIMIZERS[model][optimizer]},
        "batch": BATCH,
        "steps": STEPS,
        "torch": torch.__version__.partition("+")[0],
        "samples": SAMPLES[model],
        "float64": {"losses": wide["losses"]},
        "float32": {"losses": narrow[0]["losses"]},
    }
    for part in ("gradients", "final"):
        record["float64"][part] = {
            k: summarise(k, a, SAMPLES[model]) for k, a in wide[part].items()
        }
        record["float32"][f"{part}_distance"] = {
            k: [distance(run[part][k], a) for run in narrow] for k, a in wide[part].items()
        }
    return record


MIXED = ("mlp", "lenet", "resnet", "gpt", "vit")
"""Models of which runs in mixed precision are recorded."""


def mixed_record() -> dict[str, Any]:
    """Return the losses of runs under autocast to bf16, four ways to round each."""
    found = {}
    for model in MIXED:
        optimizer = next(iter(OPTIMIZERS[model]))
        runs = [train_losses(model, optimizer, "float32", variant=v, mixed=True) for v in range(4)]
        found[model] = [[float(f"{x:.7g}") for x in run["losses"]] for run in runs]
    return {"torch": torch.__version__.partition("+")[0], "steps": STEPS, "losses": found}


def written(record: dict[str, Any]) -> str:
    """Return a record as text; those of many tensors say less of each, and in one line."""
    if record["samples"] == SAMPLES["mlp"]:
        return json.dumps({k: v for k, v in record.items() if k != "samples"}, indent=1) + "\n"
    for part in ("gradients_distance", "final_distance"):
        found = record["float32"][part]
        record["float32"][part] = {k: [float(f"{max(v):.3g}")] for k, v in found.items()}
    text = json.dumps(_rounded(record))
    return text.replace('}, "', '},\n"') + "\n"


def _rounded(x: Any) -> Any:
    """Return plain data with 13 digits of every float."""
    if isinstance(x, float):
        return float(f"{x:.13g}")
    if isinstance(x, list):
        return [_rounded(v) for v in x]
    return {k: _rounded(v) for k, v in x.items()} if isinstance(x, dict) else x


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
    parser.add_argument("models", nargs="*", help=f"which models, of {', '.join(OPTIMIZERS)}")
    parser.add_argument("--mixed", action="store_true", help="write mixed_bf16.json only")
    options = parser.parse_args()
    if options.mixed:
        text = json.dumps(mixed_record()).replace('], "', '],\n"').replace("], [", "],\n[")
        (RECORDS / "mixed_bf16.json").write_text(text + "\n")
        return 0
    good = True
    for model in options.models or OPTIMIZERS:
        for optimizer in OPTIMIZERS[model]:
            path = RECORDS / f"parity_{model}_{optimizer}.json"
            record = parity_record(model, optimizer)
            if options.check:
                good = _check(path, record) and good
                continue
            path.write_text(written(record))
            losses = record["float64"]["losses"]
            print(f"{path.name}: loss {losses[0]:.6f} to {losses[-1]:.6f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
