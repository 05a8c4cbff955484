"""Sessions: which targets they take."""

import numpy as np
import pytest

import tapeout
from tapeout.codegen import machine
from tapeout.driver.options import resolve_target


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


def test_a_level_of_x86_64_is_its_class_on_the_least_processor() -> None:
    level = resolve_target("x86-64-v3")
    assert (level.name, level.cpu) == ("avx2", "x86-64-v3")
    assert machine.resolve(level).features == ""
    with pytest.raises(tapeout.OptionError, match="did you mean 'x86-64-v3'"):
        resolve_target("x86_64-v3")


def test_a_level_gives_the_bits_of_its_class() -> None:
    if not machine.host_runs(resolve_target("x86-64-v3")):
        pytest.skip("this machine has no AVX2")
    with tapeout.Builder("net") as g:
        x = g.input("x", (5, 33))
        g.output("y", tapeout.nn.relu(tapeout.nn.linear(x, 19, name="fc")))
    x = np.random.default_rng(0).standard_normal((5, 33), np.float32)
    one, other = (
        tapeout.compile(g.graph(), target=t)(x=x)["y"].tobytes() for t in ("avx2", "x86-64-v3")
    )
    assert one == other
