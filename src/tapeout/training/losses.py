"""Losses. Each is a record of options; `build` writes the formula.

The formulas and defaults are those of `torch.nn.functional`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tapeout.ir.dtype import i64
from tapeout.ir.type import TensorType
from tapeout.ops.composite import loss as composite_loss
from tapeout.ops.composite import softmax as composite_softmax
from tapeout.ops.sym import Sym
from tapeout.support.errors import OptionError, ShapeError, nearest

if TYPE_CHECKING:
    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Graph
    from tapeout.ir.type import Shape

Reduction = Literal["mean", "sum"]


@dataclass
class LossContext:
    """What a loss sees: the model's outputs and inputs, and the place to add label inputs.

    Attributes:
        builder: Holds the model.
        graph: The model.
        shapes: Shapes of the batch by input name, where known.
        notes: One line for each choice made by the loss, told to the user once.
        predictions: What the loss compares with its target, once it is built.
        labels: The class indices, for a loss of classes.
        axis: Dimension of `predictions` that holds the classes.
    """

    builder: Builder
    graph: Graph
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    predictions: Sym | None = None
    labels: Sym | None = None
    axis: int = 1

    def output(self, name: str | None) -> Sym:
        """Return an output by name; None means the only one."""
        outputs = self.graph.output
        if name is None:
            if len(outputs) != 1:
                raise OptionError(
                    f"the model has {len(outputs)} outputs; the loss must name one",
                    hint=nearest("", outputs),
                )
            (name,) = outputs
        if name not in outputs:
            raise OptionError(f"no output is called {name!r}", hint=nearest(name, outputs))
        return Sym(self.builder, outputs[name])

    def target(self, name: str, type: TensorType) -> Sym:
        """Return an input of the model, or a new one of the type, for the target of the loss."""
        known = self.builder.inputs.get(name)
        if known is None:
            known = self.builder.add_input(name, type)
        if known.type != type:
            raise ShapeError(f"target {name!r} is {known.type}, the loss needs {type}")
        return Sym(self.builder, known)


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy against class indices; see `cross_entropy`."""

    output: str | None
    labels: str
    axis: int | None
    from_logits: bool | Literal["auto"]
    ignore_index: int
    label_smoothing: float
    weight: tuple[float, ...] | None
    reduction: Reduction

    def build(self, context: LossContext) -> Sym:
        """Write the formula and return the loss, a scalar."""
        logits, probabilities = self._logits(context)
        axis = self._axis(logits, context)
        shape = tuple(n for i, n in enumerate(logits.shape) if i != axis)
        labels = context.target(self.labels, TensorType(i64, shape))
        context.predictions, context.labels, context.axis = logits, labels, axis
        if axis != logits.rank - 1:
            order = [i for i in range(logits.rank) if i != axis] + [axis]
            logits = logits.transpose(order)
        if probabilities:
            logits = logits.clip(float(np.finfo(logits.dtype.numpy).tiny), float("inf")).log()
        weight = (
            None
            if self.weight is None
            else logits.constant(np.asarray(self.weight, logits.dtype.numpy))
        )
        return composite_loss.cross_entropy(
            logits,
            labels,
            weight=weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            normalized=probabilities,
        )

    def _logits(self, context: LossContext) -> tuple[Sym, bool]:
        """Return (scores, whether they are probabilities)."""
        out = context.output(self.output)
        if self.from_logits is True:
            return out, False
        source = logits_behind(out)
        if source is not None:
            kind, value = source
            if self.from_logits == "auto" or kind == "softmax":
                context.notes.append(
                    f"the output is a {kind}: the loss is taken on its input, which is stable"
                )
                return Sym(context.builder, value), False
        return out, self.from_logits is False

    def _axis(self, logits: Sym, context: LossContext) -> int:
        if logits.rank < 2:
            raise ShapeError(
                f"cross entropy needs scores with a batch and a class dimension, got {logits.type}"
            )
        if self.axis is not None:
            return self.axis % logits.rank
        given = context.shapes.get(self.labels)
        if given is None:
            return 1
        fits = [
            i
            for i in range(logits.rank)
            if tuple(n for j, n in enumerate(logits.shape) if j != i) == tuple(given)
        ]
        if len(fits) == 1:
            return fits[0]
        if not fits:
            raise ShapeError(
                f"labels of shape {list(given)} fit no class dimension of the scores {logits.type}"
            )
        if 1 in fits and logits.rank == 2:
            return 1
        raise ShapeError(
            f"dimensions {fits} of the scores {logits.type} may all be the classes",
            hint="pass axis=",
        )


