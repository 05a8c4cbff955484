"""Layers of the builder that differ between training and inference: batch normalisation and dropout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import tapeout
from tapeout import nn

STATES = ("bn.running_mean", "bn.running_var")


def model(drop: float = 0.4) -> tapeout.Graph:
    """Return convolution, batch normalisation, dropout, a linear layer, batch normalisation of rows."""
    with tapeout.Builder("modes") as g:
        x = g.input("x", ("N", 3, 6, 6))
        h = nn.relu(nn.batch_norm(nn.conv2d(x, 4, 3, name="conv"), name="bn"))
        h = nn.dropout(nn.global_avg_pool(h), drop, name="drop")
        h = nn.batch_norm(nn.linear(nn.flatten(h), 8, name="fc"), name="rows", momentum=0.3)
        g.output("logits", nn.linear(h, 5, name="head"))
    return g.graph()


def trainer(graph: tapeout.Graph, seed: int = 0) -> tapeout.Trainer:
    return tapeout.Trainer(
        graph,
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=tapeout.optimizers.sgd(0.05, momentum=0.9),
        seed=seed,
    )


def batch(rng: np.random.Generator, rows: int = 16) -> dict[str, np.ndarray]:
    x = rng.standard_normal((rows, 3, 6, 6)).astype(np.float32)
    return {"x": x * 2 + 1, "labels": rng.integers(0, 5, rows)}


def states(t: tapeout.Trainer) -> dict[str, bytes]:
    return {n: t.session.read(n).tobytes() for n in t.session.variables}


def test_no_choice_is_left_in_a_graph() -> None:
    graph = model()
    assert graph.evaluation is not None
    evaluated = graph.evaluation()
    for g in (graph, evaluated, graph.bind({"N": 5}), evaluated.bind({"N": 5})):
        text = str(g)
        assert "by_mode" not in text
        assert str(tapeout.Graph.parse(text)) == re.sub(r" = #\w+", "", text)
    assert "random_bits" in str(graph)
    assert "random_bits" not in str(evaluated)
    assert [n for n, _ in graph.updates] == [
        *STATES,
        "rng.step",
        "rows.running_mean",
        "rows.running_var",
    ]
    assert not evaluated.updates


def test_a_row_alone_is_the_row_in_a_batch(rng: np.random.Generator) -> None:
    t = trainer(model())
    for _ in range(5):
        t.step(batch(rng))
    x = batch(rng, 64)["x"]
    whole = t.predict({"x": x})["logits"]
    for i in (0, 7, 63):
        alone = t.predict({"x": x[i : i + 1]})["logits"]
        np.testing.assert_allclose(alone[0], whole[i], atol=1e-5)


def test_evaluation_changes_no_bit(rng: np.random.Generator) -> None:
    t = trainer(model())
    t.step(batch(rng))
    before, data = states(t), batch(rng, 40)
    first = t.evaluate(data, batch_size=16)
    assert t.evaluate(data, batch_size=16) == first
    t.predict({"x": data["x"]})
    t.loss_of(data)
    t.gradients(data)
    assert states(t) == before


def test_statistics_follow_the_batches(rng: np.random.Generator) -> None:
    with tapeout.Builder("statistics") as g:
        x = g.input("x", ("N", 3, 4))
        y = nn.batch_norm(x, name="bn", momentum=0.25, eps=1e-3)
        g.output("y", y)
    t = tapeout.Trainer(
        g.graph(),
        loss=lambda known: known["y"].square().sum(),
        optimizer=tapeout.optimizers.sgd(0.0),
    )
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = rng.standard_normal((6, 3, 4)).astype(np.float32) * 3 - 2
        t.step({"x": x})
        mean = mean * 0.75 + x.mean((0, 2)) * 0.25
        variance = variance * 0.75 + x.var((0, 2)) * 0.25
    np.testing.assert_allclose(t.session.read("bn.running_mean"), mean, rtol=1e-5)
    np.testing.assert_allclose(t.session.read("bn.running_var"), variance, rtol=1e-5)
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    want = (x - mean[:, None]) / np.sqrt(variance[:, None] + 1e-3)
    np.testing.assert_allclose(t.predict({"x": x})["y"], want, rtol=1e-4, atol=1e-5)


def dropped(seed: int, names: tuple[str, ...] = ("a", "b"), p: float = 0.3) -> list[np.ndarray]:
    """Return what dropout layers make of ones in two steps."""
    with tapeout.Builder("dropout") as g:
        x = g.input("x", (100, 100))
        w = g.parameter("w", (100, 100), tapeout.init.ones())
        for name in names:
            g.output(name, nn.dropout(x * w, p, name=name))
    t = tapeout.Trainer(
        g.graph(),
        loss=lambda known: sum((known[n].sum() for n in names[1:]), known[names[0]].sum()),
        optimizer=tapeout.optimizers.sgd(1.0),
        seed=seed,
    )
    found = []
    for _ in range(2):
        _, gradients = t.gradients({"x": np.ones((100, 100), np.float32)})
        found.append(gradients["w"])
        t.step({"x": np.ones((100, 100), np.float32)})
    return found


def test_what_dropout_drops() -> None:
    one, two = dropped(0, ("a",))
    assert set(np.unique(one)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(np.mean(one == 0) - 0.3) < 0.02
    assert np.any(one != two), "each step draws anew"
    assert np.array_equal(one, dropped(0, ("a",))[0])
    assert np.any(one != dropped(1, ("a",))[0]), "the seed decides"
    both = dropped(0, ("a", "b"))[0]
    alone = dropped(0, ("b",))[0]
    np.testing.assert_allclose(both, one + alone), "the name decides, not the order"
    assert not np.array_equal(one, alone)


def test_all_or_nothing() -> None:
    assert not np.any(dropped(0, ("a",), 1.0)[0])
    assert np.all(dropped(0, ("a",), 0.0)[0] == 1)


def test_whole_channels() -> None:
    with tapeout.Builder("channels") as g:
        x = g.input("x", ("N", 50, 3, 3))
        g.output("y", nn.dropout2d(x, 0.5, name="d"))
    y = tapeout.compile(g.graph())(x=np.ones((4, 50, 3, 3), np.float32))["y"]
    assert np.all(y == y[:, :, :1, :1])
    assert 60 < np.sum(y[:, :, 0, 0] == 0) < 140


def test_two_layers_of_one_name() -> None:
    with tapeout.Builder("twice") as g:
        x = g.input("x", (4, 4))
        h = nn.dropout(x, name="d")
        with pytest.raises(tapeout.TapeoutError, match=r"'d'\n|called 'd'"):
            nn.dropout(h, name="d")


def test_a_size_that_is_not_bound() -> None:
    with tapeout.Builder("wide") as g:
        x = g.input("x", (4, "width"))
        with pytest.raises(tapeout.ShapeError, match=r"axis -1 of f32\[4,width\]"):
            nn.linear(x, 3, name="fc")
        with pytest.raises(tapeout.UnboundDimension, match="width has no number yet"):
            x * (1 / x.shape[1])


def test_a_mean_over_what_is_not_bound(rng: np.random.Generator) -> None:
    with tapeout.Builder("means") as g:
        x = g.input("x", ("N", 3))
        g.output("mean", x.mean(0))
        g.output("share", x / x.shape[0])
    x = rng.standard_normal((5, 3)).astype(np.float32)
    found = tapeout.compile(g.graph())(x=x)
    np.testing.assert_allclose(found["mean"], x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["share"], x / 5, rtol=1e-6)


def test_modes_by_layer(rng: np.random.Generator) -> None:
    graph = model()
    frozen = graph.with_mode({"bn*": "eval", "drop": "eval"})
    assert [n for n, _ in frozen.updates] == ["rows.running_mean", "rows.running_var"]
    t = trainer(frozen)
    before = t.session.read("bn.running_mean")
    t.step(batch(rng))
    assert np.array_equal(t.session.read("bn.running_mean"), before)
    assert np.any(t.session.read("rows.running_mean") != 0)
    x = batch(rng)["x"]
    same = trainer(graph)
    want = same.predict({"x": x})["logits"]
    inferring = graph.with_mode("eval")
    assert inferring.evaluation is None
    np.testing.assert_array_equal(tapeout.compile(inferring)(x=x)["logits"], want)
    assert str(inferring.with_mode("train")) == str(graph)
    with pytest.raises(tapeout.OptionError, match="no dropout or batch normalisation"):
        graph.with_mode({"conv": "eval"})


def test_a_trained_model_as_onnx(tmp_path: Path, rng: np.random.Generator) -> None:
    import onnxruntime

    t = trainer(model())
    t.step(batch(rng))
    t.export_onnx(tmp_path / "trained.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "trained.onnx", providers=["CPUExecutionProvider"]
    )
    assert not [i.name for i in session.get_inputs() if i.name.startswith("rng")]
    x = batch(rng)["x"]
    (theirs,) = session.run(["logits"], {"x": x})
    np.testing.assert_allclose(theirs, t.predict({"x": x})["logits"], atol=1e-5)


def test_a_resumed_run_goes_on(tmp_path: Path, rng: np.random.Generator) -> None:
    batches = [batch(rng) for _ in range(4)]
    t = trainer(model())
    for b in batches[:2]:
        t.step(b)
    t.save(tmp_path / "run.ckpt")
    resumed = tapeout.Trainer.restore(tmp_path / "run.ckpt", model=model())
    for b in batches[2:]:
        assert t.step(b)["loss"] == resumed.step(b)["loss"]
    assert states(t) == states(resumed)
