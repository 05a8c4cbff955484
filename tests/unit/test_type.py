"""Types, and dimensions that remember their name."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tapeout.ir import dtype as dt
from tapeout.ir.type import Dim, TensorType


def test_a_dimension_remembers_how_it_was_made() -> None:
    n, s = Dim.named("N", 2), Dim.named("S", 3)
    derived = (n * 8 + s - 1) // 2
    assert int(derived) == (2 * 8 + 3 - 1) // 2
    assert derived.resolve({"N": 10, "S": 5}) == (10 * 8 + 5 - 1) // 2
    assert derived.resolve({"N": 10}) == (10 * 8 + 3 - 1) // 2
    assert (10 - n).resolve({"N": 4}) == 6
    assert (10 + n).resolve({"N": 4}) == 14
    assert (100 // n).resolve({"N": 4}) == 25
    assert math.prod((3, n, 4)).resolve({"N": 5}) == 60
    assert str(n) == "2"
    assert TensorType(dt.f32, (n, 7)).text == "f32[N,7]"
    assert TensorType(dt.f32, ((n + 1) * 4, s // 2)).text == "f32[(N+1)*4,S//2]"


def test_facts_of_a_type() -> None:
    t = TensorType(dt.f32, (3, 4))
    assert (t.rank, t.size, t.bytes, str(t)) == (2, 12, 48, "f32[3,4]")
    assert t.with_shape((2,)) == TensorType(dt.f32, (2,))
    assert t.with_dtype(dt.f64).bytes == 96
    assert str(TensorType(dt.i64)) == "i64[]"


@pytest.mark.parametrize("dtype", dt.ALL, ids=str)
def test_element_types_have_numpy_twins(dtype: dt.DType) -> None:
    assert dt.from_numpy(dtype.numpy) == dtype
    assert dtype.numpy.itemsize == dtype.bytes
    assert dt.BY_NAME[dtype.name] is dtype
    assert dtype.is_float + dtype.is_integer + (dtype == dt.bool_) == 1


def test_numpy_types_without_twin_are_refused() -> None:
    with pytest.raises(TypeError, match="complex128"):
        dt.from_numpy(np.dtype(np.complex128))
