"""The trainer: what steps do, what data may look like, and that a refused batch changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tapeout
from tapeout.driver.step import STEP

CLASSES = 4


def model(seed: int = 0) -> tapeout.Graph:
    """Return points [N, 3] -> scores [N, 4] by way of a hidden layer."""
    with tapeout.Builder("points", seed=seed) as g:
        x = g.input("x", ("N", 3))
        h = tapeout.nn.tanh(tapeout.nn.linear(x, 8, name="fc1"))
        g.output("scores", tapeout.nn.linear(h, CLASSES, name="fc2"))
    return g.graph()


def trainer(optimizer: Any = None, **options: Any) -> tapeout.Trainer:
    chosen = tapeout.optimizers.adam(1e-2) if optimizer is None else optimizer
    return tapeout.Trainer(
        options.pop("model", None) or model(),
        loss=options.pop("loss", tapeout.losses.cross_entropy()),
        optimizer=chosen,
        **options,
    )


def points(count: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Return points and the quadrant in which each lies."""
    x = np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)
    return {"x": x, "labels": (x[:, 0] > 0) * 2 + (x[:, 1] > 0) * 1}


def variables(t: tapeout.Trainer) -> dict[str, bytes]:
    """Return the bits of every parameter, state and hyper-parameter."""
    return {name: t.session.read(name).tobytes() for name in t.session.variables}


# --- steps -----------------------------------------------------------------------------------------


def test_a_step_tells_the_loss_before_its_update() -> None:
    t, batch = trainer(), points(8)
    before, _ = t.gradients(batch)
    result = t.step(batch)
    assert list(result) == ["loss"]
    assert result["loss"] == before
    assert t.steps_done == 1
    assert t.gradients(batch)[0] < before


def test_gradients_update_nothing() -> None:
    t, batch = trainer(), points(8)
    t.step(batch)
    before = variables(t)
    t.gradients(batch)
    t.loss_of(batch)
    t.evaluate(batch)
    t.predict({"x": batch["x"]})
    assert variables(t) == before


def test_gradients_of_chosen_parameters_and_inputs() -> None:
    t, batch = trainer(), points(8)
    loss, every = t.gradients(batch)
    assert set(every) == set(t.parameters)
    again, chosen = t.gradients(batch, wrt=["fc2.bias", "x"])
    assert set(chosen) == {"fc2.bias", "x"}
    assert again == loss
    np.testing.assert_array_equal(chosen["fc2.bias"], every["fc2.bias"])
    assert chosen["x"].shape == (8, 3)
    with pytest.raises(tapeout.TapeoutError, match=r"fc2\.bias"):
        t.gradients(batch, wrt=["fc2.bais"])


def test_a_trainer_without_an_optimizer() -> None:
    t = tapeout.Trainer(model(), loss=tapeout.losses.cross_entropy(), optimizer=None)
    t.gradients(points(4))
    assert t.steps_done == 0
    with pytest.raises(tapeout.TapeoutError, match="optimizer"):
        t.step(points(4))


def test_the_learning_rate_acts_from_the_next_step_on() -> None:
    t, batch = trainer(tapeout.optimizers.sgd(0.5)), points(8)
    assert dict(t.hyperparameters) == {"lr": 0.5}
    _, g = t.gradients(batch)
    start = t.parameters["fc1.weight"]
    t.hyperparameters["lr"] = 0.25
    t.step(batch)
    np.testing.assert_allclose(
        t.parameters["fc1.weight"], start - np.float32(0.25) * g["fc1.weight"], rtol=1e-6
    )
    before = t.parameters["fc1.weight"]
    t.hyperparameters["lr"] = 0.0
    t.step(batch)
    np.testing.assert_array_equal(t.parameters["fc1.weight"], before)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(tapeout.TapeoutError, match="lr"):
            t.hyperparameters["lr"] = wrong
    with pytest.raises(tapeout.TapeoutError, match="did you mean 'lr'"):
        t.hyperparameters["lrr"] = 0.1


def test_parameters_are_copies_and_assignments_are_checked() -> None:
    t = trainer()
    t.parameters["fc1.bias"][:] = 7
    assert not np.any(t.parameters["fc1.bias"] == 7)
    t.parameters["fc1.bias"] = np.full(8, 7, np.float32)
    assert np.all(t.parameters["fc1.bias"] == 7)
    for wrong in (np.zeros(7, np.float32), np.zeros(8), np.zeros((8, 1), np.float32)):
        with pytest.raises(tapeout.DataError, match=r"fc1\.bias"):
            t.parameters["fc1.bias"] = wrong
    assert np.all(t.parameters["fc1.bias"] == 7)


