"""Short words for kernels of level L written by hand, and ways to run them."""

from collections.abc import Mapping, Sequence

import numpy as np

from tapeout.codegen import cpu, machine
from tapeout.ir.dtype import DType, bool_, f32, i64
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.kernel import loops
from tapeout.kernel.target import Target
from tapeout.oracle import kernel as oracle
from tapeout.runtime import jit

Index = loops.Expr | int


def const(value: float, dtype: DType = i64, lanes: int = 1) -> loops.Const:
    return loops.Const(dtype, lanes, value)


def number(x: Index) -> loops.Expr:
    return x if isinstance(x, loops.Expr) else const(x)


def var(name: str, dtype: DType = i64, lanes: int = 1) -> loops.Var:
    return loops.Var(dtype, lanes, name)


def op(name: str, *args: loops.Expr) -> loops.Apply:
    dtype = bool_ if SCALAR_OPS[name].result == "bool" else args[-1].dtype
    return loops.Apply(dtype, args[-1].lanes, name, args)


def add(a: Index, b: Index) -> loops.Expr:
    return op("add", number(a), number(b))


def mul(a: Index, b: Index) -> loops.Expr:
    return op("mul", number(a), number(b))


def load(
    buffer: str, index: Index, dtype: DType = f32, lanes: int = 1, **more: object
) -> loops.Load:
    return loops.Load(dtype, lanes, buffer, number(index), **more)


def store(buffer: str, index: Index, value: loops.Expr, **more: object) -> loops.Store:
    return loops.Store(buffer, number(index), value, **more)


def let(name: str, value: loops.Expr) -> loops.Let:
    return loops.Let(var(name, value.dtype, value.lanes), value)


def splat(x: loops.Expr, lanes: int) -> loops.Expr:
    return loops.Splat(x.dtype, lanes, x)


def loop(
    name: str,
    start: Index,
    stop: Index,
    body: Sequence[loops.Stmt],
    step: int = 1,
    kind: loops.LoopKind = "serial",
) -> loops.For:
    return loops.For(name, number(start), number(stop), step, kind, tuple(body))


def param(name: str, dtype: DType, size: int, access: str = "r") -> loops.Param:
    return loops.Param(name, dtype, size, access, align=dtype.bytes)


def kernel(params: Sequence[loops.Param], *body: loops.Stmt, name: str = "k_test") -> loops.Kernel:
    return loops.Kernel(name, tuple(params), tuple(body))


def run_native(
    k: loops.Kernel,
    arrays: Mapping[str, np.ndarray],
    *,
    target: Target | None = None,
    threads: int = 1,
    checked: bool = False,
) -> dict[str, np.ndarray]:
    """Return the arrays after the kernel ran on copies of them."""
    target = target or machine.native()
    code = cpu.compile_objects({k.name: k}, target, checked=checked)[k.name]
    copies = {n: a.copy() for n, a in arrays.items()}
    jit.run_kernel(k, code, copies, threads=threads, checked=checked)
    return copies


def run_oracle(k: loops.Kernel, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays after the oracle ran the kernel on copies of them."""
    copies = {n: a.copy() for n, a in arrays.items()}
    oracle.run(k, copies)
    return copies


def same_bits(got: np.ndarray, want: np.ndarray) -> None:
    """Fail unless both hold the same numbers; NaNs are equal, zeros differ by sign."""
    assert got.dtype == want.dtype
    if got.dtype == np.bool_ or np.issubdtype(got.dtype, np.integer):
        np.testing.assert_array_equal(got, want)
        return
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wide = [np.asarray(a, np.float64) for a in (got, want)]
    np.testing.assert_array_equal(*wide)
    numbers = ~np.isnan(wide[0])
    np.testing.assert_array_equal(*(np.signbit(w[numbers]) for w in wide))


def compare(k: loops.Kernel, arrays: Mapping[str, np.ndarray], **how: object) -> None:
    """Fail unless native code and the oracle leave the same bits in every buffer."""
    got, want = run_native(k, arrays, **how), run_oracle(k, arrays)
    for name in arrays:
        same_bits(got[name], want[name])
