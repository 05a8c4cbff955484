"""Cutting a model, giving it another head, renaming: what comes out, and that the rest of the file is as it was."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import tapeout
from tests.onnx_models import Array, parsed

surgery = tapeout.surgery
MODELS = Path(__file__).resolve().parents[2] / "models"


def f32(*shape: int) -> Array:
    return np.random.default_rng(math.prod(shape)).standard_normal(shape).astype(np.float32)


def i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def stated(made: onnx.ModelProto) -> onnx.ModelProto:
    """Give a model what must survive: metadata, a producer, a foreign domain, weights in Constant nodes."""
    made.producer_name, made.producer_version, made.doc_string = "someone", "3", "a model"
    made.metadata_props.add(key="license", value="free")
    made.opset_import.add(domain="unused.domain", version=2)
    return made


def in_nodes(made: onnx.ModelProto) -> onnx.ModelProto:
    """Move the initializers into Constant nodes, as Paddle's exporter writes them."""
    nodes = [
        helper.make_node("Constant", [], [t.name], name=f"const_{t.name}", value=t)
        for t in made.graph.initializer
    ]
    rest = list(made.graph.node)
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend([*nodes, *rest])
    return made


def proto(graph: tapeout.Graph) -> onnx.ModelProto:
    """Return the file that a graph stands for."""
    assert isinstance(graph.origin, bytes)
    made = onnx.load_model_from_string(graph.origin)
    onnx.checker.check_model(made)
    return made


def tensors(made: onnx.ModelProto) -> dict[str, Array]:
    """Return the stored tensors of a file."""
    found = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def run(made: onnx.ModelProto, **inputs: Array) -> dict[str, Array]:
    """Run a file in another runtime."""
    session = onnxruntime.InferenceSession(made.SerializeToString())
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


BODY = "h = Gemm (x, w1, b1); r = Relu (h); "
WEIGHTS = {"w1": f32(4, 6), "b1": f32(6)}
IMAGE = "c = Conv (x, w1); r = Relu (c); "

# The model's text behind its body, its stored tensors, the number of classes: the head's weight is [6, 5] in some layout.
HEADS: dict[str, tuple[str, dict[str, Array]]] = {
    "gemm": ('["head"] y = Gemm (r, w, b)', {"w": f32(6, 5), "b": f32(5)}),
    "transposed gemm": ('["head"] y = Gemm <transB = 1> (r, w, b)', {"w": f32(5, 6), "b": f32(5)}),
    "gemm without bias": ('["head"] y = Gemm <transB = 1> (r, w)', {"w": f32(5, 6)}),
    "gemm with a bias of a row": ('["head"] y = Gemm (r, w, b)', {"w": f32(6, 5), "b": f32(1, 5)}),
    "product and sum": (
        '["head"] m = MatMul (r, w); y = Add (m, b)',
        {"w": f32(6, 5), "b": f32(5)},
    ),
    "sum and product": (
        '["head"] m = MatMul (r, w); y = Add (b, m)',
        {"w": f32(6, 5), "b": f32(5)},
    ),
    "product": ('["head"] y = MatMul (r, w)', {"w": f32(6, 5)}),
    "turned weight": (
        't = Transpose <perm = [1, 0]> (w); i = Identity (t); ["head"] y = MatMul (r, i)',
        {"w": f32(5, 6)},
    ),
    "softmax behind": (
        '["head"] m = MatMul (r, w); s = Add (m, b); p = Softmax <axis = 1> (s); y = Identity (p)',
        {"w": f32(6, 5), "b": f32(5)},
    ),
    "reshape behind": (
        '["head"] m = Gemm (r, w, b); y = Reshape (m, to)',
        {"w": f32(6, 5), "b": f32(5), "to": i64(-1, 5)},
    ),
    "scalar bias": ('["head"] y = Gemm (r, w, b)', {"w": f32(6, 1), "b": f32(1)}),
}


def classifier(case: str) -> onnx.ModelProto:
    text, arrays = HEADS[case]
    classes = 1 if case == "scalar bias" else 5
    return stated(
        parsed(f"g (float[N,4] x) => (float[N,{classes}] y) {{{BODY}{text}}}", **WEIGHTS, **arrays)
    )


