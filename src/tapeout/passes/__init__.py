"""Passes: changes of graphs that keep their meaning, one a file. `PASSES` names them for the command line."""

from __future__ import annotations

from tapeout.passes.base import Pass
from tapeout.passes.cse import Cse
from tapeout.passes.dce import Dce
from tapeout.passes.decompose import Decompose
from tapeout.passes.fold import Fold
from tapeout.passes.loops import Loops
from tapeout.passes.recognize import Recognize
from tapeout.passes.recompute import Recompute
from tapeout.passes.simplify import Simplify
from tapeout.passes.tables import Tables

PASSES: dict[str, type[Pass]] = {
    p.name: p for p in (Recognize, Tables, Decompose, Fold, Simplify, Cse, Dce, Loops, Recompute)
}

__all__ = [
    "PASSES",
    "Cse",
    "Dce",
    "Decompose",
    "Fold",
    "Loops",
    "Pass",
    "Recognize",
    "Recompute",
    "Simplify",
    "Tables",
]
