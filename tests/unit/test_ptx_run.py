"""The PTX itself, run by an emulator, gives the bits of the oracle of kernels."""

import numpy as np
import pytest

from tapeout.codegen.ptx import PTX, emit_kernel
from tapeout.ir.build import Builder
from tapeout.ir.dtype import ALL, DType, f32
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.ir.type import TensorType
from tapeout.kernel import loops
from tapeout.kernel.functions import FUNCTIONS
from tapeout.kernel.math import legalize
from tapeout.kernel.verify import verify_kernel
from tapeout.ops.sym import Sym
from tapeout.oracle.kernel import run
from tapeout.schedule.build import plan_works
from tapeout.schedule.layout import plan_variables
from tapeout.schedule.lower.gpu import lower_gpu
from tests.ptx_emulator import Program
from tests.unit.kernels import kernel
from tests.unit.test_ptx import REDUCE, all_operations

SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, 88.8, -104.0, 3e38)

MAP = """\
in a: f32[256], in b: f32[256], out c: f32[256]
for %b in 0..2 grid {{
  for %w in 0..1 group {{
    for %l in 0..32 lane {{
      %i: i64 = (((%b + %w) * 32) + %l) * 4
      if lt(%i, 250) {{
        store c[%i] = {value}
      }}
    }}
  }}
}}
"""


def _numbers(rng: np.random.Generator, dtype: DType, size: int) -> np.ndarray:
    if dtype.kind == "b":
        return rng.integers(0, 2, size).astype(np.bool_)
    if not dtype.is_float:
        found = rng.integers(-4, 5, size).astype(dtype.numpy)
        wild = rng.integers(0, 256, size * dtype.bytes, dtype=np.uint8).view(dtype.numpy)
        return np.where(rng.random(size) < 0.5, found, wild)
    found = rng.standard_normal(size) * rng.choice([1e-3, 1.0, 20.0], size)
    found[: min(size, 11)] = rng.permutation(SPECIAL)[:size]
    with np.errstate(all="ignore"):
        return found.astype(dtype.numpy)


def _agree(k: loops.Kernel, rng: np.random.Generator, times: int = 1) -> None:
    """Run a kernel by the oracle and by the emulator, and compare every bit (of numbers)."""
    program = Program.parse(emit_kernel(k))
    for _ in range(times):
        _agree_once(k, program, rng)


def _agree_once(k: loops.Kernel, program: Program, rng: np.random.Generator) -> None:
    formulas = legalize(k, PTX)
    buffers = {
        p.name: _numbers(rng, p.dtype, p.size)
        if "r" in p.access
        else np.zeros(p.size, p.dtype.numpy)
        for p in k.params
    }
    copies = [b.copy() for b in buffers.values()]
    run(formulas, buffers)
    program.run(copies, k.tasks)
    for p, got in zip(k.params, copies, strict=True):
        want = buffers[p.name]
        if not p.dtype.is_float:
            np.testing.assert_array_equal(got, want, p.name)
            continue
        same = (got.view(f"u{p.dtype.bytes}") == want.view(f"u{p.dtype.bytes}")) | (
            np.isnan(got) & np.isnan(want)
        )
        assert same.all(), f"{p.name}: {got[~same][:4]}, the oracle gives {want[~same][:4]}"


@pytest.mark.parametrize("name", ["", *sorted(FUNCTIONS)])
def test_functions(name: str, rng: np.random.Generator) -> None:
    if not name:
        _agree(kernel(MAP.format(value="max((a[%i :4] * b[%i :4]) - a[%i :4], b[%i :4])")), rng)
        return
    args = ", ".join(f"{x}[%i :4]" for x in "ab"[: SCALAR_OPS[name].arity])
    _agree(kernel(MAP.format(value=f"{name}({args})")), rng)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_operations(dtype: DType, rng: np.random.Generator) -> None:
    _agree(all_operations(dtype), rng, times=3)


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16", "i32", "i64", "u8", "bool"])
def test_threads(dtype: str, rng: np.random.Generator) -> None:
    _agree(kernel(REDUCE.format(type=dtype)), rng)


def test_sums_across_lanes_are_the_tree_of_the_oracle(rng: np.random.Generator) -> None:
    text = "in a: f32[64], out c: f32[64]\nfor %b in 0..2 grid {\nfor %l in 0..32 lane {\n"
    text += "%i: i64 = (%b * 32) + %l\nstore c[%i] = cross<sum, lane>(a[%i])\n}\n}"
    _agree(kernel(text), rng)


@pytest.mark.parametrize("dtype", ["f32", "i64", "bool"])
def test_values_across_warps_are_the_tree_of_the_oracle(
    dtype: str, rng: np.random.Generator
) -> None:
    combine, other = ("any", "all") if dtype == "bool" else ("sum", "max")
    text = f"in a: {dtype}[256], out c: {dtype}[256], out d: {dtype}[256]\n"
    text += "for %b in 0..2 grid {\nfor %w in 0..4 group {\nfor %l in 0..32 lane {\n"
    text += "%i: i64 = (((%b * 4) + %w) * 32) + %l\n"
    text += f"store c[%i] = cross<{combine}, group>(a[%i])\n"
    text += f"store d[%i] = cross<{other}, group>(cross<{other}, lane>(a[%i]))\n}}\n}}\n}}"
    _agree(kernel(text), rng)


def test_lowered_rows_maps_and_products(rng: np.random.Generator) -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f32, (3, 20))))
    w = Sym(b, b.add_variable("w", TensorType(f32, (20, 9))))
    y = (x @ w).tanh()
    b.set_output("y", (y / y.exp().sum([1], keepdims=True)).value)
    b.set_output("m", x.max([1]).value)
    works = plan_works(b.graph(), plan_variables(b.graph().variables)).works
    kernels = [c.kernel for work in works for c in lower_gpu(work.kernel, 2, 32).launches]
    assert len(kernels) >= 3
    for k in kernels:
        verify_kernel(k, round_trip=True)
        _agree(k, rng)
