"""Joins model, loss and optimiser into the entry points of a module."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tapeout.autodiff.gradients import expand
from tapeout.autodiff.reverse import backward
from tapeout.driver.region_checks import with_region_checks
from tapeout.ir.build import rebuilder
from tapeout.ir.dtype import f64, i64
from tapeout.ir.graph import Graph, Module
from tapeout.ir.precision import Precision
from tapeout.ir.type import TensorType
from tapeout.ops.sym import Sym, constant
from tapeout.passes.cse import Cse
from tapeout.passes.dce import Dce
from tapeout.passes.decompose import Decompose
from tapeout.passes.fold import Fold
from tapeout.passes.mixed import Mixed
from tapeout.passes.recognize import Recognize
from tapeout.passes.simplify import Simplify
from tapeout.passes.tables import Tables
from tapeout.support.errors import OptionError
from tapeout.support.loc import Loc
from tapeout.training.losses import LossContext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Value, Variable
    from tapeout.ir.type import Shape
    from tapeout.training.losses import Loss
    from tapeout.training.optimizers import Optimizer

LOSS = "loss"
GRAD = "grad/"
HYPER = "hyper/"
STEP = "optimizer/step"
NOT_FINITE = "the loss is not finite"
GRADIENT_NOT_FINITE = "the norm of the gradients is not finite"
FULL = Precision()
"""Everything in the types of the model."""


def loss_graph(
    graph: Graph,
    loss: Loss,
    *,
    shapes: Mapping[str, Shape] | None = None,
    notes: list[str] | None = None,
) -> tuple[Graph, LossContext]:
    """Return the model with the output `loss` in front of its own, and what the loss saw.

    Args:
        graph: The model with every dimension bound.
        loss: The loss.
        shapes: Shapes of the batch by input name, where known (labels of more than one dimension need it).
        notes: Gets one line for each choice the loss made.
    """
    graph = with_region_checks(Tables().run(Recognize().run(graph)))
    b = _kept(graph, graph.name)
    context = LossContext(b, graph, shapes or {}, [] if notes is None else notes)
    with b.at(Loc("", LOSS, "loss")):
        value = loss.build(context)
    b.set_output(LOSS, value.value)
    for name, out in graph.outputs:
        if name != LOSS:
            b.set_output(name, out)
    for name, new in graph.updates:
        b.set_update(name, new)
    return replace(b.graph(graph.dims), origin=graph.origin), context


def training_module(
    graph: Graph,
    loss: Loss,
    optimizer: Optimizer | None,
    *,
    evaluation: Graph | None = None,
    clip_norm: float | None = None,
    wrt: Sequence[str] | None = None,
    shapes: Mapping[str, Shape] | None = None,
    notes: list[str] | None = None,
    precision: Precision = FULL,
) -> Module:
    """Return the module with `step` (when there is an optimiser), `gradients`, `evaluate` and `predict`.

    Args:
        graph: The model in training mode, every dimension bound.
        loss: The loss.
        optimizer: The optimiser, or None for gradients only.
        evaluation: The model in inference mode; None when it is the same.
        clip_norm: Scale all gradients together so that their norm is at most this.
        wrt: Names for `gradients`; None for all trainable parameters.
        shapes: Shapes of the batch by input name, where known.
        notes: Gets one line for each choice the loss made.
        precision: In which layers products read bf16.

    Raises:
        OptionError: Nothing is trainable, or a name is unknown.
    """
    graphs = [gradient_entry(graph, loss, wrt, shapes, notes, precision)]
    if optimizer is not None:
        graphs.insert(0, step_entry(graph, loss, optimizer, clip_norm, shapes, precision))
    graphs += [
        evaluate_entry(evaluation or graph, loss, shapes, precision),
        predict_entry(evaluation or graph, precision),
    ]
    variables: dict[str, Variable] = {}
    for g in graphs:
        for v in g.variables:
            variables.setdefault(v.name, v)
    return Module(graph.name, tuple(variables.values()), tuple(graphs))


def step_entry(
    graph: Graph,
    loss: Loss,
    optimizer: Optimizer,
    clip_norm: float | None,
    shapes: Mapping[str, Shape] | None,
    precision: Precision = FULL,
) -> Graph:
    """Return the training step: outputs `loss` (and `grad_norm` with clipping), updates of parameters and states."""
    with_loss, _ = loss_graph(graph, loss, shapes=shapes)
    with_loss = expand(with_loss)
    b = _kept(with_loss, "step")
    trained = [v for v in with_loss.parameters.values() if v.trainable and v.type.dtype.is_float]
    if not trained:
        raise OptionError(
            "no parameter is trainable",
            hint="unfreeze some: model.unfreeze('head.*'), trainable=, or --trainable",
        )
    value = Sym(b, with_loss.output[LOSS])
    add_checks(b)
    with b.at(Loc("", LOSS, "check")):
        b.add_check((value.is_nan() | (value.abs() == float("inf"))).value, NOT_FINITE)
    found = backward(
        b, tuple(b.nodes), {value.value: constant(b, 1.0, value.dtype)}, [v.value for v in trained]
    )
    b.set_output(LOSS, value.value)
    for name, new in with_loss.updates:
        b.set_update(name, new)
    grads = [(v, found[v.value]) for v in trained]
    if not precision.is_full:
        b, grads = _in_precision(b, grads, precision)
    with b.at(Loc("", "clip", "update")):
        grads = _clipped(b, grads, clip_norm)
    with b.at(Loc("", "optimizer", "update")):
        _update(b, grads, optimizer)
    return b.graph()


def _in_precision(
    b: Builder, grads: list[tuple[Variable, Sym | None]], precision: Precision
) -> tuple[Builder, list[tuple[Variable, Sym | None]]]:
    """Return what a builder holds, and gradients in it, with products that read bf16; what follows is not touched."""
    for v, g in grads:
        if g is not None:
            b.set_output(GRAD + v.name, g.value)
    graph = mixed(b.graph(), precision)
    b = _kept(graph, graph.name)
    found = graph.output
    for name, value in graph.outputs:
        if not name.startswith(GRAD):
            b.set_output(name, value)
    for name, value in graph.updates:
        b.set_update(name, value)
    return b, [(v, None if g is None else Sym(b, found[GRAD + v.name])) for v, g in grads]


def mixed(graph: Graph, precision: Precision) -> Graph:
    """Return a graph of which products read bf16 where a precision says so."""
    if precision.is_full:
        return graph
    # What is computed twice must be one value by now, for it is kept then.
    for step in (Decompose(), Fold(), Simplify(), Cse(), Dce(), Mixed(precision)):
        graph = step.run(graph)
    return graph


def gradient_entry(
    graph: Graph,
    loss: Loss,
    wrt: Sequence[str] | None,
    shapes: Mapping[str, Shape] | None,
    notes: list[str] | None = None,
    precision: Precision = FULL,
) -> Graph:
    """Return the graph with outputs `loss` and `grad/<name>`; it updates nothing."""
    from tapeout.autodiff.gradients import named_values

    with_loss, _ = loss_graph(graph, loss, shapes=shapes, notes=notes)
    with_loss = expand(with_loss)
    b = _kept(with_loss, "gradients")
    add_checks(b)
    values = named_values(with_loss, "parameters" if wrt is None else wrt)
    value = Sym(b, with_loss.output[LOSS])
    found = backward(
        b, tuple(b.nodes), {value.value: constant(b, 1.0, value.dtype)}, values.values()
    )
    b.set_output(LOSS, value.value)
    for name, v in values.items():
        cotangent = found[v]
        b.set_output(
            GRAD + name, (Sym(b, v).zeros_like() if cotangent is None else cotangent).value
        )
    return mixed(b.graph(), precision)


def loss_entry(
    graph: Graph, loss: Loss, shapes: Mapping[str, Shape] | None, precision: Precision = FULL
) -> Graph:
    """Return the forward pass in training mode with the one output `loss`; it updates nothing."""
    with_loss, context = loss_graph(graph, loss, shapes=shapes)
    b = context.builder
    b.name = "loss"
    b.updates.clear()
    b.outputs.clear()
    b.set_output(LOSS, with_loss.output[LOSS])
    add_checks(b)
    return mixed(b.graph(), precision)


def evaluate_entry(
    graph: Graph, loss: Loss, shapes: Mapping[str, Shape] | None, precision: Precision = FULL
) -> Graph:
    """Return the graph with outputs `loss` and, for class labels, `correct` and `counted` (i64 scalars)."""
    with_loss, context = loss_graph(graph, loss, shapes=shapes)
    b = context.builder
    b.name = "evaluate"
    b.updates.clear()
    b.outputs.clear()
    b.set_output(LOSS, with_loss.output[LOSS])
    if context.predictions is not None and context.labels is not None:
        with b.at(Loc("", "metrics", "loss")):
            ignored = getattr(loss, "ignore_index", -100)
            best = context.predictions.argmax([context.axis]).cast(i64)
            takes_part = context.labels != ignored
            correct = ((best == context.labels) & takes_part).cast(i64).sum()
            counted = takes_part.cast(i64).sum()
        b.set_output("correct", correct.value)
        b.set_output("counted", counted.value)
    add_checks(b)
    return mixed(b.graph(), precision)


def predict_entry(graph: Graph, precision: Precision = FULL) -> Graph:
    """Return the model itself: its outputs and no update."""
    graph = Tables().run(Recognize().run(graph))
    graph = with_region_checks(graph)
    b = _kept(graph, "predict")
    add_checks(b)
    for name, value in graph.outputs:
        b.set_output(name, value)
    return mixed(b.graph(), precision)


def add_checks(b: Builder) -> None:
    """Add the preconditions of all nodes so far (indices in range) as checks."""
    seen: set[tuple[str, Value]] = set()
    for node in tuple(b.nodes):
        with b.at(node.loc.as_role("check")):
            found = node.op.precondition(tuple(Sym(b, v) for v in node.operands))
        if found is None:
            continue
        bad, message = found
        key = (message, node.operands[1] if len(node.operands) > 1 else node.operands[0])
        if key not in seen:
            seen.add(key)
            place = f"{node.loc}: " if node.loc.role == "forward" and node.loc else ""
            b.add_check(bad.value, place + message)


def training_step(
    graph: Graph,
    loss: Loss,
    optimizer: Optimizer,
    *,
    clip_norm: float | None = None,
    precision: Precision = FULL,
) -> Graph:
    """Return the combined training step as one graph, dimensions still unbound where the model's are."""
    return graph.then(lambda g: step_entry(g, loss, optimizer, clip_norm, None, precision))


