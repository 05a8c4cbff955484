"""examples/builder_gpt.py, made small: it learns, sees no letter before its time, and does the steps of PyTorch's same model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tapeout
from tests.e2e.networks import ROOT


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example with two narrow layers, also as others import it."""
    gpt = script(ROOT / "examples" / "builder_gpt.py")
    monkeypatch.setitem(sys.modules, "builder_gpt", gpt)
    for name, value in {"LAYERS": 2, "WIDTH": 16, "HEADS": 2, "BLOCK": 12, "BATCH": 8}.items():
        monkeypatch.setattr(gpt, name, value)
    return gpt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two texts that say the same over and over."""
    for name, line in (("one", "to be or not to be\n"), ("two", "that is the question\r\n")):
        (tmp_path / f"{name}_gut.txt").write_bytes(line.encode() * 200)
    return tmp_path


def trainer(gpt: ModuleType, letters: int) -> tapeout.Trainer:
    return tapeout.Trainer(
        gpt.build(letters),
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=tapeout.optimizers.adamw(gpt.TOP_RATE, **gpt.SETTINGS),
        clip_norm=1.0,
    )


def test_it_learns_and_writes(small: ModuleType, folder: Path, unchecked: None) -> None:
    text = small.Text(folder)
    assert "\r" not in text.letters
    t = trainer(small, len(text.letters))
    losses = []
    for batch in text.batches(60, seed=0):
        t.hyperparameters["lr"] = 0.01
        losses.append(t.step(batch)["loss"])
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    assert t.evaluate(text.validation(16))["loss"] < 0.6 * losses[0]
    written = small.write(t, text, 20, seed=1)
    assert written
    assert set(written) <= set(text.letters)
    assert small.write(t, text, 20, seed=1) == written

    batch = small.windows(text.train, np.arange(3))["x"]
    changed = batch.copy()
    changed[:, 7:] = (changed[:, 7:] + 1) % len(text.letters)
    seen, also = (t.predict({"x": x})["logits"] for x in (batch, changed))
    assert np.array_equal(seen[:, :7], also[:, :7]), "letters look back only"
    assert not np.array_equal(seen[:, 7], also[:, 7])


@pytest.mark.torch
def test_the_steps_of_torch(small: ModuleType, folder: Path, unchecked: None) -> None:
    import torch

    theirs = script(ROOT / "benchmarks" / "gpt_torch.py")
    assert theirs.gpt is small
    text = small.Text(folder)
    net, ours = theirs.load(len(text.letters)), trainer(small, len(text.letters))
    update = torch.optim.AdamW(net.parameters(), lr=small.TOP_RATE, **small.SETTINGS)
    for batch in text.batches(5, seed=3):
        update.zero_grad()
        loss = net.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        update.step()
        assert ours.step(batch)["loss"] == pytest.approx(float(loss.detach()), rel=2e-6)
