"""Running statistics: which tensors they are, what each mode does with them, and what becomes of merged ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tapeout.frontend.onnx import load
from tapeout.ir.graph import Graph
from tapeout.oracle import graph as oracle
from tapeout.support.errors import OnnxImportError, ShapeError
from tests.onnx_models import Array, parsed

EPSILON, MOMENTUM = 1e-5, 0.75
RNG = np.random.default_rng(1)
X = RNG.normal(1, 2, (4, 3, 5)).astype(np.float32)
S, B, M = (RNG.normal(0.5, 1, 3).astype(np.float32) for _ in range(3))
V = RNG.uniform(0.5, 2, 3).astype(np.float32)
TENSORS = {"s": S, "b": B, "m": M, "v": V}

ONE = "y = BatchNormalization<momentum=0.75>(x, s, b, m, v)"


def model(nodes: str = ONE, opset: int = 15, **arrays: Array) -> onnx.ModelProto:
    text = f"g (float[N,3,5] x) => (float[N,3,5] y) {{ {nodes} }}"
    return parsed(text, opset, **(arrays or TENSORS))


def step(graph: Graph, x: Array = X) -> tuple[Array, dict[str, Array]]:
    """Return the output, and what each state becomes."""
    found = oracle.run(graph.bind({n: len(x) for n in graph.dims}), {"x": x})
    return found.outputs["y"], found.updates


def of_batch(x: Array, s: Array = S, b: Array = B) -> tuple[Array, Array, Array]:
    """Return x normalised by its own statistics, the mean and the population's variance."""
    wide = x.astype(np.float64)
    mean, variance = wide.mean((0, 2)), wide.var((0, 2))
    at = (slice(None), None)
    y = (wide - mean[at]) / np.sqrt(variance[at] + EPSILON) * s[at] + b[at]
    return y, mean, variance


def of_running(x: Array) -> Array:
    at = (slice(None), None)
    return (x - M[at]) / np.sqrt(V[at].astype(np.float64) + EPSILON) * S[at] + B[at]


def moved(old: Array, new: Array) -> Array:
    return old * MOMENTUM + new * (1 - MOMENTUM)


def near(got: Array, want: Array) -> None:
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


# --- modes -----------------------------------------------------------------------------------------


def test_statistics_are_state_and_no_parameters() -> None:
    for mode in ("train", "eval", "as-exported"):
        graph = load(model(), mode=mode)
        assert list(graph.parameters) == ["s", "b"]
        assert [v.name for v in graph.variables if v.kind == "state"] == ["m", "v"]


def test_a_file_in_inference_form_is_trained() -> None:
    graph = load(model())
    y, updates = step(graph)
    want, mean, variance = of_batch(X)
    near(y, want)
    assert set(updates) == {"m", "v"}
    near(updates["m"], moved(M, mean))
    near(updates["v"], moved(V, variance))


def test_evaluation_reads_the_same_variables() -> None:
    graph = load(model())
    other = graph.evaluation()
    assert {v.name: v for v in graph.variables} == {v.name: v for v in other.variables}
    y, updates = step(other)
    near(y, of_running(X))
    assert not updates


@pytest.mark.parametrize("mode", ["eval", "as-exported", {"layer": "eval"}, {"m": "eval"}])
def test_statistics_stay_in_inference(mode: Any) -> None:
    made = model()
    made.graph.node[0].name = "layer"
    y, updates = step(load(made, mode=mode))
    near(y, of_running(X))
    assert not updates


def test_one_of_two_layers_is_frozen() -> None:
    nodes = f"h = BatchNormalization(x, s, b, m, v); {ONE.replace('(x, s, b, m, v)', '(h, s2, b2, m2, v2)')}"
    made = model(nodes, **TENSORS, s2=S, b2=B, m2=M, v2=V)
    made.graph.node[0].name, made.graph.node[1].name = "first", "second"
    graph = load(made, mode={"first": "eval"})
    y, updates = step(graph)
    want, mean, variance = of_batch(of_running(X))
    near(y, want)
    assert set(updates) == {"m2", "v2"}
    near(updates["m2"], moved(M, mean))
    near(updates["v2"], moved(V, variance))


