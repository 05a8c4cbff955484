"""Random convolutions with their gradients, natively with bounds tests, against the oracle of graphs."""

from typing import Any

import numpy as np
import pytest

import tapeout
from tapeout.api.stages import optimized
from tapeout.ir.graph import Graph
from tapeout.oracle import graph as oracle
from tapeout.passes.recompute import Recompute
from tests.schedule_programs import run_natively

KINDS = ["few channels", "many channels", "depthwise"]


def _channels(rng: np.random.Generator, kind: str) -> tuple[int, int, int, int]:
    """Return batch, channels in, channels out, groups."""
    if kind == "many channels":
        return 2, int(rng.choice([64, 70])), int(rng.choice([50, 64])), 1
    if kind == "depthwise":
        c = int(rng.choice([8, 20, 33]))
        return int(rng.choice([2, 16])), c, c, c
    groups = int(rng.choice([1, 1, 2, 4]))
    inside, outside = (groups * int(n) for n in rng.integers(1, 5, 2))
    return int(rng.choice([1, 3, 16, 32])), inside, outside, groups


def _step(rng: np.random.Generator, kind: str) -> tuple[Graph, tuple[int, ...]]:
    n, c, f, groups = _channels(rng, kind)
    d = int(rng.choice([1, 2, 2, 3])) if kind == "few channels" and n <= 16 else 2
    k, strides = rng.integers(1, 4, d).tolist(), rng.integers(1, 4, d).tolist()
    dilations, low, high = (rng.integers(a, a + 3 - a, d).tolist() for a in (1, 0, 0))
    sizes = [int(rng.integers((a - 1) * b + 1, 9)) for a, b in zip(k, dilations, strict=True)]
    one, none = [1] * d, [0] * d

    def parameter(g: tapeout.Builder, name: str, shape: tuple[int, ...]) -> Any:
        return g.parameter(name, shape, init=np.zeros(shape, np.float32))

    with tapeout.Builder("net") as g:
        x = g.input("x", (n, c, *sizes))
        h = x.conv(parameter(g, "w0", (c, c, *one)), strides=one, low=none, high=none).tanh()
        w = parameter(g, "w1", (f, c // groups, *k))
        y = h.conv(w, strides=strides, low=low, high=high, dilations=dilations, groups=groups)
        g.output("logits", y.relu().reshape([n, -1]))
    step = tapeout.training_step(
        g.graph(), tapeout.losses.cross_entropy(), tapeout.optimizers.sgd(lr=0.5)
    )
    return optimized(step, "avx2"), (n, c, *sizes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_convolutions_train_as_the_oracle_says(kind: str, seed: int) -> None:
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    graph, shape = _step(rng, kind)
    graph = Recompute(least=256).run(graph) if seed % 2 else graph
    inputs = {
        "x": rng.standard_normal(shape).astype(np.float32),
        "labels": np.zeros(shape[0], np.int64),
    }
    values = {
        v.name: np.asarray(rng.standard_normal(v.type.shape) * 0.3, v.type.dtype.numpy)
        for v in graph.variables
    }
    want = oracle.run(graph, inputs, values)
    code, _, after = run_natively(graph, inputs, values)
    assert code == 0
    for name, array in want.updates.items():
        np.testing.assert_allclose(after[name], array, rtol=2e-3, atol=2e-4, err_msg=name)
