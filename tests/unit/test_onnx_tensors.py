"""Tensors of a file: what is stored comes out, and a shape that lies never does."""

import numpy as np
import onnx
import pytest
from ml_dtypes import bfloat16
from onnx import TensorProto, numpy_helper

from tapeout.frontend.onnx.tensors import decode
from tapeout.support.errors import OnnxImportError
from tests.onnx_models import bad_tensor

NUMPY = [
    np.float16, np.float32, np.float64, bfloat16, np.int8, np.int16, np.int32, np.int64,
    np.uint8, np.uint16, np.uint32, np.uint64, np.bool_,
]  # fmt: skip


def sample(dtype: type) -> np.ndarray:
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return np.array([[info.min, info.max, 1], [0, 3, 7]], dtype)
    if dtype is np.bool_:
        return np.array([[True, False, True], [False, False, True]])
    return np.array([[-1.5, 0.0, 3.25], [np.inf, -np.inf, 0.1]]).astype(dtype)


@pytest.mark.parametrize("dtype", NUMPY, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("field", ["raw", "typed"])
def test_stored_numbers_come_out(dtype: type, field: str) -> None:
    array = sample(dtype)
    tensor = numpy_helper.from_array(array, "w") if field == "raw" else typed(array)
    found = decode(tensor, "w", None)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found.astype(np.float64), array.astype(np.float64))


def typed(array: np.ndarray) -> onnx.TensorProto:
    """Return the tensor with its numbers in the typed field, as older exporters write them."""
    plain = numpy_helper.from_array(array, "w")
    code = plain.data_type
    bits = array.view(np.uint16) if array.dtype.name in ("float16", "bfloat16") else array
    return (
        onnx.helper.make_tensor("w", code, array.shape, bits.ravel().tolist())
        if bits is array
        else bad_tensor("w", list(array.shape), code, int32_data=bits.ravel().tolist())
    )


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1, 1)])
def test_shapes_without_much(shape: tuple[int, ...]) -> None:
    array = np.full(shape, 2.5, np.float32)
    np.testing.assert_array_equal(decode(numpy_helper.from_array(array), "w", None), array)


LIES = {
    "two payloads": (bad_tensor("w", [1], raw_data=b"\0\0\0\0", float_data=[1.0]), "two payloads"),
    "empty raw beside typed": (bad_tensor("w", [1], raw_data=b"", float_data=[1.0]), "two payloads"),
    "two typed": (bad_tensor("w", [1], float_data=[1.0], int64_data=[1]), "two payloads"),
    "too few bytes": (bad_tensor("w", [4], raw_data=b"\0\0\0\0"), "needs 16 bytes, 4 are there"),
    "too many bytes": (bad_tensor("w", [1], raw_data=b"\0" * 8), "needs 4 bytes, 8 are there"),
    "negative size": (bad_tensor("w", [-1], raw_data=b""), "negative size"),
    "two negative sizes": (bad_tensor("w", [-1, -4], raw_data=b"\0" * 16), "negative size"),
    "beyond 64 bits": (bad_tensor("w", [1 << 32, 1 << 32], raw_data=b""), "larger than any tensor"),
    "2^62 bytes": (bad_tensor("w", [1 << 62], raw_data=b""), "larger than any tensor"),
    "empty but huge": (bad_tensor("w", [0, 1 << 62], raw_data=b""), "larger than any tensor"),
    "no payload": (bad_tensor("w", [4]), "needs 16 bytes, none are there"),
    "too few numbers": (bad_tensor("w", [4], float_data=[1.0]), "needs 4 entries, float_data has 1"),
    "wrong field": (bad_tensor("w", [1], int64_data=[1]), "belongs in float_data"),
    "too large for its type": (
        bad_tensor("w", [1], TensorProto.INT8, int32_data=[400]),
        "does not fit into i8",
    ),
    "no type": (bad_tensor("w", [1], 0, raw_data=b"\0" * 4), "element type undefined"),
    "unknown type": (bad_tensor("w", [1], 99, raw_data=b"\0" * 4), "element type number 99"),
    "strings": (bad_tensor("w", [1], TensorProto.STRING, string_data=[b"x"]), "element type string"),
    "rank 200": (bad_tensor("w", [1] * 200, raw_data=b"\0" * 4), "rank 200"),
    "external without a folder": (bad_tensor("w", [1], data_location=1), "not read from a folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_contradictions_are_refused(name: str) -> None:
    tensor, message = LIES[name]
    with pytest.raises(OnnxImportError, match=message) as caught:
        decode(tensor, "model.onnx: tensor 'w'", None)
    assert caught.value.where == "model.onnx: tensor 'w'"


def test_segments_are_refused() -> None:
    tensor = bad_tensor("w", [1], raw_data=b"\0" * 4)
    tensor.segment.begin = 0
    with pytest.raises(OnnxImportError, match="segments"):
        decode(tensor, "w", None)