# --- a new head ------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [False, True], ids=["initializers", "constants"])
@pytest.mark.parametrize("classes", [3, 9])
@pytest.mark.parametrize("case", HEADS)
def test_a_new_head(case: str, classes: int, *, nodes: bool) -> None:
    original = in_nodes(classifier(case)) if nodes else classifier(case)
    before = tapeout.load_onnx(original)
    graph = surgery.replace_head(before, classes)
    assert graph.output["y"].type.text == f"f32[N,{classes}]"
    assert "head" in graph.notes[-1]
    assert f"{classes} classes" in graph.notes[-1]
    # A number that stands in a Constant node is no parameter, before it is a head's bias.
    bias = {"b"} & set(HEADS[case][1])
    assert set(graph.parameters) == {*before.parameters, *bias}
    changed = {"w", *bias}
    assert all(v.trainable for v in graph.parameters.values())
    for name in changed:
        initial = graph.parameters[name].initial
        assert initial is not None
        bound = 1 / math.sqrt(6)
        assert np.abs(initial).max() <= bound
        assert initial.std() > 0.2 * bound
    only_the_head_differs(original, proto(graph), {*changed, "to"}, classes)


def only_the_head_differs(
    original: onnx.ModelProto, made: onnx.ModelProto, changed: set[str], classes: int
) -> None:
    x = f32(7, 4)
    assert run(made, x=x)["y"].shape == (7, classes)
    old, new = tensors(original), tensors(made)
    assert list(old) == list(new)
    for name, array in old.items():
        if name not in changed:
            np.testing.assert_array_equal(new[name], array)
    # With the old head put back, and the old size declared, the file is the old one.
    stored = {t.name: t for t in original.graph.initializer}
    for tensor in made.graph.initializer:
        tensor.CopyFrom(stored[tensor.name])
    for a, b in zip(made.graph.node, original.graph.node, strict=True):
        if b.op_type == "Constant":
            a.CopyFrom(b)
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = (
        original.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    )
    assert made == original


