"""GEMM on one thread against the FMA peak of this machine, measured by a loop that touches registers only.

python benchmarks/gemm.py            # 1024 x 1024 x 1024 in f32
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import tapeout
from tapeout.codegen import cpu, machine
from tapeout.ir.dtype import f32, i64
from tapeout.kernel import loops
from tapeout.runtime import jit

CHAINS, STEPS = 12, 1 << 16


def peak_kernel(lanes: int) -> loops.Kernel:
    """Return a kernel of independent chains of multiply-adds."""
    zero, one = loops.Const(i64, 1, 0), loops.Const(i64, 1, STEPS)
    acc = [loops.Const(i64, 1, c) for c in range(CHAINS)]
    a, b = loops.Const(f32, lanes, 0.999), loops.Const(f32, lanes, 1e-3)
    chain = tuple(
        loops.Store(
            "acc", i, loops.Apply(f32, lanes, "fma", (loops.Load(f32, lanes, "acc", i), a, b))
        )
        for i in acc
    )
    total = loops.Load(f32, lanes, "acc", acc[0])
    for i in acc[1:]:
        total = loops.Apply(f32, lanes, "add", (total, loops.Load(f32, lanes, "acc", i)))
    body = (
        loops.Alloc("acc", f32, lanes, CHAINS, "register"),
        *(loops.Store("acc", i, b) for i in acc),
        loops.For("k", zero, one, 1, "serial", chain),
        loops.Store("out", zero, total),
    )
    return loops.Kernel("peak", (loops.Param("out", f32, lanes, "w", 4),), body)


def fastest(run: object, seconds: float) -> float:
    """Return the shortest time of many calls."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        t = time.perf_counter()
        run()  # type: ignore[operator]
        best = min(best, time.perf_counter() - t)
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    target = machine.native()
    lanes = target.lanes(4)
    kernel = peak_kernel(lanes)
    code = cpu.compile_objects({kernel.name: kernel}, target)[kernel.name]
    library = jit.Library([code], [kernel.name])
    call = jit.KernelFunction(library[kernel.name])
    out = np.zeros(64, np.float32)
    import ctypes

    table = (ctypes.c_void_p * 2)(out.ctypes.data, 0)
    peak = 2.0 * CHAINS * lanes * STEPS / fastest(lambda: call(table, 0, 1), args.seconds) / 1e9
    n = args.size
    with tapeout.Builder("gemm") as g:
        a, b = g.input("a", (n, n)), g.input("b", (n, n))
        g.output("c", a @ b)
    program = tapeout.compile(g.graph(), threads=1)
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, n)).astype(np.float32) for _ in range(2))
    found = program(a=x, b=y)["c"]
    error = float(np.max(np.abs(found - x @ y)))
    rate = 2.0 * n**3 / fastest(lambda: program(a=x, b=y), args.seconds) / 1e9
    print(
        f"{target.name}: peak {peak:.1f} GFLOP/s, {n}^3 f32 {rate:.1f} GFLOP/s = {rate / peak:.1%} of peak on one thread"
    )
    print(f"largest difference from numpy {error:.1e}")


if __name__ == "__main__":
    main()
