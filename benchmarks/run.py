"""Time whole training steps in tapeout and in what users would take instead, side by side.

    python benchmarks/run.py                                              # lenet and the perceptrons against PyTorch
    python benchmarks/run.py --workloads all --against all                # the whole table
    python benchmarks/run.py --torch-python /path/python --jax-python /path/python --ort-python /path/python

Every engine runs in a process of its own, with the same weights, batches and threads, and as it is shipped. Repeats are
interleaved, A, B, C, A, B, C, so that a machine whose speed drifts still compares fairly; a run that other processes disturbed is
taken again. Losses of the steps 0, 1 and 10 must agree within 1e-3: an engine whose loss departs does other work, is published and
counts as no peer. `--history FILE` appends one line per cell, from which `benchmarks/report.py` makes the page in docs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from benchmarks.step import ENGINES  # noqa: E402  (after the path is set)
from benchmarks.workloads import WORKLOADS  # noqa: E402

OURS = "tapeout"
AGREE = 1e-3
DISTURBED = 0.1
_OPSET = {"tapeout": 17, "tapeout-many": 17, "ort-training": 16}
_LISTS = {
    "all": [e for e in ENGINES if e != OURS],
    "default": ["torch", "torch-cl", "torch-compile", "jax", "ort-training"],
    "none": [],
}

Run = dict[str, Any]


def main() -> None:
    """Measure and print a table."""
    args = _parse()
    workloads = list(WORKLOADS) if args.workloads == "all" else args.workloads.split(",")
    against = _LISTS.get(args.against) or [e for e in args.against.split(",") if e and e != "none"]
    _check(workloads, WORKLOADS, "workload")
    _check(against, ENGINES, "engine")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(args.models or folder)
        models.mkdir(parents=True, exist_ok=True)
        for name in workloads:
            lines = _lines(args, name, [OURS, *against], models)
            _print(name, lines, args)
            if args.history:
                with Path(args.history).open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(line) + "\n" for line in lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--workloads", default="mlp-tiny,mlp,lenet", help="names with commas, or all"
    )
    parser.add_argument(
        "--against", default="torch", help="engines with commas, all, default or none"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument(
        "--target", default="", help="class of machine that tapeout generates code for"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed steps in each run")
    parser.add_argument("--again", type=int, default=2, help="times a disturbed run is taken again")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a process may take")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has tapeout")
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--jax-python", default=sys.executable)
    parser.add_argument("--ort-python", default=sys.executable)
    parser.add_argument(
        "--models", default="", help="folder for the exported networks; default: a temporary one"
    )
    parser.add_argument("--history", default="", help="JSON lines to append to")
    parser.add_argument(
        "--json", action="store_true", help="print the lines of the history instead of a table"
    )
    return parser.parse_args()


def _check(given: Sequence[str], known: Sequence[str] | dict[str, Any], what: str) -> None:
    for name in given:
        if name not in known:
            raise SystemExit(f"no {what} is called {name!r}; there are {', '.join(known)}")


def python_of(args: argparse.Namespace, engine: str) -> str:
    """Return the interpreter that an engine runs in."""
    family = engine.partition("-")[0]
    return {"torch": args.torch_python, "jax": args.jax_python, "ort": args.ort_python}.get(family, args.python)  # fmt: skip


def _lines(
    args: argparse.Namespace, workload: str, engines: Sequence[str], models: Path
) -> list[Run]:
    """Return one line for each engine: medians over the repeats, or why there are none."""
    runs: dict[str, list[Run]] = {e: [] for e in engines}
    failed: dict[str, str] = {}
    for _ in range(args.repeats):
        for engine in engines:
            if engine in failed:
                continue
            found = _one(args, workload, engine, models)
            told = found.get("error") or f"{found['ms_median']} ms"
            print(f"{workload} {engine}: {told}", file=sys.stderr, flush=True)
            if "error" in found:
                failed[engine] = found["error"]
            else:
                runs[engine].append(found)
    ours = runs[OURS]
    return [
        _summary(args, workload, e, runs[e], ours) if runs[e] else _failure(args, workload, e, failed[e])
        for e in engines
    ]  # fmt: skip


def _one(args: argparse.Namespace, workload: str, engine: str, models: Path) -> Run:
    """Return a measurement in a process of its own, the least disturbed of several tries."""
    model = ""
    if engine in _OPSET:
        path = models / f"{workload}-{_OPSET[engine]}.onnx"
        if not path.exists():
            words = [args.torch_python, str(HERE / "export.py"), workload, str(path)]
            made = _process([*words, "--opset", str(_OPSET[engine])], args.limit)
            if made.returncode:
                return {"error": f"export: {_last_line(made)}"}
        model = str(path)
    command = [
        python_of(args, engine),
        str(HERE / "step.py"),
        "--workload",
        workload,
        "--engine",
        engine,
    ]
    command += ["--threads", str(args.threads), "--precision", args.precision]
    command += ["--seconds", str(args.seconds), "--model", model, "--target", args.target]
    best: Run = {}
    for _ in range(1 + args.again):
        done = _process(command, args.limit)
        if done.returncode:
            return best or {"error": _last_line(done)}
        found: Run = json.loads(done.stdout.strip().splitlines()[-1])
        if not best or found["foreign_cores"] < best["foreign_cores"]:
            best = found
        if best["foreign_cores"] <= DISTURBED:
            break
    return best


def _process(command: Sequence[str], limit: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"took more than {limit:.0f} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else f"ended with {done.returncode}")[:200]


def _cell(args: argparse.Namespace, workload: str, engine: str) -> Run:
    target = {"target": args.target} if args.target else {}
    return {**cell_of(workload, engine, args.threads, args.precision), **target}


def cell_of(workload: str, engine: str, threads: int, precision: str) -> Run:
    """Return what says which measurement a line of the history holds."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "commit": _commit(),
        "machine": _processor(),
        "workload": workload,
        "engine": engine,
        "threads": threads,
        "precision": precision,
    }


