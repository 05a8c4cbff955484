"""Arrays to a model's inputs: by name, by shape, and what is done to them."""

import json
from typing import Any

import numpy as np
import pytest

from tapeout.data import DataMapping, Dataset, infer_mapping
from tapeout.support.errors import DataError

F32 = "float32"
IMAGES = (np.arange(4 * 6 * 5) % 256).astype(np.uint8).reshape(4, 6, 5)
LABELS = np.array([0, 2, 1, 2])


def dataset(**arrays: Any) -> Dataset:
    """Return a dataset of arrays."""
    return Dataset({name: np.asarray(array) for name, array in arrays.items()})


SHAPES: dict[str, tuple[tuple[int, ...], tuple[int | None, ...], tuple[int, ...] | None]] = {
    "the same": ((4, 3), (None, 3), (3,)),
    "a fixed batch": ((4, 3), (64, 3), (3,)),
    "add a channel": ((4, 6, 5), (None, 1, 6, 5), (1, 6, 5)),
    "add a channel behind": ((4, 6, 5), (None, 6, 5, 1), (6, 5, 1)),
    "add a channel, sizes open": ((4, 6, 5), (None, 1, None, None), (1, 6, 5)),
    "drop a channel": ((4, 1, 6, 5), (None, 6, 5), (6, 5)),
    "flatten": ((4, 6, 5), (None, 30), (30,)),
    "unflatten": ((4, 30), (None, 1, 6, 5), (1, 6, 5)),
    "channels to the front": ((4, 6, 5, 3), (None, 3, 6, 5), (3, 6, 5)),
    "a column": ((4,), (None, 1), (1,)),
    "open sizes": ((4, 7), (None, None), (7,)),
    "too many": ((4, 31), (None, 30), None),
    "a column for an open size": ((4,), (None, None), None),
    "axes turned round": ((4, 6, 5), (None, 1, 5, 6), None),
    "three colours for one": ((4, 6, 5, 3), (None, 1, 6, 5), None),
    "a scalar input": ((4,), (), None),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case: str) -> None:
    have, want, row = SHAPES[case]
    array = np.arange(np.prod(have), dtype=np.float32).reshape(have)
    data = dataset(picture=array)
    if row is None:
        with pytest.raises(DataError, match=r"'x'.*no array fits.*picture f32(?s:.)*--input x="):
            infer_mapping(data, {"x": (F32, want)})
        return
    fed = infer_mapping(data, {"x": (F32, want)}).apply(data.arrays)["x"]
    assert fed.shape == (4, *row)
    moved = array.transpose(0, 3, 1, 2) if case == "channels to the front" else array
    np.testing.assert_array_equal(fed.reshape(-1), moved.reshape(-1))


def test_bytes_become_fractions() -> None:
    data = dataset(x=IMAGES, labels=LABELS.astype(np.uint8))
    mapping = infer_mapping(data, {"x": (F32, (None, 1, 6, 5))}, "labels")
    fed = mapping.apply(data.arrays)
    np.testing.assert_array_equal(fed["x"][:, 0], IMAGES.astype(np.float32) / np.float32(255))
    assert fed["x"].dtype == np.float32
    assert fed["labels"].dtype == np.int64
    np.testing.assert_array_equal(fed["labels"], LABELS)
    assert mapping.lines == (
        "x: f32[N,1,6,5] from x u8[4,6,5]: reshape [6, 5] to [1, 6, 5], divide by 255",
        "labels: i64[N] from labels u8[4]: cast u8 to i64",
    )


def test_nothing_is_copied_where_nothing_changes() -> None:
    x = np.ones((4, 6, 5), np.float32)
    fed = infer_mapping(dataset(x=x), {"x": (F32, (None, 30))}).apply({"x": x})["x"]
    assert np.shares_memory(fed, x)