def _kept(graph: Graph, name: str) -> Builder:
    b = rebuilder(graph, name)
    for node in graph.nodes:
        b.keep(node)
    b.checks += graph.checks
    return b


def _clipped(
    b: Builder, grads: list[tuple[Variable, Sym | None]], clip_norm: float | None
) -> list[tuple[Variable, Sym | None]]:
    """Scale by `min(1, clip_norm / (norm + 1e-6))` as `torch.nn.utils.clip_grad_norm_`."""
    if clip_norm is None:
        return grads
    if not clip_norm > 0:
        raise OptionError(f"clip_norm is {clip_norm}, it must be above 0")
    total: Sym | None = None
    for _, g in grads:
        if g is not None:
            part = g.square().sum()
            total = part if total is None else total + part
    if total is None:
        return grads
    norm = total.sqrt()
    b.set_output("grad_norm", norm.value)
    b.add_check((norm.is_nan() | (norm == float("inf"))).value, GRADIENT_NOT_FINITE)
    factor = (clip_norm / (norm + 1e-6)).minimum(1.0)
    return [(v, None if g is None else g * factor) for v, g in grads]


def _update(b: Builder, grads: list[tuple[Variable, Sym | None]], optimizer: Optimizer) -> None:
    hyper = {
        name: Sym(
            b,
            b.add_variable(
                HYPER + name, TensorType(f64), "hyper", initial=np.asarray(x, np.float64)
            ),
        )
        for name, x in optimizer.hyper.items()
    }
    counter = Sym(b, b.add_variable(STEP, TensorType(i64), "state", initial=np.zeros((), np.int64)))
    count = counter + 1
    b.set_update(STEP, count.value)
    scalars = optimizer.scalars(hyper, count.cast(f64))
    states = {name: [_state(b, name, v) for v, _ in grads] for name in optimizer.states}
    for i, (v, found) in enumerate(grads):
        w = Sym(b, v.value)
        g = w.zeros_like() if found is None else found
        with b.at(Loc("", v.name, "update")):
            scalar = {n: s.cast(w.dtype) for n, s in scalars.items()}
            new, changed = optimizer.update(w, g, {n: s[i] for n, s in states.items()}, scalar)
            b.set_update(v.name, new.value)
            for name, x in changed.items():
                b.set_update(f"{name}/{v.name}", x.value)


def _state(b: Builder, name: str, v: Variable) -> Sym:
    zeros = np.zeros(v.type.shape, v.type.dtype.numpy)
    return Sym(b, b.add_variable(f"{name}/{v.name}", v.type, "state", initial=zeros))
