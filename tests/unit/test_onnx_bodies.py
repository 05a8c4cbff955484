"""Operators that ONNX defines by others are written out: against onnx's reference, and differentiated."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tapeout.autodiff.gradients import gradients
from tapeout.frontend.onnx import load
from tapeout.frontend.onnx.bodies import has_body
from tapeout.frontend.onnx.registry import find
from tapeout.ir.build import rebuilder
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as oracle
from tapeout.support.errors import UnsupportedOperator
from tests.onnx_models import Array, one_node, run

RNG = np.random.default_rng(4)


def drawn(*shape: int) -> Array:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


CASES: list[tuple[str, dict[str, Array | None], dict[str, Any], int]] = [
    ("LinearAttention", {"q": drawn(2, 3, 8), "k": drawn(2, 3, 8), "v": drawn(2, 3, 8)}, {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear"}, 2),
    ("CausalConvWithState", {"x": drawn(2, 4, 5), "w": drawn(4, 1, 3), "b": drawn(4)}, {}, 2),
]  # fmt: skip


@pytest.mark.parametrize(("op", "operands", "attributes", "outputs"), CASES)
def test_as_the_reference(
    op: str, operands: dict[str, Array | None], attributes: dict[str, Any], outputs: int
) -> None:
    assert find(op, 27) is None, "it has an entry of its own now: choose another"
    made = one_node(op, operands, opset=27, outputs=outputs, **attributes)
    feed = {n: a for n, a in operands.items() if a is not None}
    want = ReferenceEvaluator(made).run(None, feed)
    got = run(made, feed)
    for a, b in zip(got.values(), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_differentiated() -> None:
    op, operands, attributes, outputs = CASES[1]
    wide = {n: None if a is None else a.astype(np.float64) for n, a in operands.items()}
    graph = load(one_node(op, wide, opset=27, outputs=outputs, **attributes))
    b = rebuilder(graph)
    for node in graph.nodes:
        b.keep(node)
    b.set_output("loss", Sym(b, graph.outputs[0][1]).square().sum().value)
    loss = b.graph()
    feed = {n: a for n, a in wide.items() if a is not None}
    found = oracle.run(gradients(loss, "loss", list(feed)), feed).outputs
    for name, x in feed.items():
        towards = RNG.uniform(-1, 1, x.shape)
        ends = [
            oracle.run(loss, {**feed, name: x + s * 1e-5 * towards}).outputs["loss"]
            for s in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose((found[f"grad/{name}"] * towards).sum(), slope, rtol=1e-6)


def test_what_has_no_body_is_refused() -> None:
    node = helper.make_node("NonMaxSuppression", ["a", "b"], ["c"])
    assert not has_body(node, 18)
    assert not has_body(helper.make_node("FlexAttention", ["a"], ["c"], domain="com.example"), 18)
    made = one_node("Det", {"x": drawn(2, 2)}, opset=18)
    with pytest.raises(UnsupportedOperator, match="Det"):
        load(made)


def test_attributes_of_a_function_around_it() -> None:
    """A body may depend on attributes that the node has from the function which calls it."""
    inner = helper.make_node("CausalConvWithState", ["a", "w"], ["b", "s"])
    named = onnx.AttributeProto(
        name="activation", type=onnx.AttributeProto.STRING, ref_attr_name="kind"
    )
    inner.attribute.append(named)
    opsets = [helper.make_opsetid("", 27)]
    function = helper.make_function("f", "outer", ["a", "w"], ["b"], [inner], opsets, ["kind"])
    x, w = drawn(2, 4, 5), drawn(4, 1, 3)
    plain = one_node(
        "CausalConvWithState", {"x": x, "w": w}, opset=27, outputs=2, activation="silu"
    )
    made = one_node("CausalConvWithState", {"x": x, "w": w}, opset=27, outputs=2)
    del made.graph.output[1:]
    made.functions.append(function)
    del made.graph.node[:]
    made.graph.node.append(helper.make_node("outer", ["x", "w"], ["y0"], domain="f", kind="silu"))
    made.opset_import.append(helper.make_opsetid("f", 1))
    feed = {"x": x, "w": w}
    np.testing.assert_array_equal(run(made, feed)["y0"], run(plain, feed)["y0"])
