"""`--input` and `--transform`: what the small language allows, and that it allows no more."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.data import evaluate, load
from tapeout.support.errors import DataError

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
