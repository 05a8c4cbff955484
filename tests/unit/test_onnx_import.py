"""What `load` makes of a whole model: names, parameters, dimensions, modes, functions, order."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tapeout.frontend.onnx import load
from tapeout.ir.type import Dim
from tapeout.oracle import graph as oracle
from tapeout.support.errors import (
    OnnxImportError,
    OptionError,
    ShapeError,
    TapeoutError,
    UnsupportedOperator,
)
from tests.onnx_models import Array, model, parsed, run

RNG = np.random.default_rng(1)


def f32(*shape: int) -> Array:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def mlp() -> onnx.ModelProto:
    """Return two layers whose parameters are called as in PyTorch."""
    text = "g (float[N,4] x) => (float[N,2] y) {h = Gemm (x, fc1.weight, fc1.bias); r = Relu (h); y = Gemm (r, head.weight, head.bias)}"
    shapes = {"fc1.weight": (4, 3), "fc1.bias": (3,), "head.weight": (3, 2), "head.bias": (2,)}
    quoted = text
    for name in shapes:
        quoted = quoted.replace(name, f'"{name}"')
    return parsed(quoted, **{name: f32(*shape) for name, shape in shapes.items()})


# --- parameters ------------------------------------------------------------------------------------


def test_parameters_keep_names_and_order() -> None:
    graph = load(mlp())
    assert list(graph.parameters) == ["fc1.weight", "fc1.bias", "head.weight", "head.bias"]
    assert all(v.trainable for v in graph.variables)
    assert [v.name for v in graph.inputs] == ["x"]
    assert list(graph.output) == ["y"]


@pytest.mark.parametrize(
    ("trainable", "chosen"),
    [
        ("*", "fc1.weight fc1.bias head.weight head.bias"),
        ("head.*", "head.weight head.bias"),
        (["*", "!fc1.*"], "head.weight head.bias"),
        (["!*.bias"], "fc1.weight head.weight"),
        (["!*", "head.bias"], "head.bias"),
        ([], ""),
        (lambda name: name.endswith("weight"), "fc1.weight head.weight"),
    ],
)
def test_trainable(trainable: object, chosen: str) -> None:
    graph = load(mlp(), trainable=trainable)  # type: ignore[arg-type]
    assert [v.name for v in graph.variables if v.trainable] == chosen.split()
    assert len(graph.parameters) == 4  # the others are frozen, not gone


def test_trainable_that_matches_nothing() -> None:
    with pytest.raises(OptionError, match=r"'haed\.\*'[\s\S]*'head\.bias'"):
        load(mlp(), trainable="haed.*")


def test_constant_nodes_hold_parameters() -> None:
    """As Paddle's exporter writes weights; settings and lone numbers stay constants."""
    made = parsed(
        "g (float[N,4] x) => (float[N,2] y) {h = MatMul (x, w); s = Mul (h, half); y = Add (s, b)}"
    )
    for name, array in (("w", f32(4, 2)), ("b", f32(2)), ("half", np.array([0.5], np.float32))):
        node = helper.make_node(
            "Constant", [], [name], value=numpy_helper.from_array(array, "value")
        )
        made.graph.node.insert(0, node)
    graph = load(made)
    assert sorted(graph.parameters) == ["b", "w"]


def test_initializers_listed_as_inputs() -> None:
    """As IR version 3 demands."""
    made = mlp()
    made.ir_version = 3
    for t in made.graph.initializer:
        made.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    graph = load(made)
    assert [v.name for v in graph.inputs] == ["x"]
    assert len(graph.parameters) == 4


def test_identity_chains_keep_the_name() -> None:
    made = parsed(
        "g (float[N,4] x) => (float[N,2] y) {a = Identity (w); b = Identity (a); y = MatMul (x, b)}",
        w=f32(4, 2),
    )
    assert list(load(made).parameters) == ["w"]


