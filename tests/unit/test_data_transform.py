"""`--input` and `--transform`: what the small language allows, and that it allows no more."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.data import evaluate, load
from tapeout.support.errors import DataError
from tests.onnx_models import parsed

X = np.array([[0, 51], [102, 255]], np.uint8)
F = np.float32

GOOD: dict[str, object] = {
    "x/255": X.astype(F) / F(255),
    "(x - 127.5) / 127.5": (X.astype(F) - F(127.5)) / F(127.5),
    "-x + 1": -X.astype(F) + F(1),
    "+x*x": X.astype(F) * X.astype(F),
    "2e-3*image": F(2e-3) * X.astype(F),
    " 1 - x / (2 + 3 * 4) ": F(1) - X.astype(F) / F(14),
}


@pytest.mark.parametrize("expression", GOOD)
def test_computes(expression: str) -> None:
    got = evaluate(expression, X, "image")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, GOOD[expression])


@pytest.mark.parametrize(
    ("dtype", "want"),
    [
        ("bool", "f4"),
        ("u1", "f4"),
        ("i2", "f4"),
        ("i4", "f8"),
        ("i8", "f8"),
        ("f2", "f4"),
        ("f8", "f8"),
    ],
)
def test_result_dtype(dtype: str, want: str) -> None:
    assert evaluate("x*2", np.ones(3, dtype)).dtype == np.dtype(want)


BAD = [
    "", "   ", "3", "1+2", "x +", "x ** 2", "x // 2", "x % 2", "x @ x", "x < 1", "~x", "not x",
    "y", "x.T", "x[0]", "x()", "abs(x)", "__import__('os')", "x if x else x", "[x]", "{x}",
    "(x, x)", "lambda: x", "x := 1", "'x'", "f'{x}'", "x + True", "x + None", "x + 1j", "x = 1",
    "x; x", "x\n+1\nx", "x + 1e999", "x + 9" + "9" * 180, "x / 0", "x * 1e200", "x" + "+x" * 33, "-" * 40 + "x",
    "(" * 99 + "x" + ")" * 99 + " " * 9, "x" * 201, "x\0",
]  # fmt: skip


@pytest.mark.parametrize("expression", BAD)
def test_refuses(expression: str) -> None:
    with pytest.raises(DataError, match="transform of 'x'"):
        evaluate(expression, X)


@given(st.text(alphabet="x0123456789.+-*/() e_[]'", max_size=60))
def test_any_text_gives_finite_numbers_or_a_data_error(expression: str) -> None:
    try:
        result = evaluate(expression, X)
    except DataError:
        return
    assert result.shape == X.shape
    assert np.isfinite(result).all()


# --- pictures --------------------------------------------------------------------------------------

GREY = np.arange(2 * 4 * 6, dtype=np.uint8).reshape(2, 4, 6)
FRONT = np.arange(2 * 3 * 5 * 6, dtype=np.uint8).reshape(2, 3, 5, 6)
BEHIND = np.ascontiguousarray(FRONT.transpose(0, 2, 3, 1))


def test_pad() -> None:
    got = evaluate("pad(x, 1, 2) + 1", GREY)
    assert got.shape == (2, 6, 10)
    np.testing.assert_array_equal(got[:, 1:-1, 2:-2], GREY.astype(F) + 1)
    assert got.sum() == GREY.sum() + got.size
    assert evaluate("pad(x, 3)", GREY).shape == (2, 10, 12)
    assert evaluate("pad(x, 1)", FRONT).shape == (2, 3, 7, 8)
    assert evaluate("pad(x, 1)", BEHIND).shape == (2, 7, 8, 3)


@pytest.mark.parametrize("sizes", [(4, 6), (8, 12), (9, 4), (1, 1), (3, 17), (2, 3)])
def test_resize_is_that_of_onnx(sizes: tuple[int, int]) -> None:
    op = parsed(
        f'g (float[2,3,5,6] x) => (float[2,3,{sizes[0]},{sizes[1]}] y) {{y = Resize <mode = "linear"> (x, , , s)}}',
        s=np.array([2, 3, *sizes], np.int64),
    )
    session = onnxruntime.InferenceSession(op.SerializeToString())
    (want,) = session.run(None, {"x": FRONT.astype(F)})
    got = evaluate(f"resize(x, {sizes[0]}, {sizes[1]})", FRONT)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5)
    behind = evaluate(f"resize(image, {sizes[0]}, {sizes[1]})", BEHIND, "image")
    np.testing.assert_allclose(behind.transpose(0, 3, 1, 2), want, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 6, 8), (2, 1, 6, 8), (2, 6, 8, 1)])
def test_channels(shape: tuple[int, ...]) -> None:
    array = np.arange(96, dtype=np.uint8).reshape(shape)
    got = evaluate("channels(x, 3) / 255", array)
    assert got.shape == (2, 3, 6, 8)
    for c in range(3):
        np.testing.assert_array_equal(got[:, c], array.reshape(2, 6, 8) / F(255))


def test_calls_inside_calls() -> None:
    assert evaluate("channels(pad(resize(x, 8), 2), 3)/127.5 - 1", GREY).shape == (2, 3, 12, 12)


@pytest.mark.parametrize(
    ("expression", "array", "said"),
    [
        ("pad(x, 1)", X, "pictures are expected"),
        ("resize(x, 4)", np.zeros((2, 3, 4, 5, 6), F), "pictures are expected"),
        ("resize(x, 0)", GREY, "sizes are 0 and 0"),
        ("resize(x, 60000, 60000)", GREY, "larger than 8 GiB"),
        ("pad(x, 60000)", GREY, "larger than 8 GiB"),
        ("channels(x, 60000)", np.zeros((99, 99, 99), F), "larger than 8 GiB"),
        ("channels(x, 3)", FRONT, "grey pictures"),
        ("channels(x, 3, 4)", GREY, "grey pictures"),
        ("channels(x, 0)", GREY, "one number of 1 or more"),
        ("x + pad(x, 1)", GREY, "shapes do not fit"),
        ("pad(x)", GREY, "is not allowed"),
        ("pad(x, -1)", GREY, "is not allowed"),
        ("pad(x, 1.5)", GREY, "is not allowed"),
        ("pad(x, True)", GREY, "is not allowed"),
        ("pad(x, x)", GREY, "is not allowed"),
        ("pad(x, 1, 2, 3)", GREY, "is not allowed"),
        ("pad(x, n=1)", GREY, "is not allowed"),
        ("pad(3, 1)", GREY, "does not use the array"),
        ("pad(x, 99999999)", GREY, "is not allowed"),
        ("pad.pad(x, 1)", GREY, "is not allowed"),
        ("pad", GREY, "is not allowed"),
        ("pod(x, 1)", GREY, "is not allowed"),
    ],
)
def test_calls_that_are_refused(expression: str, array: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match="transform of 'x'") as caught:
        evaluate(expression, array)
    assert said in str(caught.value)


# --- files -----------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """Return the path of an archive of `image` and `kind`."""
    path = tmp_path / "d.npz"
    np.savez(path, image=X, kind=np.array([0, 1]))
    return str(path)


def test_load_renames_and_transforms(archive: str) -> None:
    dataset = load(archive, inputs=["x=image"], transforms={"x": "x/255"})
    assert list(dataset.arrays) == ["x", "kind"]
    np.testing.assert_array_equal(dataset.arrays["x"], X.astype(F) / F(255))
    assert dataset.notes == ("x = x/255: u8[2,2] -> f32[2,2]",)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["x"], "NEW=OLD"),
        (["=image"], "NEW=OLD"),
        (["x=imag"], "no array 'imag'\n.*'image'"),
        (["x=image", "x=kind"], "used twice"),
        (["x=image", "y=image"], "used twice"),
        (["kind=image"], "hides another"),
    ],
)
def test_load_refuses_wrong_names(inputs: list[str], message: str, archive: str) -> None:
    with pytest.raises(DataError, match=message):
        load(archive, inputs=inputs)


def test_load_refuses_to_transform_what_is_not_there(archive: str) -> None:
    with pytest.raises(DataError, match="no array 'x'"):
        load(archive, transforms={"x": "x/255"})


@pytest.mark.parametrize(
    ("rows", "first", "count"), [("[:3]", 0, 3), ("[4:]", 4, 6), ("[2:5]", 2, 3), ("[:]", 0, 10)]
)
def test_some_of_the_samples(rows: str, first: int, count: int, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=np.arange(10) * 1.0, labels=np.arange(10))
    dataset = load(f"{path}{rows}", transforms={"x": "x*2"})
    assert dataset.samples == count
    assert dataset.arrays["labels"][0] == first
    assert dataset.arrays["x"][0] == 2 * first
    assert f"samples {first} to {first + count} of 10" in dataset.notes
    # A file of that very name is meant before a part of another.
    path.rename(f"{path}{rows}.npz")
    assert load(f"{path}{rows}.npz").samples == 10


@pytest.mark.parametrize("rows", ["[:0]", "[5:5]", "[5:4]", "[:11]", "[10:]"])
def test_samples_that_are_not_there(rows: str, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=np.arange(10) * 1.0)
    with pytest.raises(DataError, match="there are 10"):
        load(f"{path}{rows}")
