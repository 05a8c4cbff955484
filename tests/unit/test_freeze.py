"""Which parameters train, and in which mode, chosen by pattern; and a graph as one of networkx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tapeout
from tests.onnx_models import Array, parsed


def f32(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def mlp() -> tapeout.Graph:
    with tapeout.Builder("mlp") as g:
        x = g.input("x", ("N", 4))
        h = tapeout.nn.relu(tapeout.nn.linear(x, 3, name="body.fc1"))
        h = tapeout.nn.relu(tapeout.nn.linear(h, 3, name="body.fc2"))
        g.state("body.mean", (2,), tapeout.init.zeros())
        g.output("y", tapeout.nn.linear(h, 2, name="head"))
    return g.graph()


def trained(graph: tapeout.Graph) -> str:
    return " ".join(n for n, v in graph.parameters.items() if v.trainable)


ALL = "body.fc1.weight body.fc1.bias body.fc2.weight body.fc2.bias head.weight head.bias"


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*", ""),
        ("body.*", "head.weight head.bias"),
        ("*.bias", "body.fc1.weight body.fc2.weight head.weight"),
        (["*", "!head.*"], "head.weight head.bias"),
        ("!head.*", "head.weight head.bias"),
        (["body.*", "!body.fc2.*"], "body.fc2.weight body.fc2.bias head.weight head.bias"),
        (["body.*", "!body.fc2.*", "*.bias"], "body.fc2.weight head.weight"),
        (lambda name: "fc1" in name, "body.fc2.weight body.fc2.bias head.weight head.bias"),
        ([], ALL),
    ],
)
def test_freeze(pattern: Any, left: str) -> None:
    assert trained(mlp().freeze(pattern)) == left


def test_chains() -> None:
    graph = mlp().freeze("*").unfreeze("head.*").unfreeze(["body.fc2.*"]).freeze("*.bias")
    assert trained(graph) == "body.fc2.weight head.weight"
    assert trained(mlp()) == ALL


def test_every_binding_holds_the_same_variables() -> None:
    graph = mlp().freeze("body.*").freeze("head.bias")
    for n in (1, 5):
        assert graph.bind({"N": n}).variables == graph.variables
    plain = mlp()
    values = [v.value for v in plain.variables]
    assert [v.value for v in plain.freeze("*").bind({"N": 3}).variables] == values


BAD = {
    "a name": ("haed.*", "did you mean 'head.bias'"),
    "a name among several": (["*", "!fc9*"], "no parameter is called 'fc9"),
    "a number": (3, "a glob, a list of globs or a function"),
    "numbers": ([3], "a glob, a list of globs or a function"),
    "a set": ({"head.*"}, "a glob, a list of globs or a function"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("what", ["freeze", "unfreeze"])
def test_bad_patterns(case: str, what: str) -> None:
    pattern, said = BAD[case]
    with pytest.raises(tapeout.OptionError, match=what) as caught:
        getattr(mlp(), what)(pattern)
    assert said in str(caught.value)


def test_a_state_is_no_parameter() -> None:
    with tapeout.Builder("counted") as g:
        count = g.state("body.count", (), tapeout.init.zeros())
        g.update(count, count + 1)
        g.output("y", g.input("x", ("N",)) * g.parameter("w", (), tapeout.init.ones()))
    with pytest.raises(tapeout.OptionError, match=r"is a state(.|\n)*with_mode"):
        g.graph().freeze("body.count")


def test_frozen_parameters_stay_and_get_no_gradient(tmp_path: Path) -> None:
    """No memory either: neither gradients nor moments."""
    data = {"x": f32(8, 4), "labels": np.arange(8) % 2}
    options: dict[str, Any] = {
        "loss": tapeout.losses.cross_entropy(),
        "optimizer": tapeout.optimizers.adam(0.1),
    }
    whole = tapeout.Trainer(mlp(), **options)
    trainer = tapeout.Trainer(mlp().freeze("body.*"), **options)
    before = dict(trainer.parameters)
    trainer.fit(data, batch_size=4)
    changed = [n for n, a in before.items() if (trainer.parameters[n] != a).any()]
    assert changed == ["head.weight", "head.bias"]
    assert list(trainer.gradients(data)[1]) == changed
    whole.fit(data, batch_size=4)
    assert trainer.memory.optimizer_state < whole.memory.optimizer_state
    assert trainer.memory.gradients < whole.memory.gradients


def test_nothing_left_to_train() -> None:
    with pytest.raises(tapeout.OptionError, match="no parameter is trainable"):
        tapeout.Trainer(
            mlp().freeze("*"),
            loss=tapeout.losses.cross_entropy(),
            optimizer=tapeout.optimizers.sgd(1.0),
        )


def test_gradcheck_looks_at_what_trains() -> None:
    report = tapeout.gradcheck(mlp().freeze("*").unfreeze("head.*"))
    assert report
    assert [p.name for p in report.parameters] == ["head.weight", "head.bias"]
    with pytest.raises(tapeout.OptionError, match="no parameter is trainable"):
        tapeout.gradcheck(mlp().freeze("*"))


# --- modes -----------------------------------------------------------------------------------------


def dropouts(**options: Any) -> tapeout.Graph:
    made = parsed(
        'g (float[N,8] x) => (float[N,8] y) {["drop1"] a, ma = Dropout (x, r); b = Mul (a, w); '
        '["drop2"] y, m = Dropout (b, r)}',
        r=np.array(0.5, np.float32),
        w=f32(8),
    )
    return tapeout.load_onnx(made, **options)


def draws(graph: tapeout.Graph) -> int:
    return sum(n.op.name == "random_bits" for n in graph.nodes)


def test_modes_are_laid_over_those_before() -> None:
    graph = dropouts()
    assert draws(graph) == 2
    assert draws(graph.with_mode({"drop1": "eval"})) == 1
    assert draws(graph.with_mode({"drop1": "eval"}).with_mode({"drop2": "eval"})) == 0
    assert draws(graph.with_mode("eval").with_mode({"drop2": "train"})) == 1
    assert draws(dropouts(mode="eval").with_mode("train")) == 2
    assert draws(graph.with_mode({"drop*": "eval", "drop2": "train"})) == 1
    assert draws(graph) == 2


def test_modes_hold_for_every_binding_and_keep_what_is_frozen() -> None:
    graph = dropouts().freeze("w").with_mode({"drop1": "eval"})
    bound = graph.bind({"N": 7})
    assert draws(bound) == 1
    assert not bound.parameters["w"].trainable
    assert graph.evaluation is not None
    assert draws(graph.evaluation()) == 0
    assert bound.variable["w"] is graph.variable["w"] is graph.evaluation().variable["w"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("training", "one of train, eval, as-exported"),
        ({"drop1": "off"}, "'off'"),
        ({"dorp1": "eval"}, "did you mean 'drop1'"),
    ],
)
def test_bad_modes(mode: Any, said: str) -> None:
    for make in (lambda: dropouts().with_mode(mode), lambda: dropouts(mode=mode)):
        with pytest.raises(tapeout.OptionError, match=r"mode") as caught:
            make()
        assert said in str(caught.value)


def test_a_graph_without_modes() -> None:
    graph = mlp()
    assert graph.with_mode("eval") is graph
    with pytest.raises(tapeout.OptionError, match="no dropout or batch normalisation"):
        graph.with_mode({"bn*": "eval"})


# --- networkx --------------------------------------------------------------------------------------


def test_to_networkx() -> None:
    with tapeout.Builder("square") as g:
        x = g.input("x", ("N",))
        g.output("y", x * x + g.parameter("w", (), tapeout.init.ones()))
    import networkx

    found = g.graph().to_networkx()
    assert isinstance(found, networkx.MultiDiGraph)
    assert networkx.is_directed_acyclic_graph(found)
    square = next(n for n, d in found.nodes(data=True) if d["label"] == "mul")
    edges = found.get_edge_data("input:x", square).values()
    assert sorted(e["operand"] for e in edges) == [0, 1]
    assert {e["type"] for e in edges} == {"f32[N]"}
    assert networkx.ancestors(found, "output:y") >= {"input:x", "variable:w", square}
