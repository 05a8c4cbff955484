"""Runs the matrix, or a part of it, and writes its record and its page.

    python -m tests.torch_matrix.run                  everything
    python -m tests.torch_matrix.run 'LSTM*' 'GRU*'   the modules whose names match
    python -m tests.torch_matrix.run --failed         what did not pass the last time
    python -m tests.torch_matrix.run --variant dynamo18

Needs the extras `torch` and `huggingface`. The record keeps what was not run. Each case has a limit of time and of
memory; one that dies takes nothing with it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import selectors
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.torch_matrix.case import VARIANTS
from tests.torch_matrix.record import PAGE, RECORD, counts, page, read, write
from tests.torch_matrix.worker import everything

SECONDS = 120.0
PACKAGES = ("torch", "transformers", "onnx", "onnxscript")
ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """A process that runs one case after the other, replaced when it dies."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[str] | None = None

    def run(self, name: str, variant: str) -> dict[str, Any]:
        """Return what came of a case."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{name}\t{variant}\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            ready = waiting.select(SECONDS)
        line = process.stdout.readline() if ready else ""
        if line:
            return dict(json.loads(line))
        self.stop()
        if not ready:
            return {
                "status": "error",
                "reason": f"not done after {SECONDS:.0f} s",
                "seconds": SECONDS,
            }
        return {
            "status": "error",
            "reason": f"the process died ({process.returncode})",
            "seconds": 0.0,
        }

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            with self.log.open("a") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "tests.torch_matrix.worker"],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
                )
        return self.process


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="The matrix of PyTorch modules.")
    parser.add_argument("names", nargs="*", default=["*"], help="globs of modules")
    parser.add_argument("--variant", default="*", help="a glob of variants")
    parser.add_argument(
        "--failed", action="store_true", help="only what did not pass the last time"
    )
    parser.add_argument("--new", action="store_true", help="only what has no record")
    parser.add_argument(
        "--log", type=Path, default=Path(os.devnull), help="gets what the exporters print"
    )
    options = parser.parse_args()
    old = read() if RECORD.exists() else {"cases": {}}
    cases = everything()
    found: dict[str, dict[str, Any]] = {n: old["cases"].get(n, {}) for n in cases}
    worker = Worker(options.log)
    for name, case in cases.items():
        if not any(name == g or fnmatch.fnmatchcase(name, g) for g in options.names):
            continue
        for variant in case.variants:
            last = found[name].get(variant)
            if not fnmatch.fnmatchcase(variant, options.variant):
                continue
            if options.failed and last is not None and last["status"] == "pass":
                continue
            if options.new and last is not None:
                continue
            made = worker.run(name, variant)
            print(
                f"{made['status']:6} {made.pop('seconds'):6.1f} s  {name} {variant}  {made.get('reason', '')}",
                flush=True,
            )
            found[name][variant] = made
        write({"versions": {p: version(p) for p in PACKAGES}, "cases": _kept(found, cases)})
    worker.stop()
    record = read()
    PAGE.write_text(page(record), encoding="utf-8")
    print(json.dumps(counts(record)))
    return 0


def _kept(found: dict[str, dict[str, Any]], cases: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what has been run, in the order of the cases and variants."""
    return {
        n: {v: found[n][v] for v in VARIANTS if v in found[n] and v in cases[n].variants}
        for n in cases
        if found[n]
    }


if __name__ == "__main__":
    raise SystemExit(main())