def test_the_training_form_says_so_itself() -> None:
    nodes = "y, m1, v1 = BatchNormalization<momentum=0.75, training_mode=1>(x, s, b, m, v)"
    for mode in ("train", "as-exported"):
        y, updates = step(load(model(nodes), mode=mode))
        want, mean, variance = of_batch(X)
        near(y, want)
        near(updates["m"], moved(M, mean))
        near(updates["v"], moved(V, variance))
    y, updates = step(load(model(nodes), mode="eval"))
    near(y, of_running(X))
    assert not updates


@pytest.mark.parametrize("opset", [8, 9, 13])
def test_the_training_form_of_old_versions(opset: int) -> None:
    nodes = "y, m1, v1, sm, sv = BatchNormalization<momentum=0.75>(x, s, b, m, v)"
    y, updates = step(load(model(nodes, opset), mode="as-exported"))
    want, mean, variance = of_batch(X)
    near(y, want)
    near(updates["m"], moved(M, mean))
    near(updates["v"], moved(V, variance))
    y, updates = step(load(model(ONE, opset), mode="as-exported"))
    near(y, of_running(X))
    assert not updates


def test_statistics_for_each_place() -> None:
    shape = (3, 5)
    s, b, m = (RNG.normal(0.5, 1, shape).astype(np.float32) for _ in range(3))
    v = RNG.uniform(0.5, 2, shape).astype(np.float32)
    made = model(ONE.replace("<", "<spatial=0, "), 7, s=s, b=b, m=m, v=v)
    y, updates = step(load(made))
    near(y, (X - X.mean(0)) / np.sqrt(X.var(0) + EPSILON) * s + b)
    near(updates["v"], moved(v, X.var(0)))
    y, updates = step(load(made, mode="eval"))
    near(y, (X - m) / np.sqrt(v + EPSILON) * s + b)


def test_an_operand_without_channels_has_one() -> None:
    one = {n: a[:1] for n, a in TENSORS.items()}
    made = parsed(f"g (float[N] x) => (float[N] y) {{ {ONE} }}", 15, **one)
    x = X[:, 0, 0]
    y, updates = step(load(made), x)
    near(y, (x - x.mean()) / np.sqrt(x.var() + EPSILON) * S[0] + B[0])
    near(updates["m"], moved(M[:1], x.mean(keepdims=True)))


# --- what cannot be trained ------------------------------------------------------------------------


def test_one_value_has_no_deviation() -> None:
    made = parsed(f"g (float[N,3] x) => (float[N,3] y) {{ {ONE} }}", 15, **TENSORS)
    graph = load(made)
    with pytest.raises(ShapeError, match="fewer than 2 values") as told:
        graph.bind({"N": 1})
    assert "larger batch" in told.value.hint
    assert "BatchNormalization" in told.value.where
    y, _ = step(graph.evaluation(), X[:1, :, 0])
    near(y, of_running(X[:1])[..., 0])


def fed(form: str) -> onnx.ModelProto:
    text = f"g (float[N,3,5] x, float[3] m, float[3] v) => (float[N,3,5] y) {{ {form} }}"
    return parsed(text, 15, s=S, b=B)


def test_statistics_that_are_fed_cannot_be_kept() -> None:
    with pytest.raises(OnnxImportError, match="cannot keep the running statistics") as told:
        load(fed(ONE))
    assert "eval" in told.value.hint
    load(fed(ONE), mode="eval")
    # Here the file hands them out itself.
    form = "y, m1, v1 = BatchNormalization<momentum=0.75, training_mode=1>(x, s, b, m, v)"
    made = fed(form)
    made.graph.output.extend([onnx.ValueInfoProto(name="m1"), onnx.ValueInfoProto(name="v1")])
    graph = load(made).bind({"N": 4})
    found = oracle.run(graph, {"x": X, "m": M, "v": V})
    near(found.outputs["m1"], moved(M, of_batch(X)[1]))
    assert not found.updates


