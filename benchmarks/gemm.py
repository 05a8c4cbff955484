"""Products against the FMA peak of this machine, measured by a loop that touches registers only.

python benchmarks/gemm.py                                         # 1024 x 1024 x 1024 in f32
python benchmarks/gemm.py NT:128x512x784 TN:512x784x128 --threads 2  # rows, columns, steps; T: operand stored transposed
"""

from __future__ import annotations

import argparse
import ctypes
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


def peak(seconds: float) -> float:
    """Return the multiply-adds of this machine's registers, times two, per second on one thread."""
    target = machine.native()
    lanes = target.lanes(4)
    kernel = peak_kernel(lanes)
    code = cpu.compile_objects({kernel.name: kernel}, target)[kernel.name]
    library = jit.Library([code], [kernel.name])
    call = jit.KernelFunction(library[kernel.name])
    out = np.zeros(64, np.float32)
    table = (ctypes.c_void_p * 2)(out.ctypes.data, 0)
    return 2.0 * CHAINS * lanes * STEPS / fastest(lambda: call(table, 0, 1), seconds)


def product(shape: str, threads: int, seconds: float) -> tuple[float, float]:
    """Return the operations per second of one product and its largest difference from numpy's."""
    mode, sizes = shape.split(":")
    m, n, k = map(int, sizes.split("x"))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((m, k) if mode[0] == "N" else (k, m), np.float32)
    y = rng.standard_normal((k, n) if mode[1] == "N" else (n, k), np.float32)
    with tapeout.Builder("gemm") as g:
        a, b = g.input("a", x.shape), g.input("b", y.shape)
        left, right = (
            v if t == "N" else v.transpose((1, 0)) for v, t in zip((a, b), mode, strict=True)
        )
        g.output("c", left @ right)
    program = tapeout.compile(g.graph(), threads=threads)
    wanted = (x if mode[0] == "N" else x.T) @ (y if mode[1] == "N" else y.T)
    error = float(np.max(np.abs(program(a=x, b=y)["c"] - wanted)))
    return 2.0 * m * n * k / fastest(lambda: program(a=x, b=y), seconds), error


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=["NN:1024x1024x1024"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    for shape in args.shapes:
        rate, error = product(shape, args.threads, args.seconds)
        most = args.threads * peak(args.seconds / 3)
        print(
            f"{shape:20} {rate / 1e9:7.1f} GFLOP/s = {rate / most:6.1%} of {args.threads} x peak, "
            f"{error:.1e} from numpy"
        )


if __name__ == "__main__":
    main()
