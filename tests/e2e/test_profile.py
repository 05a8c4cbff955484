"""Profiles: every launch is counted as often as it runs, with its nodes, and the trainer is left as it was."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tapeout
from tapeout.api.example import example_batch, highest
from tapeout.api.profile import Profile, profile
from tapeout.cli.main import main
from tapeout.codegen.machine import native
from tapeout.driver import ceiling as ceilings
from tapeout.view.profile import render

LENET = Path(__file__).resolve().parents[2] / "models" / "lenet.onnx"
ROUNDS = 5


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_SECONDS", 0.005)


def trainer(name: str = "net", threads: int = 1) -> tapeout.Trainer:
    rng = np.random.default_rng(0)
    with tapeout.Builder(name) as g:
        x = g.input("x", ("N", 8))
        w = g.parameter("w", (8, 4), init=rng.standard_normal((8, 4)).astype(np.float32))
        g.output("logits", (x @ w).relu())
    return tapeout.Trainer(
        g.graph(),
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.adam(0.1),
        threads=threads,
    )


def batch(n: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {"x": rng.standard_normal((n, 8)).astype(np.float32), "labels": np.arange(n) % 4}


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trainer_is_left_as_it_was(threads: int) -> None:
    t, plain = trainer(threads=threads), trainer(threads=threads)
    found = profile(t, batch(), steps=3)
    assert t.steps_done == 0
    assert found.steps == 3 and found.threads == threads
    assert t.step(batch())["loss"] == plain.step(batch())["loss"]
    np.testing.assert_array_equal(t.parameters["w"], plain.parameters["w"])


def test_times_add_up() -> None:
    found = profile(trainer(), batch(), steps=5)
    assert [k.seconds for k in found.kernels] == sorted(
        (k.seconds for k in found.kernels), reverse=True
    )
    assert {k.runs for k in found.kernels} == {1.0}
    assert 0 < sum(k.least for k in found.kernels) <= found.native
    assert found.between > 0 and found.call > 0
    for by in ("role", "scope", "kernel", "label"):
        totals = found.totals(by)
        assert sum(t.launches for t in totals) == len(found.kernels)
        assert sum(t.seconds for t in totals) == pytest.approx(
            sum(k.seconds for k in found.kernels)
        )
    assert {"forward", "backward", "update"} <= {t.name for t in found.totals("role")}
    with pytest.raises(tapeout.OptionError, match="totals by 'colour'"):
        found.totals("colour")


def test_a_loop_counts_as_often_as_it_runs() -> None:
    with tapeout.Builder("loop") as g:
        x, w = g.input("x", (ROUNDS, 1, 4)), g.parameter("w", (4, 4), tapeout.init.ones())

        def step(carries: Any, slices: Any, consts: Any) -> Any:
            h = (slices[0] + carries[0] @ consts[0]).tanh()
            return [h], [h * 2]

        _, (ys,) = g.scan(step, [x[0] * 0], [x], [w])
        g.output("ys", ys)
    found = profile(tapeout.compile(g.graph()), steps=3)
    inside = [k for k in found.kernels if k.runs == ROUNDS]
    assert inside and {k.runs for k in found.kernels} <= {1.0, float(ROUNDS)}
    assert sum(k.flops for k in inside) >= ROUNDS * 2 * 4 * 4


def test_the_side_that_is_not_chosen_takes_no_time() -> None:
    with tapeout.Builder("branch") as g:
        x = g.input("x", (4, 4))
        (y,) = g.cond(x.sum() > 0, lambda a: [a @ a], lambda a: [(a @ a @ a).exp()], [x])
        g.output("y", y)
    found = profile(tapeout.compile(g.graph()), {"x": np.ones((4, 4), np.float32)}, steps=3)
    assert {k.runs for k in found.kernels} == {0.0, 1.0}
    assert all(k.seconds == 0 == k.flops for k in found.kernels if not k.runs)


def test_nodes_of_the_file_stand_at_their_kernels() -> None:
    t = tapeout.Trainer(
        tapeout.load_onnx(LENET, dims={"N": 2}),
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.sgd(0.1),
        threads=1,
    )
    found = profile(t, steps=2)
    operators = {s.operator for k in found.kernels for s in k.sources}
    assert {"Conv", "Relu", "MaxPool", "Gemm"} <= operators
    fused = [k for k in found.kernels if {"Conv", "Relu"} <= {s.operator for s in k.sources}]
    assert any(k.role == "forward" for k in fused)
    swept = [s.name for k in found.kernels if k.role == "update" for s in k.sources]
    assert set(t.parameters) <= set(swept)


def test_what_cannot_be_profiled() -> None:
    with pytest.raises(tapeout.OptionError, match="str cannot be timed"):
        profile("model.onnx")  # type: ignore[arg-type]
    with pytest.raises(tapeout.DataError):
        profile(trainer(), {"x": np.zeros((2, 3), np.float32), "labels": np.zeros(2, np.int64)})


# --- made-up arrays ---------------------------------------------------------------------------------


def test_made_up_integers_pass_every_check() -> None:
    with tapeout.Builder("tokens") as g:
        ids = g.input("ids", (2, 5), dtype=tapeout.i64)
        ones = tapeout.init.ones()
        table, head = g.parameter("table", (37, 8), ones), g.parameter("head", (8, 11), ones)
        flags = g.input("flags", (2, 5), dtype=tapeout.i64)
        y = table.take(ids, 0) * flags.cast(tapeout.f32).reshape([2, 5, 1])
        g.output("logits", y.mean([1]) @ head)
    t = tapeout.Trainer(
        g.graph(),
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.sgd(0.1),
        threads=1,
    )
    graph = t.graph_for("step")
    assert {v.name: highest(graph, v) for v in graph.inputs} == {
        "ids": 36,
        "flags": 1,
        "labels": 10,
    }
    made = example_batch(graph)
    assert made["ids"].shape == (2, 5) and made["ids"].min() >= 0
    t.step(made)


# --- ceilings, page, command --------------------------------------------------------------------------


def test_ceilings_are_measured_once(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ceilings.ceiling(native(), 1)
    assert first.flops > 1e8 and first.memory > 1e7 and first.cache > 1e7
    monkeypatch.setattr(ceilings, "_rate", None)
    assert ceilings.ceiling(native(), 1) == first
    assert first.bound(1e9, 1.0) == "compute" and first.bound(1.0, 1e9) == "memory"
    assert first.seconds(first.flops, 0) == 1.0


def test_the_page_is_whole_and_names_are_escaped() -> None:
    found: Profile = profile(trainer("<b>&net"), batch(), steps=2)
    page = render(json.loads(json.dumps(found.to_data())))
    assert "<b>&net" not in page and "&lt;b&gt;&amp;net" in page
    assert page.count("<circle") >= len([k for k in found.kernels if k.flops and k.seconds])
    assert not re.search(r"(?:src|href)=|<script|url\(", page)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "p.html"
    words = ["profile", str(LENET), "--batch-size", "2", "--threads", "1", "--seconds", "0.05"]
    assert main([*words, "--html", str(page), "--json"]) == 0
    out = capsys.readouterr()
    data = json.loads(out.out)
    assert data["steps"] >= 5 and {t["name"] for t in data["totals"]["role"]} >= {
        "forward",
        "backward",
    }
    assert "of roof" in out.err and "Conv" in out.err
    assert page.read_text().startswith("<!doctype html>")
    assert main([*words, "--predict", "--by", "scope"]) == 0
    assert "backward" not in capsys.readouterr().out
