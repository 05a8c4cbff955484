"""One process that runs cases: reads "NAME<tab>VARIANT" lines and answers each with a line of JSON.

The runner starts it, gives it a limit of time for each line, and starts another when one dies.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

from tests.torch_matrix.case import VARIANTS, by_name

MEMORY = 24 << 30
"""Bytes of address space that a case may have; PyTorch alone maps several GiB."""


def run(name: str, variant: str) -> dict[str, Any]:
    """Return what came of a case: `status`, and `reason` or what is worth telling."""
    from tapeout.support.errors import TapeoutError
    from tests.torch_matrix.compare import check
    from tests.torch_matrix.exporting import ExportFailed, reason

    start = time.perf_counter()
    try:
        outcome = check(everything()[name], VARIANTS[variant])
        made: dict[str, Any] = {"status": "pass", "compared": len(outcome.compared)}
        if outcome.folded:
            made["folded"] = len(outcome.folded)
        if VARIANTS[variant].dynamic and not outcome.dynamic:
            made["static"] = True
    except ExportFailed as error:
        made = {"status": "export", "reason": str(error)}
    except (TapeoutError, AssertionError) as error:
        made = {"status": "fail", "reason": " ".join(str(error).split())[:400]}
    except Exception as error:  # whatever it is belongs into the record
        made = {"status": "error", "reason": reason(error)}
    return {**made, "seconds": round(time.perf_counter() - start, 2)}


_ALL: dict[str, Any] = {}


def everything() -> dict[str, Any]:
    """Return every case by name."""
    if not _ALL:
        from tests.torch_matrix import huggingface, layers, sequences

        _ALL.update(by_name([*layers.cases(), *sequences.cases(), *huggingface.cases()]))
    return _ALL


def main() -> None:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        name, variant = line.rstrip("\n").split("\t")
        print(json.dumps(run(name, variant)), file=answers, flush=True)


if __name__ == "__main__":
    main()