CONVOLUTIONS: dict[str, tuple[str, dict[str, Array]]] = {
    "pooled before": (
        'p = GlobalAveragePool (r); ["head"] k = Conv (p, w, b); y = Flatten (k)',
        {"w": f32(5, 6, 1, 1), "b": f32(5)},
    ),
    "pooled behind": (
        '["head"] k = Conv (r, w, b); a = Relu (k); p = GlobalAveragePool (a); q = Reshape (p, to); y = Softmax (q)',
        {"w": f32(5, 6, 1, 1), "b": f32(5), "to": i64(0, 5)},
    ),
    "bias of its own": (
        'p = GlobalAveragePool (r); ["head"] k = Conv (p, w); v = Reshape (b, bs); s = Add (k, v); y = Flatten (s)',
        {"w": f32(5, 6, 1, 1), "b": f32(5), "bs": i64(1, -1, 1, 1)},
    ),
    "bias whose shape is stated": (
        'p = GlobalAveragePool (r); ["head"] k = Conv (p, w); v = Reshape (b, bs); s = Add (k, v); y = Flatten (s)',
        {"w": f32(5, 6, 1, 1), "b": f32(5), "bs": i64(1, 5, 1, 1)},
    ),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_new_head_that_is_a_convolution(case: str) -> None:
    text, arrays = CONVOLUTIONS[case]
    made = parsed(
        f"g (float[N,3,8,8] x) => (float[N,5] y) {{{IMAGE}{text}}}", w1=f32(6, 3, 3, 3), **arrays
    )
    graph = surgery.replace_head(tapeout.load_onnx(made), 11)
    assert graph.output["y"].type.text == "f32[N,11]"
    assert graph.parameters["w"].type.shape == (11, 6, 1, 1)
    assert graph.parameters["b"].type.shape == (11,)
    assert run(proto(graph), x=f32(2, 3, 8, 8))["y"].shape == (2, 11)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_heads_of_models(path: Path) -> None:
    """Of both exporters: perceptrons, convolutions, transformers, a recurrence; of pictures, text, and every pixel."""
    before = tapeout.load_onnx(path)
    graph = surgery.replace_head(before, 7, seed=1)
    (name, old), (_, new) = *before.outputs, *graph.outputs
    axis = [a != b for a, b in zip(old.type.sizes, new.type.sizes, strict=True)].index(True)
    assert new.type.shape[axis] == 7
    assert old.type.sizes[:axis] + old.type.sizes[axis + 1 :] == (
        new.type.sizes[:axis] + new.type.sizes[axis + 1 :]
    )
    made, original = proto(graph), onnx.load(path)
    assert made.graph.output[0].type.tensor_type.shape.dim[axis].dim_value == 7
    assert [n.name for n in made.graph.node] == [n.name for n in original.graph.node]
    kept = [n for n in graph.variable if n in before.variable]
    same = [graph.variable[n].type == before.variable[n].type for n in kept]
    assert same.count(False) in (1, 2)
    assert name in graph.output


def test_a_file_of_the_builder(tmp_path: Path) -> None:
    """It repeats the bias to the shape of the product, by a shape that is put together, and spells normalisation out."""
    with tapeout.Builder("built") as g:
        h = tapeout.nn.linear(g.input("x", ("N", 4)), 5, name="body")
        h = tapeout.nn.relu(tapeout.nn.batch_norm(h, name="norm"))
        g.output("y", tapeout.nn.softmax(tapeout.nn.linear(h, 5, name="head")))
    trainer = tapeout.Trainer(g.graph(), loss=tapeout.losses.cross_entropy(), optimizer=None)
    trainer.export_onnx(tmp_path / "built.onnx")
    graph = surgery.replace_head(tapeout.load_onnx(tmp_path / "built.onnx"), 7)
    types = {n: v.type.shape for n, v in graph.parameters.items()}
    assert (types["body.bias"], types["head.bias"], types["head.weight"]) == ((5,), (7,), (7, 5))
    assert {n for n, v in graph.variable.items() if v.kind == "state"} == {
        "norm.running_mean",
        "norm.running_var",
    }
    assert run(proto(graph), x=f32(3, 4))["y"].shape == (3, 7)


def test_the_seed_decides_the_weights() -> None:
    graph = tapeout.load_onnx(classifier("gemm"))
    made = [surgery.replace_head(graph, 5, seed=s).parameters["w"].initial for s in (1, 1, 2)]
    np.testing.assert_array_equal(made[0], made[1])
    assert (np.asarray(made[1]) != np.asarray(made[2])).any()


def test_a_shared_weight_stays() -> None:
    """An embedding that is the head's weight as well: the head gets a weight of its own."""
    made = parsed(
        'g (int64[N] x) => (float[N,5] y) {e = Gather (w, x); t = Transpose <perm = [1, 0]> (w); ["head"] y = MatMul (e, t)}',
        w=f32(5, 6),
    )
    before = tapeout.load_onnx(made)
    graph = surgery.replace_head(before, 3)
    assert list(graph.parameters) == ["w", "w_head"]
    assert graph.parameters["w_head"].type.shape == (6, 3)
    np.testing.assert_array_equal(graph.parameters["w"].initial, before.parameters["w"].initial)
    assert run(proto(graph), x=i64(0, 4))["y"].shape == (2, 3)


def test_a_shared_shape_stays() -> None:
    made = parsed(
        f'g (float[2,4] x) => (float[2,5] y, float[2,5] z) {{{BODY}["head"] m = Gemm (r, w, b); y = Reshape (m, to); '
        "q = MatMul (r, v); z = Reshape (q, to)}",
        **WEIGHTS, w=f32(6, 5), b=f32(5), v=f32(6, 5), to=i64(2, 5),
    )  # fmt: skip
    graph = surgery.replace_head(tapeout.load_onnx(made), 3, output="y")
    assert [v.type.text for _, v in graph.outputs] == ["f32[2,3]", "f32[2,5]"]


def test_initializers_repeated_as_inputs() -> None:
    made = classifier("gemm")
    for name, shape in (("w", [6, 5]), ("b", [5])):
        made.graph.input.append(helper.make_tensor_value_info(name, 1, shape))
    graph = surgery.replace_head(tapeout.load_onnx(made), 2)
    assert [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto(graph).graph.input][
        1:
    ] == [[6, 2], [2]]


def test_freezing_modes_and_dimensions_stay() -> None:
    """The new head trains, whatever the old one did."""
    made = parsed(
        f'g (float[N,4] x) => (float[N,5] y) {{{BODY}["drop"] d = Dropout (r, ratio); y = Gemm (d, w, b)}}',
        **WEIGHTS, w=f32(6, 5), b=f32(5), ratio=np.array(0.5, np.float32),
    )  # fmt: skip
    graph = tapeout.load_onnx(made, dims={"N": 3}, mode={"drop": "eval"}).freeze("*")
    changed = surgery.replace_head(graph, 2)
    assert [n for n, v in changed.parameters.items() if v.trainable] == ["w", "b"]
    assert changed.output["y"].type.text == "f32[3,2]"
    assert not any(n.op.name == "random_bits" for n in changed.nodes)
    assert any(n.op.name == "random_bits" for n in changed.with_mode("train").nodes)


def test_external_data_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(
        classifier("gemm"), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    graph = surgery.replace_head(tapeout.load_onnx(path), 3)
    found = tensors(proto(graph))
    np.testing.assert_array_equal(found["w1"], WEIGHTS["w1"])
    assert found["w"].shape == (6, 3)


def test_by_name() -> None:
    """What is not recognised by itself can be named: here a scale stands behind the layer."""
    made = parsed(
        f'g (float[N,4] x) => (float[N,5] y) {{{BODY}["head"] m = Gemm (r, w, b); y = Mul (m, two)}}',
        **WEIGHTS, w=f32(6, 5), b=f32(5), two=np.array(2, np.float32),
    )  # fmt: skip
    graph = tapeout.load_onnx(made)
    with pytest.raises(tapeout.OptionError, match=r"Mul(.|\n)*at=(.|\n)*'head'"):
        surgery.replace_head(graph, 3)
    assert surgery.replace_head(graph, 3, at="head").output["y"].type.text == "f32[N,3]"


def two_outputs() -> tapeout.Graph:
    text = f"g (float[N,4] x) => (float[N,5] y, float[N,6] r) {{{BODY}y = MatMul (r, w)}}"
    return tapeout.load_onnx(parsed(text, **WEIGHTS, w=f32(6, 5)))


def unrecognised(text: str, **arrays: Array) -> tapeout.Graph:
    return tapeout.load_onnx(
        parsed(f"g (float[N,4] x) => (float y) {{{BODY}{text}}}", **WEIGHTS, **arrays)
    )


def built() -> tapeout.Graph:
    with tapeout.Builder("built") as g:
        g.output("y", tapeout.nn.linear(g.input("x", ("N", 4)), 3, name="fc"))
    return g.graph()


HEADLESS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "several outputs": (two_outputs, {}, "2 outputs: y, r"),
    "an unknown output": (two_outputs, {"output": "z"}, "no output is called 'z'"),
    "an input for a layer": (lambda: unrecognised("y = Exp (r)"), {}, "(Exp)"),
    "two activations": (lambda: unrecognised("y = Mul (r, r)"), {}, "(Mul)"),
    "a product of activations": (
        lambda: unrecognised("t = Transpose (r); y = MatMul (r, t)"), {}, "no stored matrix",
    ),
    "a residual": (lambda: unrecognised("y = Add (r, r)"), {}, "(Add)"),
    "no layer": (
        lambda: tapeout.load_onnx(parsed("g (float[4] x) => (float[4] y) {y = Relu (x)}")), {}, "no layer with weights",
    ),
    "an unknown node": (two_outputs, {"at": "haed"}, "no node is called 'haed'"),
    "a node without weights": (two_outputs, {"at": "Relu->r"}, "a Relu"),
    "what stands behind it": (
        lambda: unrecognised('["head"] m = MatMul (r, w); y = Add (m, v)', w=f32(6, 5), v=f32(1, 3, 5)),
        {"at": "head"}, "behind 'head'",
    ),
    "a graph made in Python": (built, {}, "made in Python"),
    "a derived graph": (
        lambda: tapeout.gradients(unrecognised("s = MatMul (r, w); y = ReduceSum <keepdims = 0> (s)", w=f32(6, 5)), "y"),
        {}, "derived",
    ),
    "no graph": (lambda: "model.onnx", {}, "load_onnx"),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADLESS)
def test_no_head(case: str) -> None:
    make, options, said = HEADLESS[case]
    with pytest.raises(tapeout.OptionError, match="replace_head") as caught:
        surgery.replace_head(make(), 3, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize("classes", [0, -1, 2.0, "3", None, True, 1 << 40])
def test_bad_numbers_of_classes(classes: Any) -> None:
    with pytest.raises(tapeout.OptionError, match="a number from 1 on"):
        surgery.replace_head(two_outputs(), classes)


# --- cutting ---------------------------------------------------------------------------------------


def wide() -> onnx.ModelProto:
    """Two inputs, two outputs, a branch, and a tensor that only the end reads."""
    made = stated(
        parsed(
            'g (float[N,4] x, float[N,6] other) => (float[N,5] y, float[N,6] z) {["first"] h = Gemm (x, w1, b1); '
            '["act"] r = Relu (h); s = Add (r, other); ["head"] y = MatMul (s, w); z = Identity (s)}',
            **WEIGHTS,
            w=f32(6, 5),
        )
    )
    made.graph.value_info.append(helper.make_tensor_value_info("r", 1, ["N", 6]))
    made.graph.value_info.append(helper.make_tensor_value_info("s", 1, ["N", 6]))
    return made


@pytest.mark.parametrize(
    ("at", "outputs", "inputs", "parameters"),
    [
        ("r", "r", "x", "w1 b1"),
        ("act", "r", "x", "w1 b1"),
        ("first", "h", "x", "w1 b1"),
        ("z", "z", "x other", "w1 b1"),
        ("y", "y", "x other", "w1 b1 w"),
        (["y", "h"], "y h", "x other", "w1 b1 w"),
        (["r", "r"], "r", "x", "w1 b1"),
    ],
)
def test_truncate(at: Any, outputs: str, inputs: str, parameters: str) -> None:
    original = wide()
    graph = surgery.truncate(tapeout.load_onnx(original), at)
    assert " ".join(graph.output) == outputs
    assert " ".join(graph.input) == inputs
    assert " ".join(graph.parameters) == parameters
    made = proto(graph)
    assert made.metadata_props == original.metadata_props
    assert made.opset_import == original.opset_import
    assert (made.producer_name, made.doc_string) == ("someone", "a model")
    x = {n: a for n, a in {"x": f32(3, 4), "other": f32(3, 6)}.items() if n in graph.input}
    whole = wide()
    whole.graph.output.extend(onnx.ValueInfoProto(name=n) for n in ("h", "r"))
    for output in whole.graph.output[2:]:
        output.type.tensor_type.elem_type = 1
    expected = run(whole, x=f32(3, 4), other=f32(3, 6))
    program = tapeout.compile(graph)
    for name, array in run(made, **x).items():
        np.testing.assert_array_equal(array, expected[name])
        np.testing.assert_allclose(program(x)[name], array, rtol=1e-5, atol=1e-6)
    declared = [v.name for v in (*made.graph.output, *made.graph.value_info)]
    assert set(declared) <= {n for node in made.graph.node for n in node.output}
    assert [d.dim_param for d in made.graph.output[0].type.tensor_type.shape.dim] == ["N", ""]


def test_truncate_keeps_what_inner_graphs_read() -> None:
    made = parsed("g (float[4] x, bool c) => (float[4] y) {h = Add (x, w); q = Exp (x); y = Relu (h)}", w=f32(4))  # fmt: skip
    branches = [
        helper.make_graph([helper.make_node(op, [name], [op])], op, [], [onnx.ValueInfoProto(name=op)])
        for op, name in (("Neg", "h"), ("Abs", "q"))
    ]  # fmt: skip
    node = helper.make_node("If", ["c"], ["z"], then_branch=branches[0], else_branch=branches[1])
    made.graph.node.append(node)
    graph = tapeout.load_onnx(made, values={"c": True})
    cut = surgery.truncate(graph, "z")
    assert list(cut.parameters) == ["w"]
    assert [n.op_type for n in proto(cut).graph.node] == ["Add", "Exp", "If"]


def test_truncate_leaves_options_of_what_is_gone() -> None:
    graph = tapeout.load_onnx(wide(), shapes={"other": (3, 6), "x": (3, 4)})
    assert surgery.truncate(graph, "r").output["r"].type.text == "f32[3,6]"


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("rr", "did you mean 'r'"),
        ("frist", "did you mean 'first'"),
        ("x", "an input or a stored tensor"),
        ("w1", "an input or a stored tensor"),
        ([], "a name or several"),
        ([3], "a name or several"),
    ],
)
def test_bad_cuts(at: Any, said: str) -> None:
    with pytest.raises(tapeout.OptionError, match="truncate") as caught:
        surgery.truncate(tapeout.load_onnx(wide()), at)
    assert said in str(caught.value)


