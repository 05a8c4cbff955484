"""Checkpoints: a resumed run goes on bit for bit, damage is named, and a crash while saving loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tapeout
from tests.e2e.networks import MODELS
from tests.onnx_models import parsed

TINY = MODELS / "matrix" / "tiny_mlp_dynamo_opset18.onnx"
ROWS, BATCH = 50, 8


def data(rows: int = ROWS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, 8)).astype(np.float32)
    return {"x": x, "labels": (np.abs(x).argmax(1) % 3).astype(np.int64)}


def trainer(optimizer: Any = None, **options: Any) -> tapeout.Trainer:
    return tapeout.Trainer(
        options.pop("model", TINY),
        loss=options.pop("loss", tapeout.losses.cross_entropy()),
        optimizer=optimizer or tapeout.optimizers.adamw(1e-2),
        seed=options.pop("seed", 3),
        **options,
    )


def variables(t: tapeout.Trainer) -> dict[str, bytes]:
    return {name: t.session.read(name).tobytes() for name in t.session.variables}


class SaveAt:
    """Writes a checkpoint after a number of steps, in the middle of an epoch, and goes on."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_step(self, trainer: tapeout.Trainer, step: int, loss: float) -> None:
        if step == self.step:
            trainer.save(self.path)


# --- going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 7, 10, 14])
@pytest.mark.parametrize(
    "optimizer",
    [tapeout.optimizers.sgd(0.1, momentum=0.9, nesterov=True), tapeout.optimizers.adam(1e-2)],
)
def test_a_resumed_run_is_the_same_run(tmp_path: Path, step: int, optimizer: Any) -> None:
    """7 steps an epoch, the last of 2 rows; 7 and 14 are the last steps of epochs."""
    path = tmp_path / "run.ckpt"
    whole = trainer(optimizer, clip_norm=1.0)
    history = whole.fit(data(), epochs=3, batch_size=BATCH, callbacks=[SaveAt(path, step)])
    assert len(history.steps) == 21

    resumed = tapeout.Trainer.restore(path)
    assert resumed.steps_done == step
    assert resumed.epoch == step // 7
    rest = resumed.fit(data(), epochs=3 - resumed.epoch, batch_size=BATCH)
    assert rest.steps == history.steps[step:]
    assert variables(resumed) == variables(whole)
    assert rest["loss"][-1] == history["loss"][-1]