def test_nothing_is_trainable() -> None:
    with tapeout.Builder("frozen") as g:
        x = g.input("x", ("N", 3))
        w = g.parameter("w", (3,), np.ones(3, np.float32), trainable=False)
        g.output("y", x * w)
    with pytest.raises(tapeout.TapeoutError, match="trainable"):
        trainer(model=g.graph(), loss=tapeout.losses.mse())


@pytest.mark.parametrize("chosen", ["fc2.*", ["*", "!fc1.*"], lambda name: name.startswith("fc2")])
def test_frozen_parameters_stay(chosen: Any) -> None:
    from tests.e2e.networks import MODELS

    graph = tapeout.load_onnx(MODELS / "matrix" / "tiny_mlp_dynamo_opset18.onnx", trainable=chosen)
    t = trainer(tapeout.optimizers.sgd(0.1, momentum=0.9), model=graph)
    rng = np.random.default_rng(0)
    batch = {"x": rng.standard_normal((6, 8)).astype(np.float32), "labels": rng.integers(0, 3, 6)}
    start = dict(t.parameters)
    assert set(t.gradients(batch)[1]) == {"fc2.weight", "fc2.bias"}
    t.step(batch)
    for name, was in start.items():
        assert np.array_equal(t.parameters[name], was) == name.startswith("fc1"), name
    # A frozen parameter has no moments.
    assert not any("fc1" in name for name in t.session.variables if name.startswith("sgd."))


# --- refused batches -------------------------------------------------------------------------------


@pytest.fixture(params=["sgd", "adam"])
def running(request: pytest.FixtureRequest) -> tapeout.Trainer:
    """A trainer in the middle of its work, with clipping, so that nothing is zero."""
    made = {
        "sgd": tapeout.optimizers.sgd(0.1, momentum=0.9, weight_decay=1e-3),
        "adam": tapeout.optimizers.adamw(1e-2),
    }[request.param]
    t = trainer(made, clip_norm=1.0)
    for i in range(3):
        t.step(points(8, seed=i))
    return t


def refused(t: tapeout.Trainer, batch: dict[str, Any]) -> str:
    """Return the message with which a step is refused; every variable keeps its bits, and the trainer works on."""
    before = variables(t)
    with pytest.raises(tapeout.DataError) as found:
        t.step(batch)
    assert variables(t) == before
    assert t.session.read(STEP) == 3
    assert np.isfinite(t.step(points(8))["loss"])
    return str(found.value)


@pytest.mark.parametrize("label", [CLASSES, -1, 10**12, -(10**12)])
def test_a_label_out_of_range(running: tapeout.Trainer, label: int) -> None:
    batch = points(8)
    batch["labels"][5] = label
    message = refused(running, batch)
    assert "labels" in message
    assert f"0..{CLASSES - 1}" in message
    assert "nothing was updated" in message
    assert str(label) in message


def test_nan_in_the_data(running: tapeout.Trainer) -> None:
    batch = points(8)
    batch["x"][3, 1] = np.nan
    message = refused(running, batch)
    assert "x holds nan at index [3, 1]" in message
    assert "nothing was updated" in message


def test_infinity_in_the_data(running: tapeout.Trainer) -> None:
    """tanh(inf) is 1 and the loss finite, but not the gradient, of which clipping takes the norm."""
    batch = points(8)
    batch["x"][3, 1] = np.inf
    assert "x holds inf at index [3, 1]" in refused(running, batch)


def test_nan_in_a_parameter(running: tapeout.Trainer) -> None:
    before = running.parameters["fc2.bias"]
    running.parameters["fc2.bias"] = np.array([0, np.nan, 0, 0], np.float32)
    held = variables(running)
    with pytest.raises(tapeout.DataError, match="not finite"):
        running.step(points(8))
    assert variables(running) == held
    running.parameters["fc2.bias"] = before
    assert np.isfinite(running.step(points(8))["loss"])


def test_every_label_ignored(running: tapeout.Trainer) -> None:
    batch = points(8)
    batch["labels"][:] = -100
    assert "nothing was updated" in refused(running, batch)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("x", lambda a: a[:, :2], ["x", "[8, 2]", "[N, 3]"]),
        ("x", lambda a: a[0], ["x", "[3]", "[N, 3]"]),
        ("x", lambda a: a[:7], ["7", "8"]),
        ("labels", lambda a: a[:7], ["labels", "[7]"]),
        ("labels", lambda a: a[:, None], ["labels", "[8, 1]"]),
        ("x", lambda a: a.astype(np.float64), ["x", "float64", "float32"]),
        ("x", lambda a: a.astype(np.complex64), ["x", "complex64", "float32"]),
        ("labels", lambda a: a.astype(np.float32), ["labels", "float32", "int64"]),
        ("labels", lambda a: a.astype(np.uint64), ["labels", "uint64", "int64"]),
        ("x", lambda a: a.astype(str), ["x", "float32"]),
    ],
)
def test_a_wrong_shape_or_dtype(
    running: tapeout.Trainer, name: str, change: Any, words: list[str]
) -> None:
    batch: dict[str, Any] = points(8)
    batch[name] = change(batch[name])
    message = refused(running, batch)
    assert all(word in message for word in words), message


