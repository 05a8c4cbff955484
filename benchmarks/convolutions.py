"""Time the three passes of convolutions of many kinds against PyTorch, one thread each, in turns in one process.

    python benchmarks/convolutions.py                 all kinds
    python benchmarks/convolutions.py depthwise 1d    those whose name holds one of the words

For each pass it prints our milliseconds, our GFLOP/s and PyTorch's time divided by ours. PyTorch's time is the better one of its default and its
channels_last layout. Only the launches of the convolution count, with all copies that they need; best of several rounds.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  (after the threads are limited)
import torch  # noqa: E402

import tapeout  # noqa: E402
from tapeout.codegen import cpu  # noqa: E402
from tapeout.driver.options import Options, resolve_target  # noqa: E402
from tapeout.driver.pipeline import lower, optimize  # noqa: E402
from tapeout.kernel.program import Launch  # noqa: E402
from tapeout.ops.contraction import Conv  # noqa: E402
from tapeout.runtime import jit  # noqa: E402
from tapeout.schedule.layout import plan_variables  # noqa: E402

Ints = tuple[int, ...]
SECONDS = 0.4
PASSES = ("forward", "data", "weight")


@dataclass(frozen=True)
class Case:
    """A convolution: batch, channels in and out, sizes, kernel."""

    name: str
    batch: int
    inside: int
    outside: int
    sizes: Ints
    kernel: Ints
    stride: int = 1
    pad: int = 0
    dilation: int = 1
    groups: int = 1
    transposed: bool = False


CASES = [
    Case("depthwise 3x3", 8, 144, 144, (28, 28), (3, 3), pad=1, groups=144),
    Case("depthwise 3x3 stride 2", 8, 96, 96, (56, 56), (3, 3), stride=2, pad=1, groups=96),
    Case("depthwise 3x3 6x6", 16, 576, 576, (6, 6), (3, 3), pad=1, groups=576),
    Case("depthwise 5x5", 8, 240, 240, (28, 28), (5, 5), pad=2, groups=240),
    Case("depthwise 7x7 56x56", 4, 96, 96, (56, 56), (7, 7), pad=3, groups=96),
    Case("depthwise 7x7 14x14", 8, 384, 384, (14, 14), (7, 7), pad=3, groups=384),
    Case("depthwise 1d k=31", 8, 256, 256, (400,), (31,), pad=15, groups=256),
    Case("grouped 32x4d", 4, 128, 128, (56, 56), (3, 3), pad=1, groups=32),
    Case("grouped 32x8d", 4, 256, 256, (28, 28), (3, 3), pad=1, groups=32),
    Case("grouped 32x16d", 4, 512, 512, (14, 14), (3, 3), pad=1, groups=32),
    Case("transposed 2x2 stride 2", 4, 128, 64, (32, 32), (2, 2), stride=2, transposed=True),
    Case("transposed 4x4 stride 2", 4, 128, 64, (32, 32), (4, 4), stride=2, pad=1, transposed=True),
    Case("1d k=3", 8, 64, 64, (2048,), (3,), pad=1),
    Case("1d k=7", 8, 64, 64, (2048,), (7,), pad=3),
    Case("1d k=25", 8, 32, 64, (1024,), (25,), pad=12),
    Case("1d first k=25 stride 4", 8, 1, 64, (8192,), (25,), stride=4, pad=12),
    Case("3d 3x3x3", 2, 16, 32, (16, 24, 24), (3, 3, 3), pad=1),
    Case("3d 3x3x3 wide", 1, 64, 64, (8, 14, 14), (3, 3, 3), pad=1),
    Case("dilated 2", 2, 128, 128, (28, 28), (3, 3), pad=2, dilation=2),
    Case("dilated 6", 2, 128, 128, (28, 28), (3, 3), pad=6, dilation=6),
    Case("plain 3x3", 4, 64, 64, (56, 56), (3, 3), pad=1),
    Case("plain 3x3 stride 2", 4, 64, 128, (56, 56), (3, 3), stride=2, pad=1),
]


def main() -> None:
    """Measure and print a table."""
    torch.set_num_threads(1)
    words = sys.argv[1:]
    print(f"{'convolution':26}" + "".join(f"{p:>10} ms  GF/s ratio" for p in PASSES) + "   all")
    for case in CASES:
        if not words or any(w in case.name for w in words):
            _report(case)


def _report(case: Case) -> None:
    cells, ours_all, torch_all = "", 0.0, 0.0
    for n in range(len(PASSES)):
        ours, flops, theirs = _measure(case, n)
        ours_all, torch_all = ours_all + ours, torch_all + theirs
        cells += f"{ours * 1e3:13.2f} {flops / ours / 1e9:5.0f} {theirs / ours:5.2f}"
    print(f"{case.name:26}{cells}  {torch_all / ours_all:5.2f}", flush=True)


def _measure(case: Case, which: int) -> tuple[float, int, float]:
    """Return our seconds, operations, and PyTorch's seconds for one pass."""
    ours, flops = _ours(case, which)
    others = _torch(case, which)
    best = [float("inf")] * (1 + len(others))
    stop = time.perf_counter() + SECONDS * len(best)
    while time.perf_counter() < stop:
        for n, run in enumerate((ours, *others)):
            best[n] = min(best[n], run())
    return best[0], flops, min(best[1:])