def logits_behind(out: Sym) -> tuple[str, Any] | None:
    """Walk back from an output through Reshape-free identities to a Softmax or LogSoftmax; return (kind, its operand)."""
    node = out.value.node
    if node is None:
        return None
    if isinstance(node.op, composite_softmax.Softmax):
        return "softmax", node.operands[0]
    if isinstance(node.op, composite_softmax.LogSoftmax):
        return "log_softmax", node.operands[0]
    return composite_softmax.decomposed_logits(out.value)


@dataclass(frozen=True)
class Elementwise:
    """The mean (or sum) of a function of prediction and target of equal shape; `options` are what its maker was given."""

    name: str
    output: str | None
    target: str
    reduction: Reduction
    formula: Callable[[Sym, Sym], Sym]
    options: tuple[tuple[str, float], ...] = ()

    def build(self, context: LossContext) -> Sym:
        """Write the formula and return the loss, a scalar."""
        y = context.output(self.output)
        t = context.target(self.target, y.type)
        context.predictions = y
        each = self.formula(y, t)
        return each.mean() if self.reduction == "mean" else each.sum()


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """Minus the log-probability at the label; see `nll`."""

    output: str | None
    labels: str
    ignore_index: int
    reduction: Reduction

    def build(self, context: LossContext) -> Sym:
        """Write the formula and return the loss, a scalar."""
        log_p = context.output(self.output)
        if log_p.rank < 2:
            raise ShapeError(
                f"nll needs log-probabilities with a batch and a class dimension, got {log_p.type}"
            )
        shape = (log_p.shape[0], *log_p.shape[2:])
        labels = context.target(self.labels, TensorType(i64, shape))
        context.predictions, context.labels = log_p, labels
        moved = log_p.transpose([0, *range(2, log_p.rank), 1]) if log_p.rank > 2 else log_p
        return composite_loss.cross_entropy(
            moved, labels, ignore_index=self.ignore_index, reduction=self.reduction, normalized=True
        )


@dataclass(frozen=True)
class Output:
    """A scalar output of the model is the loss itself."""

    name: str

    def build(self, context: LossContext) -> Sym:
        """Return the output."""
        y = context.output(self.name)
        if y.type.rank or not y.dtype.is_float:
            raise OptionError(f"output {self.name!r} is {y.type}; a loss is a float scalar")
        return y


@dataclass(frozen=True)
class Formula:
    """A function of the user's: outputs by name to a scalar Sym."""

    function: Callable[[Mapping[str, Sym]], Sym]

    def build(self, context: LossContext) -> Sym:
        """Call the function with the outputs and inputs of the model by name."""
        known = {
            n: Sym(context.builder, v)
            for n, v in {**context.graph.input, **context.graph.output}.items()
        }
        y = self.function(known)
        if y.type.rank or not y.dtype.is_float:
            raise OptionError(f"the loss function returned {y.type}; a loss is a float scalar")
        return y


Loss = CrossEntropy | Elementwise | NegativeLogLikelihood | Output | Formula


