"""Losses that stand in the model itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import op
from tapeout.ir.dtype import i64
from tapeout.ops.composite.softmax import log_softmax

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym


@op("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood(call: Call, x: Sym, target: Sym, weight: Sym | None = None) -> Sym:
    return _picked_loss(call, x, target, weight)


@op("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy(
    call: Call, scores: Sym, labels: Sym, weights: Sym | None = None
) -> tuple[Sym, Sym]:
    call.require(scores.rank >= 2, f"scores must have a class dimension, they are {scores.type}")
    log_prob = log_softmax(scores, 1)
    return _picked_loss(call, log_prob, labels, weights), log_prob


def _picked_loss(call: Call, log_prob: Sym, labels: Sym, weight: Sym | None) -> Sym:
    """Return minus the logarithm at each label, weighted by class, reduced as the node asks."""
    reduction = call.choice("reduction", ("mean", "sum", "none"), "mean")
    expected = (log_prob.shape[0], *log_prob.shape[2:])
    call.require(
        labels.shape == expected, f"labels are {labels.type}, shape {list(expected)} is expected"
    )
    at = labels.cast(i64)
    counted: Sym | None = None
    if call.has("ignore_index"):
        counted = at != call.integer("ignore_index")
        at = counted.where(at, 0)
    loss = -log_prob.take_along(at.expand_dims([1]), 1).squeeze([1])
    share = None if weight is None else weight.take(at, 0)
    if share is not None:
        loss = loss * share
    if counted is not None:
        loss = counted.where(loss, 0)
        ones = share if share is not None else loss.like(1)
        share = counted.where(ones, 0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if share is None else loss.sum() / share.sum()
