"""Training steps of random networks: fused kernels, in any layout, compute what the graph says."""

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.autodiff.reverse import backward
from tapeout.ir.build import Builder
from tapeout.ir.dtype import f64, i64
from tapeout.ir.type import TensorType
from tapeout.ops.composite.pool import max_pool
from tapeout.ops.sym import Sym, constant, iota
from tapeout.oracle import graph as graph_oracle
from tapeout.passes.decompose import Decompose
from tapeout.schedule import orders
from tapeout.support.loc import Loc
from tests.random_graphs import Case
from tests.schedule_programs import equal, run_natively, run_works


@st.composite
def convolutional(draw: st.DrawFn) -> Case:
    """Draw a few convolutions with bias, relu, pooling or a residual, then a classifier; the step is momentum SGD with decay."""
    b = Builder("step")
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    case = Case(b.graph())
    n, c, size = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4])), draw(st.integers(4, 9))
    x = Sym(b, b.add_input("x", TensorType(f64, (n, c, size, size + 1))))
    labels = Sym(b, b.add_input("labels", TensorType(i64, (n,))))
    case.inputs = {"x": rng.standard_normal(x.shape), "labels": rng.integers(0, 3, (n,))}

    def parameter(name: str, shape: tuple[int, ...]) -> Sym:
        case.variables[name] = rng.standard_normal(shape)
        return Sym(b, b.add_variable(name, TensorType(f64, shape)))

    h = x
    for i in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([1, 2])) if h.shape[1] % 2 == 0 else 1
        k = draw(st.integers(1, min(3, *h.shape[2:])))
        stride, pad = draw(st.integers(1, 2)), draw(st.integers(0, k // 2))
        dilation = 2 if k == 2 and min(h.shape[2:]) > 3 and draw(st.booleans()) else 1
        out = draw(st.sampled_from([2, 4])) if groups == 2 else draw(st.integers(1, 4))
        w = parameter(f"w{i}", (out, h.shape[1] // groups, k, k))
        y = h.conv(
            w,
            strides=(stride, stride),
            low=(pad, pad),
            high=(pad, pad + 1),
            dilations=(dilation, dilation),
            groups=groups,
        )
        y = (y + parameter(f"b{i}", (out,)).reshape([1, out, 1, 1])).relu()
        if y.type == h.type and draw(st.booleans()):
            y = y + h
        if min(y.shape[2:]) >= 3 and draw(st.booleans()):
            over = draw(st.integers(0, 1))
            y = max_pool(y, (2 + over, 2), (2, 2), (over, 0), (0, 0))
        h = y
    h = h.reshape([n, -1]).matmul(parameter("fc", (h.type.size // n, 3)))
    e = h - h.max(1, keepdims=True)
    log_p = e - e.exp().sum(1, keepdims=True).log()
    here = iota(b, (n, 3), 1, i64) == labels.broadcast((n, 3), [0])
    loss = -here.where(log_p, 0.0).sum() * (1.0 / n)
    b.set_output("loss", loss.value)
    case.graph = _step(b, loss, case)
    return case


def _step(b: Builder, loss: Sym, case: Case):
    variables = list(b.graph().variables)
    with b.at(Loc("", "", "backward")):
        seeds = {loss.value: constant(b, 1.0, f64)}
        found = backward(b, tuple(b.nodes), seeds, [v.value for v in variables])
    with b.at(Loc("", "", "update")):
        for v in variables:
            g, w = found[v.value], Sym(b, v.value)
            m = Sym(b, b.add_variable(f"m/{v.name}", v.type, "state"))
            case.variables[f"m/{v.name}"] = np.ones(v.type.shape)
            step = m * 0.9 + (g + w * 0.01)
            b.set_update(v.name, (w - step * 0.1).value)
            b.set_update(f"m/{v.name}", step.value)
            b.set_output(f"grad/{v.name}", g.value)
    return Decompose().run(b.graph())


@given(convolutional(), st.sampled_from([2, 100]))
def test_fused_steps_equal_the_graph(case: Case, fewest: int) -> None:
    want = graph_oracle.run(case.graph, case.inputs, case.variables)
    with patch.object(orders, "FEWEST_CHANNELS", fewest):
        outputs, after, _ = run_works(case.graph, case.inputs, case.variables)
    equal(outputs, want.outputs)
    equal(after, {**case.variables, **want.updates})


@settings(max_examples=10)
@given(convolutional())
def test_native_steps_equal_the_graph(case: Case) -> None:
    want = graph_oracle.run(case.graph, case.inputs, case.variables)
    with patch.object(orders, "FEWEST_CHANNELS", 2):
        code, outputs, after = run_natively(case.graph, case.inputs, case.variables)
    assert code == 0
    equal(outputs, want.outputs)
    equal(after, {**case.variables, **want.updates})
