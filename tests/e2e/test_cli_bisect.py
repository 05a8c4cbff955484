"""`tapeout bisect` names the rule, the launch or the kernel that is broken."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapeout.cli.main import main
from tapeout.cli.reading import load_model
from tapeout.cli.view import Source, Training
from tapeout.driver.bisect import Fault, bisect, random_feed
from tapeout.driver.options import Options, resolve_target
from tapeout.ir.graph import Graph
from tapeout.ir.rewrite import RuleSet, rule
from tapeout.kernel import loops
from tapeout.passes import simplify
from tapeout.passes.dce import Dce

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "models" / "matrix" / "tiny_mlp_dynamo_opset20.onnx"
PAGE = ROOT / "docs" / "how-to" / "debug-a-miscompile.md"


@pytest.fixture(scope="module")
def step() -> Graph:
    """The training step of a small MLP."""
    return Source(
        load_model(str(MLP)), "mlp", Training("cross_entropy", None, "sgd", 0.1, None)
    ).step


def _bisect(graph: Graph) -> Fault | None:
    return bisect(graph, Options(resolve_target("native")))


def _broken(name: str, change: Callable[..., Any]) -> RuleSet:
    rules = [rule(name, r.pattern, change) if r.name == name else r for r in simplify.RULES.rules]
    assert any(r.name == name for r in rules)
    return RuleSet(*rules, lift=simplify.RULES.lift, lower=simplify.RULES.lower)


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", str(MLP), "--optimizer", "sgd", "--lr", "0.1"]) == 0
    assert "every stage agrees with its oracle" in capsys.readouterr().out


def test_a_broken_rule_is_named(step: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplify, "RULES", _broken("mul-one", lambda x: x + x))
    fault = _bisect(step)
    assert fault is not None
    assert (fault.stage, fault.part) == ("simplify", "rule mul-one")
    assert fault.node.startswith("mul")
    assert "expected" in fault.details


def test_one_wrong_application_among_many_is_found(
    step: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that goes wrong in the backward part only: the node tells which application it was."""
    name = "broadcast-of-expanded"
    (right,) = [r.result for r in simplify.RULES.rules if r.name == name]
    seen: list[object] = []

    def wrong(x: Any, q: Any, node: Any) -> Any:
        found = right(x, q, node)
        source = node.operands[0].node
        backward = source is not None and source.loc.role == "backward"
        if found is None or not found.dtype.is_float or not backward:
            return found
        seen.append(node)
        return found * 1.5

    monkeypatch.setattr(simplify, "RULES", _broken(name, wrong))
    fault = _bisect(step)
    assert seen
    assert fault is not None
    assert fault.part == f"rule {name}"
    assert "(backward)" in fault.node


def test_a_broken_pass_is_named(step: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Dce, graph: Graph) -> Graph:
        name, value = graph.outputs[0]
        other = next(
            v for n in graph.nodes for v in n.results if v.type == value.type and v is not value
        )
        return replace(graph, outputs=((name, other), *graph.outputs[1:]))

    monkeypatch.setattr(Dce, "run", run)
    fault = _bisect(step)
    assert fault is not None
    assert (fault.stage, fault.result) == ("dce", "output loss")


def test_a_broken_kernel_is_named(step: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that computes something else than its loops."""
    from tapeout.codegen import cpu

    whole = cpu.compile_objects
    changed: list[str] = []

    def wrong(kernels: dict[str, loops.Kernel], *args: object, **kwargs: object) -> object:
        made = dict(kernels)
        for name, kernel in kernels.items():
            body = _negated(kernel.body)
            if body != kernel.body and not changed:
                changed.append(name)
                made[name] = replace(kernel, body=body)
        return whole(made, *args, **kwargs)

    monkeypatch.setattr(cpu, "compile_objects", wrong)
    fault = _bisect(step)
    assert fault is not None
    assert fault.stage == "codegen"
    assert changed[0] in fault.part


def test_a_broken_launch_is_named(step: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that compute something else than the graph."""
    from tapeout.driver import bisect as module

    right = module.lower
    changed: list[str] = []

    def wrong(*args: Any) -> Any:
        program = right(*args)
        name, kernel = next(
            (n, k) for n, k in program.kernels.items() if _negated(k.body) != k.body
        )
        changed.append(next(i.label for i in program.items if getattr(i, "kernel", "") == name))
        kernels = {**program.kernels, name: replace(kernel, body=_negated(kernel.body))}
        return replace(program, kernels=kernels)

    monkeypatch.setattr(module, "lower", wrong)
    fault = _bisect(step)
    assert fault is not None
    assert (fault.stage, fault.part) == ("schedule", changed[0])


def _negated(body: tuple[loops.Stmt, ...]) -> tuple[loops.Stmt, ...]:
    """The statements with what the first store of floats writes negated."""
    for i, stmt in enumerate(body):
        if isinstance(stmt, loops.For):
            inner = _negated(stmt.body)
            if inner != stmt.body:
                return (*body[:i], replace(stmt, body=inner), *body[i + 1 :])
        if isinstance(stmt, loops.Store) and stmt.value.dtype.is_float:
            value = loops.Apply(stmt.value.dtype, stmt.value.lanes, "neg", (stmt.value,))
            return (*body[:i], replace(stmt, value=value), *body[i + 1 :])
    return body


def test_random_feed_depends_on_the_seed_alone(step: Graph) -> None:
    a, b, c = random_feed(step), random_feed(step), random_feed(step, 1)
    for name in a.inputs:
        assert np.array_equal(a.inputs[name], b.inputs[name])
    assert not np.array_equal(a.inputs["x"], c.inputs["x"])


def test_the_page_tells_the_truth(tmp_path: Path) -> None:
    """Break the rule as docs/how-to/debug-a-miscompile.md does, run its command, get its output."""
    text = PAGE.read_text(encoding="utf-8")
    (change,) = re.findall(r"^    \$ (sed -i .*)$", text, re.MULTILINE)
    ((command, expected),) = re.findall(
        r"^    \$ tapeout (bisect .*)\n((?:    .*\n)+)", text, re.MULTILINE
    )
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "models", tmp_path / "models")
    subprocess.run(["bash", "-c", change], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "tapeout", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    wanted = [line.strip() for line in expected.splitlines()]
    assert [line.strip() for line in done.stdout.splitlines()] == wanted