def test_a_missing_array(running: tapeout.Trainer) -> None:
    x = points(8)["x"]
    message = refused(running, {"x": x, "label": points(8)["labels"]})
    assert "'labels'" in message
    assert "did you mean 'label'" in message


def test_an_empty_batch(running: tapeout.Trainer) -> None:
    assert "no rows" in refused(running, {n: a[:0] for n, a in points(8).items()})


# --- what fits -------------------------------------------------------------------------------------


def test_integers_and_narrow_floats_widen() -> None:
    t, batch = trainer(), points(8)
    want = t.loss_of(batch)
    assert t.loss_of({**batch, "labels": batch["labels"].astype(np.uint8)}) == want
    assert t.loss_of({**batch, "labels": batch["labels"].tolist()}) == want
    half = {**batch, "x": batch["x"].astype(np.float16)}
    assert t.loss_of(half) == t.loss_of({**half, "x": half["x"].astype(np.float32)})


def test_memory_order_does_not_matter() -> None:
    t, batch = trainer(), points(8)
    want = t.loss_of(batch)
    assert t.loss_of({**batch, "x": np.asfortranarray(batch["x"])}) == want
    wide = np.zeros((16, 6), np.float32)
    wide[::2, ::2] = batch["x"]
    assert t.loss_of({**batch, "x": wide[::2, ::2]}) == want
    read_only = batch["x"].copy()
    read_only.flags.writeable = False
    assert t.loss_of({**batch, "x": read_only}) == want


def test_arrays_of_other_libraries() -> None:
    class Foreign:
        """Offers `__dlpack__` only, as tensors do."""

        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    t, batch = trainer(), points(8)
    foreign = {n: Foreign(a) for n, a in batch.items()}
    assert t.loss_of(foreign) == t.loss_of(batch)


def test_each_batch_size_binds_anew_over_the_same_weights() -> None:
    t = trainer()
    for rows in (8, 3, 1, 8, 17):
        assert np.isfinite(t.step(points(rows))["loss"])
    assert t.steps_done == 5
    together = t.predict({"x": points(17)["x"]})["scores"]
    parts = t.predict({"x": points(17)["x"]}, batch_size=5)["scores"]
    np.testing.assert_allclose(parts, together, rtol=1e-6, atol=1e-7)


def test_a_model_without_unbound_dimensions() -> None:
    with tapeout.Builder("fixed") as g:
        x = g.input("x", (8, 3))
        g.output("scores", tapeout.nn.linear(x, CLASSES, name="fc"))
    t = trainer(model=g.graph())
    assert t.memory.total > 0  # compiled already
    t.step(points(8))
    with pytest.raises(tapeout.DataError, match=r"\[8, 3\]"):
        t.step(points(7))


@pytest.mark.parametrize("rows", ["N", 2])
def test_classes_in_the_last_dimension(rows: int | str) -> None:
    """The labels decide which dimension holds the classes, even where one was compiled before they were seen."""
    with tapeout.Builder("tagger") as g:
        x = g.input("x", (rows, 3, 5))
        g.output("scores", tapeout.nn.linear(x, 3, name="fc"))  # [N, 3, 3]: ambiguous
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.standard_normal((2, 3, 5)).astype(np.float32),
        "labels": rng.integers(0, 3, (2, 3)),
    }
    t = trainer(model=g.graph(), loss=tapeout.losses.cross_entropy(axis=-1))
    assert t.memory_for(N=2).total > 0
    t.step(batch)
    scores = t.predict({"x": batch["x"]})["scores"]
    assert t.evaluate([batch])["accuracy"] == np.mean(scores.argmax(-1) == batch["labels"])

    with tapeout.Builder("wider") as g:
        x = g.input("x", (rows, 4, 5))
        g.output("scores", tapeout.nn.linear(x, 3, name="fc"))  # [N, 4, 3]
    t = trainer(model=g.graph())
    assert t.memory_for(N=2).total > 0
    batch = {
        "x": rng.standard_normal((2, 4, 5)).astype(np.float32),
        "labels": rng.integers(0, 3, (2, 4)),
    }
    t.step(batch)
    assert t.evaluate([batch])["accuracy"] <= 1


# --- fit, evaluate, predict ------------------------------------------------------------------------


