"""Loss and gradients of an exported module: native code in f64 against autograd in f64."""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import tapeout
from tapeout.driver.step import gradient_entry
from tapeout.passes.precision import widen
from tapeout.training.losses import Formula
from tests.tolerances import GRADCHECK_ZERO_FLOOR, close
from tests.torch_matrix.case import EXPORTED_BATCH, FED_BATCH
from tests.torch_matrix.exporting import ExportFailed, build, export, flat, sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from tapeout.ir.graph import Graph
    from tapeout.training.losses import Loss
    from tests.torch_matrix.case import Case, Variant
    from tests.torch_matrix.exporting import Exported

Array = np.ndarray[Any, Any]
FACTOR = 1e3
REASON = "attributes and constants of the file are rounded to f32"
NOISE, NOISE_F32 = GRADCHECK_ZERO_FLOOR, 1e-6
"""Of the largest gradient: what is left of a gradient that is zero by the mathematics, such as a bias of keys."""


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        dynamic: Whether the batch was open.
        loss: Ours.
        compared: Names of what was compared.
        folded: Parameters of the module that the file no longer holds.
    """

    dynamic: bool
    loss: float
    compared: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)


def weights(shape: tuple[int, ...]) -> Array:
    """Return the fixed weights that the loss gives the entries of a result, by its shape."""
    rng = np.random.default_rng(zlib.crc32(repr(tuple(map(int, shape))).encode()))
    return rng.uniform(0.5, 1.5, [int(n) for n in shape]) * rng.choice(
        [-1.0, 1.0], [int(n) for n in shape]
    )


def labels(case: Case, shape: tuple[int, ...]) -> Array:
    """Return fixed class indices for scores [..., classes]."""
    rng = np.random.default_rng(1)
    return rng.integers(0, case.classes or 1, shape[:-1]).astype(np.int64)


@dataclass
class Expected:
    """What autograd says, in f64: gradients by name of parameter, and by position of argument."""

    loss: float
    parameters: dict[str, Array]
    gradients: dict[str, Array]
    inputs: dict[str, Array]
    results: list[Array]


def expected(
    case: Case, module: nn.Module, args: tuple[torch.Tensor, ...], names: list[str]
) -> Expected:
    """Return loss and gradients by autograd."""
    wide = copy.deepcopy(module).double()
    for part in wide.modules():
        if isinstance(part, torch.nn.Embedding | torch.nn.EmbeddingBag):
            part.padding_idx = None  # keeps the gradient of a row back, which no file can say
        if isinstance(part, torch.nn.RMSNorm) and part.eps is None:
            part.eps = torch.finfo(torch.float32).eps  # that of the type it was exported with
    fed = [a.double().requires_grad_() if a.is_floating_point() else a for a in args]
    results = [t for t in flat(wide(*fed)) if t.is_floating_point()]
    if case.classes:
        (scores,) = results
        target = torch.from_numpy(labels(case, tuple(scores.shape)))
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, -2), target.flatten())
    else:
        loss = sum(
            (torch.from_numpy(weights(tuple(t.shape))) * (t + t * t)).mean() for t in results
        )
    loss.backward()
    trained = {n: p for n, p in wide.named_parameters() if p.requires_grad}
    return Expected(
        float(loss.detach()),
        {n: p.detach().numpy() for n, p in trained.items()},
        {n: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for n, p in trained.items()},
        {
            n: np.zeros(a.shape) if a.grad is None else a.grad.numpy()
            for n, a in zip(names, fed, strict=True)
            if a.is_floating_point()
        },
        [t.detach().numpy() for t in results],
    )


def loss_of(case: Case, exported: Exported) -> Loss:
    """Return the same loss for tapeout."""
    if case.classes:
        return tapeout.losses.cross_entropy(exported.outputs[0], axis=-1)

    def formula(known: Mapping[str, Any]) -> Any:
        total = None
        for name in exported.outputs:
            y = known[name]
            w = weights(y.shape).astype(y.dtype.numpy)
            made = (y.constant(w) * (y + y * y)).mean()
            total = made if total is None else total + made
        return total

    return Formula(formula)


def check(case: Case, variant: Variant, *, wide: bool = True) -> Outcome:
    """Export, import, differentiate, compile, run, compare.

    Args:
        case: The module.
        variant: How it is exported.
        wide: Whether native code computes in f64, as autograd does; else in f32, to the tolerance of f32.

    Raises:
        ExportFailed: PyTorch could not export.
        TapeoutError: tapeout could not take the file.
        AssertionError: Figures differ, or a parameter is missing.
    """
    if variant.folds:  # exporters fold for inference
        case = replace(case, train=False)
    module = build(case)
    exported = export(case, variant, module)
    batch = FED_BATCH if exported.dynamic else EXPORTED_BATCH
    args = sample(case, batch)
    want = expected(case, module, args, exported.inputs)
    feed = {n: a.numpy() for n, a in zip(exported.inputs, args, strict=True)}
    try:
        graph = imported(case, exported, args)
        graph = graph.then(widen) if wide else graph
        loss, found = gradients(case, exported, graph, feed)
        outcome = Outcome(exported.dynamic, loss)
        compare(
            outcome, graph, want, loss, found, folds=variant.folds, single=case.single or not wide
        )
    except (tapeout.TapeoutError, AssertionError):
        theirs = wrong_file(exported, feed, want)
        if theirs:
            raise ExportFailed(theirs) from None
        raise
    return outcome


def imported(case: Case, exported: Exported, args: tuple[torch.Tensor, ...]) -> Graph:
    """Return the graph with its dimensions bound."""
    mode = "train" if case.train else "eval"
    graph = tapeout.load_onnx(exported.data, mode=mode, trainable=["*", *exported.scalars])
    if exported.dynamic:
        assert graph.dims, "the file has an open batch, the graph has none"
        graph = graph.bind({n: args_batch(case, args) for n in graph.dims})
    return graph


def wrong_file(exported: Exported, feed: dict[str, Array], want: Expected) -> str:
    """Return what another engine has against a file that we could not take; the empty string where it is the module."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(exported.data, options)
        taken = {i.name for i in session.get_inputs()}
        got = session.run(exported.outputs, {n: a for n, a in feed.items() if n in taken})
    except Exception as error:
        text = " ".join(str(error).split())
        known = "NOT_IMPLEMENTED" in text or "opset" in text.lower()
        return (
            ""
            if known
            else f"the file is not valid: onnxruntime: {text.rpartition('Status Message: ')[2]}"[
                :240
            ]
        )
    if b"BatchNormalization" in exported.data:  # in inference form whatever the module was
        return ""
    for name, a, b in zip(exported.outputs, got, want.results, strict=True):
        if a.shape != b.shape or not np.allclose(a, b, 1e-3, 1e-4, equal_nan=True):
            return f"the file is not the module: onnxruntime gets another {name} than PyTorch"
    return ""


