"""Which nodes share a kernel, what is kept, in which layout: typical graphs, kernel by kernel.

Every graph is also run, fused kernel by fused kernel, against the oracle of graphs.
"""

from collections.abc import Callable

import numpy as np
import pytest

from tapeout.autodiff.reverse import backward
from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_, f32, f64, i64
from tapeout.ir.op import Composite
from tapeout.ir.type import TensorType
from tapeout.kernel.compute import ContractionKernel, LoopKernel, Reduce, ScatterKernel, Store
from tapeout.kernel.program import Check, Launch
from tapeout.kernel.target import AVX2
from tapeout.ops.composite.pool import max_pool
from tapeout.ops.sym import Sym, constant, iota
from tapeout.oracle import graph as graph_oracle
from tapeout.passes.decompose import Decompose
from tapeout.schedule.build import Plan, schedule
from tapeout.schedule.layout import plan_variables
from tapeout.schedule.model import Work
from tapeout.support.errors import CompileError
from tapeout.support.loc import Loc
from tests.schedule_programs import equal, run_program, run_works

rng = np.random.default_rng(5)


class Net:
    """A graph under construction with arrays to run it on."""

    def __init__(self) -> None:
        self.b = Builder("net")
        self.inputs: dict[str, np.ndarray] = {}
        self.variables: dict[str, np.ndarray] = {}

    def input(self, name: str, *shape: int, dtype=f64, high: int = 5) -> Sym:
        self.inputs[name] = (
            rng.integers(0, high, shape) if dtype == i64 else rng.standard_normal(shape)
        )
        return Sym(self.b, self.b.add_input(name, TensorType(dtype, shape)))

    def parameter(self, name: str, *shape: int, kind: str = "parameter") -> Sym:
        self.variables[name] = np.asarray(np.abs(rng.standard_normal(shape)))
        return Sym(self.b, self.b.add_variable(name, TensorType(f64, shape), kind))

    def output(self, **values: Sym) -> None:
        for name, s in values.items():
            self.b.set_output(name, s.value)

    def train(self, loss: Sym, update: Callable[[str, Sym, Sym], None]) -> None:
        variables = list(self.b.graph().variables)
        with self.b.at(Loc("", "loss", "backward")):
            seed = {loss.value: constant(self.b, 1.0, f64)}
            found = backward(self.b, tuple(self.b.nodes), seed, [v.value for v in variables])
        with self.b.at(Loc("", "optimizer", "update")):
            for v in variables:
                update(v.name, Sym(self.b, v.value), found[v.value])

    def sgd(self, name: str, w: Sym, g: Sym) -> None:
        self.b.set_update(name, (w - g * 0.1).value)

    def momentum(self, name: str, w: Sym, g: Sym) -> None:
        m = self.parameter(f"m/{name}", *w.shape, kind="state")
        step = m * 0.9 + (g + w * 0.01)
        self.b.set_update(f"m/{name}", step.value)
        self.b.set_update(name, (w - step * 0.1).value)

    def run(self) -> list[Work]:
        """Run the fused kernels against the oracle and return them."""
        plan = self.plan()
        return list(plan.works)

    def plan(self) -> Plan:
        graph = Decompose().run(self.b.graph())
        want = graph_oracle.run(graph, self.inputs, self.variables)
        outputs, after, plan = run_works(graph, self.inputs, self.variables)
        equal(outputs, want.outputs)
        equal(after, {**self.variables, **want.updates})
        return plan


def _stores(work: Work) -> int:
    assert not isinstance(work.kernel, ScatterKernel)
    return sum(isinstance(s, Store) for s in work.kernel.stages)


def _reduces(work: Work) -> list[str]:
    assert isinstance(work.kernel, LoopKernel)
    return [s.combine for s in work.kernel.stages if isinstance(s, Reduce)]


# -- groups -----------------------------------------------------------------------------------------


