"""Compare tapeout with PyTorch eager: same weights, batches and threads, processes in turn.

    python benchmarks/run.py                                     # this interpreter for both
    python benchmarks/run.py --torch-python /path/to/python      # PyTorch in another environment

Larger networks (`--workloads resnet18-cifar,mobilenetv2,gpt-nano`) are exported by PyTorch into a temporary folder first.

Each repeat runs A, B, A, B, …; the ratio is taken inside each pair, so that a machine whose speed drifts still compares fairly.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from benchmarks.networks import NETWORKS  # noqa: E402  (after the path is set)


def measure(
    python: str, workload: str, engine: str, threads: int, seconds: float, model: str
) -> dict[str, Any]:
    """Run one measurement in its own process."""
    command = [python, str(HERE / "step.py"), "--workload", workload, "--engine", engine]
    command += ["--threads", str(threads), "--seconds", str(seconds), "--model", model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def exported(python: str, workload: str, folder: str) -> str:
    """Return the file of a network that PyTorch has to write first, else an empty text."""
    if workload not in NETWORKS:
        return ""
    path = str(Path(folder) / f"{workload}.onnx")
    command = [python, str(HERE / "networks.py"), workload, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return path


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default="mlp-tiny,mlp,lenet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _compare(args, folder)


def _compare(args: argparse.Namespace, folder: str) -> None:
    rows = []
    for workload in args.workloads.split(","):
        model = exported(args.torch_python, workload, folder)
        pairs = []
        for _ in range(args.repeats):
            both = [
                measure(python, workload, engine, args.threads, args.seconds, model)
                for python, engine in ((sys.executable, "tapeout"), (args.torch_python, "torch"))
            ]
            pairs.append((both[0], both[1]))
        ratios = [t["ms_median"] / o["ms_median"] for o, t in pairs]
        fastest = [t["ms_min"] / o["ms_min"] for o, t in pairs]
        rows.append(
            {
                "workload": workload,
                "threads": args.threads,
                "tapeout_ms": statistics.median(o["ms_median"] for o, _ in pairs),
                "torch_ms": statistics.median(t["ms_median"] for _, t in pairs),
                "times_faster": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "most": round(max(ratios), 2),
                "times_faster_fastest_step": round(statistics.median(fastest), 2),
                "loss": {"tapeout": pairs[0][0]["loss"], "torch": pairs[0][1]["loss"]},
            }
        )
        if not args.json:
            r = rows[-1]
            print(
                f"{workload:10} tapeout {r['tapeout_ms']:8.3f} ms   torch eager {r['torch_ms']:8.3f} ms   "
                f"{r['times_faster']:.2f}x faster ({r['least']:.2f}-{r['most']:.2f})   fastest step {r['times_faster_fastest_step']:.2f}x"
            )
    if args.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
