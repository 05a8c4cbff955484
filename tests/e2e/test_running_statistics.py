"""Batch normalisation and dropout in native code: what training leaves behind, and what inference reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tapeout
from tests.onnx_models import parsed, run_elsewhere

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

STATISTICS = ("norm.running_mean", "norm.running_var")
NODES = """
    h = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x, conv_weight, conv_bias)
    n = BatchNormalization(h, norm_weight, norm_bias, norm_running_mean, norm_running_var)
    r = Relu(n)
    d = Dropout(r, ratio)
    p = GlobalAveragePool(d)
    f = Flatten(p)
    logits = Gemm<transB=1>(f, head_weight, head_bias)
"""


def model() -> onnx.ModelProto:
    """Return x -> Conv -> BatchNormalization -> Relu -> Dropout -> pool -> Gemm, in inference form."""
    rng = np.random.default_rng(5)
    tensors = {
        "conv.weight": rng.normal(0, 0.3, (6, 2, 3, 3)),
        "conv.bias": rng.normal(0, 0.3, 6),
        "norm.weight": rng.uniform(0.5, 1.5, 6),
        "norm.bias": rng.normal(0, 0.3, 6),
        "norm.running_mean": np.zeros(6),
        "norm.running_var": np.ones(6),
        "head.weight": rng.normal(0, 0.3, (4, 6)),
        "head.bias": np.zeros(4),
        "ratio": np.array(0.3),
    }
    text = f"g (float[N,2,5,5] x) => (float[N,4] logits) {{ {NODES} }}"
    made = parsed(text, 17)
    for node in made.graph.node:
        node.input[:] = [n.replace("_", ".", 1) for n in node.input]
    made.graph.initializer.extend(
        numpy_helper.from_array(a.astype(np.float32), n) for n, a in tensors.items()
    )
    return made


def batch(rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(0.5, 2, (rows, 2, 5, 5)).astype(np.float32)
    return {"x": x, "labels": rng.integers(0, 4, rows)}


def trained(steps: int = 5, **options: Any) -> tapeout.Trainer:
    trainer = tapeout.Trainer(
        tapeout.load_onnx(model().SerializeToString(), **options),
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.sgd(lr=0.1),
    )
    for i in range(steps):
        trainer.step(batch(64, i))
    return trainer


@pytest.fixture(scope="module")
def trainer() -> tapeout.Trainer:
    return trained()


def everything(trainer: tapeout.Trainer) -> bytes:
    """Return the bits of every variable."""
    session = trainer.session
    return b"".join(session.read(name).tobytes() for name in session.variables)


def test_training_moves_the_statistics(trainer: tapeout.Trainer) -> None:
    assert set(trainer.parameters).isdisjoint(STATISTICS)
    assert set(trainer.state) == {*STATISTICS, "rng.step"}
    assert trainer.state["rng.step"] == 5
    for name in STATISTICS:
        assert not np.array_equal(trainer.state[name], at_first(name)), name


def at_first(name: str) -> NDArray[Any]:
    return numpy_helper.to_array(next(t for t in model().graph.initializer if t.name == name))


def test_evaluation_changes_no_bit_of_any_state(trainer: tapeout.Trainer) -> None:
    data = batch(100, 9)
    before = everything(trainer)
    first = trainer.evaluate(data, 64)
    assert everything(trainer) == before
    assert trainer.evaluate(data, 64) == first
    trainer.predict({"x": data["x"]}, 64)
    trainer.gradients(batch(64))
    trainer.loss_of(batch(64))
    assert everything(trainer) == before


def test_a_prediction_does_not_depend_on_the_batch(trainer: tapeout.Trainer) -> None:
    x = batch(64, 9)["x"]
    whole = trainer.predict({"x": x})["logits"]
    for row in (0, 17, 63):
        (alone,) = trainer.predict({"x": x[row : row + 1]})["logits"]
        np.testing.assert_allclose(alone, whole[row], rtol=1e-5, atol=1e-5)


def test_a_step_that_fails_moves_nothing() -> None:
    trainer = trained(1)
    before = everything(trainer)
    bad = batch(64)
    bad["x"][3, 0, 0, 0] = np.nan
    with pytest.raises(tapeout.TapeoutError, match="nothing was updated"):
        trainer.step(bad)
    assert everything(trainer) == before


def test_frozen_statistics() -> None:
    trainer = trained(3, mode={"norm.running_mean": "eval"})
    for name in STATISTICS:
        np.testing.assert_array_equal(trainer.state[name], at_first(name))
    assert trainer.state["rng.step"] == 3


def test_the_written_file_holds_them(trainer: tapeout.Trainer, tmp_path: Path) -> None:
    path = tmp_path / "trained.onnx"
    trainer.export_onnx(path)
    written = onnx.load(path)
    stored = {t.name: numpy_helper.to_array(t) for t in written.graph.initializer}
    assert list(stored) == [t.name for t in model().graph.initializer]
    for name, array in {**trainer.parameters, **trainer.state}.items():
        if name in stored:
            np.testing.assert_array_equal(stored[name], array)
    x = batch(16, 9)["x"]
    want = trainer.predict({"x": x})["logits"]
    np.testing.assert_allclose(run_elsewhere(written, {"x": x})["logits"], want, atol=1e-5)
    again = tapeout.load_onnx(path)
    np.testing.assert_array_equal(
        again.variable[STATISTICS[0]].initial, trainer.state[STATISTICS[0]]
    )


def test_a_checkpoint_holds_them(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    one = trained(2)
    one.save(path)
    other = tapeout.Trainer.restore(path)
    for i in range(2):
        assert one.step(batch(64, i))["loss"] == other.step(batch(64, i))["loss"]
    assert everything(one) == everything(other)


def test_any_number_of_threads_moves_them_alike(trainer: tapeout.Trainer) -> None:
    for threads in (1, 3):
        other = tapeout.Trainer(
            tapeout.load_onnx(model().SerializeToString()),
            loss=tapeout.losses.cross_entropy(),
            optimizer=tapeout.optimizers.sgd(lr=0.1),
            threads=threads,
        )
        for i in range(5):
            other.step(batch(64, i))
        assert everything(other) == everything(trainer)


# --- against PyTorch -------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("count", [2, 64])
def test_steps_as_in_torch(count: int) -> None:
    """Parity in f64, statistics included.

    The one difference is known: PyTorch moves the running variance towards the unbiased variance of the batch, ONNX towards
    that of the population, `(n - 1) / n` as large for n values. The update is linear in it, so the same factor holds for what
    the batches have added.
    """
    import torch

    from tapeout.passes.precision import widen

    graph = tapeout.load_onnx(model().SerializeToString(), mode={"ratio": "eval"}).then(widen)
    trainer = tapeout.Trainer(
        graph,
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.sgd(lr=0.1),
    )
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1),
        torch.nn.BatchNorm2d(6),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    ).double()
    names = {"conv": "0", "norm": "1", "head": "5"}
    given = {
        f"{names[n.split('.')[0]]}.{n.split('.')[1]}": torch.tensor(a)
        for n, a in {**trainer.parameters, **trainer.state}.items()
        if "." in n and n.split(".")[0] in names
    }
    net.load_state_dict(given, strict=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    steps, n = 20, count * 25
    for i in range(steps):
        data = batch(count, i)
        x = data["x"].astype(np.float64)
        loss = torch.nn.functional.cross_entropy(net(torch.tensor(x)), torch.tensor(data["labels"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found = trainer.step({"x": x, "labels": data["labels"]})["loss"]
        # Constants of the file, such as the 1/25 of the pool, are those of f32.
        assert found == pytest.approx(loss.item(), rel=1e-7)
    theirs = {
        f"{k}.{n.split('.')[1]}": a
        for k, v in names.items()
        for n, a in net.state_dict().items()
        if n.startswith(v)
    }
    left = 0.9**steps  # what the initial variance of 1 still counts
    variance = theirs["norm.running_var"].numpy()
    theirs["norm.running_var"] = torch.tensor(left + (variance - left) * (n - 1) / n)
    for name, array in {**trainer.parameters, **trainer.state}.items():
        if name != "rng.step":
            np.testing.assert_allclose(
                array, theirs[name].numpy(), rtol=1e-6, atol=1e-8, err_msg=name
            )