@pytest.mark.parametrize(
    ("name", "array", "text", "is_parameter"),
    [
        ("mask", np.array([0, -np.inf], np.float32), "y = Add (x, mask)", False),
        ("mask", np.array([0, np.finfo(np.float32).min], np.float32), "y = Add (x, mask)", False),
        ("scale", np.array(2.0, np.float32), "y = Mul (x, scale)", False),
        ("val_7", np.array([2.0], np.float32), "y = Mul (x, val_7)", False),
        ("gain", np.array([2.0], np.float32), "y = Mul (x, gain)", True),
        ("val_7", f32(2), "y = Mul (x, val_7)", True),
        ("low", np.array(0.0, np.float32), "y = Clip (x, low)", False),
        (
            "numbers",
            np.array([1, 2]),
            "a = Cast <to=7> (x); b = Add (a, numbers); y = Cast <to=1> (b)",
            False,
        ),
        ("unused", f32(2), "y = Relu (x)", False),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_is_a_parameter(name: str, array: Array, text: str, is_parameter: bool) -> None:
    graph = load(parsed(f"g (float[2] x) => (float[2] y) {{{text}}}", **{name: array}))
    assert (name in graph.parameters) == is_parameter


@pytest.mark.parametrize(
    ("value", "trainable", "trains"),
    [
        ('{"table": false}', "*", False),
        ('{"table": false}', ["*", "!w"], False),
        ('{"table": false}', ["*", "tab*"], True),
        ('{"table": false}', lambda name: True, True),
        ('{"gone": false, "w": 7}', "*", True),
        ("{", "*", True),
        ('"table"', "*", True),
    ],
)
def test_what_the_metadata_name_keeps_still(value: str, trainable: object, trains: bool) -> None:
    made = parsed(
        "g (float[2] x) => (float y) {h = Mul (x, w); y = Add (h, table)}",
        w=np.ones(2, np.float32),
        table=np.ones(2, np.float32),
    )
    made.metadata_props.append(onnx.StringStringEntryProto(key="tapeout.trainable", value=value))
    graph = load(made, trainable=trainable)
    assert graph.parameters["table"].trainable == trains


def test_a_scalar_is_a_parameter_when_the_metadata_say_so() -> None:
    made = parsed("g (float[2] x) => (float y) {y = Mul (x, w)}", w=np.float32(2))
    assert not load(made).parameters
    note = onnx.StringStringEntryProto(key="tapeout.trainable", value='{"w": true}')
    made.metadata_props.append(note)
    assert load(made).parameters["w"].trainable
    assert not load(made, trainable="!w").parameters["w"].trainable


def test_a_scalar_is_trained_when_it_is_named() -> None:
    made = parsed(
        "g (float[2] x) => (float[2] y) {y = Mul (x, scale)}", scale=np.array(2.0, np.float32)
    )
    assert list(load(made, trainable="scale").parameters) == ["scale"]
    assert list(load(made, trainable=["*", "sc*"]).parameters) == ["scale"]


# --- dimensions ------------------------------------------------------------------------------------


def test_named_dimensions_are_bound_later() -> None:
    graph = load(mlp())
    assert list(graph.dims) == ["N"]
    rows = graph.output["y"].type.shape[0]
    assert isinstance(rows, Dim)
    assert rows.resolve({"N": 64}) == 64
    bound = graph.bind({"N": 5})
    assert bound.dims == {}
    assert bound.output["y"].type.shape == (5, 2)
    assert not isinstance(bound.output["y"].type.shape[0], Dim)
    assert bound.variable["fc1.weight"] is graph.variable["fc1.weight"]


def test_dims_and_shapes_bind_at_once() -> None:
    assert load(mlp(), dims={"N": 7}).output["y"].type.shape == (7, 2)
    assert load(mlp(), shapes={"x": (7, 4)}).output["y"].type.shape == (7, 2)
    assert load(mlp(), shapes={"x": (None, 4)}).dims


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"dims": {"M": 3}}, OptionError, "no named dimension 'M'"),
        ({"dims": {"N": -3}}, OptionError, "bound to -3"),
        ({"dims": {"N": 2.5}}, OptionError, "bound to 2.5"),
        ({"shapes": {"z": (3, 4)}}, OptionError, "no input 'z'"),
        ({"shapes": {"x": (3,)}}, ShapeError, "the file says"),
        ({"shapes": {"x": (3, 5)}}, ShapeError, "the file says"),
        ({"shapes": {"x": (3, 4)}, "dims": {"N": 2}}, ShapeError, "N = 2"),
        ({"values": {"z": 1}}, OptionError, "no input 'z'"),
        ({"mode": "training"}, OptionError, "'training'"),
        ({"mode": {"*": "off"}}, OptionError, "'off'"),
        ({"trainable": [3]}, OptionError, "glob"),
    ],
)
def test_wrong_options(options: dict[str, object], kind: type[TapeoutError], message: str) -> None:
    with pytest.raises(kind, match=message):
        load(mlp(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, None])