def test_fit_runs_a_short_last_batch_and_learns() -> None:
    t, data = trainer(), points(50)
    steps: list[int] = []
    epochs: list[int] = []

    class Watch:
        def on_step(self, trainer: tapeout.Trainer, step: int, loss: float) -> None:
            steps.append(step)

        def on_epoch(self, trainer: tapeout.Trainer, epoch: int, record: dict[str, float]) -> None:
            epochs.append(epoch)

    history = t.fit(
        data, epochs=30, batch_size=16, callbacks=[Watch()], validation_data=points(40, 2)
    )
    assert len(history.steps) == 30 * 4 == t.steps_done
    assert steps == list(range(1, 121))
    assert epochs == list(range(1, 31))
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["val_accuracy"][-1] > 0.8
    assert set(history.epochs[0]) >= {"loss", "val_loss", "val_accuracy", "samples_per_second"}
    assert t.evaluate(data, batch_size=16)["accuracy"] > 0.8


def test_fit_is_steps_in_the_order_of_the_seed() -> None:
    from tapeout.data.batching import epoch_order

    t, twin, data = trainer(seed=4), trainer(seed=4), points(20)
    history = t.fit(data, epochs=2, batch_size=8)
    orders = [epoch_order(20, 4, epoch) for epoch in range(2)]
    batches = [order[i : i + 8] for order in orders for i in (0, 8, 16)]
    losses = [twin.step({n: a[at] for n, a in data.items()})["loss"] for at in batches]
    assert history.steps == losses
    assert variables(t) == variables(twin)
    weighted = sum(loss * n for loss, n in zip(losses[:3], (8, 8, 4), strict=True)) / 20
    assert history["loss"][0] == pytest.approx(weighted, rel=1e-12)


def test_a_loader_of_pairs_or_of_mappings() -> None:
    data = points(20)
    pairs = [(data["x"][i : i + 8], data["labels"][i : i + 8]) for i in (0, 8, 16)]
    runs = [
        trainer().fit(data, epochs=2, batch_size=8, shuffle=False).steps,
        trainer().fit(pairs, epochs=2).steps,
        trainer().fit([{"x": x, "labels": y} for x, y in pairs], epochs=2).steps,
    ]
    assert runs[0] == runs[1] == runs[2]


def test_a_one_shot_iterator() -> None:
    data = points(16)
    pairs = [(data["x"][:8], data["labels"][:8]), (data["x"][8:], data["labels"][8:])]
    t = trainer()
    before = variables(t)
    with pytest.raises(tapeout.DataError, match="one-shot"):
        t.fit(iter(pairs), epochs=2)
    assert variables(t) == before
    assert len(t.fit(iter(pairs), epochs=1).steps) == 2


def test_data_that_do_not_fit() -> None:
    t, data = trainer(), points(8)
    for wrong, words in [
        ({}, "'x'"),
        ({"x": data["x"]}, "'labels'"),
        ({"x": data["x"], "labels": data["labels"][:5]}, "differ in length"),
        ({n: a[:0] for n, a in data.items()}, "empty"),
        ([], "empty"),
        (3, "int"),
        ([data["x"]], "pair"),
        ({"x": data["x"], "labels": 3}, "labels"),
    ]:
        with pytest.raises(tapeout.DataError, match=words):
            t.fit(wrong, batch_size=4)
    with pytest.raises(tapeout.DataError, match="batch_size"):
        t.fit(data, batch_size=0)
    assert t.steps_done == 0


def test_evaluate_weighs_batches_by_their_rows() -> None:
    t, data = trainer(), points(50)
    whole = t.evaluate(data)
    parts = t.evaluate(data, batch_size=16)
    assert parts["accuracy"] == whole["accuracy"]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    scores = t.predict({"x": data["x"]})["scores"]
    assert whole["accuracy"] == np.mean(scores.argmax(1) == data["labels"])
    assert set(t.evaluate(data, metrics=())) == {"loss"}
    with pytest.raises(tapeout.TapeoutError, match="accuracy"):
        t.evaluate(data, metrics=("acuracy",))


def test_evaluate_leaves_out_ignored_rows() -> None:
    t, data = trainer(), points(24)
    kept = {n: a[:13] for n, a in data.items()}
    data["labels"][13:] = -100
    found, want = t.evaluate(data, batch_size=10), t.evaluate(kept)
    assert found["accuracy"] == want["accuracy"]
    assert found["loss"] == pytest.approx(want["loss"], rel=1e-6)


def test_predict_needs_no_labels() -> None:
    t = trainer()
    assert t.predict({"x": points(5)["x"]})["scores"].shape == (5, CLASSES)
    with pytest.raises(tapeout.DataError, match="'x'"):
        t.predict({"y": points(5)["x"]})
