"""Another engine judges the trained file, in a process of its own: training never meets it.

    python -m tapeout.cli.agree MODEL ARRAYS.npz

ARRAYS holds `input/NAME` and `output/NAME`. Prints one line of JSON: the engine's version and the
largest difference.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MISSING = 3
"""Exit code of the child where onnxruntime is not installed."""

LIMIT = 1e-4
"""Largest difference of an output that counts as agreement."""


@dataclass(frozen=True)
class Verdict:
    """What the other engine found.

    Attributes:
        available: Whether it is installed.
        engine: Its name and version.
        difference: Largest absolute difference over all outputs and samples.
        samples: How many samples it ran.
        problem: What it said where it failed.
    """

    available: bool
    engine: str = ""
    difference: float = float("nan")
    samples: int = 0
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """Whether it ran and its outputs are ours."""
        return self.available and not self.problem and self.difference <= LIMIT


def judge(
    model: Path, inputs: Mapping[str, Any], outputs: Mapping[str, Any], folder: Path
) -> Verdict:
    """Return what onnxruntime, in a child process, makes of the model on these inputs.

    Args:
        model: The ONNX file.
        inputs: Arrays by input name.
        outputs: Our outputs by name.
        folder: Where a temporary file may lie.
    """
    import os
    import tempfile

    from tapeout.cli.npz import npz_bytes

    arrays = {f"input/{n}": a for n, a in inputs.items()} | {
        f"output/{n}": a for n, a in outputs.items()
    }
    handle, name = tempfile.mkstemp(prefix=".agree-", suffix=".npz", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(npz_bytes(arrays))
        done = subprocess.run(
            [sys.executable, "-m", "tapeout.cli.agree", str(model), name],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        Path(name).unlink(missing_ok=True)
    if done.returncode == MISSING:
        return Verdict(available=False)
    if done.returncode:
        return Verdict(
            True, "onnxruntime", problem=(done.stderr.strip().splitlines() or ["it failed"])[-1]
        )
    found = json.loads(done.stdout)
    return Verdict(True, found["engine"], found["difference"], found["samples"])


def _child(model: str, arrays: str) -> int:
    import numpy as np

    try:
        import onnxruntime
    except ImportError:
        return MISSING
    with np.load(arrays) as file:
        given = {n: file[n] for n in file.files}
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    wanted = {n.removeprefix("output/"): a for n, a in given.items() if n.startswith("output/")}
    inputs = {n.removeprefix("input/"): a for n, a in given.items() if n.startswith("input/")}
    found = session.run(list(wanted), inputs)
    worst = max(
        float(np.max(np.abs(theirs - ours)))
        for theirs, ours in zip(found, wanted.values(), strict=True)
    )
    samples = len(next(iter(inputs.values())))
    print(
        json.dumps(
            {
                "engine": f"onnxruntime {onnxruntime.__version__}",
                "difference": worst,
                "samples": samples,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))