def cross_entropy(
    output: str | None = None,
    *,
    labels: str = "labels",
    axis: int | None = None,
    from_logits: bool | Literal["auto"] = "auto",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    weight: tuple[float, ...] | None = None,
    reduction: Reduction = "mean",
) -> CrossEntropy:
    """Return softmax cross-entropy against integer class indices (`torch.nn.functional.cross_entropy`).

    Args:
        output: The scores; None for the model's only output.
        labels: Name of the input with class indices, of the scores' shape without the class dimension.
        axis: The class dimension; None: the one whose removal gives the labels' shape.
        from_logits: `"auto"` walks back from a Softmax or LogSoftmax to its input; True takes the output as logits as it is;
            False takes it as probabilities.
        ignore_index: Label that takes no part.
        label_smoothing: Share of the target spread over all classes, in [0, 1].
        weight: Weight per class.
        reduction: `mean` (weighted, over what takes part) or `sum`.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise OptionError(f"label_smoothing is {label_smoothing}, it must lie in [0, 1]")
    _known_reduction(reduction)
    return CrossEntropy(
        output,
        labels,
        axis,
        from_logits,
        ignore_index,
        label_smoothing,
        None if weight is None else tuple(weight),
        reduction,
    )


def mse(
    output: str | None = None, *, target: str = "target", reduction: Reduction = "mean"
) -> Elementwise:
    """Return the mean of `(y - t)**2`."""
    _known_reduction(reduction)
    return Elementwise("mse", output, target, reduction, lambda y, t: (y - t).square())


def l1(
    output: str | None = None, *, target: str = "target", reduction: Reduction = "mean"
) -> Elementwise:
    """Return the mean of `|y - t|`; its gradient at `y = t` is 0."""
    _known_reduction(reduction)
    return Elementwise("l1", output, target, reduction, lambda y, t: (y - t).abs())


def huber(
    output: str | None = None,
    *,
    target: str = "target",
    delta: float = 1.0,
    reduction: Reduction = "mean",
) -> Elementwise:
    """Return the mean of `d**2/2` where `|d| <= delta` and `delta*(|d| - delta/2)` elsewhere, `d = y - t`."""
    _known_reduction(reduction)
    if delta <= 0:
        raise OptionError(f"delta is {delta}, it must be positive")

    def formula(y: Sym, t: Sym) -> Sym:
        d = y - t
        size = d.abs()
        return (size <= delta).where(d * d * 0.5, (size - 0.5 * delta) * delta)

    return Elementwise("huber", output, target, reduction, formula, (("delta", delta),))


def bce_with_logits(
    output: str | None = None, *, target: str = "target", reduction: Reduction = "mean"
) -> Elementwise:
    """Return the mean of `softplus(y) - y*t`: binary cross-entropy of `sigmoid(y)` against targets in [0, 1]."""
    _known_reduction(reduction)

    def formula(y: Sym, t: Sym) -> Sym:
        return composite_loss.softplus(y) - y * t

    return Elementwise("bce_with_logits", output, target, reduction, formula)


def nll(
    output: str | None = None,
    *,
    labels: str = "labels",
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> NegativeLogLikelihood:
    """Return minus the log-probability at the label; the output [N, C, …] holds log-probabilities."""
    _known_reduction(reduction)
    return NegativeLogLikelihood(output, labels, ignore_index, reduction)


def as_loss(loss: object) -> Loss:
    """Return a loss from what a user may pass: a record, the name of a scalar output, or a function over Sym.

    Raises:
        OptionError: It is none of these.
    """
    if isinstance(loss, (CrossEntropy, Elementwise, NegativeLogLikelihood, Output, Formula)):
        return loss
    if isinstance(loss, str):
        return Output(loss)
    if callable(loss):
        return Formula(loss)
    raise OptionError(
        f"{loss!r} is no loss",
        hint="use tapeout.losses, the name of a scalar output, or a function over Sym",
    )


BY_NAME: dict[str, Callable[..., Loss]] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "l1": l1,
    "huber": huber,
    "bce_with_logits": bce_with_logits,
    "nll": nll,
}


def _known_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise OptionError(f"reduction is {reduction!r}, it must be 'mean' or 'sum'")