def test_a_chain_of_maps_is_one_kernel() -> None:
    net = Net()
    x, y = net.input("x", 4, 6), net.input("y", 4, 6)
    h = (x * y + 1.0).tanh()
    net.output(h=h, z=(h * x).exp())
    (work,) = net.run()
    assert _stores(work) == 2 and sorted(work.reads) == ["x", "y"]


def test_movement_is_only_an_index() -> None:
    net = Net()
    x = net.input("x", 4, 6)
    y = x.transpose().reshape([2, 3, 4]).slice([0, 1, 0], [2, 3, 4]).reverse([0]) * 2.0
    net.output(y=y.pad([1, 0, 0], [0, 0, 1]) + 1.0)
    works = net.run()
    assert all(isinstance(w.kernel, LoopKernel) for w in works)
    assert len(works) <= 2, "a reshape of a transpose may need one copy"


def test_a_reshape_is_stored_where_it_was_made() -> None:
    net = Net()
    x = net.input("x", 3, 4, 5)
    net.output(y=(x.transpose([1, 0, 2]) * 2.0).reshape([4, 15]).tanh())
    (work,) = net.run()
    assert isinstance(work.kernel, LoopKernel)
    (store,) = work.kernel.stages
    assert isinstance(store, Store)
    place = work.homes[-1].offset(store.index)
    assert place.is_linear


def test_softmax_cross_entropy_and_its_gradient_read_a_row_once() -> None:
    net = Net()
    x, labels = net.input("x", 16, 10), net.input("labels", 16, dtype=i64)
    z = x - x.max(1, keepdims=True)
    log_p = z - z.exp().sum(1, keepdims=True).log()
    here = iota(net.b, (16, 10), 1, i64) == labels.broadcast((16, 10), [0])
    net.output(rows=-here.where(log_p, 0.0).sum(1), dx=log_p.exp() - here.cast(f64))
    (work,) = net.run()
    assert _reduces(work) == ["max", "sum", "sum"]
    assert _stores(work) == 2


def test_layer_normalization_is_one_row_kernel() -> None:
    net = Net()
    x, g, b = net.input("x", 16, 32), net.parameter("g", 32), net.parameter("b", 32)
    d = x - x.mean(1, keepdims=True)
    net.output(y=d * (d.square().mean(1, keepdims=True) + 1e-5).rsqrt() * g + b)
    (work,) = net.run()
    assert _reduces(work) == ["sum", "sum"]


def test_long_rows_are_few_kernels_that_all_cores_share() -> None:
    net = Net()
    x = net.input("x", 2, 20_000)
    net.output(y=x / x.sum(1, keepdims=True))
    works = net.run()
    assert len(works) == 2, "two rows would keep two cores busy at most"


def test_maximum_and_its_place_share_a_pass() -> None:
    net = Net()
    x = net.input("x", 2, 3, 8, 8)
    w = x.windows((2, 3), (2, 2), (2, 2))
    net.output(y=w.max([4, 5]), at=w.argmax([4, 5]).cast(f64))
    (work,) = net.run()
    assert _reduces(work) == ["max", "argmax"]


def test_a_sum_takes_its_map_with_it() -> None:
    net = Net()
    x = net.input("x", 30, 7)
    net.output(y=(x.square() + 1.0).sum([0]))
    (work,) = net.run()
    assert _reduces(work) == ["sum"] and _stores(work) == 1


def test_epilogues_go_with_contractions() -> None:
    net = Net()
    x, w, b = net.input("x", 8, 5), net.parameter("w", 6, 5), net.parameter("b", 6)
    residual = net.input("r", 8, 6)
    h = (x.matmul(w.transpose()) + b).relu()
    net.output(y=(h + residual).transpose(), mask=(h > 0).cast(f32))
    (work,) = net.run()
    assert isinstance(work.kernel, ContractionKernel)
    assert _stores(work) == 2


def test_a_matrix_times_a_vector_is_a_reduction() -> None:
    net = Net()
    x, w = net.input("x", 8, 5), net.parameter("w", 5)
    net.output(y=x.matmul(w))
    (work,) = net.run()
    assert _reduces(work) == ["sum"]