def args_batch(case: Case, args: tuple[torch.Tensor, ...]) -> int:
    """Return the rows of a sample."""
    for feed, a in zip(case.feeds, args, strict=True):
        if feed.batch_axis is not None:
            return a.shape[feed.batch_axis]
    return 1


def gradients(
    case: Case, exported: Exported, graph: Graph, feed: dict[str, Array]
) -> tuple[float, dict[str, Array]]:
    """Return loss and gradients by name, of parameters and float inputs, from native code."""
    floats = [n for n, v in graph.input.items() if v.type.dtype.is_float]
    wanted = [*graph.parameters, *floats]
    entry = gradient_entry(
        graph, loss_of(case, exported), wanted, _label_shapes(case, exported, graph)
    )
    run = tapeout.compile(entry, threads=1)
    types = {n: v.type.dtype.numpy for n, v in graph.input.items()}
    given = {n: a.astype(types[n]) for n, a in feed.items() if n in types}
    if case.classes:
        shape = tuple(int(n) for n in graph.output[exported.outputs[0]].type.shape)
        given["labels"] = labels(case, shape)
    results = run({n: a for n, a in given.items() if n in entry.input})
    made = {n.removeprefix("grad/"): a for n, a in results.items() if n.startswith("grad/")}
    return float(results["loss"]), made


def _label_shapes(
    case: Case, exported: Exported, graph: Graph
) -> dict[str, tuple[int, ...]] | None:
    if not case.classes:
        return None
    return {"labels": tuple(int(n) for n in graph.output[exported.outputs[0]].type.shape[:-1])}


def compare(
    outcome: Outcome,
    graph: Graph,
    want: Expected,
    loss: float,
    found: dict[str, Array],
    *,
    folds: bool,
    single: bool = False,
) -> None:
    """Hold everything against autograd.

    Raises:
        AssertionError: It says what differs.
    """
    _near("loss", np.float64(loss), np.float64(want.loss), abs(want.loss), single)
    everything = [*want.gradients.values(), *want.inputs.values()]
    scale = max((float(np.abs(g).max(initial=0)) for g in everything), default=0.0)
    initial = {n: np.asarray(v.initial, np.float64) for n, v in graph.parameters.items()}
    for theirs, ours in matched(initial, want.parameters).items():
        gradient = sum(found[n].T if turned else found[n] for n, turned in ours)
        _near(theirs, gradient, want.gradients[theirs], scale, single)
        outcome.compared.append(theirs)
    for name, gradient in want.inputs.items():
        if name in found:
            _near(name, found[name], gradient, scale, single)
            outcome.compared.append(name)
        else:
            assert not gradient.any(), f"the file has lost the argument {name}"
    outcome.folded = [n for n in want.parameters if n not in outcome.compared]
    lost = [n for n in outcome.folded if want.gradients[n].any()]
    assert folds or not lost, f"no parameter of the graph is the module's {', '.join(lost[:4])}"
    if not folds:
        assert outcome.compared, "nothing was compared"


def matched(
    ours: Mapping[str, Array], theirs: Mapping[str, Array]
) -> dict[str, list[tuple[str, bool]]]:
    """Return for each of their parameters which of ours hold it, and whether transposed.

    A parameter that the module reads twice may have become two, of which each gets a part of the gradient.
    """
    found: dict[str, list[tuple[str, bool]]] = {}
    for name, array in theirs.items():
        for other, made in ours.items():
            if np.array_equal(made, array):
                found.setdefault(name, []).append((other, False))
            elif array.ndim == 2 and np.array_equal(made.T, array):
                found.setdefault(name, []).append((other, True))
    return found


def _near(name: str, got: Array, want: Array, scale: float, single: bool) -> None:
    assert got.shape == want.shape, f"{name} is {got.shape}, PyTorch has {want.shape}"
    far = float(np.abs(got - want).max(initial=0))
    if far <= (NOISE_F32 if single else NOISE) * scale:
        return
    try:
        if single:
            close(got.astype(np.float32), want.astype(np.float32), "network")
        else:
            close(got, want, "network", factor=FACTOR, reason=REASON)
    except AssertionError as error:
        largest = float(np.abs(want).max(initial=0))
        raise AssertionError(
            f"{name} differs by {far:.1e} where the largest entry is {largest:.1e}"
        ) from error