def test_a_batch_goes_through_the_same_rules() -> None:
    data = dataset(x=IMAGES)
    mapping = infer_mapping(data, {"x": (F32, (None, 30))})
    whole = mapping.apply(data.arrays)["x"]
    np.testing.assert_array_equal(mapping.apply({"x": IMAGES[1:3]})["x"], whole[1:3])
    with pytest.raises(DataError, match=r"\[6, 5\] are expected"):
        mapping.apply({"x": IMAGES[:, :3]})
    with pytest.raises(DataError, match="missing: x"):
        mapping.apply({})


def test_survives_json() -> None:
    mapping = infer_mapping(dataset(x=IMAGES, y=LABELS), {"x": (F32, (None, 30))}, "labels")
    again = DataMapping.from_data(json.loads(json.dumps(mapping.to_data())))
    assert again.rules == mapping.rules


LABEL_CASES: dict[str, tuple[dict[str, Any], str | None]] = {
    "by their own name": ({"x": IMAGES, "labels": LABELS, "y": LABELS}, "labels"),
    "by a usual name": ({"x": IMAGES, "y": LABELS, "ids": LABELS}, "y"),
    "the only whole numbers": ({"x": IMAGES, "kind": LABELS}, "kind"),
    "a column of them": ({"x": IMAGES, "kind": LABELS[:, None]}, "kind"),
    "what is left": ({"x": IMAGES, "score": LABELS * 0.5}, "score"),
    "two candidates": ({"x": IMAGES, "a": LABELS, "b": LABELS}, None),
    "none": ({"x": IMAGES}, None),
}


@pytest.mark.parametrize("case", LABEL_CASES)
def test_labels(case: str) -> None:
    arrays, want = LABEL_CASES[case]
    data = dataset(**arrays)
    inputs = {"x": (F32, (None, 30))}
    if want is None:
        with pytest.raises(DataError, match="recognised as 'labels'"):
            infer_mapping(data, inputs, "labels")
        return
    mapping = infer_mapping(data, inputs, "labels")
    assert mapping.rules[-1].source == want
    assert mapping.apply(data.arrays)["labels"].shape == (4,)
    assert len(mapping.lines) == len(arrays)


def test_labels_may_be_an_input_of_the_model() -> None:
    data = dataset(x=IMAGES, y=LABELS.astype(np.float64))
    inputs = {"x": (F32, (None, 30)), "labels": ("int64", (None,))}
    fed = infer_mapping(data, inputs, "labels").apply(data.arrays)
    assert fed["labels"].dtype == np.int64


def test_an_ambiguous_input_is_refused() -> None:
    data = dataset(a=IMAGES, b=IMAGES)
    with pytest.raises(DataError, match="a and b both fit"):
        infer_mapping(data, {"x": (F32, (None, 30))})


def test_a_name_binds_whatever_the_shape() -> None:
    with pytest.raises(DataError, match="they do not fit"):
        infer_mapping(dataset(x=IMAGES, z=IMAGES[:, 0]), {"x": (F32, (None, 5))})


DTYPES: dict[str, tuple[Any, str, str | None]] = {
    "wider float": (np.float32([1.5]), "float64", None),
    "narrower float": (np.float64([1.5]), "float32", None),
    "whole numbers to float": (np.int64([3]), "float32", None),
    "whole floats to int": (np.float64([3.0]), "int64", None),
    "bool to float": (np.array([True]), "float32", None),
    "too large for float32": (np.float64([1e300]), "float32", "inf at index"),
    "fractions to int": (np.float64([0.5]), "int64", "fractions"),
    "too large for int8": (np.int64([300]), "int8", "too large for i8"),
    "negative to unsigned": (np.int64([-1]), "uint8", "too large for u8"),
    "too large a float for int64": (np.float64([1e30]), "int64", "too large for i64"),
    "numbers to bool": (np.int64([1]), "bool", "bool is expected"),
}


@pytest.mark.parametrize("case", DTYPES)
def test_dtypes(case: str) -> None:
    array, dtype, message = DTYPES[case]
    data = dataset(x=array)
    if message is not None:
        with pytest.raises(DataError, match=message):
            infer_mapping(data, {"x": (dtype, (None,))})
        return
    fed = infer_mapping(data, {"x": (dtype, (None,))}).apply(data.arrays)["x"]
    assert fed.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(fed, array.astype(dtype))