def test_no_group_depends_on_itself() -> None:
    net = Net()
    x = net.input("x", 12, 12)
    h = x.tanh()
    net.output(y=h.matmul(h) + h.square() * h.sum([0]))
    net.run()


def test_two_readers_of_one_tensor_share_a_pass() -> None:
    net = Net()
    x = net.input("x", 40, 40)
    net.output(a=x.exp(), b=x.tanh())
    (work,) = net.run()
    assert work.reads == ("x",) and _stores(work) == 2


def test_rows_and_columns_of_a_square_have_nothing_to_share() -> None:
    """That both are of one length is no reason to go down columns and along rows in one kernel."""
    n = Net()
    x, y = n.input("x", 16, 16), n.input("y", 16)
    n.output(rows=(x * x).sum([1]), columns=(x * y).sum([0]), whole=(x + y).tanh())
    for work in n.run():
        assert isinstance(work.kernel, LoopKernel)
        assert len(_reduces(work)) <= 1


def test_scatter_copies_then_adds() -> None:
    net = Net()
    x, u = net.input("x", 6, 3), net.input("u", 4, 3)
    indices = net.input("i", 4, dtype=i64)
    net.output(y=x.scatter_add(indices, u * 2.0, 0))
    works = net.run()
    assert [type(w.kernel) for w in works[-2:]] == [LoopKernel, ScatterKernel]


def test_composites_are_refused_by_name() -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f64, (2, 8, 8, 8))))
    b.loc = Loc("m.onnx", "pool1")
    b.set_output("y", max_pool(x, (2, 2), (2, 2), (0, 0), (0, 0)).value)
    assert any(isinstance(n.op, Composite) for n in b.graph().nodes)
    with pytest.raises(CompileError, match=r"m\.onnx:pool1: max_pool"):
        schedule(b.graph(), plan_variables([]), AVX2)


# -- convolutions -----------------------------------------------------------------------------------


def _conv(channels: int, stride: int, pad: int, size: int = 8) -> Net:
    net = Net()
    x = net.input("x", 2, channels, size, size)
    w = net.parameter("w", channels, channels, 3, 3)
    h = (x.tanh().conv(w, strides=(stride,) * 2, low=(pad,) * 2, high=(pad,) * 2)).relu()
    loss = h.square().sum()
    net.output(loss=loss)
    net.train(loss, net.sgd)
    return net


def test_channels_go_last_in_memory() -> None:
    plan = _conv(8, 1, 1).plan()
    homes = {h.name: h for w in plan.works for h in w.homes}
    kept = [h for h in homes.values() if h.type.rank == 4 and h.space == "activation"]
    images = [h for h in kept if h.type.shape[0] == 2]
    assert images and all(h.order == (0, 2, 3, 1) for h in images)


def test_few_channels_stay_as_they_are() -> None:
    plan = _conv(4, 1, 1).plan()
    homes = {h.name: h for w in plan.works for h in w.homes}
    assert all(h.order == tuple(range(h.type.rank)) for h in homes.values())


def test_no_padded_copy_of_an_activation_lives_on() -> None:
    plan = _conv(8, 1, 1).plan()
    assert not any(w.label.startswith("pad") for w in plan.works)
    guarded = [
        w for w in plan.works if isinstance(w.kernel, ContractionKernel) and w.kernel.a.where
    ]
    assert len(guarded) >= 2


@pytest.mark.parametrize("stride", [2, 3])
def test_a_strided_data_gradient_is_split_by_parity(stride: int) -> None:
    net = Net()
    x = net.input("x", 2, 8, 9, 9)
    w1, w2 = net.parameter("w1", 8, 8, 1, 1), net.parameter("w2", 8, 8, 3, 3)
    h = x.conv(w1, strides=(1, 1), low=(0, 0), high=(0, 0)).tanh()
    loss = h.conv(w2, strides=(stride,) * 2, low=(1, 1), high=(1, 1)).square().sum()
    net.output(loss=loss)
    net.train(loss, net.sgd)
    works = net.run()
    parts = [w for w in works if w.label.startswith("conv") and "w2" in w.reads and w.writes]
    gradients = [w for w in parts if "(backward)" in w.label]
    assert len(gradients) == stride**2
    taps = sum(np.prod([k.extent for k in w.kernel.k]) for w in gradients)
    assert taps == 9 * 8, "every step of the kernel belongs to one parity"