def test_sizes_without_a_name(size: int | None) -> None:
    made = parsed("g (float[2,3] x) => (float y) {y = Relu (x)}")
    dim = made.graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    if size is not None:
        dim.dim_value = size
    graph = load(made)
    assert list(graph.dims) == ["x_0"]
    assert load(made, dims={"x_0": 9}).output["y"].type.shape == (9, 3)


def test_placeholders_are_no_names() -> None:
    made = parsed("g (float[N,M] x) => (float y) {y = Relu (x)}")
    for dim, name in zip(made.graph.input[0].type.tensor_type.shape.dim, "??", strict=True):
        dim.dim_param = name
    assert list(load(made).dims) == ["x_0", "x_1"]


def test_an_input_without_a_rank() -> None:
    made = parsed("g (float[2] x) => (float[2] y) {y = Relu (x)}")
    made.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(OnnxImportError, match=r"rank[\s\S]*shapes={'x'"):
        load(made)
    assert load(made, shapes={"x": (2, 3)}).output["y"].type.shape == (2, 3)


def test_previews_fit_windows() -> None:
    """No small number fits a kernel of 7 with unbound height and width."""
    made = parsed(
        "g (float[N,3,H,W] x) => (float y) {y = Conv <strides=[2,2]> (x, w)}", w=f32(4, 3, 7, 7)
    )
    graph = load(made)
    bound = graph.bind({"N": 2, "H": 30, "W": 31})
    assert bound.output["y"].type.shape == (2, 4, 12, 13)


def test_a_batch_of_one_that_was_traced() -> None:
    made = parsed("g (float[N,4] x) => (float y) {y = Reshape (x, s)}", s=i64(1, 2, 2))
    graph = load(made)
    with pytest.raises(ShapeError, match="Reshape"):
        graph.bind({"N": 2})


def test_what_fits_no_preview_says_so() -> None:
    made = parsed("g (float[N] x) => (float y) {y = Reshape (x, s)}", s=i64(3, 5))
    with pytest.raises(ShapeError, match=r"dims={'N': \.\.\.}"):
        load(made)
    assert load(made, dims={"N": 15}).output["y"].type.shape == (3, 5)