def _failure(args: argparse.Namespace, workload: str, engine: str, reason: str) -> Run:
    return {**_cell(args, workload, engine), "error": reason}


def _summary(
    args: argparse.Namespace, workload: str, engine: str, runs: Sequence[Run], ours: Sequence[Run]
) -> Run:
    def middle(key: str) -> float:
        return round(statistics.median(r[key] for r in runs), 4)

    pairs = list(zip(runs, ours, strict=False))
    return {
        **_cell(args, workload, engine),
        "version": runs[0]["version"],
        "repeats": len(runs),
        **{k: middle(k) for k in ("ms_median", "ms_min", "ms_p90", "per_s", "gflops", "ready_s", "peak_mib", "peak_over_import_mib")},
        "ready_first_s": runs[0]["ready_s"],
        "ratio": round(statistics.median(r["ms_median"] / o["ms_median"] for r, o in pairs), 3) if pairs else None,
        "ratio_min": round(statistics.median(r["ms_min"] / o["ms_min"] for r, o in pairs), 3) if pairs else None,
        "ratios": [round(r["ms_median"] / o["ms_median"], 3) for r, o in pairs],
        "agrees": bool(ours) and _agrees(runs, ours[0]),
        "loss": runs[0]["loss"],
        "foreign_cores": max(r["foreign_cores"] for r in runs),
        **({"memory": runs[0]["memory"]} if "memory" in runs[0] else {}),
    }  # fmt: skip


def _agrees(runs: Sequence[Run], ours: Run) -> bool:
    """Whether the losses of every run are ours, at the steps that both tell."""
    for run in runs:
        for step in set(run["loss"]) & set(ours["loss"]):
            a, b = run["loss"][step], ours["loss"][step]
            if abs(a - b) > AGREE * max(1.0, abs(b)):
                return False
    return True


def best_peer(lines: Sequence[Run]) -> Run | None:
    """Return the fastest of the other engines whose losses agree."""
    peers = [
        r for r in lines if not r["engine"].startswith(OURS) and r.get("agrees") and r.get("ratio")
    ]
    return min(peers, key=lambda r: float(r["ratio"]), default=None)


def _print(name: str, lines: Sequence[Run], args: argparse.Namespace) -> None:
    if args.json:
        print("\n".join(json.dumps(line) for line in lines), flush=True)
        return
    print("\n".join(_table(name, lines, args)), flush=True)


def _table(name: str, lines: Sequence[Run], args: argparse.Namespace) -> Iterator[str]:
    yield f"{name}, {args.threads} threads, {args.precision}"
    for r in lines:
        if "error" in r:
            yield f"  {r['engine']:18} failed: {r['error']}"
            continue
        ratio = (
            ""
            if r["engine"] == OURS or not r["ratio"]
            else f"{r['ratio']:6.2f} x ours, fastest step {r['ratio_min']:.2f}"
        )
        other = "" if r["agrees"] else "   other losses: no peer"
        shaky = f"   {r['foreign_cores']} foreign cores" if r["foreign_cores"] > DISTURBED else ""
        yield f"  {r['engine']:18} {r['ms_median']:10.3f} ms (least {r['ms_min']:.3f}, 90 % {r['ms_p90']:.3f}) {ratio}{other}{shaky}"
    best = best_peer(lines)
    if best is not None:
        yield f"  best peer: {best['engine']}, {best['ratio']:.2f} times our time"


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    family = [line.partition(":")[2].strip() for line in text.splitlines() if "cpu family" in line]
    wide = " with AVX-512" if " avx512f" in text else " without AVX-512"
    return f"{names[0]} (family {family[0]}){wide}" if names and family else platform.machine()


if __name__ == "__main__":
    main()