def test_a_loader_is_resumed_at_its_batch(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    batches = [{n: a[i : i + BATCH] for n, a in data().items()} for i in range(0, ROWS, BATCH)]
    whole = trainer()
    history = whole.fit(batches, epochs=2, callbacks=[SaveAt(path, 3)])
    resumed = tapeout.Trainer.restore(path)
    assert resumed.fit(batches, epochs=2).steps == history.steps[3:]
    assert variables(resumed) == variables(whole)

    other = [{n: a[i : i + 10] for n, a in data().items()} for i in range(0, ROWS, 10)]
    with pytest.raises(tapeout.DataError, match="6 rows before the end of a batch"):
        tapeout.Trainer.restore(path).fit(other)


def test_another_batch_size_goes_on_at_the_same_row(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    trainer().fit(data(), batch_size=BATCH, callbacks=[SaveAt(path, 3)])
    resumed = tapeout.Trainer.restore(path)
    assert resumed.rows == 24
    assert len(resumed.fit(data(), batch_size=13).steps) == 2  # the 26 rows that are left


def test_what_a_checkpoint_holds_is_what_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    t = trainer(tapeout.optimizers.adamw(1e-2, betas=(0.8, 0.9)), clip_norm=0.7, seed=9)
    t.fit(data(), batch_size=BATCH)
    t.hyperparameters["lr"] = 3e-3
    t.save(path)
    again = tapeout.Trainer.restore(path)
    assert (again.loss, again.optimizer) == (t.loss, t.optimizer)
    assert (again.clip_norm, again.seed, again.epoch, again.rows) == (0.7, 9, 1, 0)
    assert again.hyperparameters["lr"] == 3e-3
    assert variables(again) == variables(t)
    assert again.evaluate(data()) == t.evaluate(data())
    # Nothing in the file depends on the process or the time.
    again.save(tmp_path / "again.ckpt")
    assert (tmp_path / "again.ckpt").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "loss",
    [
        tapeout.losses.cross_entropy(weight=(1.0, 2.0, 0.5), label_smoothing=0.1),
        tapeout.losses.huber(delta=0.3),
        tapeout.losses.bce_with_logits(reduction="sum"),
        tapeout.losses.mse(),
        tapeout.losses.l1(target="wanted"),
    ],
    ids=lambda loss: getattr(loss, "name", "cross_entropy"),
)
def test_losses_come_back(tmp_path: Path, loss: Any) -> None:
    path = tmp_path / "run.ckpt"
    batch = {**data(6), "target": np.full((6, 3), 0.3, np.float32)}
    batch["wanted"] = batch["target"]
    t = trainer(loss=loss)
    t.step(batch)
    t.save(path)
    again = tapeout.Trainer.restore(path)
    assert again.step(batch)["loss"] == t.step(batch)["loss"]


def test_a_function_as_loss_must_be_given_again(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"

    def loss(known: Any) -> Any:
        return known["logits"].square().mean()

    t = trainer(loss=loss)
    t.step(data(6))
    t.save(path)
    with pytest.raises(tapeout.CheckpointError, match="loss="):
        tapeout.Trainer.restore(path)
    again = tapeout.Trainer.restore(path, loss=loss)
    assert again.step(data(6))["loss"] == t.step(data(6))["loss"]


def test_a_graph_made_in_python_must_be_given_again(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"

    def build(width: int = 5) -> tapeout.Graph:
        with tapeout.Builder("mine") as g:
            h = tapeout.nn.tanh(tapeout.nn.linear(g.input("x", ("N", 8)), width, name="fc1"))
            g.output("y", tapeout.nn.linear(h, 3, name="fc2"))
        return g.graph()

    t = trainer(model=build())
    t.step(data(6))
    t.save(path)
    with pytest.raises(tapeout.CheckpointError, match="model="):
        tapeout.Trainer.restore(path)
    again = tapeout.Trainer.restore(path, build())
    assert again.step(data(6))["loss"] == t.step(data(6))["loss"]
    with pytest.raises(tapeout.CheckpointError, match=r"fc1\.weight.*\[5, ?8\].*\[6, ?8\]"):
        tapeout.Trainer.restore(path, build(6))


def test_frozen_parameters_stay_frozen(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    t = trainer(model=tapeout.load_onnx(TINY, trainable="fc2.*"))
    t.fit(data(), batch_size=BATCH, callbacks=[SaveAt(path, 2)])
    again = tapeout.Trainer.restore(path)
    again.fit(data(), batch_size=BATCH)
    assert variables(again) == variables(t)
    assert [n for n, v in again.model.parameters.items() if v.trainable] == [
        "fc2.weight",
        "fc2.bias",
    ]


def test_a_frozen_graph_made_in_python(tmp_path: Path) -> None:
    """The graph that is given again need not be frozen again."""
    path = tmp_path / "run.ckpt"

    def build() -> tapeout.Graph:
        with tapeout.Builder("mine") as g:
            h = tapeout.nn.tanh(tapeout.nn.linear(g.input("x", ("N", 8)), 5, name="fc1"))
            g.output("y", tapeout.nn.linear(h, 3, name="fc2"))
        return g.graph()

    t = trainer(model=build().freeze("fc1.*"))
    t.fit(data(), batch_size=BATCH, callbacks=[SaveAt(path, 2)])
    for model in (build(), build().freeze("fc2.weight")):
        again = tapeout.Trainer.restore(path, model)
        again.fit(data(), batch_size=BATCH)
        assert variables(again) == variables(t)


def settled() -> onnx.ModelProto:
    """A model that is read in many ways: two dropouts, a named size, an input that decides an axis, a scalar."""
    return parsed(
        'g (float[N,8] x, int64[1] axes) => (float[N,3] logits) {["drop1"] a, ma = Dropout (x, half); '
        'b = Gemm <transB = 1> (a, w, c); ["drop2"] d, md = Dropout (b, half); '
        "e = ReduceMean (d, axes); f = Sub (d, e); logits = Mul (f, scale)}",
        half=np.array(0.5, np.float32),
        w=np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32),
        c=np.zeros(3, np.float32),
        scale=np.array(2, np.float32),
    )


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({}, lambda g: g),
        ({"mode": "eval"}, lambda g: g),
        ({"mode": {"drop1": "eval"}}, lambda g: g),
        ({"dims": {"N": BATCH}}, lambda g: g),
        ({"shapes": {"x": (BATCH, None)}}, lambda g: g),
        ({"trainable": ["*", "scale"]}, lambda g: g.freeze("scale")),
        ({"mode": "eval"}, lambda g: g.with_mode({"drop2": "train"}).freeze("w")),
        ({}, lambda g: g.with_mode("eval").with_mode({"drop*": "train", "drop2": "eval"})),
        ({}, lambda g: g.freeze("*").unfreeze("c").bind({"N": BATCH})),
        ({}, lambda g: tapeout.surgery.rename(g, {"w": "weight", "x": "points"})),
        ({"dims": {"N": BATCH}}, lambda g: tapeout.surgery.replace_head(g, 3, at="Gemm->b")),
    ],
)
def test_a_model_is_read_as_it_was(tmp_path: Path, options: Any, change: Any) -> None:
    """Modes, sizes, values, what is a parameter and what is frozen, and the changes of the file come back."""
    path = tmp_path / "run.ckpt"
    model = change(tapeout.load_onnx(settled(), values={"axes": [1]}, **options))
    t = trainer(model=model)
    batch = {n if n == "labels" else model.inputs[0].name: a[:48] for n, a in data().items()}
    t.fit(batch, batch_size=BATCH, callbacks=[SaveAt(path, 2)])
    again = tapeout.Trainer.restore(path)
    assert str(again.model) == str(t.model).replace("<model>", "<bytes>")
    assert again.model.dims == t.model.dims
    again.fit(batch, batch_size=BATCH)
    assert variables(again) == variables(t)
    again.save(tmp_path / "again.ckpt")
    t.save(path)
    assert (tmp_path / "again.ckpt").read_bytes() == path.read_bytes()
    # What is trained goes back into the file, as it was changed.
    t.export_onnx(tmp_path / "trained.onnx")
    trained = tapeout.load_onnx(tmp_path / "trained.onnx", values={"axes": [1]}, mode="eval")
    rows = {n: v[:BATCH] for n, v in batch.items() if n != "labels"}
    found = tapeout.compile(trained)(rows)["logits"]
    np.testing.assert_array_equal(found, t.predict(rows)["logits"])


def test_another_optimizer_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    t = trainer(tapeout.optimizers.sgd(0.1))
    t.save(path)
    with pytest.raises(tapeout.CheckpointError, match=r"lacks 'adam\.m"):
        tapeout.Trainer.restore(path, optimizer=tapeout.optimizers.adam())
    trainer(tapeout.optimizers.adam()).save(path)
    with pytest.raises(tapeout.CheckpointError, match=r"'adam\.m.*which the run has not"):
        tapeout.Trainer.restore(path, optimizer=tapeout.optimizers.sgd(0.1))


# --- damage ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that must not be written to."""
    path = tmp_path_factory.mktemp("checkpoint") / "run.ckpt"
    t = trainer()
    t.fit(data(), batch_size=BATCH)
    t.save(path)
    return path


def spans(raw: bytes) -> dict[str, tuple[int, int]]:
    """Return where each tensor lies in the file."""
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    found = {n: e["data_offsets"] for n, e in header.items() if n != "__metadata__"}
    return {n: (start + a, start + b) for n, (a, b) in found.items()}


def refused(path: Path) -> str:
    with pytest.raises(tapeout.CheckpointError) as found:
        tapeout.Trainer.restore(path)
    assert str(path) in str(found.value)
    return str(found.value)


def test_a_flipped_bit_in_a_tensor(good: Path, tmp_path: Path) -> None:
    raw, path = good.read_bytes(), tmp_path / "run.ckpt"
    for name, (start, end) in spans(raw).items():
        for at in {start, (start + end) // 2, end - 1}:
            broken = bytearray(raw)
            broken[at] ^= 1 << (at % 8)
            path.write_bytes(broken)
            assert repr(name.removeprefix("variable:")) in refused(path)


def test_a_flipped_bit_in_the_header(good: Path, tmp_path: Path) -> None:
    raw, path = good.read_bytes(), tmp_path / "run.ckpt"
    end = 8 + int.from_bytes(raw[:8], "little")
    for at in range(0, end, 7):
        broken = bytearray(raw)
        broken[at] ^= 1 << (at % 8)
        path.write_bytes(broken)
        refused(path)


def test_a_truncated_file(good: Path, tmp_path: Path) -> None:
    raw, path = good.read_bytes(), tmp_path / "run.ckpt"
    for name, (start, end) in spans(raw).items():
        path.write_bytes(raw[: (start + end) // 2])
        assert f"inside tensor {name.removeprefix('variable:')!r}" in refused(path)
    for size in (0, 7, 8, 100):
        path.write_bytes(raw[:size])
        assert "header" in refused(path)


def test_other_files(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    assert "cannot be read" in refused(path)
    path.mkdir()
    assert "cannot be read" in refused(path)
    path.rmdir()
    path.write_bytes(TINY.read_bytes())
    assert "no checkpoint" in refused(path)
    trainer().save_weights(path)
    assert "no checkpoint" in refused(path)
    path.write_bytes(good.read_bytes().replace(b"tapeout checkpoint 1", b"tapeout checkpoint 9"))
    assert "tapeout checkpoint 9, this version reads tapeout checkpoint 1" in refused(path)


def test_an_unwritable_place(tmp_path: Path) -> None:
    t = trainer()
    with pytest.raises(tapeout.DataError, match="cannot write"):
        t.save(tmp_path / "absent" / "run.ckpt")
    assert not list(tmp_path.iterdir())


# --- crashes while saving --------------------------------------------------------------------------

CRASH = """
import os, sys
sys.path[:0] = {path!r}
from tests.e2e.test_checkpoint import trainer, data
t = trainer()
t.fit(data(), epochs=2, batch_size=8)
def die(*a, **k):
    os.kill(os.getpid(), 9)
os.{call} = die
t.save({file!r})
"""

LOOP = """
import sys
sys.path[:0] = {path!r}
from tests.e2e.test_checkpoint import trainer, data
t = trainer()
print("ready", flush=True)
while True:
    t.step({{n: a[:8] for n, a in data().items()}})
    t.save({file!r})
"""


def child(code: str, **names: Any) -> subprocess.Popen[str]:
    text = code.format(path=[p for p in sys.path if p], **names)
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_crash_at_each_point_keeps_the_old_file(tmp_path: Path, good: Path, call: str) -> None:
    path = tmp_path / "run.ckpt"
    path.write_bytes(good.read_bytes())
    process = child(CRASH, call=call, file=str(path))
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == good.read_bytes()
    assert tapeout.Trainer.restore(path).steps_done == 7


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    process = child(LOOP, file=str(path))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    seen = set()
    try:
        # Any file that a reader meets while it is being replaced is a whole one.
        for _ in range(40):
            time.sleep(0.01)
            if path.exists():
                seen.add(tapeout.Trainer.restore(path).steps_done)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert tapeout.Trainer.restore(path).steps_done >= max(seen)
    assert len(seen) > 3
