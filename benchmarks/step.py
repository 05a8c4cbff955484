"""Time the training step of one workload in one engine; prints one line of JSON.

    python benchmarks/step.py --workload lenet --engine tapeout --threads 2

A process of its own for each measurement: two thread pools in one process disturb each other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--engine", choices=["tapeout", "torch"], required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--model", default="", help="the file that networks.py wrote")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: args.threads]))

    from benchmarks import networks, workloads

    network = networks.NETWORKS.get(args.workload)
    w = network or workloads.WORKLOADS[args.workload]
    batches = list(w.batches())
    start = time.perf_counter()
    if network is not None:
        step = networks.ENGINES[args.engine](network, args.threads, args.model)
    else:
        step = workloads.ENGINES[args.engine](workloads.WORKLOADS[w.name], args.threads)
    losses = [step(batches[i % len(batches)]) for i in range(11)]
    ready = time.perf_counter() - start
    times: list[float] = []
    end = time.perf_counter() + args.seconds
    for i in count(11):
        t = time.perf_counter()
        step(batches[i % len(batches)])
        times.append(time.perf_counter() - t)
        if time.perf_counter() > end and len(times) >= (5 if network else 20):
            break
    median = statistics.median(times)
    print(
        json.dumps(
            {
                "workload": w.name,
                "engine": args.engine,
                "threads": args.threads,
                "ms_median": round(median * 1e3, 4),
                "ms_min": round(min(times) * 1e3, 4),
                "gflops": round(w.flops / median / 1e9, 1),
                "steps": len(times),
                "ready_s": round(ready, 3),
                "loss": {0: losses[0], 1: losses[1], 10: losses[10]},
            }
        )
    )


if __name__ == "__main__":
    main()
