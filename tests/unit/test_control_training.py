"""Training through a loop: it learns, in the memory that was planned; a bad index inside stops the step; the cache holds loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tapeout
from tapeout.driver.bisect import bisect
from tapeout.driver.options import Options, resolve_target
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f32
from tapeout.ir.type import TensorType
from tapeout.kernel.program import Branch, Launch, Loop
from tapeout.ops.control import cond
from tapeout.ops.sym import Sym
from tapeout.schedule import nest

T, B, H, WORDS = 16, 8, 16, 11


def model(hidden: int = H, length: int = T) -> tapeout.Graph:
    """Return an LSTM over word numbers [length, B] that looks its words up inside of the loop."""
    rng = np.random.default_rng(0)
    with tapeout.Builder("words", seed=1) as g:

        def parameter(name: str, *shape: int) -> Sym:
            start = rng.standard_normal(shape) / np.sqrt(shape[0])
            return g.parameter(name, shape, start.astype(np.float32))

        words = g.input("words", (length, B), tapeout.i64)
        table, out = parameter("table", WORDS, hidden), parameter("out", hidden, 2)
        wx, wh = parameter("wx", hidden, 4 * hidden), parameter("wh", hidden, 4 * hidden)
        bias = parameter("bias", 4 * hidden)
        zero = g.constant(0.0, f32).broadcast_to((B, hidden))

        def step(c: list[Sym], x: list[Sym], k: list[Sym]) -> tuple[list[Sym], list[Sym]]:
            h, cell = c
            table, wx, wh, bias = k
            z = table.take(x[0], 0) @ wx + h @ wh + bias
            i, f, new, o = (z[:, n * hidden : (n + 1) * hidden] for n in range(4))
            cell = f.sigmoid() * cell + i.sigmoid() * new.tanh()
            return [o.sigmoid() * cell.tanh(), cell], []

        (hs, _), _ = g.scan(step, [zero, zero], [words], [table, wx, wh, bias])
        g.output("logits", hs[length] @ out)
    return g.graph()


def batch(length: int = T) -> dict[str, np.ndarray]:
    words = np.random.default_rng(5).integers(0, WORDS, (length, B))
    return {"words": words, "labels": (words[0] > WORDS // 2).astype(np.int64)}


def trainer(graph: tapeout.Graph, **options: object) -> tapeout.Trainer:
    loss, optimizer = tapeout.losses.cross_entropy(), tapeout.optimizers.adam(lr=1e-2)
    return tapeout.Trainer(graph, loss=loss, optimizer=optimizer, **options)  # type: ignore[arg-type]


def test_an_lstm_learns_and_threads_change_no_bit() -> None:
    losses = []
    for threads in (1, 2, 3):
        t = trainer(model(), threads=threads)
        losses.append([float(t.step(batch())["loss"]).hex() for _ in range(30)])
    assert losses[0] == losses[1] == losses[2]
    first, last = (float.fromhex(losses[0][n]) for n in (0, -1))
    assert last < 0.2 * first


def test_a_bad_word_inside_of_the_loop_updates_nothing() -> None:
    t = trainer(model())
    t.step(batch())
    before = {n: t.session.read(n).copy() for n in t.session.variables}
    bad = batch()
    bad["words"][3, 2] = WORDS
    with pytest.raises(tapeout.TapeoutError, match="index"):
        t.step(bad)
    for name, array in before.items():
        np.testing.assert_array_equal(t.session.read(name), array)
    with pytest.raises(tapeout.TapeoutError, match="index"):
        t.predict({"words": bad["words"]})


def test_a_bad_index_in_the_untaken_branch_is_no_fault() -> None:
    b = Builder("branch")
    p = Sym(b, b.add_input("p", TensorType(bool_)))
    at = Sym(b, b.add_input("at", TensorType(tapeout.i64, (2,))))
    x = Sym(b, b.add_variable("x", TensorType(f32, (4,)), initial=np.arange(4, dtype=np.float32)))
    (y,) = cond(p, lambda x, at: [x.take(at, 0)], lambda x, _: [x[:2] * 2.0], [x, at])
    b.set_output("loss", y.sum().value)
    t = tapeout.Trainer(b.graph(), loss="loss", optimizer=tapeout.optimizers.sgd(lr=1.0))
    assert t.step({"p": np.array(False), "at": np.array([9, 9])})["loss"] == 2.0
    with pytest.raises(tapeout.TapeoutError, match="index"):
        t.step({"p": np.array(True), "at": np.array([1, 9])})
    assert t.step({"p": np.array(True), "at": np.array([1, 2])})["loss"] == 1.0 - 2.0 + 2.0


def test_only_carries_and_gates_are_kept() -> None:
    t = trainer(model(64, 64))
    t.step(batch(64))
    stack = 4 * 64 * B * 64
    # Words, two histories, four gates and tanh of the cell; backwards the cotangents of four gates and of both carries. The
    # products after the loop pack an operand while the gates are dead.
    assert t.memory.activations < (8 + 6 + 3) * stack


def test_a_prediction_holds_no_history_of_the_cell() -> None:
    t = trainer(model(64, 256))
    words = batch(256)["words"]
    t.predict({"words": words})
    stack = 4 * 256 * B * 64
    entry = next(e for e in t.session._entries if e.program.name == "predict")
    transient = entry.program.arena - entry.program.layout.bytes
    packed = 2 * 4 * 64 * 256  # both weights, for the products of all rounds
    assert transient < 0.1 * stack + packed  # where training needs seventeen stacks
    loop = next(i for i in entry.program.numbered if isinstance(i, Loop))
    labels = [i.label for i in loop.items if isinstance(i, Launch)]
    assert not any("copy" in label for label in labels[:-1])


def test_a_program_with_loops_comes_back_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(tmp_path))
    graph = model()
    found = []
    for _ in range(2):
        t = trainer(graph)
        found.append(t.step(batch())["loss"])
        items = t.session._entries[0].program.numbered
        assert sum(isinstance(i, Loop) for i in items) == 2
        assert not any(isinstance(i, Branch) for i in items)
    assert found[0] == found[1]


def test_bisect_goes_through_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, options = trainer(model(4, 3)).step_graph(), Options(resolve_target("native"))
    assert bisect(graph, options) is None
    # Loops that begin one slot too far give results that are not those of the graph.
    right = nest.View
    monkeypatch.setattr(
        nest,
        "View",
        lambda h, of, at, step=0, level=0: right(h, of, at if step <= 0 else 0, step, level),
    )
    found = bisect(graph, options)
    assert found is not None and found.stage == "schedule"
