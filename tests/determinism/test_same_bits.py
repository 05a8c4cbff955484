"""The same bits for any number of threads, on one core, run after run, and for any order of hashing.

Each run is a process of its own with an empty compile cache. Losses, gradients, weights, moments, predictions, kernel
names and whole programs are compared.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
THREADS = (1, 2, 3, 7)
MANY = 1_000_003


def start(
    cache: Path,
    rows: tuple[int, ...],
    *,
    threads: int,
    seed: int,
    one_core: bool = False,
    checked: bool = False,
) -> dict[str, Any]:
    """Run in a process and return what it printed."""
    cache.mkdir()
    command = [sys.executable, str(HERE / "one_run.py"), *map(str, rows)]
    if one_core:
        core = min(os.sched_getaffinity(0))
        command = ["taskset", "-c", str(core), *command]
    environment = {
        **os.environ,
        "TAPEOUT_THREADS": str(threads),
        "TAPEOUT_CACHE_DIR": str(cache),
        "TAPEOUT_CHECKED": "1" if checked else "0",
        "PYTHONHASHSEED": str(seed),
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *filter(None, sys.path)]),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def same(want: dict[str, Any], got: dict[str, Any], how: str) -> None:
    """Fail unless everything is equal, naming the first thing that is not."""
    assert list(want) == list(got)
    for model, expected in want.items():
        for what, bits in expected.items():
            assert got[model][what] == bits, f"{model}: {what} differ with {how}"


def all_ways(tmp_path: Path, rows: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Run with every number of threads and on one core; return the common result."""
    want = start(tmp_path / "first", rows, threads=1, seed=seed)
    for threads in THREADS[1:]:
        got = start(tmp_path / f"t{threads}", rows, threads=threads, seed=seed + threads)
        same(want, got, f"{threads} threads")
    if shutil.which("taskset"):
        got = start(tmp_path / "core", rows, threads=3, seed=seed + 50, one_core=True)
        same(want, got, "3 threads on one core")
    return want


def test_one_row_and_seventeen(tmp_path: Path) -> None:
    all_ways(tmp_path, (1, 17), seed=0)


def test_the_checked_build(tmp_path: Path) -> None:
    """What the tests run elsewhere, with bounds tests, computes what users get, bit for bit."""
    want = start(tmp_path / "user", (17,), threads=2, seed=0)
    same(want, start(tmp_path / "checked", (17,), threads=2, seed=0, checked=True), "bounds tests")


@pytest.mark.slow
def test_second_runs(tmp_path: Path) -> None:
    want = start(tmp_path / "reference", (1, 17), threads=2, seed=1000)
    same(want, all_ways(tmp_path, (1, 17), seed=100), "another run")


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path) -> None:
    """A prime number of rows, so that no division of the work comes out even; every way twice."""
    want = all_ways(tmp_path, (MANY,), seed=0)
    for folder in list(tmp_path.iterdir()):
        shutil.rmtree(folder)
    same(want, all_ways(tmp_path, (MANY,), seed=200), "another run")
