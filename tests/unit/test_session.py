"""Sessions: which targets they take."""

import numpy as np
import pytest

import tapeout
from tapeout.codegen import machine


def build() -> tapeout.Graph:
    with tapeout.Builder("double") as g:
        g.output("y", g.input("x", (3,)) * 2)
    return g.graph()


def test_a_target_that_this_machine_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_host_runs", lambda name: name == "generic")
    with pytest.raises(tapeout.OptionError, match="lacks instructions of the target 'avx512'"):
        tapeout.compile(build(), target="avx512")


def test_the_generic_target_runs_everywhere() -> None:
    assert (
        tapeout.compile(build(), target="generic")(x=np.ones(3, np.float32))["y"].tolist()
        == [2.0] * 3
    )