def test_a_kernel_smaller_than_the_stride_leaves_zeros() -> None:
    net = Net()
    x = net.input("x", 2, 8, 6, 6)
    w1, w2 = net.parameter("w1", 8, 8, 1, 1), net.parameter("w2", 8, 8, 1, 1)
    h = x.conv(w1, strides=(1, 1), low=(0, 0), high=(0, 0)).tanh()
    loss = h.conv(w2, strides=(2, 2), low=(0, 0), high=(0, 0)).square().sum()
    net.output(loss=loss)
    net.train(loss, net.sgd)
    works = net.run()
    gradients = [w for w in works if w.label.startswith("conv") and "(backward)" in w.label]
    assert sum(isinstance(w.kernel, LoopKernel) for w in gradients) == 3


def test_holes_of_another_form_stay_guards() -> None:
    net = Net()
    x = net.input("x", 2, 3, 5, 5)
    y = x.pad([0] * 4, [0] * 4, 0.0, [0, 0, 1, 1])
    w = net.parameter("w", 4, 3, 3, 3)
    net.output(y=y.conv(w, strides=(1, 1), low=(1, 1), high=(1, 1)))
    net.run()


def test_groups_are_a_batch_of_contractions() -> None:
    net = Net()
    x, w = net.input("x", 2, 6, 5, 5), net.parameter("w", 4, 3, 3, 3)
    loss = x.conv(w, strides=(1, 1), low=(1, 1), high=(1, 1), groups=2).square().sum()
    net.output(loss=loss)
    net.train(loss, net.sgd)
    products = [w.kernel for w in net.run() if isinstance(w.kernel, ContractionKernel)]
    assert len(products) == 2
    for k in products:
        assert [a.extent for a in k.batch] == [2] and k.m and k.n


def test_depthwise_is_a_contraction_without_columns() -> None:
    net = Net()
    x, w = net.input("x", 2, 4, 5, 5), net.parameter("w", 4, 1, 3, 3)
    net.output(y=x.conv(w, strides=(1, 1), low=(1, 1), high=(1, 1), groups=4).relu())
    (work,) = net.run()
    assert isinstance(work.kernel, ContractionKernel)
    assert [a.extent for a in work.kernel.batch] == [4] and not work.kernel.n


def test_flattening_makes_the_pool_store_across() -> None:
    net = Net()
    x, w = net.input("x", 2, 8, 8, 8), net.parameter("w", 8, 8, 3, 3)
    h = x.conv(w, strides=(1, 1), low=(1, 1), high=(1, 1)).relu()
    p = max_pool(h, (2, 2), (2, 2), (0, 0), (0, 0))
    net.output(y=p.reshape([2, -1]).matmul(net.parameter("fc", 128, 3)))
    works = net.run()
    assert not any("reshape" in w.label for w in works), "no copy for the flattening"
    pool = next(w for w in works if "reduce_max" in w.label)
    orders = {h.name: h.order for h in pool.homes}
    assert orders[pool.reads[0]] == (0, 2, 3, 1) and orders[pool.writes[0]] == (0, 1, 2, 3)


# -- updates ----------------------------------------------------------------------------------------


def _mlp(update: str = "momentum") -> Net:
    net = Net()
    x = net.input("x", 8, 5)
    h = x
    for i, (a, c) in enumerate([(5, 7), (7, 4)]):
        w, b = net.parameter(f"w{i}", c, a), net.parameter(f"b{i}", c)
        h = h.matmul(w.transpose()) + b
        h = h.relu() if i == 0 else h
    loss = h.square().mean()
    net.output(loss=loss)
    net.train(loss, getattr(net, update))
    return net


