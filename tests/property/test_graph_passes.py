"""Every pass keeps what a graph computes, is done after one run, and gives a graph that verifies."""

import numpy as np
import pytest
from hypothesis import given

from tapeout.ir.verify import verify
from tapeout.oracle.graph import Result, run
from tapeout.passes import PASSES
from tests.property.graphs import Array, Sample, graphs


def _equal(got: Array, want: Array, exact: bool) -> None:
    if want.dtype.kind in "biu":
        np.testing.assert_array_equal(got, want)
    elif exact:
        np.testing.assert_array_equal(got, want)
        number = ~np.isnan(want)  # the sign of a NaN is nobody's
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))
    else:
        # numpy adds in another order where a transpose has gone; f16 shows it most.
        tolerance = {2: 3e-2, 4: 1e-4, 8: 1e-9}[want.dtype.itemsize]
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 16)


def _compare(got: Result, want: Result, exact: bool) -> None:
    assert got.failed == want.failed
    assert list(got.outputs) == list(want.outputs)
    for name, array in want.outputs.items():
        _equal(got.outputs[name], array, exact)
    for name, array in want.updates.items():
        _equal(got.updates[name], array, exact)


@pytest.mark.parametrize("name", PASSES)
def test_pass_keeps_the_meaning(name: str) -> None:
    step = PASSES[name]()

    @given(graphs())
    def holds(sample: Sample) -> None:
        before = sample.graph
        after = step.run(before)
        verify(after)
        assert step.run(after) is after
        _compare(run(after, sample.inputs), run(before, sample.inputs), sample.exact)

    holds()


@given(graphs(most=20))
def test_pipeline_keeps_the_meaning(sample: Sample) -> None:
    graph = sample.graph
    for name in ("decompose", "fold", "simplify", "cse", "simplify", "dce"):
        graph = PASSES[name]().run(graph)
    verify(graph)
    _compare(run(graph, sample.inputs), run(sample.graph, sample.inputs), sample.exact)
