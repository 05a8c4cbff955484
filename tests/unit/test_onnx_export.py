"""Graphs written as ONNX compute in onnxruntime what the oracle computes."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings

from tapeout.export.onnx import save
from tapeout.export.onnx.save import model
from tapeout.export.onnx.table import spelled
from tapeout.frontend.onnx import load
from tapeout.ir.build import Builder
from tapeout.ir.dtype import f32, i64
from tapeout.ir.graph import Graph
from tapeout.ir.op import REGISTRY, Composite, Elementwise
from tapeout.ir.type import Dim, TensorType
from tapeout.ops.composite.pool import MaxPool
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tapeout.support.errors import DataError, OptionError, UnboundDimension
from tests.onnx_models import Array, run_elsewhere
from tests.ops.cases import CASES, Case
from tests.random_graphs import Case as RandomCase
from tests.random_graphs import cases
from tests.tolerances import close

# What onnxruntime has no kernel for, in f64: the files are right, and other runtimes may run them.
NO_KERNEL = (
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "conv",
    "cosh",
    "erf",
    "gelu",
    "sinh",
)


def written(case: Case) -> tuple[Graph, onnx.ModelProto]:
    """Return a graph of one operation, and the same as ONNX."""
    b = Builder("case")
    inputs = [b.add_input(f"x{i}", t) for i, t in enumerate(case.types)]
    for i, value in enumerate(b.emit(case.op, *inputs)):
        b.set_output(f"y{i}", value)
    graph = b.graph()
    return graph, model(graph)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_every_operation(case: Case) -> None:
    graph, made = written(case)
    onnx.checker.check_model(made, full_check=True)
    if "bf16" in case.id:
        return  # numpy has no bf16 that onnxruntime could be fed with
    feed = {v.name: a for v, a in zip(graph.inputs, case.draw(), strict=True)}
    got = elsewhere(made, feed)
    if got is None:
        assert case.op.name in NO_KERNEL
        return
    for name, array in oracle.run(graph, feed).outputs.items():
        close(got[name], array, case.kind, factor=4, reason="composed of several operators")


def elsewhere(made: onnx.ModelProto, feed: dict[str, Array]) -> dict[str, Array] | None:
    """Return what onnxruntime computes, None where it has no kernel."""
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    try:
        return run_elsewhere(made, feed)
    except NoKernel:
        return None


def test_every_primitive_has_a_spelling() -> None:
    ours = [c for c in REGISTRY.values() if c.__module__.startswith("tapeout.ops.")]
    needed = {c.name for c in ours if not issubclass(c, Elementwise | Composite)}
    assert needed <= set(spelled())


@settings(max_examples=40)
@given(cases())
def test_random_graphs(case: RandomCase) -> None:
    made = model(case.graph)
    onnx.checker.check_model(made, full_check=True)
    want = oracle.run(case.graph, case.inputs, case.variables)
    got = elsewhere(made, {**case.inputs, **case.variables})
    if got is None:
        return
    assert not want.failed
    for name, array in want.outputs.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-9, atol=1e-9)
    for name, array in want.updates.items():
        np.testing.assert_allclose(got[f"{name}.next"], array, rtol=1e-9, atol=1e-9)


# --- the contract of variables ---------------------------------------------------------------------


def step() -> Graph:
    """Return a graph with an input, a parameter that changes, a frozen one, a counter and a check."""
    b = Builder("step")
    x = Sym(b, b.add_input("x", TensorType(f32, (3,))))
    initial = np.array([1, 2, 3], np.float32)
    w = Sym(b, b.add_variable("w", TensorType(f32, (3,)), initial=initial))
    k = Sym(b, b.add_variable("k", TensorType(f32, (3,)), trainable=False, initial=initial * 2))
    n = Sym(b, b.add_variable("n", TensorType(i64), "state", initial=np.array(5)))
    lr = Sym(b, b.add_variable("lr", TensorType(f32), "hyper", initial=np.array(0.5, np.float32)))
    y = x * w + k
    b.set_output("y", y.value)
    b.set_update("w", (w - y * lr).value)
    b.set_update("n", (n + 1).value)
    b.add_check((y > 100).any().value, "y is too large")
    return b.graph()


def test_variables_are_inputs_with_values() -> None:
    made = model(step())
    onnx.checker.check_model(made, full_check=True)
    assert [v.name for v in made.graph.input] == ["x", "w", "k", "n", "lr"]
    assert [v.name for v in made.graph.output] == ["y", "w.next", "n.next", "check.0"]
    known = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    np.testing.assert_array_equal(known["w"], [1, 2, 3])
    facts = {p.key: json.loads(p.value) for p in made.metadata_props}
    assert facts["tapeout.variables"]["w"] == {"kind": "parameter", "next": "w.next"}
    assert facts["tapeout.variables"]["lr"] == {"kind": "hyper", "next": None}
    assert facts["tapeout.checks"] == {"check.0": "y is too large"}


def test_steps_follow_each_other() -> None:
    graph, made = step(), model(step())
    state: dict[str, Array] = {}
    mine: dict[str, Array] = {}
    for i in range(3):
        x = np.full(3, i, np.float32)
        out = run_elsewhere(made, {"x": x, **state})
        state = {n.removesuffix(".next"): a for n, a in out.items() if n.endswith(".next")}
        want = oracle.run(graph, {"x": x}, mine)
        mine = want.updates
        np.testing.assert_array_equal(out["y"], want.outputs["y"])
        np.testing.assert_array_equal(state["w"], mine["w"])
        assert state["n"] == 6 + i
        assert not out["check.0"]
    assert run_elsewhere(made, {"x": np.full(3, 1e6, np.float32)})["check.0"]


def test_parameters_may_be_plain() -> None:
    made = model(step(), feed_parameters=False)
    assert [v.name for v in made.graph.input] == ["x", "w", "n", "lr"]
    assert run_elsewhere(made, {"x": np.ones(3, np.float32)})["y"].tolist() == [3, 6, 9]


def test_names_must_differ() -> None:
    b = Builder("g")
    x = b.add_input("x", TensorType(f32, (3,)))
    b.set_output("x", Sym(b, x).exp().value)
    with pytest.raises(OptionError, match="'x' is the name of an output and of an input"):
        model(b.graph())


def test_outputs_that_are_inputs() -> None:
    b = Builder("g")
    x = b.add_input("x", TensorType(f32, (3,)))
    b.set_output("y", x)
    b.set_output("z", x)
    found = run_elsewhere(model(b.graph()), {"x": np.ones(3, np.float32)})
    assert found["y"].tolist() == found["z"].tolist() == [1, 1, 1]


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    save(step(), tmp_path / "step.onnx")
    onnx.checker.check_model(str(tmp_path / "step.onnx"), full_check=True)
    with pytest.raises(DataError):
        save(step(), tmp_path / "missing" / "step.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["step.onnx"]


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert model(step()).SerializeToString(deterministic=True) == model(step()).SerializeToString(
        deterministic=True
    )


# --- named dimensions ------------------------------------------------------------------------------

NET = """g (float[N,C,8,8] x) => (float y) {
    h = Conv <pads=[1,1,1,1]> (x, w)
    r = Relu (h)
    p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r)
    f = Flatten (p)
    y = Softmax (f)
}"""


def net(text: str = NET) -> onnx.ModelProto:
    from tests.onnx_models import parsed

    w = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    return parsed(text.replace("C,", "2,"), w=w)


def test_named_dimensions_stay_named() -> None:
    graph = load(net())
    made = model(graph)
    onnx.checker.check_model(made, full_check=True)
    assert [d.dim_param or d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        2,
        8,
        8,
    ]
    again = load(made)
    for n in (1, 3, 5):
        x = np.random.default_rng(n).normal(size=(n, 2, 8, 8)).astype(np.float32)
        want = oracle.run(graph.bind({"N": n}), {"x": x}).outputs["y"]
        np.testing.assert_allclose(run_elsewhere(made, {"x": x})["y"], want, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            oracle.run(again.bind({"N": n}), {"x": x}).outputs["y"], want, rtol=1e-5, atol=1e-7
        )


def test_a_mean_over_a_named_dimension_is_refused() -> None:
    """It multiplies by 1/N, a number that the file would hold for one N."""
    graph = load(net(NET.replace("y = Softmax (f)", "y = ReduceMean <keepdims=0> (f)")))
    with pytest.raises(UnboundDimension, match=r"by more than shapes[\s\S]*graph.bind"):
        model(graph)
    assert model(graph.bind({"N": 3}))


def test_named_images_are_refused_where_tables_need_numbers() -> None:
    text = (
        "g (float[N,2,H,8] x) => (float y) {h = Conv (x, w); y = LpPool <kernel_shape=[2,2]> (h)}"
    )
    with pytest.raises(UnboundDimension, match="bind"):
        model(load(net(text)))


def test_a_graph_without_its_source_cannot_stay_named() -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f32, (Dim.named("N", 2), 3))))
    b.set_output("y", x.exp().value)
    with pytest.raises(UnboundDimension, match="not bound: N"):
        model(b.graph({"N": 2}))


def test_operators_of_onnx_stay_what_they_are() -> None:
    """So that a file that is read again has the same gradients at corners, and other runtimes are fast."""
    graph = load(net())
    ops = [n.op_type for n in model(graph).graph.node]
    for op in ("Conv", "Relu", "MaxPool", "Softmax"):
        assert op in ops
    again = load(model(graph))
    assert [n.op.name for n in again.nodes if n.op.name != "reshape"] == [
        n.op.name for n in graph.nodes if n.op.name != "reshape"
    ]


def test_places_of_a_pool_are_written_out() -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f32, (1, 1, 4, 4))))
    pool = MaxPool(kernel=(2, 2), strides=(2, 2), low=(0, 0), high=(0, 0), dilations=(1, 1))
    values, places = x.emit_all(pool, x)
    b.set_output("values", values.value)
    b.set_output("places", places.value)
    array = np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype(np.float32)
    want = oracle.run(b.graph(), {"x": array}).outputs
    got = run_elsewhere(model(b.graph()), {"x": array})
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