@pytest.mark.parametrize("update", ["sgd", "momentum"])
def test_the_optimiser_is_one_sweep_in_place(update: str) -> None:
    plan = _mlp(update).plan()
    late = [w for w in plan.works if w.late]
    assert len(late) == 1
    assert sorted(late[0].writes) == sorted(v for v in plan_names(plan))


def plan_names(plan: Plan) -> list[str]:
    return [h.name for h in plan.fused.sources if h.space == "variable"]


def test_gradients_lie_at_the_distances_of_their_parameters() -> None:
    plan = _mlp().plan()
    gradient = next(r for r in plan.regions if r.home.space == "gradient")
    variables = next(r for r in plan.regions if r.home.space == "variable")
    assert [at for _, at in gradient.parts] == [at for _, at in variables.parts]


def test_gradients_asked_for_lie_in_one_region() -> None:
    net = Net()
    x = net.input("x", 8, 5)
    w, b = net.parameter("w", 5, 3), net.parameter("b", 3)
    loss = (x.matmul(w) + b).square().sum()
    seed = {loss.value: constant(net.b, 1.0, f64)}
    found = backward(net.b, tuple(net.b.nodes), seed, [w.value, b.value])
    net.b.set_output("grad/w", found[w.value].value)
    net.b.set_output("grad/b", found[b.value].value)
    (region,) = net.plan().regions
    assert [at for _, at in region.parts] == [0, 128]


def test_a_different_formula_makes_a_run_of_its_own() -> None:
    net = Net()
    x = net.input("x", 8, 5)
    names = ["w0", "w1", "w2", "w3"]
    ws = [net.parameter(n, 8, 5) for n in names]
    for i, (n, w) in enumerate(zip(names, ws, strict=True)):
        net.b.set_update(n, (w * 0.5 - x if i != 1 else w * 0.25 - x).value)
    writes = [sorted(w.writes) for w in net.run() if w.late]
    assert writes != [names], "w1 has another factor"


def test_neighbours_with_a_gap_are_not_swept_over() -> None:
    net = Net()
    g0, g2 = net.input("g0", 4, 4), net.input("g2", 4, 4)
    w0, w1, w2 = (net.parameter(n, *s) for n, s in [("w0", (4, 4)), ("w1", ()), ("w2", (4, 4))])
    for n, w, g in (("w0", w0, g0), ("w2", w2, g2)):
        net.b.set_update(n, (w - g.tanh() * 0.1).value)
    net.output(kept=w1 + 0.0)
    net.run()


def test_an_old_content_that_is_still_wanted_is_put_aside() -> None:
    net = Net()
    w = net.parameter("w", 3, 3)
    net.output(before=w)
    net.b.set_update("w", (w * 2.0).value)
    works = net.run()
    assert works[0].label.startswith("copy") and not works[0].late


def test_contents_may_be_exchanged() -> None:
    net = Net()
    a, b = net.parameter("a", 3), net.parameter("b", 3)
    net.b.set_update("a", b.value)
    net.b.set_update("b", a.value)
    net.run()


def test_an_update_read_across_is_copied_at_the_end() -> None:
    net = Net()
    w = net.parameter("w", 4, 4)
    net.b.set_update("w", (w + w.transpose()).value)
    works = net.run()
    assert [x.label for x in works if x.late][-1] == "copy w"


def test_an_update_waits_for_other_readers() -> None:
    net = Net()
    w = net.parameter("w", 4, 4)
    x = net.input("x", 2, 4)
    net.b.set_update("w", (w * 0.5).value)
    net.output(y=x.matmul(w))
    works = net.run()
    assert works[-1].late and works[-1].writes == ("w",)


def test_one_new_content_for_two_variables() -> None:
    net = Net()
    a, b = net.parameter("a", 3), net.parameter("b", 3)
    new = a * 2.0 + b
    net.b.set_update("a", new.value)
    net.b.set_update("b", new.value)
    net.run()


# -- programs ---------------------------------------------------------------------------------------


