"""Random graphs: what scheduling makes computes what the graph says."""

import pytest
from hypothesis import given

from tapeout.oracle import graph as graph_oracle
from tapeout.schedule import recompute
from tests.random_graphs import Case, cases
from tests.schedule_programs import equal, run_program, run_works


@given(cases())
def test_fused_kernels_equal_the_graph(case: Case) -> None:
    want = graph_oracle.run(case.graph, case.inputs, case.variables)
    outputs, after, _ = run_works(case.graph, case.inputs, case.variables)
    equal(outputs, want.outputs)
    equal(after, {**case.variables, **want.updates})


@given(cases(steps=6))
def test_programs_equal_the_graph(case: Case) -> None:
    want = graph_oracle.run(case.graph, case.inputs, case.variables)
    _, code, outputs, after = run_program(case.graph, case.inputs, case.variables)
    assert code == 0
    equal(outputs, want.outputs)
    equal(after, {**case.variables, **want.updates})


@given(cases(steps=12))
def test_programs_that_recompute_equal_the_graph(case: Case) -> None:
    """As large values do, small ones too are computed anew by their readers."""
    want = graph_oracle.run(case.graph, case.inputs, case.variables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recompute, "LEAST_BYTES", 0)
        outputs, after, _ = run_works(case.graph, case.inputs, case.variables)
    equal(outputs, want.outputs)
    equal(after, {**case.variables, **want.updates})
