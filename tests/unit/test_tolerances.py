"""The comparison that all other tests rely on."""

import numpy as np
import pytest

from tests.tolerances import TABLE, close, tolerance


def test_rows_by_numpy_dtype_and_by_name() -> None:
    assert tolerance(np.dtype(np.float32), "reduction") is TABLE[("f32", "reduction")]
    assert tolerance(np.float64, "network") is TABLE[("f64", "network")]
    assert tolerance("bf16", "contraction") is TABLE[("bf16", "contraction")]


def test_integers_are_exact() -> None:
    assert tolerance(np.int32, "reduction").rel == 0.0
    with pytest.raises(AssertionError):
        close(np.int32([1, 2]), np.int32([1, 3]), "reduction")


def test_unknown_class_is_refused() -> None:
    with pytest.raises(AssertionError, match="no class of op"):
        tolerance("f32", "guess")


@pytest.mark.parametrize("want", [np.float32([1.0]), np.float64([[1.0]])])
def test_dtype_and_shape_must_agree(want: np.ndarray) -> None:
    with pytest.raises(AssertionError, match="expected"):
        close(np.float64([1.0]), want, "arithmetic")


def test_floor_is_relative_to_the_largest_entry() -> None:
    want = np.float32([1000.0, 0.0])
    close(want + np.float32([0.0, 5e-4]), want, "reduction")
    with pytest.raises(AssertionError):
        close(want + np.float32([0.0, 5e-3]), want, "reduction")


def test_infinities_and_nans_must_stand_in_the_same_places() -> None:
    want = np.float32([np.inf, np.nan, 1.0])
    close(want.copy(), want, "network")
    with pytest.raises(AssertionError):
        close(np.float32([1.0, np.nan, 1.0]), want, "network")


def test_wider_needs_a_reason() -> None:
    with pytest.raises(AssertionError, match="reason"):
        close(np.float32([1.0]), np.float32([1.0]), "exact", factor=2)
