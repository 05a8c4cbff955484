"""Many steps in one native call: the same bits as single ones, for any number of them, and the same errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tapeout
from tapeout.api.steps import MOST, SECONDS, Pace
from tests.e2e.test_trainer import model, points, trainer, variables


@pytest.fixture(scope="module")
def fast() -> dict[str, Any]:
    """Options of builds without bounds tests, which alone run many steps in a call."""
    return {"checked": False}


def cut(data: dict[str, np.ndarray], size: int) -> list[dict[str, np.ndarray]]:
    rows = len(data["x"])
    return [{n: a[i : i + size] for n, a in data.items()} for i in range(0, rows, size)]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("steps_per_call", [None, 1, 2, 5, 100])
def test_the_same_bits_for_any_number_of_steps(
    fast: dict[str, Any], threads: int, steps_per_call: int | None
) -> None:
    data = points(44)
    batches = cut(data, 8)  # the last one is shorter
    one = trainer(clip_norm=0.1, **fast)
    want = [dict(one.step(b)) for b in batches]
    many = trainer(clip_norm=0.1, threads=threads, **fast)
    got = many.steps(batches, steps_per_call)
    assert [dict(r) for r in got] == want
    assert variables(many) == variables(one)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("steps_per_call", [None, 3, 1000])
@pytest.mark.parametrize("kind", ["arrays", "wider", "list", "pairs", "loader"])
def test_fit_is_the_same(
    fast: dict[str, Any], kind: str, shuffle: bool, steps_per_call: int | None
) -> None:
    data = points(50)
    if kind == "wider":  # integers that have to be widened, rows that are not contiguous
        data = {"x": np.asfortranarray(data["x"]), "labels": data["labels"].astype(np.int16)}
    given: Any = data
    if kind not in ("arrays", "wider"):
        given = cut(data, 8)
        if kind == "pairs":
            given = [(b["x"], b["labels"]) for b in given]
        if kind == "loader":
            given = Loader(given)
    options = {"epochs": 3, "batch_size": 8, "shuffle": shuffle}
    one, many = trainer(seed=5, **fast), trainer(seed=5, **fast)
    want = one.fit(given, steps_per_call=1, **options)
    got = many.fit(given, steps_per_call=steps_per_call, **options)
    assert got.steps == want.steps
    assert got["loss"] == want["loss"]
    assert variables(many) == variables(one)


class Loader:
    """Gives its batches in memory that it uses again for the next one, as loaders do."""

    def __init__(self, batches: list[dict[str, np.ndarray]]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        place = {n: np.empty_like(a) for n, a in self.batches[0].items()}
        for b in self.batches:
            rows = len(b["x"])
            for n, a in b.items():
                place[n][:rows] = a
            yield {n: a[:rows] for n, a in place.items()}


def test_a_refused_batch_stops_the_call(fast: dict[str, Any]) -> None:
    batches = cut(points(40), 8)
    batches[3]["x"] = batches[3]["x"].copy()
    batches[3]["x"][2, 1] = np.nan
    one, many = trainer(**fast), trainer(**fast)
    for b in batches[:3]:
        one.step(b)
    with pytest.raises(tapeout.DataError, match=r"batch 3: x holds nan at index \[2, 1\]"):
        many.steps(batches, 5)
    assert many.steps_done == 3
    assert variables(many) == variables(one)


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_fit_names_the_step_that_was_refused(fast: dict[str, Any], steps_per_call: int) -> None:
    data = points(40)
    data["labels"][29] = 99
    t = trainer(**fast)
    with pytest.raises(tapeout.DataError, match=r"step 4: .*nothing was updated"):
        t.fit(data, batch_size=8, shuffle=False, steps_per_call=steps_per_call)
    assert (t.steps_done, t.batch, t.rows) == (3, 3, 24)


def test_a_batch_that_does_not_fit_stops_after_those_before(fast: dict[str, Any]) -> None:
    batches = cut(points(24), 8)
    batches[2] = {"x": batches[2]["x"].astype(np.complex64), "labels": batches[2]["labels"]}
    t = trainer(**fast)
    with pytest.raises(tapeout.DataError, match=r"batch 2: x: dtype is complex64"):
        t.steps(batches, 10)
    assert t.steps_done == 2
    with pytest.raises(tapeout.OptionError, match="steps_per_call is 0"):
        t.steps(batches, 0)
    assert t.steps([]) == []


def test_callbacks(fast: dict[str, Any]) -> None:
    """Who has `on_step` alone sees the trainer after each step; who has `on_steps` after each call."""

    class Each:
        def __init__(self) -> None:
            self.seen: list[tuple[int, float, int]] = []

        def on_step(self, t: tapeout.Trainer, step: int, loss: float) -> None:
            self.seen.append((step, loss, t.steps_done))

    class Calls(Each):
        def on_steps(self, t: tapeout.Trainer, step: int, losses: list[float]) -> None:
            first = step - len(losses) + 1
            self.seen += [(first + n, loss, t.steps_done) for n, loss in enumerate(losses)]

    data, each, calls, told = points(48), Each(), Calls(), Each()
    losses = trainer(**fast).fit(data, batch_size=8, callbacks=[each]).steps
    assert each.seen == [(n, loss, n) for n, loss in enumerate(losses, 1)]
    trainer(**fast).fit(data, batch_size=8, callbacks=[calls], steps_per_call=6)
    assert calls.seen == [(n, loss, 6) for n, loss in enumerate(losses, 1)]
    trainer(**fast).fit(data, batch_size=8, callbacks=[told], steps_per_call=6)
    assert told.seen == calls.seen


def test_a_run_goes_on_in_the_middle_of_an_epoch(fast: dict[str, Any], tmp_path: Any) -> None:
    class Save:
        def on_steps(self, t: tapeout.Trainer, step: int, losses: list[float]) -> None:
            if step == 2:
                t.save(tmp_path / "run.ckpt")

    data, graph = points(48), model()
    whole = trainer(model=graph, **fast)
    whole.fit(data, epochs=2, batch_size=8, callbacks=[Save()], steps_per_call=2)
    rest = tapeout.Trainer.restore(
        tmp_path / "run.ckpt", graph, loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.adam(1e-2),
    )  # fmt: skip
    rest.fit(data, epochs=2, batch_size=8)
    assert variables(rest) == variables(whole)


def test_the_checked_build_runs_step_by_step() -> None:
    t, twin, batches = trainer(checked=True), trainer(checked=True), cut(points(24), 8)
    assert [dict(r) for r in t.steps(batches, 3)] == [dict(twin.step(b)) for b in batches]


def test_the_pace_keeps_calls_short() -> None:
    pace = Pace()
    assert pace.steps == 1
    for seconds in (1.0, 1e-5, 1e-5, 1e-5):
        pace.took(1, seconds)
    assert pace.steps == 64
    pace.took(64, 64 * SECONDS / 10)
    assert pace.steps == 10
    for _ in range(9):
        pace.took(1, 0.0)
    assert pace.steps == MOST
    assert Pace(7).steps == 7
