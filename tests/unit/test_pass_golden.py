"""Golden files of the passes: what goes in, which passes run, and what must come out.

A file of tests/golden/<pass>/ holds `// RUN: passes`, a graph, `// EXPECT`, and the graph expected; `--update-golden` writes the
second graph anew. `NAME-not.tape` is a near miss, on which the pass (or the rule of that name) must not fire.
"""

from pathlib import Path

import numpy as np
import pytest

import tapeout.ops.composite  # noqa: F401 (the parser knows the operations that are imported)
from tapeout.ir.graph import Graph
from tapeout.ir.parse import parse_graph
from tapeout.ir.rewrite import rewrite
from tapeout.ir.text import print_graph
from tapeout.ir.type import TensorType
from tapeout.ir.verify import verify
from tapeout.oracle.graph import run
from tapeout.passes import PASSES
from tapeout.passes.simplify import RULES
from tests.conftest import GOLDEN, Golden

FILES = sorted(p for name in PASSES for p in (GOLDEN / name).glob("*.tape"))
RULE_NAMES = [r.name for r in RULES.rules]


def _parts(path: Path) -> tuple[list[str], str, str]:
    text = path.read_text(encoding="utf-8")
    head, _, after = text.partition("\n")
    before, mark, _ = after.partition("// EXPECT\n")
    assert head.startswith("// RUN: ") and mark, f"{path.name} needs // RUN: and // EXPECT"
    return head.removeprefix("// RUN: ").split(","), head, before


def _graph(path: Path) -> Graph:
    return parse_graph(_parts(path)[2], file=path.name)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_graph_comes_out_as_written(path: Path, golden: Golden) -> None:
    names, head, before = _parts(path)
    graph = parse_graph(before, file=path.name)
    verify(graph)
    for name in names:
        graph = PASSES[name]().run(graph)
        verify(graph)
        assert PASSES[name]().run(graph) is graph
    golden(f"{head}\n{before}// EXPECT\n{print_graph(graph)}", f"{path.parent.name}/{path.name}")


@pytest.mark.parametrize("name", RULE_NAMES)
def test_rule_fires_where_it_should_and_nowhere_else(name: str) -> None:
    fired: list[str] = []
    rewrite(_graph(GOLDEN / "simplify" / f"{name}.tape"), RULES, fired=lambda n, _: fired.append(n))
    missed: list[str] = []
    near = _graph(GOLDEN / "simplify" / f"{name}-not.tape")
    rewrite(near, RULES, fired=lambda n, _: missed.append(n))
    assert name in fired
    assert name not in missed


def _numbers(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    """Small multiples of 1/4, every other one with an infinity, a NaN and both zeros among them."""
    x = rng.integers(-8, 9, type_.shape) / 4.0
    if type_.dtype.is_float and x.size >= 4 and rng.random() < 0.5:
        x.flat[:4] = rng.permutation([np.inf, np.nan, -0.0, 0.0])
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(x) if type_.dtype.kind in "ub" else x).astype(type_.dtype.numpy))


@pytest.mark.parametrize("name", RULE_NAMES)
def test_rule_changes_no_bit(name: str, rng: np.random.Generator) -> None:
    graph = _graph(GOLDEN / "simplify" / f"{name}.tape")
    after = rewrite(graph, RULES)
    for _ in range(20):
        inputs = {x.name: _numbers(rng, x.type) for x in graph.inputs}
        got, want = run(after, inputs).outputs["out"], run(graph, inputs).outputs["out"]
        np.testing.assert_array_equal(got, want)
        if want.dtype.kind == "f" or want.dtype.name == "bfloat16":
            number = ~np.isnan(want)  # the sign of a NaN is nobody's
            np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.stem.endswith("-not") and p.parent.name != "simplify"]
)
def test_near_miss_is_left_alone(path: Path) -> None:
    graph = _graph(path)
    assert PASSES[path.parent.name]().run(graph) is graph


def test_every_pass_has_golden_files() -> None:
    assert {p.parent.name for p in FILES} == set(PASSES)
