"""Trained weights go into the file they came from; all else stays as it was."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from ml_dtypes import bfloat16
from onnx import helper, numpy_helper

from tapeout.export.onnx import write_weights
from tapeout.frontend.onnx import load
from tapeout.support.errors import DataError
from tests.onnx_models import bad_tensor, parsed


def original() -> onnx.ModelProto:
    """Return a model with weights stored in every way, and with facts that must survive."""
    made = parsed(
        "g (float[N,4] x) => (float y) {h = MatMul (x, raw); i = Add (h, typed); j = Mul (i, node); y = Add (j, kept)}"
    )
    made.graph.initializer.extend(
        [
            numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "raw"),
            bad_tensor("typed", [3], float_data=[1.0, 2.0, 3.0]),
            bad_tensor("kept", [3], float_data=[4.0, 5.0, 6.0]),
        ]
    )
    value = numpy_helper.from_array(np.ones(3, np.float32), "value")
    made.graph.node.insert(0, helper.make_node("Constant", [], ["node"], name="const", value=value))
    made.producer_name = "someone"
    made.doc_string = "a model"
    made.metadata_props.add(key="license", value="free")
    made.graph.node[1].doc_string = "product"
    return made


def test_only_the_weights_change(tmp_path: Path) -> None:
    before = original().SerializeToString()
    new = {
        "raw": np.full((4, 3), 7, np.float32),
        "typed": np.array([9, 8, 7], np.float32),
        "node": np.array([0.5, 0.25, 0.125], np.float32),
    }
    write_weights(before, new, tmp_path / "trained.onnx")
    after = onnx.load(tmp_path / "trained.onnx")
    found = load(after).parameters
    for name, array in new.items():
        np.testing.assert_array_equal(found[name].initial, array)
    np.testing.assert_array_equal(found["kept"].initial, [4, 5, 6])
    tensors = {t.name: t for t in after.graph.initializer}
    assert tensors["raw"].raw_data
    assert not tensors["raw"].float_data
    assert list(tensors["typed"].float_data) == [9, 8, 7]
    assert not tensors["typed"].HasField("raw_data")
    # With the old values back, the file is the old one.
    old = {n: v.initial for n, v in load(before).parameters.items() if v.initial is not None}
    write_weights(after.SerializeToString(), old, tmp_path / "back.onnx")
    assert onnx.load(tmp_path / "back.onnx") == onnx.load_model_from_string(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, bfloat16])
@pytest.mark.parametrize("typed", [True, False])
def test_every_float_type(dtype: type, typed: bool, tmp_path: Path) -> None:
    array = np.array([1.5, -2.0], dtype)
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensor = numpy_helper.from_array(array, "w")
    if typed:
        bits = array.view(np.uint16) if array.itemsize == 2 else array
        field = {2: "int32_data", 4: "float_data", 8: "double_data"}[array.itemsize]
        tensor = bad_tensor("w", [2], code, **{field: bits.tolist()})
    x = helper.make_tensor_value_info("x", code, [2])
    y = helper.make_tensor_value_info("y", code, [2])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    new = np.array([0.25, 96.0], dtype)
    write_weights(made.SerializeToString(), {"w": new}, tmp_path / "new.onnx")
    found = load(tmp_path / "new.onnx").parameters["w"].initial
    assert found is not None
    np.testing.assert_array_equal(found.astype(np.float64), new.astype(np.float64))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("row", np.zeros((4, 3), np.float32), r"no tensor 'row'[\s\S]*'raw'"),
        ("raw", np.zeros((3, 4), np.float32), r"shape \[4, 3\]"),
        ("raw", np.zeros((4, 3), np.float64), r"f64\[4, 3\]"),
    ],
)
def test_what_does_not_fit(name: str, array: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_weights(original().SerializeToString(), {name: array}, tmp_path / "new.onnx")
    assert not list(tmp_path.iterdir())


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    data = original().SerializeToString()
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "missing" / "new.onnx", tmp_path / "folder"):
        with pytest.raises(DataError):
            write_weights(data, {}, target)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert not list((tmp_path / "folder").iterdir())


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")
    write_weights(original().SerializeToString(), {}, target)
    assert load(target).parameters
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapeout.export.onnx.weights._LIMIT", 10)
    with pytest.raises(DataError, match="2 GiB"):
        write_weights(original().SerializeToString(), {}, tmp_path / "new.onnx")
