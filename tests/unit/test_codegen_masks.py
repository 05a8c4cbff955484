"""Vector loads and stores by a mask, half of which is known to be false when the kernel is compiled.

LLVM 22 splits a masked load wider than a register and forgets the mask of the half that it proves false; the tests run
unchecked builds, for a checked one hides it.
"""

from __future__ import annotations

import numpy as np
import pytest

from tapeout.codegen import cpu, machine
from tapeout.ir import dtype as dt
from tapeout.kernel import loops
from tapeout.kernel.text import named
from tapeout.runtime import jit

TARGET = machine.native()


def number(value: int, dtype: dt.DType = dt.i64, lanes: int = 1) -> loops.Const:
    """Return a constant."""
    return loops.Const(dtype, lanes, value)


def mask_from(first: int, lanes: int) -> loops.Expr:
    """Return the mask of lanes >= first, and of a flag that only the run knows."""
    ramp = loops.Ramp(dt.i64, lanes, number(-first))
    late = loops.Apply(dt.bool_, lanes, "ge", (ramp, number(0, dt.i64, lanes)))
    flag = loops.Load(dt.i64, 1, "flag", number(0))
    told = loops.Apply(dt.bool_, 1, "ne", (flag, number(0)))
    return loops.Apply(dt.bool_, lanes, "and", (loops.Splat(dt.bool_, lanes, told), late))


def run(body: loops.Stmt, dtype: dt.DType, flag: int) -> np.ndarray:
    """Run one statement from `x` to `y` and return `y`."""
    size = dtype.bytes
    params = (
        loops.Param("x", dtype, 39, "r", size),
        loops.Param("flag", dt.i64, 1, "r", 8),
        loops.Param("y", dtype, 20, "rw", size),
    )
    kernel = named(loops.Kernel("", params, (body,)))
    code = cpu.compile_objects({kernel.name: kernel}, TARGET)[kernel.name]
    arrays = {"x": source(dtype), "flag": np.array([flag]), "y": np.zeros(20, dtype.numpy)}
    jit.run_kernel(kernel, code, arrays)
    return arrays["y"]


def source(dtype: dt.DType) -> np.ndarray:
    """Return numbers that differ from each other and from zero where the type allows."""
    return (np.arange(1, 40) % (2 if dtype == dt.bool_ else 40)).astype(dtype.numpy)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", [dt.f32, dt.f64, dt.i32, dt.i64, dt.u8], ids=str)
def test_masked_loads(dtype: dt.DType, lanes: int) -> None:
    for first in range(0, lanes + 1, max(1, lanes // 4)):
        for flag in (0, 1):
            mask = mask_from(first, lanes)
            load = loops.Load(dtype, lanes, "x", number(3), None, mask, 7)
            found = run(loops.Store("y", number(0), load), dtype, flag)
            told = (np.arange(lanes) >= first) & bool(flag)
            np.testing.assert_array_equal(
                found[:lanes], np.where(told, source(dtype)[3 : 3 + lanes], 7)
            )


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", [dt.f32, dt.f64, dt.i32, dt.i64, dt.u8, dt.bool_], ids=str)
def test_masked_stores(dtype: dt.DType, lanes: int) -> None:
    for first in range(0, lanes + 1, max(1, lanes // 4)):
        for flag in (0, 1):
            mask = mask_from(first, lanes)
            load = loops.Load(dtype, lanes, "x", number(3))
            found = run(loops.Store("y", number(1), load, None, mask), dtype, flag)
            wanted = np.zeros(20, dtype.numpy)
            told = (np.arange(lanes) >= first) & bool(flag)
            wanted[1 : 1 + lanes] = np.where(told, source(dtype)[3 : 3 + lanes], 0)
            np.testing.assert_array_equal(found, wanted)
