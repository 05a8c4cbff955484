"""Training in mixed precision: products read bf16, activations are kept in it, and all else is f32."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tapeout
from tapeout.api.stages import optimized
from tapeout.cli.main import main
from tapeout.codegen.build import build
from tapeout.ir.dtype import bf16, f16, f32
from tapeout.ir.op import REGISTRY, Composite, Contraction
from tapeout.ir.precision import Precision
from tapeout.ir.text import print_graph
from tapeout.kernel.loops import DOT2
from tapeout.kernel.target import AVX512_BF16, GENERIC
from tapeout.kernel.text import print_kernel
from tapeout.ops import elementwise as ew
from tapeout.oracle import graph as oracle
from tapeout.passes import mixed
from tapeout.runtime.executable import Executable
from tapeout.schedule.build import schedule
from tapeout.schedule.layout import plan_variables
from tests.e2e import networks
from tests.tolerances import TABLE

RECORD = json.loads((networks.RECORDS / "mixed_bf16.json").read_text())


def trainer_of(model, precision, **options):
    return tapeout.Trainer(
        networks.load(model),
        loss=tapeout.losses.cross_entropy("logits"),
        optimizer=tapeout.optimizers.sgd(lr=0.05),
        precision=precision,
        **options,
    )


@pytest.mark.parametrize("model", RECORD["losses"])
def test_losses_stay_as_near_to_exact_ones_as_autocast_does(model, unchecked):
    optimizer = networks.optimizer_of(model)
    exact = np.array(networks.record(model, optimizer)["float64"]["losses"])
    theirs = np.abs(np.array(RECORD["losses"][model]) / exact - 1)
    run = networks.train(model, optimizer, "float32", precision="bf16")
    ours = np.abs(np.array(run.losses) / exact - 1)
    assert ours.max() <= TABLE[("bf16", "network")].rel
    assert ours.mean() <= 3 * theirs.mean()
    assert all(a.dtype == np.float32 for a in run.final.values())


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_the_native_step_computes_its_graph(model):
    trainer = trainer_of(model, "bf16")
    batch = networks.batch_of(model, 0)
    loss, found = trainer.gradients(batch)
    graph = trainer.graph_for("gradients", batch)
    given = {v.name: np.asarray(batch[v.name]) for v in graph.inputs}
    variables = {v.name: trainer.session.read(v.name) for v in graph.variables}
    want = oracle.run(graph, given, variables).outputs
    assert loss == pytest.approx(float(want["loss"]), rel=1e-4)
    for name, got in found.items():
        # An f32 sum near the middle between two bf16 may round either way.
        expected = want[f"grad/{name}"]
        allowed = 2 * TABLE[("bf16", "contraction")].floor * np.max(np.abs(expected))
        np.testing.assert_allclose(got, expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("model", ["lenet", "gpt"])
def test_a_step_in_pairs_computes_the_same(model, unchecked):
    """Scheduled for a machine that multiplies pairs, with code for one that does not."""
    trainer = trainer_of(model, "bf16")
    batch = networks.batch_of(model, 0)
    graph = trainer.graph_for("gradients", batch)
    layout = plan_variables(graph.variables)
    program = schedule(optimized(graph, "avx512-bf16"), layout, AVX512_BF16)
    assert sum(DOT2 in print_kernel(k) for k in program.kernels.values()) >= 6
    objects, entry = build(program, GENERIC, checked=False)
    run = Executable(program, objects, entry=entry, threads=2)
    for v in graph.variables:
        run.set_variable(v.name, trainer.session.read(v.name))
    given = {n: np.asarray(batch[n], t.dtype.numpy) for n, t in program.input_types.items()}
    assert run.run(given) == 0
    got = run.outputs()
    loss, want = trainer.gradients(batch)
    assert float(got["loss"]) == pytest.approx(loss, rel=1e-3)
    for name, expected in want.items():
        allowed = 2 * TABLE[("bf16", "contraction")].floor * np.max(np.abs(expected))
        np.testing.assert_allclose(got[f"grad/{name}"], expected, rtol=0, atol=allowed)


def rounded(value):
    """Whether a value is widened from bf16, maybe moved."""
    node = value.node
    while node is not None and isinstance(node.op, mixed.MOVES):
        node = node.operands[0].node
    return node is not None and isinstance(node.op, ew.Cast) and node.operands[0].type.dtype == bf16


@pytest.mark.parametrize("model", ["mlp", "lenet", "resnet", "gpt", "vit"])
def test_products_read_bf16_and_everything_outside_is_f32(model):
    graph = trainer_of(model, "bf16").graph_for("step")
    products = [n for n in graph.nodes if isinstance(n.op, Contraction)]
    assert products
    for node in products:
        assert all(rounded(v) for v in node.operands), node
        assert node.results[0].type.dtype == f32
    assert all(v.type.dtype != bf16 for _, v in (*graph.outputs, *graph.updates))
    assert all(v.type.dtype != bf16 for v in graph.variables)


def test_what_lies_between_forward_and_backward_is_bf16():
    """All that the backward pass reads of the forward pass, but for small sums, parameters and the loss."""
    graph = trainer_of("gpt", "bf16").graph_for("gradients")
    late = [n for n in graph.nodes if n.loc.role == "backward"]
    early = {v for n in graph.nodes if n.loc.role == "forward" for v in n.results}
    wide = {v for n in late for v in n.operands if v in early and v.type.dtype == f32}
    roots = [mixed._root(v) for v in wide if not rounded(v)]
    kept = [v for v in roots if v.node is not None and v.node.operands]
    largest = max(v.type.size for v in wide)
    assert all(8 * v.type.size <= largest for v in kept), kept


def test_activations_take_about_half():
    with tapeout.Builder("wide") as g:
        x = g.input("x", (2048, 64))
        for n in range(6):
            w = g.parameter(f"w{n}", (64, 64), 0.1 * np.eye(64, dtype=np.float32))
            x = tapeout.nn.gelu(x @ w)
        g.output("loss", x.square().mean())
    sizes = [
        tapeout.Trainer(
            g.graph(), loss="loss", optimizer=tapeout.optimizers.sgd(lr=0.1), precision=p
        ).memory.activations
        for p in (None, "bf16")
    ]
    assert sizes[1] <= 0.7 * sizes[0]


def test_layers_are_excepted_by_glob():
    graph = trainer_of("lenet", {"fc3*": "f32"}).graph_for("step")
    products = [n for n in graph.nodes if isinstance(n.op, Contraction)]
    full = [n for n in products if not any(rounded(v) for v in n.operands)]
    assert len(full) == 3
    assert len({n.loc.name for n in full}) == 1
    assert all(all(map(rounded, n.operands)) for n in products if n not in full)


def test_nothing_changes_without_it():
    plain, named = (trainer_of("mlp", p).graph_for("step") for p in (None, "f32"))
    assert print_graph(plain) == print_graph(named)


def test_what_is_wrong_is_told():
    with pytest.raises(tapeout.OptionError, match="one of f32, bf16"):
        trainer_of("mlp", "bf61")
    with pytest.raises(tapeout.OptionError, match="no layer"):
        trainer_of("mlp", {"heat.*": "f32"})


def test_a_checkpoint_remembers_it_and_goes_on_bit_for_bit(tmp_path):
    trainer = trainer_of("mlp", {"*": "bf16", "fc2*": "f32"})
    trainer.step(networks.batch_of("mlp", 0))
    trainer.save(tmp_path / "run.safetensors")
    trainer.export_onnx(tmp_path / "out.onnx")
    other = tapeout.Trainer.restore(tmp_path / "run.safetensors")
    assert other.precision == trainer.precision
    losses = [t.step(networks.batch_of("mlp", 1))["loss"] for t in (trainer, other)]
    assert losses[0] == losses[1]
    for name, value in trainer.parameters.items():
        assert np.array_equal(value, other.parameters[name])
    exported = tapeout.load_onnx(tmp_path / "out.onnx")
    assert all(v.type.dtype == f32 for v in exported.parameters.values())


def test_the_same_bits_for_any_number_of_threads(unchecked):
    runs = [
        networks.train("resnet", "sgd", "float32", steps=2, precision="bf16", threads=n)
        for n in (1, 3)
    ]
    assert runs[0].losses == runs[1].losses
    for name, tensor in runs[0].final.items():
        assert np.array_equal(tensor, runs[1].final[name]), name


@pytest.mark.parametrize("rows", [8, 1])
@pytest.mark.parametrize("dtype", [bf16, f16], ids=str)
def test_products_of_narrow_models_are_summed_in_f32(rows, dtype):
    """In eight bits a sum of ones would end at 256."""
    with tapeout.Builder("narrow") as g:
        a, b = g.input("a", (rows, 1024), dtype), g.input("b", (1024, 32), dtype)
        g.output("y", a @ b)
    ones = [np.ones(shape, dtype.numpy) for shape in ((rows, 1024), (1024, 32))]
    y = tapeout.compile(g.graph())(a=ones[0], b=ones[1])["y"]
    assert y.dtype == dtype.numpy
    assert np.all(y.astype(np.float32) == 1024)


def test_every_operation_has_a_kind():
    for cls in REGISTRY.values():
        if not issubclass(cls, Composite):
            kind = next(k for classes, k in mixed.KINDS if issubclass(cls, classes))
            assert (kind == mixed.PRODUCT) == issubclass(cls, Contraction)


def test_globs_of_the_command_line():
    assert Precision.of({"head*": "f32"}).rules == (("*", "bf16"), ("head*", "f32"))
    assert Precision.of("bf16").at("anything") == "bf16"
    assert Precision.of(None).is_full


def test_any_graph_can_be_compiled_so():
    graph, batch = networks.load("mlp"), networks.batch_of("mlp", 0)
    given = {v.name: batch[v.name] for v in graph.inputs}
    plain, narrow = (tapeout.compile(graph, precision=p)(given)["logits"] for p in (None, "bf16"))
    assert narrow.dtype == np.float32
    assert 1e-4 < np.max(np.abs(narrow - plain)) / np.max(np.abs(plain)) < 1e-2


_MORE = {"train": ["--epochs", "1", "-o", "out.onnx"], "eval": [], "predict": ["-o", "out.npz"]}


@pytest.mark.parametrize("command", ["check", "train", "eval", "predict"])
def test_the_command_line(command, tmp_path):
    model = str(networks.MODELS / "mlp.onnx")
    words = [command, model, "--precision", "bf16"]
    if command != "check":
        batch = networks.batch_of("mlp", 0)
        for name, array in batch.items():
            np.save(tmp_path / f"{name}.npy", array)
        data = ",".join(f"{name}={tmp_path / name}.npy" for name in batch)
        words += ["--data", data, *_MORE[command]]
    words = [str(tmp_path / w) if w.startswith("out.") else w for w in words]
    assert main(words) == 0
