"""The pass that clones cheap forward nodes into the backward pass: what it clones, what it keeps, and that it changes no value."""

import numpy as np
import pytest

import tapeout
from tapeout.api.stages import optimized
from tapeout.ir.graph import Graph
from tapeout.ops.contraction import Conv
from tapeout.oracle import graph as oracle
from tapeout.passes import Cse, Dce, Decompose, Fold, Recompute, Simplify
from tapeout.support.loc import AGAIN


def _net(blocks: int = 2, batch: int = 4, size: int = 8) -> Graph:
    with tapeout.Builder("net") as g:
        x = g.input("x", (batch, 3, size, size))
        h = tapeout.nn.conv2d(x, 8, 3, padding=1, bias=False, name="stem")
        h = tapeout.nn.relu(tapeout.nn.batch_norm(h, name="stem.bn"))
        for n in range(blocks):
            y = tapeout.nn.conv2d(h, 8, 3, padding=1, bias=False, name=f"b{n}")
            h = tapeout.nn.relu(tapeout.nn.batch_norm(y, name=f"b{n}.bn") + h)
        g.output("logits", tapeout.nn.linear(h.mean((2, 3)), 3, name="fc"))
    return tapeout.training_step(
        g.graph(), tapeout.losses.cross_entropy(), tapeout.optimizers.sgd(lr=0.1)
    )


def _passed(graph: Graph) -> Graph:
    for step in (Decompose(), Fold(), Simplify(), Cse(), Simplify(), Dce()):
        graph = step.run(graph)
    return graph


def _clones(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes if n.loc.role == AGAIN]


def test_rectified_normalised_activations_are_computed_anew() -> None:
    graph = Recompute(least=1024).run(_passed(_net()))
    clones = _clones(graph)
    assert clones.count("relu") >= 3
    # Sums, and what costs more than a load, are kept.
    assert not {"reduce_sum", "rsqrt", "dot_general"} & set(clones)


def test_a_cheap_convolution_of_an_input_is_computed_anew_but_no_other() -> None:
    clones = [
        n
        for n in Recompute(least=1024, share=0.5).run(_passed(_net())).nodes
        if n.loc.role == AGAIN and isinstance(n.op, Conv)
    ]
    assert clones and {n.operands[0].name for n in clones} == {"x"}
    graph = Recompute(least=1024, share=0.0).run(_passed(_net()))
    assert "conv" not in _clones(graph)


def test_small_values_are_kept() -> None:
    graph = _passed(_net())
    assert Recompute(least=1 << 20).run(graph) is graph


def test_a_graph_without_a_backward_pass_stays_as_it_is() -> None:
    with tapeout.Builder("net") as g:
        x = g.input("x", (4, 64))
        g.output("y", tapeout.nn.relu(x))
    graph = g.graph()
    assert Recompute(least=1).run(graph) is graph


@pytest.mark.parametrize("chain", [2, 16])
@pytest.mark.parametrize("window", [1, 1000])
def test_nothing_but_the_place_of_the_work_changes(chain: int, window: int) -> None:
    before = _passed(_net(blocks=3))
    after = Recompute(least=1024, chain=chain, window=window).run(before)
    assert _clones(after)
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.standard_normal((4, 3, 8, 8)).astype(np.float32),
        "labels": np.array([0, 2, 1, 1]),
    }
    values = {
        v.name: np.asarray(rng.uniform(0.5, 1.5, v.type.shape), v.type.dtype.numpy)
        for v in before.variables
    }
    old, new = (oracle.run(g, inputs, values) for g in (before, after))
    assert not old.failed and old.outputs
    np.testing.assert_equal(new.outputs, old.outputs)
    np.testing.assert_equal(new.updates, old.updates)


def test_the_pipeline_ends_with_it() -> None:
    step = _net(blocks=1, batch=32, size=32)
    assert "relu" in _clones(optimized(step, "avx2"))
