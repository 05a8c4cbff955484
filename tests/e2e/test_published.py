"""A file that another framework wrote: weights in Constant nodes, a batch of -1, inference form. Head, then everything; and back."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import tapeout
from tests.onnx_models import Array

PACKAGE, FILE = "rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"


class Paddle:
    """Writes a network as Paddle's exporter does: each weight is a Constant node in front of all others."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.constants: list[onnx.NodeProto] = []
        self.nodes: list[onnx.NodeProto] = []

    def constant(self, name: str, array: Array) -> str:
        value = numpy_helper.from_array(array)
        self.constants.append(helper.make_node("Constant", [], [name], name=name, value=value))
        return name

    def weight(self, name: str, *shape: int) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        return self.constant(name, (self.rng.standard_normal(shape) * scale).astype(np.float32))

    def node(self, op: str, result: str, *operands: str, **attributes: Any) -> str:
        name = f"{op}@{sum(n.op_type == op for n in self.nodes)}"
        self.nodes.append(helper.make_node(op, operands, [result], name=name, **attributes))
        return result

    def block(self, x: str, name: str, inside: int, out: int, size: int, group: int = 1) -> str:
        """A convolution, normalised in inference form, with hard swish written out."""
        w = self.weight(f"{name}_weights", out, inside // group, size, size)
        edge = [size // 2] * 4
        y = self.node("Conv", f"{name}.conv", x, w, kernel_shape=[size] * 2, pads=edge, group=group)
        ones = np.ones(out, np.float32)
        statistics = [
            self.constant(f"{name}_bn_scale", ones),
            self.weight(f"{name}_bn_offset", out),
            self.constant(f"{name}_bn_mean", ones * 0.1),
            self.constant(f"{name}_bn_variance", ones * 0.5),
        ]
        y = self.node("BatchNormalization", f"{name}.bn", y, *statistics)
        low, high, three, six = (
            self.constant(f"{name}.{n}", np.array(n, np.float32)) for n in (0, 6, 3, 6.0)
        )
        inner = self.node("Clip", f"{name}.clip", self.node("Add", f"{name}.add", y, three), low, high)  # fmt: skip
        return self.node("Div", f"{name}.swish", self.node("Mul", f"{name}.mul", y, inner), six)

    def gate(self, x: str, name: str, channels: int) -> str:
        """Squeeze and excite, the biases reshaped where they are used."""
        y = self.node("GlobalAveragePool", f"{name}.pool", x)
        for part, act in (("1", "Relu"), ("2", "HardSigmoid")):
            w = self.weight(f"{name}_{part}_weights", channels, channels, 1, 1)
            b = self.weight(f"{name}_{part}_offset", channels)
            shape = self.constant(f"{name}.{part}.shape", np.array([1, -1, 1, 1]))
            b = self.node("Reshape", f"{name}.{part}.reshape", b, shape)
            y = self.node("Conv", f"{name}.{part}.conv", y, w, kernel_shape=[1, 1])
            y = self.node(act, f"{name}.{part}", self.node("Add", f"{name}.{part}.add", y, b))
        return self.node("Mul", f"{name}.mul", x, y)


def written() -> onnx.ModelProto:
    """Return a small mobile network of two classes."""
    p = Paddle()
    y = p.block("x", "conv1", 3, 8, 3)
    y = p.block(p.gate(y, "se", 8), "conv2", 8, 8, 3, group=8)
    y = p.node("MaxPool", "pool", p.block(y, "conv3", 8, 12, 1), kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4)  # fmt: skip
    y = p.node("GlobalAveragePool", "features", y)
    # The batch's size, and -1 for the rest, put together in i32.
    ends = [p.constant(f"Constant@{i}", np.array([n])) for i, n in enumerate((0, 1))]
    size = p.node("Cast", "size", p.node("Shape", "shape", y), to=6)
    size = p.node("Cast", "sliced", p.node("Slice", "slice", size, *ends), to=7)
    rest = p.node("Cast", "rest", p.constant("fill", np.array([-1], np.int32)), to=7)
    y = p.node("Reshape", "flat", y, p.node("Concat", "to", size, rest, axis=-1))
    y = p.node("MatMul", "product", y, p.weight("fc_0.w_0", 12, 2))
    y = p.node("Softmax", "softmax", p.node("Add", "scores", y, p.weight("fc_0.b_0", 2)), axis=1)
    p.node("Identity", "save_infer_model/scale_0.tmp_1", y)
    inputs = helper.make_tensor_value_info("x", 1, [-1, 3, "?", "?"])
    output = helper.make_tensor_value_info("save_infer_model/scale_0.tmp_1", 1, [-1, 2])
    graph = helper.make_graph([*p.constants, *p.nodes], "paddle-onnx", [inputs], [output])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    made.producer_name = "PaddlePaddle"
    made.metadata_props.add(key="license", value="free")
    return made


def real() -> onnx.ModelProto:
    found = importlib.util.find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (Path(folder) / FILE).is_file():
            return onnx.load(Path(folder) / FILE)
    pytest.skip(f"needs the file of {PACKAGE}")


@pytest.fixture(params=["written", pytest.param("real", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return written() if request.param == "written" else real()


def pictures(count: int, seed: int) -> dict[str, Array]:
    """Return squares in one of three colours, more or less bright, on a noisy ground."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    x = rng.normal(0, 0.2, (count, 3, 32, 32))
    for i, c in enumerate(labels):
        row, column = rng.integers(0, 20, 2)
        x[i, c, row : row + 12, column : column + 12] += rng.uniform(0.5, 1)
    return {"x": x.astype(np.float32), "labels": labels}


def trained(graph: tapeout.Graph, lr: float, epochs: int, start: Any = None) -> tapeout.Trainer:
    trainer = tapeout.Trainer(
        graph, loss=tapeout.losses.cross_entropy(), optimizer=tapeout.optimizers.adam(lr)
    )
    if start is not None:
        trainer.parameters.update(start.parameters)
    losses = trainer.fit(pictures(96, 0), epochs=epochs, batch_size=32)["loss"]
    assert losses[-1] < losses[0]
    return trainer


def stored(made: onnx.ModelProto) -> dict[str, Array]:
    """Return the float tensors of Constant nodes."""
    nodes = [
        n for n in made.graph.node if n.op_type == "Constant" and n.attribute[0].t.data_type == 1
    ]
    return {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in nodes}


def test_head_then_everything(model: onnx.ModelProto, tmp_path: Path) -> None:
    graph = tapeout.surgery.replace_head(tapeout.load_onnx(model), 3)
    assert {"fc_0.w_0", "fc_0.b_0", "conv1_weights", "conv1_bn_scale"} <= set(graph.parameters)
    assert graph.variable["conv1_bn_mean"].kind == "state"
    head = trained(graph.freeze("*").unfreeze("fc_0.*").with_mode("eval"), 0.2, 2)
    head.export_onnx(tmp_path / "head.onnx")
    assert changed(model, onnx.load(tmp_path / "head.onnx")) == {"fc_0.w_0", "fc_0.b_0"}

    whole = trained(graph, 1e-2, 3, head)
    whole.export_onnx(tmp_path / "whole.onnx")
    made = onnx.load(tmp_path / "whole.onnx")
    onnx.checker.check_model(made)
    assert changed(model, made) == {*graph.parameters, *whole.state}
    facts_stay(model, made)
    agrees_with_onnxruntime(made, whole)


def changed(before: onnx.ModelProto, after: onnx.ModelProto) -> set[str]:
    """Return which tensors differ."""
    old, new = stored(before), stored(after)
    assert list(old) == list(new)
    return {n for n in old if old[n].shape != new[n].shape or (old[n] != new[n]).any()}


def facts_stay(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """All but numbers: what nodes are called and read, versions, producer, metadata, what goes in and out."""
    a, b = onnx.ModelProto(), onnx.ModelProto()
    for copy, original in ((a, before), (b, after)):
        copy.CopyFrom(original)
        for node in copy.graph.node:
            if node.op_type == "Constant":
                node.attribute[0].t.ClearField("raw_data")
                node.attribute[0].t.ClearField("float_data")
                node.attribute[0].t.ClearField("dims")
    assert b.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3
    b.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    assert a == b


def agrees_with_onnxruntime(made: onnx.ModelProto, trainer: tapeout.Trainer) -> None:
    scores = next(n.input[0] for n in made.graph.node if n.op_type == "Softmax")
    both = onnx.ModelProto()
    both.CopyFrom(made)
    both.graph.output.append(helper.make_tensor_value_info(scores, 1, None))
    session = onnxruntime.InferenceSession(both.SerializeToString())
    x = pictures(5, 3)["x"]
    shares, theirs = session.run(None, {"x": x})
    ours = trainer.predict({"x": x})["save_infer_model/scale_0.tmp_1"]
    np.testing.assert_allclose(ours, shares, atol=1e-5)
    cut = tapeout.surgery.truncate(tapeout.load_onnx(made, mode="eval"), scores)
    np.testing.assert_allclose(tapeout.compile(cut)(x=x)[scores], theirs, atol=1e-4)