SHAPES = {
    "flatten by shape": (
        "s = Shape (x); n = Gather <axis=0> (s, zero); u = Unsqueeze (n, first); t = Concat <axis=0> (u, minus); y = Reshape (x, t)",
        (6, 20),
    ),
    "merge two": (
        "s = Shape (x); a = Slice (s, first, two); b = ReduceProd <keepdims=1> (a); t = Concat <axis=0> (b, minus); y = Reshape (x, t)",
        (24, 5),
    ),
    "half the channels": (
        "s = Shape <start=1, end=2> (x); h = Div (s, two); t = Concat <axis=0> (zeros, h, two, minus); y = Reshape (x, t)",
        (6, 2, 2, 5),
    ),
    "expand like": ("s = Shape (x); o = ConstantOfShape (s); y = Add (x, o)", (6, 4, 5)),
    "range of the size": (
        "s = Shape (x); n = Gather (s, one); r = Range (zero, n, one); c = Cast <to=1> (r); u = Unsqueeze (c, last); y = Mul (x, u)",
        (6, 4, 5),
    ),
    "size in floats": (
        "s = Shape (x); n = Gather (s, zero); f = Cast <to=1> (n); q = Sqrt (f); y = Div (x, q)",
        (6, 4, 5),
    ),
    "scaled and floored": (
        "s = Shape <start=0, end=1> (x); f = Cast <to=1> (s); g = Mul (f, third); h = Floor (g); i = Cast <to=7> (h); t = Concat <axis=0> (i, minus); y = Reshape (x, t)",
        (2, 60),
    ),
    "where": (
        "s = Shape (x); e = Equal (s, four); m = Where (e, minus, s); y = Reshape (x, m)",
        (6, 4, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_shape_arithmetic_folds(name: str) -> None:
    text, shape = SHAPES[name]
    constants = {
        "zero": np.array(0), "one": np.array(1), "first": i64(0), "last": i64(1), "minus": i64(-1), "two": i64(2),
        "four": i64(4), "zeros": i64(0), "third": np.array([1 / 3], np.float32),
    }  # fmt: skip
    used = {
        n: a
        for n, a in constants.items()
        if n in text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }
    made = parsed(f"g (float[N,4,5] x) => (float y) {{{text}}}", **used)
    graph = load(made)
    x = f32(6, 4, 5)
    found = oracle.run(graph.bind({"N": 6}), {"x": x}).outputs["y"]
    assert found.shape == shape


def test_names_survive_shape_arithmetic() -> None:
    text = SHAPES["flatten by shape"][0]
    constants = {"zero": np.array(0), "first": i64(0), "minus": i64(-1)}
    graph = load(parsed(f"g (float[N,4,5] x) => (float y) {{{text}}}", **constants))
    assert "[(N), 20]" in str(graph)


def test_values_bind_an_input() -> None:
    made = parsed(
        "g (float[2,3] x, int64[1] axes) => (float y) {y = ReduceSum <keepdims=0> (x, axes)}"
    )
    with pytest.raises(OnnxImportError, match=r"values={'axes'"):
        load(made)
    graph = load(made, values={"axes": [1]})
    assert [v.name for v in graph.inputs] == ["x"]
    assert graph.output["y"].type.shape == (2,)
    with pytest.raises(ShapeError, match="bound to shape"):
        load(made, values={"axes": [[1]]})
    with pytest.raises(OptionError, match="does not fit"):
        load(made, values={"axes": [0.5]})


# --- modes -----------------------------------------------------------------------------------------

DROPOUT = "g (float[N,50] x) => (float[N,50] y) {[first] h = Dropout (x, half); [second] y = Dropout (h, half)}"


def dropout() -> onnx.ModelProto:
    return parsed(DROPOUT, half=np.array(0.5, np.float32))


def test_dropout_in_training() -> None:
    graph = load(dropout(), dims={"N": 40})
    assert {v.name: v.kind for v in graph.variables} == {"rng.seed": "hyper", "rng.step": "state"}
    assert [name for name, _ in graph.updates] == ["rng.step"]
    x = np.ones((40, 50), np.float32)
    first = oracle.run(graph, {"x": x})
    again = oracle.run(graph, {"x": x})
    later = oracle.run(graph, {"x": x}, first.updates)
    seeded = oracle.run(graph, {"x": x}, {"rng.seed": np.array(7)})
    y = first.outputs["y"]
    assert set(np.unique(y)) == {0.0, 4.0}
    assert 0.2 < (y > 0).mean() < 0.3
    np.testing.assert_array_equal(y, again.outputs["y"])
    assert (y != later.outputs["y"]).any()
    assert (y != seeded.outputs["y"]).any()


@pytest.mark.parametrize("mode", ["eval", "as-exported", {"*": "eval"}])
def test_dropout_outside_training(mode: object) -> None:
    graph = load(dropout(), mode=mode)  # type: ignore[arg-type]
    assert not graph.nodes
    assert not graph.variables


def test_modes_by_name() -> None:
    graph = load(dropout(), mode={"second": "eval"})
    assert sum(n.op.name == "random_bits" for n in graph.nodes) == 1


def test_a_model_with_modes_has_an_evaluation() -> None:
    graph = load(dropout())
    assert graph.evaluation is not None
    assert not graph.evaluation().nodes
    assert load(mlp()).evaluation is None


def test_random_streams_follow_names_and_not_order() -> None:
    made = parsed("g (float[8] x) => (float[8] a, float[8] b) {a = Dropout (x); b = Dropout (x)}")
    other = parsed("g (float[8] x) => (float[8] a, float[8] b) {b = Dropout (x); a = Dropout (x)}")
    x = {"x": np.ones(8, np.float32)}
    first, second = run(made, x), run(other, x)
    np.testing.assert_array_equal(first["a"], second["a"])
    np.testing.assert_array_equal(first["b"], second["b"])
    assert (first["a"] != first["b"]).any()


# --- structure -------------------------------------------------------------------------------------


def test_places_of_nodes() -> None:
    made = parsed('g (float[4] x) => (float[4] y) {["layer/relu"] h = Relu (x); y = Exp (h)}')
    assert [str(n.loc) for n in load(made).nodes] == ["<model>:layer/relu", "<model>:Exp->y"]


def test_nodes_out_of_order() -> None:
    made = parsed("g (float[4] x) => (float[4] y) {y = Exp (b); b = Relu (a); a = Neg (x)}")
    x = f32(4)
    np.testing.assert_allclose(run(made, {"x": x})["y"], np.exp(np.maximum(-x, 0)), rtol=1e-6)


def test_dead_nodes_are_dropped() -> None:
    made = parsed(
        "g (float[4] x) => (float[4] y) {a = Exp (x); b = Add (a, w); y = Relu (x)}", w=f32(4)
    )
    graph = load(made)
    assert [n.op.name for n in graph.nodes] == ["relu"]
    assert not graph.variables


def test_outputs_may_be_inputs_or_parameters() -> None:
    made = parsed(
        "g (float[4] x) => (float[4] y, float[4] x, float[4] w) {y = Add (x, w)}", w=f32(4)
    )
    x = f32(4)
    found = run(made, {"x": x})
    np.testing.assert_array_equal(found["x"], x)
    assert list(found) == ["y", "x", "w"]


def test_functions_are_written_out() -> None:
    scaled = helper.make_function(
        "f",
        "scaled",
        ["a", "w", "b"],
        ["c"],
        [
            helper.make_node("Constant", [], ["k"], name="k"),
            helper.make_node("Mul", ["a", "k"], ["t"], name="times"),
            helper.make_node("Gemm", ["t", "w", "b"], ["c"], name="gemm"),
        ],
        [helper.make_opsetid("", 13)],
        ["factor"],
    )
    reference = scaled.node[0].attribute.add(name="value_float", ref_attr_name="factor")
    reference.type = onnx.AttributeProto.FLOAT
    nodes = [
        helper.make_node("scaled", ["x", "w", "b"], ["h"], name="one", domain="f", factor=2.0),
        helper.make_node("scaled", ["h", "v"], ["y"], name="two", domain="f", factor=3.0),
    ]
    value = [helper.make_tensor_value_info(n, 1, [None, 3]) for n in ("x", "y")]
    arrays = {"w": f32(3, 3), "b": f32(3), "v": f32(3, 3)}
    tensors = [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    made = model(helper.make_graph(nodes, "g", value[:1], value[1:], tensors), functions=[scaled])
    made.opset_import.append(helper.make_opsetid("f", 1))
    graph = load(made)
    assert sorted(graph.parameters) == ["b", "v", "w"]
    places = {n.loc.name for n in graph.nodes}
    assert places == {f"{a}/{b}" for a in ("one", "two") for b in ("k", "times", "gemm")}
    x = f32(2, 3)
    h = (2 * x) @ arrays["w"] + arrays["b"]
    found = oracle.run(graph.bind({"x_0": 2}), {"x": x}).outputs["y"]
    np.testing.assert_allclose(found, (3 * h) @ arrays["v"], rtol=1e-5)


BRANCH = """g (float[N,3] x) => (float y) {
    s = Shape (x); n = Gather (s, zero); large = Greater (n, limit)
    y = If (large) <then_branch = a () => (float t) { t = Add (x, w) }, else_branch = b () => (float e) { e = Neg (x) }>
}"""


def test_branches_that_shapes_decide() -> None:
    made = parsed(BRANCH.replace("; ", "\n"), zero=np.array(0), limit=np.array(4), w=f32(3))
    graph = load(made)
    assert [n.op.name for n in graph.nodes] == ["neg"]
    assert [n.op.name for n in graph.bind({"N": 9}).nodes] == ["broadcast", "add"]


DATA_BRANCH = """g (bool c, float[3] x) => (float y) {
    h = Mul (x, w)
    y = If (c) <then_branch = a () => (float t) { t = Neg (h) }, else_branch = b () => (float e) { e = OTHER }>
}"""


def test_branches_that_data_decide() -> None:
    made = parsed(DATA_BRANCH.replace("OTHER", "Sub (h, x)"), w=f32(3))
    graph = load(made)
    assert [n.op.name for n in graph.nodes] == ["mul", "cond"]
    x, w = f32(3), graph.variables[0].initial
    for chosen, want in ((True, -x * w), (False, x * w - x)):
        found = oracle.run(graph, {"c": np.array(chosen), "x": x}).outputs["y"]
        np.testing.assert_array_equal(found, want)
    assert [n.op.name for n in load(made, values={"c": True}).nodes] == ["mul", "neg"]


def test_branches_of_different_types_need_a_known_condition() -> None:
    made = parsed(DATA_BRANCH.replace("OTHER", "Concat <axis = 0> (h, x)"), w=f32(3))
    with pytest.raises(UnsupportedOperator, match="equal types"):
        load(made)
    assert load(made, values={"c": False}).nodes


def test_all_unsupported_operators_at_once() -> None:
    made = parsed(
        "g (float[4] x) => (float[4] y) {[one] a = ImageDecoder (x); [two] b = ImageDecoder (x); [three] c = TfIdfVectorizer (x); y = Relu (x)}"
    )
    made.graph.node.append(
        helper.make_node("Attention", ["x"], ["z"], name="four", domain="com.microsoft")
    )
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedOperator) as caught:
        load(made)
    text = str(caught.value)
    assert "3 operators" in text
    assert "ImageDecoder (opset 18) (2x): one, two" in text
    assert "TfIdfVectorizer (opset 18) (1x): three" in text
    assert "com.microsoft.Attention (1x): four" in text


def test_operators_that_nobody_calls_are_no_fault() -> None:
    unused = helper.make_function(
        "f",
        "unused",
        ["a"],
        ["b"],
        [helper.make_node("ImageDecoder", ["a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )
    made = parsed("g (float[4] x) => (float[4] y) {y = Relu (x)}")
    made.functions.append(unused)
    assert load(made).nodes


# --- what tapeout wrote -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "states"),
    [
        ('{"w1": {"kind": "state"}, "nothing": {"kind": "state"}}', ["w1"]),
        ('{"w1": {"kind": "parameter"}}', []),
        ('{"w1": "state"}', []),
        ("[1]", []),
        ("{", []),
        ("[" * 100_000, []),
    ],
)
def test_states_that_the_file_names(said: str, states: list[str]) -> None:
    made = parsed("g (float[4] x) => (float[4] y) {h = Mul (x, w1); y = Add (h, w2)}", w1=f32(4), w2=f32(4))  # fmt: skip
    made.metadata_props.add(key="tapeout.variables", value=said)
    graph = load(made)
    assert [n for n, v in graph.variable.items() if v.kind == "state"] == states
    assert len(graph.variables) == 2