def test_checks_come_before_updates() -> None:
    net = _mlp()
    bad = Sym(net.b, net.b.outputs["loss"]) > 1e6
    net.b.add_check(bad.value, "the loss is large")
    graph = net.b.graph()
    program = schedule(graph, plan_variables(graph.variables), AVX2)
    kinds = ["check" if isinstance(i, Check) else "late" if i.update else "" for i in program.items]
    assert kinds.index("check") < kinds.index("late")
    assert program.items[kinds.index("check")].message == "the loss is large"


def test_a_failing_check_leaves_everything() -> None:
    net = _mlp()
    bad = Sym(net.b, net.b.outputs["loss"]) >= 0.0
    net.b.add_check(bad.value, "always")
    _, code, _, after = run_program(net.b.graph(), net.inputs, net.variables)
    assert code == 1
    equal(after, net.variables)


def test_nan_is_searched_for_on_request() -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f64, (4, 4))))
    b.set_output("y", (x.sum([1]).log() + 1.0).value)
    program = schedule(b.graph(), plan_variables([]), AVX2, check_nans=True)
    messages = [i.message for i in program.items if isinstance(i, Check)]
    assert messages and all(m.startswith("NaN in a result of") for m in messages)
    assert len({i.code for i in program.items if isinstance(i, Check)}) == len(messages)
    plain = schedule(b.graph(), plan_variables([]), AVX2)
    launches = [i for i in plain.items if isinstance(i, Launch)]
    assert len(launches) < len([i for i in program.items if isinstance(i, Launch)])


def test_outputs_may_live_where_they_are() -> None:
    net = Net()
    x, w = net.input("x", 3), net.parameter("w", 3)
    c = constant(net.b, np.arange(3.0))
    net.output(x=x, w=w, c=c, splat=x.zeros_like(), twice=x)
    program, _, outputs, _ = run_program(net.b.graph(), net.inputs, net.variables)
    assert [program.buffers[program.outputs[n]].space for n in ("x", "w", "c")] == [
        "input",
        "variable",
        "constant",
    ]
    equal(outputs, {"x": net.inputs["x"], "c": np.arange(3.0), "splat": np.zeros(3)})


def test_equal_layers_are_one_kernel() -> None:
    b = Builder("g")
    h = Sym(b, b.add_input("x", TensorType(f64, (8, 8))))
    for i in range(4):
        w = Sym(b, b.add_variable(f"w{i}", TensorType(f64, (8, 8))))
        h = h.matmul(w).tanh()
    b.set_output("y", h.value)
    graph = b.graph()
    program = schedule(graph, plan_variables(graph.variables), AVX2)
    launches = [i for i in program.items if isinstance(i, Launch)]
    assert len(launches) > len(program.kernels)


def test_a_long_chain_is_scheduled() -> None:
    b = Builder("chain")
    x = h = Sym(b, b.add_input("x", TensorType(f64, (4,))))
    for i in range(3000):
        h = h * 0.5 if i % 3 else (h + x).transpose([0]).tanh()
    b.set_output("y", h.value)
    program = schedule(b.graph(), plan_variables([]), AVX2)
    assert len(program.items) < 100


def test_labels_name_operations_and_places() -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f64, (8, 8))))
    with b.at(Loc("m.onnx", "fc1/Gemm")):
        h = x.matmul(x) + 1.0
    with b.at(Loc("m.onnx", "relu1")):
        h = h.relu()
    b.set_output("y", h.value)
    program = schedule(b.graph(), plan_variables([]), AVX2)
    assert program.items[-1].label == "dot_general+add+relu fc1/Gemm"
    assert program.items[-1].loc == Loc("m.onnx", "fc1/Gemm")


def test_the_type_of_flags() -> None:
    net = Net()
    x = net.input("x", 4, 4)
    net.output(any=(x > 0).any([0, 1]).where(1.0, x.sum()))
    plan = net.plan()
    assert all(h.type.dtype != bool_ or h.type.size <= 16 for w in plan.works for h in w.homes)
