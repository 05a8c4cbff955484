"""Compare the memory of a training step with what PyTorch eager keeps between forward and backward.

    python benchmarks/memory.py --torch-python /path/to/python    # the small resnet, batch 32

Ours is everything but parameters and the optimiser's state: gradients, activations and workspace, exact because it is one
arena. PyTorch's is the unique storages that `torch.autograd.graph.saved_tensors_hooks` sees, parameters excluded: neither its
gradients nor its workspace are counted, so the comparison favours it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"


def ours(name: str, batch: int) -> dict[str, int]:
    """Return the bytes of our step."""
    import tapeout

    trainer = tapeout.Trainer(
        tapeout.load_onnx(MODELS / f"{name}.onnx"),
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.sgd(0.01, momentum=0.9),
    )
    memory = trainer.memory_for(N=batch)
    return {"gradients": memory.gradients, "activations and workspace": memory.activations}


def saved_by_torch(name: str, batch: int) -> int:
    """Return the bytes of the storages that PyTorch keeps for the backward pass."""
    sys.path.insert(0, str(MODELS))
    import nets
    import torch

    net = nets.build(name).train()
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    x = torch.randn(batch, *net.example_shape)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        logits = net(x)
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(batch, dtype=torch.int64))
    found = sum(kept.values())
    loss.backward()
    return found


def main() -> None:
    """Print both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--only-torch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_torch:
        print(json.dumps(saved_by_torch(args.model, args.batch)))
        return
    command = [args.torch_python, __file__, "--only-torch", "--model", args.model]
    done = subprocess.run(
        [*command, "--batch", str(args.batch)], capture_output=True, text=True, check=True
    )
    saved = int(json.loads(done.stdout.strip().splitlines()[-1]))
    parts = ours(args.model, args.batch)
    total = sum(parts.values())
    for what, size in parts.items():
        print(f"tapeout {what}: {size:,} bytes")
    print(f"PyTorch saved tensors: {saved:,} bytes")
    print(
        f"{args.model}, batch {args.batch}: tapeout takes {total / saved:.2f} of what PyTorch saves"
    )


if __name__ == "__main__":
    main()