def test_statistics_that_the_file_computes_are_not_kept() -> None:
    """PyTorch writes a layer without running statistics so: the batch is normalised by itself in both modes."""
    nodes = (
        "at = Constant<value_ints = [0, 2]>(); m = ReduceMean<keepdims=0>(x, at); "
        "k = ReduceMean(x, at); c = Sub(x, k); q = Mul(c, c); v = ReduceMean<keepdims=0>(q, at); "
    )
    graph = load(model(nodes + ONE, 18, s=S, b=B))
    assert list(graph.variable) == ["s", "b"]
    for found in (graph, graph.evaluation()):
        y, updates = step(found)
        near(y, of_batch(X)[0])
        assert not updates


# --- merged tensors --------------------------------------------------------------------------------


def test_statistics_of_constant_nodes() -> None:
    nodes = f"m = Constant<value: tensor = float[3] {{ 1, 2, 3 }}>(); {ONE}"
    graph = load(model(nodes, s=S, b=B, v=V))
    _, updates = step(graph)
    near(updates["m"], moved(np.array([1, 2, 3]), of_batch(X)[1]))


def test_statistics_of_a_layer_inside_of_a_function() -> None:
    made = parsed(
        "g (float[N,3,5] x) => (float[N,3,5] y) { y = local.Layer(x, s, b, m, v) }", 15, **TENSORS
    )
    body = onnx.parser.parse_function(
        '<domain: "local", opset_import: ["": 15]> Layer (h, a, c, e, f) => (y) '
        "{ y = BatchNormalization<momentum=0.75>(h, a, c, e, f) }"
    )
    made.functions.append(body)
    made.opset_import.append(onnx.helper.make_opsetid("local", 1))
    graph = load(made)
    assert list(graph.parameters) == ["s", "b"]
    _, updates = step(graph)
    near(updates["m"], moved(M, of_batch(X)[1]))


def test_a_layer_applied_twice_moves_its_statistics_twice() -> None:
    nodes = f"h = {ONE[4:]}; {ONE.replace('(x', '(h')}"
    graph = load(model(nodes))
    assert list(graph.variable) == ["s", "b", "m", "v"]
    _, updates = step(graph)
    h, mean, variance = of_batch(X)
    _, mean2, variance2 = of_batch(h)
    near(updates["m"], moved(moved(M, mean), mean2))
    near(updates["v"], moved(moved(V, variance), variance2))


def test_vectors_merged_by_their_value_are_parted() -> None:
    nodes = (
        "h = BatchNormalization(x, one, zero, zero, one); "
        "y = BatchNormalization(h, one, zero, zero, one)"
    )
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    made = model(nodes, zero=zero, one=one)
    made.graph.node[0].name = "first"
    graph = load(made)
    kinds = {n: v.kind for n, v in graph.variable.items()}
    roles = ("scale", "bias", "running_mean", "running_var")
    assert kinds == {
        f"{layer}.{role}": "parameter" if i < 2 else "state"
        for layer in ("first", "y")
        for i, role in enumerate(roles)
    }
    assert {n for n, _ in graph.updates} == {n for n, kind in kinds.items() if kind == "state"}
    written = onnx.ModelProto.FromString(graph.origin)
    onnx.checker.check_model(written)
    assert {t.name for t in written.graph.initializer} >= set(kinds)


def test_a_statistic_that_is_a_bias_elsewhere_is_parted() -> None:
    nodes = f"h = Add(x, zero); {ONE.replace('(x', '(h').replace('m, v', 'zero, v')}"
    text = f"g (float[N,3,3] x) => (float[N,3,3] y) {{ {nodes} }}"
    graph = load(parsed(text, 15, s=S, b=B, v=V, zero=np.zeros(3, np.float32)))
    assert graph.variable["zero"].kind == "parameter"
    assert graph.variable["y.running_mean"].kind == "state"


def test_what_pytorch_merged_is_parted() -> None:
    nodes = f"b2 = Identity(s); {ONE.replace('b, m', 'b2, m')}"
    made = model(nodes, s=S, m=M, v=V)
    made.graph.node[0].name = "Identity_0"
    assert list(load(made).parameters) == ["s"]
    made.producer_name = "pytorch"
    assert list(load(made).parameters) == ["s", "b2"]
    made.graph.node[0].name = "/layer/Identity"  # a node of the model
    assert list(load(made).parameters) == ["s"]
