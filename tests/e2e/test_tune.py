"""Tuning: the same bits, winners for later compilations, and a cache that can be used after any interruption."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tapeout
from tapeout.api import tune as tuning
from tapeout.codegen.cache import store_of
from tapeout.codegen.machine import native
from tapeout.driver import tuned
from tapeout.driver.tuned import Winner
from tapeout.schedule.build import forms_of, plan_for
from tapeout.schedule.form import form_key
from tapeout.schedule.lower import choices

pytestmark = pytest.mark.usefixtures("empty_cache", "unchecked")


def trainer(threads: int = 1) -> tapeout.Trainer:
    rng = np.random.default_rng(0)
    with tapeout.Builder("net") as g:
        x = g.input("x", (96, 80))
        w = g.parameter("w", (80, 64), init=rng.standard_normal((80, 64)).astype(np.float32))
        v = g.parameter("v", (64, 10), init=rng.standard_normal((64, 10)).astype(np.float32))
        g.output("logits", (x @ w).relu() @ v)
    return tapeout.Trainer(
        g.graph(),
        loss=tapeout.losses.cross_entropy(),
        optimizer=tapeout.optimizers.sgd(0.01, momentum=0.9),
        threads=threads,
    )


def batch() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {"x": rng.standard_normal((96, 80)).astype(np.float32), "labels": np.arange(96) % 10}


def weights(t: tapeout.Trainer, steps: int = 3) -> dict[str, bytes]:
    for _ in range(steps):
        t.step(batch())
    return {n: t.parameters[n].tobytes() for n in t.parameters}


def forms(t: tapeout.Trainer) -> dict[str, list[str]]:
    """Return the choices of each kernel of the step that has several."""
    from tapeout.driver.pipeline import optimize

    *_, last = optimize(t.graph_for("step", batch()), t.session.options)
    assert last.graph is not None
    plan = plan_for(last.graph, t.session.layout, t.session.options.target)
    ways = {f: choices(w.kernel, t.session.options.target) for f, w in forms_of(plan).items()}
    return {f: c for f, c in ways.items() if len(c) > 1}


def test_every_choice_gives_the_same_bits() -> None:
    expected = weights(trainer())
    ways = forms(trainer())
    assert ways
    for n in range(1, max(map(len, ways.values()))):
        found = {f: Winner(c[n], 0.5, True) for f, c in ways.items() if n < len(c)}
        tuned.keep(native(), found)
        assert weights(trainer()) == expected, found


def test_a_search_keeps_winners_and_leaves_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_TURN_SECONDS", 0.001)
    told: list[str] = []
    t = trainer()
    found = tapeout.tune(t, batch(), seconds=60, progress=told.append)
    assert found.finished and found.rounds == len(told) and found.tried > 0
    assert found.after <= found.before and str(found)
    assert t.steps_done == 0
    table = tuned.winners(native())
    assert table and all(w.done for w in table.values())
    assert weights(t) == weights(trainer())
    again = tapeout.tune(trainer(), batch(), seconds=60)
    assert again.rounds == 0 and again.finished


def test_an_interrupted_search_leaves_a_usable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_TURN_SECONDS", 0.001)

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    t = trainer()
    with pytest.raises(KeyboardInterrupt):
        tapeout.tune(t, batch(), seconds=60, progress=stop)
    assert t.steps_done == 0
    table = tuned.winners(native())
    assert table and not all(w.done for w in table.values())
    assert weights(trainer()) == weights(t)
    assert tapeout.tune(trainer(), batch(), seconds=60).finished


def test_no_time_is_enough_for_an_answer() -> None:
    found = tapeout.tune(trainer(), batch(), seconds=0.0)
    assert found.rounds == 0 and not found.finished and found.before == found.after


def test_compilations_depend_on_the_table() -> None:
    """A program that was compiled before is not taken for one with other choices; without any, nothing changes."""
    assert tuned.digest(native()) == ""
    weights(trainer(), 1)
    programs = store_of("programs").usage().files
    weights(trainer(), 1)
    assert store_of("programs").usage().files == programs
    form, ways = next(iter(forms(trainer()).items()))
    tuned.keep(native(), {form: Winner(ways[1], 0.9, True)})
    weights(trainer(), 1)
    assert store_of("programs").usage().files == programs + 1


@pytest.mark.parametrize("choice", ["", "m99x99 direct direct panels=1 steps=1", "nonsense"])
def test_a_choice_that_means_nothing_is_the_default(choice: str) -> None:
    expected = weights(trainer())
    tuned.keep(native(), {f: Winner(choice, 0.5, True) for f in forms(trainer())})
    assert weights(trainer()) == expected


def test_a_damaged_table_is_no_table(empty_cache: Path) -> None:
    tuned.keep(native(), {"a": Winner("x", 0.5, True)})
    (file,) = [p for p in (empty_cache / "tuned").rglob("*") if p.is_file()]
    file.write_bytes(b"[1, 2")
    assert tuned.winners(native()) == {}
    assert form_key(("a", 1)) == form_key(("a", 1)) != form_key(("a", 2))