# -- PyTorch ----------------------------------------------------------------------------------------


def _torch(case: Case, which: int) -> list[Any]:
    """Return functions that run one pass, for each layout, and give the seconds."""
    d = len(case.sizes)
    layouts = [torch.contiguous_format]
    layouts += {2: [torch.channels_last], 3: [torch.channels_last_3d]}.get(d, [])
    return [_torch_pass(case, which, layout) for layout in layouts]


def _torch_pass(case: Case, which: int, layout: torch.memory_format) -> Any:
    d = len(case.sizes)
    first = (case.inside, case.outside) if case.transposed else (case.outside, case.inside)
    w = torch.randn(first[0], first[1] // case.groups, *case.kernel)
    x = torch.randn(case.batch, case.inside, *case.sizes)
    x, w = (t.contiguous(memory_format=layout) for t in (x, w))
    form = ([case.stride] * d, [case.pad] * d, [case.dilation] * d, case.transposed, [0] * d)
    with torch.no_grad():
        y = torch.ops.aten.convolution(x, w, None, *form, case.groups)
    gy = torch.randn_like(y)
    mask = [which == 1, which == 2, False]

    def run() -> float:
        start = time.perf_counter()
        if which == 0:
            torch.ops.aten.convolution(x, w, None, *form, case.groups)
        else:
            torch.ops.aten.convolution_backward(gy, x, w, None, *form, case.groups, mask)
        return time.perf_counter() - start

    return run


# -- ours -------------------------------------------------------------------------------------------


def _ours(case: Case, which: int) -> tuple[Any, int]:
    """Return a function that runs the launches of one pass and gives their seconds, and the operations of a pass."""
    options = Options(resolve_target("native"), checked=False)
    graph = _graph(case, which)
    for stage in optimize(graph, options):
        graph = stage.graph
    program = lower(graph, plan_variables(graph.variables), options)
    objects = cpu.compile_objects(program.kernels, options.target)
    library = jit.Library(objects.values(), list(program.kernels))
    memory = np.zeros(program.arena + 64, np.uint8)
    base = memory.ctypes.data + -memory.ctypes.data % 64
    data = np.frombuffer(bytes(program.data) + bytes(128), np.uint8).copy()
    rng = np.random.default_rng(0)
    inputs = {v.name: rng.standard_normal(v.type.shape).astype(np.float32) for v in graph.inputs}

    def address(name: str) -> int:
        buffer = program.buffers[name]
        if buffer.space == "input":
            return int(inputs[program.inputs[buffer.offset]].ctypes.data)
        start = data.ctypes.data if buffer.space == "constant" else base
        return int(start + buffer.offset)

    calls = []
    for item in program.items:
        if isinstance(item, Launch):
            args = (ctypes.c_void_p * (len(item.args) + 1))(*map(address, item.args), 0)
            function = jit.KernelFunction(library[item.kernel])
            calls.append((function, args, program.kernels[item.kernel].tasks, item))
    calls = [c for c in calls if c[3].label.startswith("conv")]

    def run(keep: Any = (library, memory, data, inputs)) -> float:
        start = time.perf_counter()
        for function, args, tasks, _ in calls:
            function(args, 0, tasks)
        return time.perf_counter() - start

    return run, sum(c[3].flops for c in calls)


def _graph(case: Case, which: int) -> Any:
    """Return a graph around one pass: images are results of kernels, as inside of a network, so that they may lie as they like."""
    op, x, w, y = _form(case)
    out = ("y", "x", "w")[which] if not case.transposed else ("x", "y", "w")[which]
    op = _asking(op, out, {"x": x, "w": w, "y": ()}[out])
    with tapeout.Builder("convolution") as g:
        operands = [g.input(n, s) for n, s in (("x", x), ("y", y), ("w", w)) if n != out]
        operands = [operands[0].tanh(), operands[1].tanh() if out == "w" else operands[1]]
        made = operands[0].emit(op, *operands)
        g.output("result", made if out == "w" else made.relu().sum())
    return g.graph()


def _form(case: Case) -> tuple[Conv, Ints, Ints, Ints]:
    """Return the operation and the shapes of its three tensors; a transposed convolution asks for `x` first."""
    d = len(case.sizes)
    op = Conv(
        out="y",
        strides=(case.stride,) * d,
        low=(case.pad,) * d,
        high=(case.pad,) * d,
        dilations=(case.dilation,) * d,
        groups=case.groups,
    )
    if case.transposed:
        y = (case.batch, case.inside, *case.sizes)
        w = (case.inside, case.outside // case.groups, *case.kernel)
        grown = (
            (n - 1) * case.stride - 2 * case.pad + k
            for n, k in zip(case.sizes, case.kernel, strict=True)
        )
        return op, (case.batch, case.outside, *grown), w, y
    x = (case.batch, case.inside, *case.sizes)
    w = (case.outside, case.inside // case.groups, *case.kernel)
    return op, x, w, tuple(map(int, op.result_shape(x, w)))


def _asking(op: Conv, out: str, shape: Ints) -> Conv:
    return replace(op, out=out, shape=shape)


if __name__ == "__main__":
    main()
