"""The report of a model: every node, every parameter, all problems at once."""

import numpy as np
from onnx import helper

from tapeout.frontend.onnx.report import Report, report
from tests.onnx_models import parsed


def f32(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def by_name(found: Report) -> dict[str, tuple[bool, str]]:
    return {n.name: (n.supported, n.gradient) for n in found.nodes}


def test_a_model_without_faults() -> None:
    made = parsed(
        "g (float[N,4] x) => (float[N,2] y) {[a] h = MatMul (x, w); [b] y = Sigmoid (h)}",
        w=f32(4, 2),
    )
    found = report(made)
    assert found.ok
    assert not found.problems
    assert not found.warnings
    assert by_name(found) == {"a": (True, "yes"), "b": (True, "yes")}
    assert [(p.name, p.type, p.trainable, p.reached) for p in found.parameters] == [
        ("w", "f32[4,2]", True, True)
    ]
    assert found.inputs == {"x": "f32[N,4]"}
    assert found.outputs == {"y": "f32[N,2]"}
    assert found.dims == {"N": 2}


def test_where_gradients_end() -> None:
    text = (
        "[shape] s = Shape (x); [before] p = Relu (x); [product] h = MatMul (p, w); [round] r = Round (h); [back] z = Add (r, b)"
        "; [which] i = ArgMax (h); [number] y = Cast <to=1> (i)"
    )
    found = report(
        parsed(f"g (float[N,4] x) => (float z, float y) {{{text}}}", w=f32(4, 2), b=f32(2))
    )
    nodes = by_name(found)
    assert nodes["shape"] == (True, "no")
    assert nodes["before"] == (True, "no")
    assert nodes["product"] == (True, "yes")
    assert nodes["round"] == (True, "zero")
    assert nodes["which"] == (True, "stops")
    assert not found.ok
    assert {p.name: p.reached for p in found.parameters} == {"w": False, "b": True}
    assert any("no gradient reaches 1 trainable parameters: w" in w for w in found.warnings)


def test_all_problems_at_once() -> None:
    text = "[one] a = ImageDecoder (x); [two] b = Reshape (x, s); [three] c = Softmax <axis=9> (x); [four] d = Exp (b); [five] y = Relu (x)"
    found = report(parsed(f"g (float[4] x, int64[1] s) => (float y) {{{text}}}"))
    assert not found.ok
    nodes = by_name(found)
    assert [n for n, (supported, _) in nodes.items() if not supported] == [
        "one",
        "two",
        "three",
        "four",
    ]
    assert len(found.problems) == 4
    assert found.problems[0] == "not supported: ImageDecoder (opset 18) (1x): one"
    assert "content of 's'" in found.problems[1]
    assert "axis 9" in found.problems[2]
    assert found.problems[3] == "nodes behind these that were not looked at: 1"
    assert "'b' could not be imported" in found.nodes[3].reason
    assert found.graph is not None
    assert list(found.graph.output) == ["y"]


def test_folded_files_are_recognised() -> None:
    made = parsed(
        "g (float[N,4] x) => (float y) {h = MatMul (x, val_3); y = Add (h, bias)}",
        val_3=f32(4, 2),
        bias=f32(2),
    )
    assert any("optimize=False" in w and "val_3" in w for w in report(made).warnings)


def test_parameters_that_nothing_depends_on() -> None:
    made = parsed("g (float[N,4] x) => (float y) {h = Mul (x, lost); y = Relu (x)}", lost=f32(4))
    assert any("lost" in w for w in report(made).warnings)


def test_functions_are_one_node() -> None:
    made = parsed("g (float[N,4] x) => (float y) {y = Relu (x)}", w=f32(4))
    made.functions.append(
        helper.make_function(
            "f",
            "scale",
            ["a", "b"],
            ["c"],
            [helper.make_node("Mul", ["a", "b"], ["c"])],
            [helper.make_opsetid("", 18)],
        )
    )
    made.opset_import.append(helper.make_opsetid("f", 1))
    made.graph.node[0].CopyFrom(helper.make_node("scale", ["x", "w"], ["y"], name="s", domain="f"))
    found = report(made)
    assert found.ok
    assert [(n.op, n.gradient) for n in found.nodes] == [("f.scale", "yes")]
