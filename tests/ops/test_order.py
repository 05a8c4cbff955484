"""The greatest and least few against a stable sort of numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tapeout
from tapeout.ir.build import Builder
from tapeout.ir.dtype import from_numpy
from tapeout.ir.graph import Graph
from tapeout.ir.type import TensorType
from tapeout.ops.composite import order
from tapeout.ops.sym import Sym
from tapeout.oracle import graph as graph_oracle
from tapeout.support.errors import ShapeError

INF, NAN = np.inf, np.nan
DTYPES = ("float64", "float32", "float16", "int8", "uint8", "int64", "uint64")


def graph_of(x: np.ndarray, k: int, axis: int, *, largest: bool) -> Graph:
    b = Builder("order")
    value = Sym(b, b.add_input("x", TensorType(from_numpy(x.dtype), x.shape)))
    for name, found in zip("vi", order.top_k(value, k, axis, largest=largest), strict=True):
        b.set_output(name, found.value)
    return b.graph()


def sorted_places(x: np.ndarray, k: int, axis: int, *, largest: bool) -> np.ndarray:
    """Return the places in order, NaN as the greatest, the first of equals first."""
    moved = np.moveaxis(x, axis, -1)
    out = np.empty((*moved.shape[:-1], k), np.int64)
    for at in np.ndindex(*moved.shape[:-1]):
        line = [(math.isnan(v), 0 if math.isnan(v) else v.item()) for v in moved[at]]
        found = sorted(range(len(line)), key=lambda i: line[i], reverse=largest)
        out[at] = found[:k]
    return np.moveaxis(out, -1, axis)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_a_sort(dtype: str, largest: bool) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 7, (3, 9, 2)).astype(dtype)
    if x.dtype.kind != "u":
        x -= 3
    for axis, k in ((1, 1), (1, 4), (1, 9), (0, 2), (2, 2), (2, 0)):
        found = graph_oracle.run(graph_of(x, k, axis, largest=largest), {"x": x})
        assert not found.failed
        want = sorted_places(x, k, axis, largest=largest)
        np.testing.assert_array_equal(found.outputs["i"], want)
        np.testing.assert_array_equal(found.outputs["v"], np.take_along_axis(x, want, axis))


@pytest.mark.parametrize("largest", [True, False])
def test_special_numbers(largest: bool) -> None:
    x = np.array([1.0, NAN, -0.0, INF, 0.0, -INF, -NAN, 1e-310, -1e-310, 0.0])
    for dtype in (np.float64, np.float32):
        line = x.astype(dtype)
        for k in (1, 2, 3, 5, 10):
            found = graph_oracle.run(graph_of(line, k, 0, largest=largest), {"x": line}).outputs
            want = sorted_places(line, k, 0, largest=largest)
            np.testing.assert_array_equal(found["i"], want)


@pytest.mark.parametrize("largest", [True, False])
def test_few_of_many_are_taken_one_by_one(largest: bool) -> None:
    """Also where nothing but NaN or an infinity is left."""
    for fill in (NAN, INF, -INF):
        line = np.full(12, fill, np.float32)
        line[[4, 7]] = 1.0, -1.0
        found = graph_oracle.run(graph_of(line, 3, 0, largest=largest), {"x": line}).outputs
        np.testing.assert_array_equal(found["i"], sorted_places(line, 3, 0, largest=largest))


@pytest.mark.parametrize("k", [1, 3, 20, 33])
def test_long_axes_go_in_parts(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "LONGEST", 8)
    x = np.random.default_rng(5).integers(0, 9, (2, 33)).astype(np.float32)
    found = graph_oracle.run(graph_of(x, k, 1, largest=True), {"x": x}).outputs
    np.testing.assert_array_equal(found["i"], sorted_places(x, k, 1, largest=True))


def test_native() -> None:
    x = np.random.default_rng(6).integers(0, 99, (5, 300)).astype(np.float32)
    found = tapeout.compile(graph_of(x, 12, 1, largest=True), checked=True)(x=x)
    np.testing.assert_array_equal(found["i"], sorted_places(x, 12, 1, largest=True))


def test_too_many() -> None:
    with pytest.raises(ShapeError, match="the first 4 along axis 0"):
        graph_of(np.zeros(3), 4, 0, largest=True)
