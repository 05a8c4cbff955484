"""Time the training step of one workload in one engine; prints one line of JSON.

    python benchmarks/step.py --workload lenet --engine torch-cl --threads 2

A process of its own for each measurement: two thread pools in one process disturb each other. `foreign_cores` is how many cores
other processes kept busy meanwhile: above 0.1 the run was disturbed.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from benchmarks.workloads import WORKLOADS  # noqa: E402  (after the path is set)

ENGINES: dict[str, tuple[str, set[str]]] = {
    "tapeout": ("tapeout_engine", set()),
    "tapeout-many": ("tapeout_engine", {"many"}),
    "torch": ("torch_engine", set()),
    "torch-cl": ("torch_engine", {"channels_last"}),
    "torch-compile": ("torch_engine", {"compile"}),
    "torch-mkl": ("torch_engine", {"mkl"}),
    "torch-cl-mkl": ("torch_engine", {"mkl", "channels_last"}),
    "torch-compile-mkl": ("torch_engine", {"mkl", "compile"}),
    "jax": ("jax_engine", set()),
    "ort-training": ("ort_training_engine", set()),
}
"""Engine to the file that holds it and its options. `-cl`: channels_last; `-mkl`: MKL takes its AVX-512 path on any processor;
`-many`: many steps in one call."""

WARM = 11
_FEWEST = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workload", required=True, choices=list(WORKLOADS))
    parser.add_argument("--engine", required=True, choices=list(ENGINES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed steps")
    parser.add_argument(
        "--model", default="", help="the network as ONNX, for engines that read one"
    )
    parser.add_argument(
        "--target", default="", help="class of machine that tapeout generates code for"
    )
    args = parser.parse_args()
    module, options = ENGINES[args.engine]
    if "mkl" in options:
        _start_again_with_mkl()
    _limit_threads(args.threads)
    print(json.dumps(_measure(args, module, options)))


def _limit_threads(threads: int) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))


def _start_again_with_mkl() -> None:
    """Start this process anew with a library in front that tells MKL that the processor is one of Intel's."""
    library = Path(tempfile.gettempdir()) / f"mkl-avx512-{os.getuid()}.so"
    if os.environ.get("LD_PRELOAD") == str(library):
        return
    command = ["cc", "-shared", "-fPIC", "-O2", str(HERE / "mkl_avx512.c"), "-o", str(library)]
    subprocess.run(command, check=True)
    os.execve(
        sys.executable, [sys.executable, *sys.argv], {**os.environ, "LD_PRELOAD": str(library)}
    )


def _peak_mib() -> float:
    """Return the most MiB that this process has held."""
    # Linux also adds to ru_maxrss what the process held before it became this program.
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _busy() -> tuple[float, float]:
    """Seconds that all cores, and this process, have worked so far; the first is 0 where the system does not say."""
    own = os.times()
    try:
        fields = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except OSError:
        return 0.0, 0.0
    machine = fields[0] + fields[1] + fields[2] + fields[5] + fields[6]
    return machine / os.sysconf("SC_CLK_TCK"), own.user + own.system


def _measure(args: argparse.Namespace, module: str, options: set[str]) -> dict[str, Any]:
    workload = WORKLOADS[args.workload]
    engine = importlib.import_module(f"benchmarks.engines.{module}")
    before, start = _peak_mib(), time.perf_counter()
    reads_file = "model" in inspect.signature(engine.Engine).parameters
    given = {"model": args.model} if reads_file else {}
    if args.target and "target" in inspect.signature(engine.Engine).parameters:
        given["target"] = args.target
    trained = engine.Engine(workload, options, args.threads, args.precision, **given)
    losses, warm = _warm(trained, start)
    ready = time.perf_counter() - start
    times, foreign = _timed(trained, args.seconds, warm)
    median = statistics.median(times)
    found = {
        "workload": workload.name,
        "engine": args.engine,
        "threads": args.threads,
        "precision": args.precision,
        "ms_median": round(median * 1e3, 4),
        "ms_min": round(min(times) * 1e3, 4),
        "ms_p90": round(sorted(times)[int(0.9 * (len(times) - 1))] * 1e3, 4),
        "per_s": round(workload.samples / median, 1),
        "gflops": round(workload.gflop / median, 1),
        "steps": len(times),
        "ready_s": round(ready, 3),
        "peak_mib": round(_peak_mib(), 1),
        "peak_over_import_mib": round(_peak_mib() - before, 1),
        "foreign_cores": round(foreign, 2),
        "loss": losses,
        "version": engine.VERSION,
    }
    if hasattr(trained, "memory"):
        found["memory"] = trained.memory()
    return found


def _warm(trained: Any, start: float) -> tuple[dict[str, float], float]:
    """Run the first steps; return the losses of steps 0, 1 and the last, and the seconds of a step."""
    losses, times = {}, []
    for i in range(WARM):
        t = time.perf_counter()
        loss = trained.step(i)
        if i in (0, 1, 3, WARM - 1):
            losses[str(i)] = round(trained.value(loss), 6)
        times.append(time.perf_counter() - t)
        if i >= 3 and time.perf_counter() - start > 60:
            break
    return losses, min(times[2:])


def _timed(trained: Any, seconds: float, one: float) -> tuple[list[float], float]:
    """Return the seconds of each step, and how many cores others kept busy."""
    fewest = _FEWEST if one > 0.1 else 20
    if one > 2.0:
        fewest = 3
    times: list[float] = []
    count = max(1, min(400, int(0.02 / one))) if hasattr(trained, "many") and trained.is_many else 1
    (machine, own), begin = _busy(), time.perf_counter()
    while len(times) < fewest or time.perf_counter() < begin + seconds:
        t = time.perf_counter()
        loss = trained.step(len(times)) if count == 1 else trained.many(count)
        times.append((time.perf_counter() - t) / count)
    trained.value(loss)
    wall, (machine_after, own_after) = time.perf_counter() - begin, _busy()
    return times, max(0.0, (machine_after - machine) - (own_after - own)) / wall


if __name__ == "__main__":
    main()
