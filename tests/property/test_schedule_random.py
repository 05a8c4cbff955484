"""Random graphs: what scheduling makes computes what the graph says."""

import numpy as np
from hypothesis import given

from tapeout.oracle import graph as graph_oracle
from tapeout.schedule.fuse import fuse
from tests.random_graphs import Case, cases
from tests.schedule_programs import run_program, run_works


def _equal(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for name, expected in want.items():
        np.testing.assert_allclose(
            got[name],
            expected,
            rtol=1e-9,
            atol=1e-9 * max(1.0, np.abs(expected).max(initial=0.0)),
            err_msg=name,
        )


@given(cases())
def test_fused_kernels_equal_the_graph(case: Case) -> None:
    want = graph_oracle.run(case.graph, case.inputs, case.variables)
    outputs, after = run_works(fuse(case.graph), case.graph, case.inputs, case.variables)
    _equal(outputs, want.outputs)
    _equal(after, {**case.variables, **want.updates})


@given(cases(steps=6))
def test_programs_equal_the_graph(case: Case) -> None:
    want = graph_oracle.run(case.graph, case.inputs, case.variables)
    _, code, outputs, after = run_program(case.graph, case.inputs, case.variables)
    assert code == 0
    _equal(outputs, want.outputs)
    _equal(after, {**case.variables, **want.updates})