def two_parts() -> tapeout.Graph:
    with tapeout.Builder("two") as g:
        x = g.input("x", ("N", 4))
        h = tapeout.nn.batch_norm(tapeout.nn.linear(x, 3, name="a"), name="norm_a")
        g.output("features", h)
        y = tapeout.nn.batch_norm(tapeout.nn.linear(h, 2, name="b"), name="norm_b")
        g.output("logits", y + g.input("offset", ("N", 2)))
    return g.graph()


def test_truncate_a_graph_made_in_python() -> None:
    """Statistics of the layers that are left go on following the data."""
    graph = surgery.truncate(two_parts(), "features")
    assert list(graph.output) == ["features"]
    assert list(graph.input) == ["x"]
    assert {n.split(".")[0] for n in graph.variable} == {"a", "norm_a"}
    assert {n.split(".")[0] for n, _ in graph.updates} == {"norm_a"}
    for bound in (graph.bind({"N": 5}), graph.evaluation().bind({"N": 5})):  # type: ignore[misc]
        assert bound.output["features"].type.text == "f32[5,3]"
        assert list(bound.parameters) == list(graph.parameters)
    with pytest.raises(tapeout.OptionError, match=r"no output is called 'h'(.|\n)*g\.output"):
        surgery.truncate(two_parts(), "h")


# --- renaming --------------------------------------------------------------------------------------


def test_rename() -> None:
    original = wide()
    names = {"x": "image", "y": "logits", "w1": "fc.weight", "r": "hidden", "act": "relu"}
    graph = surgery.rename(tapeout.load_onnx(original).freeze("w1"), names)
    assert list(graph.input) == ["image", "other"]
    assert list(graph.output) == ["logits", "z"]
    assert list(graph.parameters) == ["fc.weight", "b1", "w"]
    assert [n for n, v in graph.parameters.items() if not v.trainable] == ["fc.weight"]
    made = proto(graph)
    assert "relu" in [n.name for n in made.graph.node]
    x, other = f32(3, 4), f32(3, 6)
    expected, found = run(original, x=x, other=other), run(made, image=x, other=other)
    np.testing.assert_array_equal(found["logits"], expected["y"])
    back = surgery.rename(graph, {new: old for old, new in names.items()})
    assert proto(back) == original


def test_two_names_are_swapped() -> None:
    graph = surgery.rename(tapeout.load_onnx(wide()), {"y": "z", "z": "y"})
    assert [v.type.text for _, v in graph.outputs] == ["f32[N,5]", "f32[N,6]"]
    assert list(graph.output) == ["z", "y"]


def test_options_follow_their_names() -> None:
    made = parsed("g (float[?,4] x, int64[1] axes) => (float y) {y = ReduceSum (x, axes)}")
    graph = tapeout.load_onnx(made, dims={"x_0": 3}, values={"axes": [0]})
    renamed = surgery.rename(graph, {"x": "image", "axes": "over"})
    assert [(v.name, v.type.text) for v in renamed.inputs] == [("image", "f32[3,4]")]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"q": "p"}, "nothing is called 'q'"),
        ({"y": "z"}, "two things would be called 'z'"),
        ({"w1": "x"}, "two things would be called 'x'"),
        ({"x": "a", "y": "a"}, "two things would be called 'a'"),
        ({"act": "first"}, "two things would be called 'first'"),
        ({"x": ""}, "gets the name ''"),
        ({"x": 3}, "gets the name 3"),
    ],
)
@pytest.mark.parametrize("made_in_python", [False, True])
def test_bad_names(names: Any, said: str, *, made_in_python: bool) -> None:
    if made_in_python and "act" in names:
        pytest.skip("nodes have no names there")
    with pytest.raises(tapeout.OptionError, match="rename") as caught:
        surgery.rename(plain() if made_in_python else tapeout.load_onnx(wide()), names)
    assert said in str(caught.value)


def plain() -> tapeout.Graph:
    with tapeout.Builder("plain") as g:
        x = g.input("x", ("N", 4))
        w1 = g.parameter("w1", (4,), tapeout.init.ones())
        g.output("y", x * w1)
        g.output("z", x + w1)
    return g.graph()


def test_rename_a_graph_made_in_python() -> None:
    names = {
        "x": "points",
        "features": "embedding",
        "a.weight": "first",
        "norm_a.running_mean": "mean",
    }
    graph = surgery.rename(two_parts(), names)
    assert {"points", "offset"} == set(graph.input)
    assert list(graph.output) == ["embedding", "logits"]
    assert graph.variable["mean"].kind == "state"
    assert "mean" in dict(graph.updates)
    bound = graph.bind({"N": 5})
    assert bound.variables == graph.variables
    before = tapeout.compile(two_parts().evaluation())  # type: ignore[misc]
    after = tapeout.compile(graph.evaluation())  # type: ignore[misc]
    x, offset = f32(3, 4), f32(3, 2)
    np.testing.assert_array_equal(
        after(points=x, offset=offset)["logits"], before(x=x, offset=offset)["logits"]
    )
