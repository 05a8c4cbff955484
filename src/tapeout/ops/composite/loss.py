"""Cross-entropy against class indices, as `torch.nn.functional.cross_entropy` has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.dtype import f32, i32, i64
from tapeout.ir.op import Composite, register
from tapeout.ir.type import TensorType
from tapeout.ops import elementwise as ew
from tapeout.ops.sym import iota
from tapeout.support.errors import OptionError, ShapeError

if TYPE_CHECKING:
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Sym


@register
class SoftmaxCrossEntropy(Composite):
    """The loss (a scalar), and the log-sum-exp of each row unless `normalized`.

    Operands are the logits [*, C], labels i64 [*], and optionally a weight per class [C]. Floats of 16 bits are computed in f32.
    With `normalized` the first operand holds log-probabilities already.
    """

    name = "softmax_cross_entropy"
    ignore_index: int = -100
    label_smoothing: float = 0.0
    reduction: str = "mean"
    normalized: bool = False

    def __post_init__(self) -> None:
        """Check the attributes."""
        if self.reduction not in ("mean", "sum"):
            raise OptionError(f"reduction is {self.reduction!r}, expected 'mean' or 'sum'")
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise OptionError(f"label_smoothing is {self.label_smoothing}, expected 0..1")

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the loss, then the log-sum-exp of each row."""
        if len(types) not in (2, 3):
            raise ShapeError(f"{self.name} takes 2 or 3 operands, got {len(types)}")
        x, labels = types[:2]
        if x.rank < 1 or not x.dtype.is_float:
            raise ShapeError(f"{self.name}: the scores are {x}, expected floats [*, C]")
        if labels != TensorType(i64, x.shape[:-1]):
            wanted = TensorType(i64, x.shape[:-1])
            raise ShapeError(
                f"{self.name}: the labels are {labels}, expected {wanted} for scores {x}"
            )
        if len(types) == 3 and types[2] != x.with_shape(x.shape[-1:]):
            wanted = x.with_shape(x.shape[-1:])
            raise ShapeError(f"{self.name}: the class weights are {types[2]}, expected {wanted}")
        loss = x.with_shape(())
        wide = f32 if x.dtype.bits == 16 else x.dtype
        return (loss,) if self.normalized else (loss, TensorType(wide, x.shape[:-1]))

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the loss and the log-sum-exp."""
        rows = _Rows.of(self, operands)
        x, epsilon = rows.x, self.label_smoothing
        if self.normalized:
            shifted, log_sum, lse = x, None, None
        else:
            most = x.max(x.rank - 1)
            shifted = x - most.expand_dims([-1])
            log_sum = rows.each.sum(x.rank - 1).log()
            lse = most + log_sum
        picked = rows.here.where(shifted, 0).sum(x.rank - 1)
        each = rows.weighted(-picked if log_sum is None else log_sum - picked) * (1 - epsilon)
        if epsilon:
            scores = shifted if rows.weight is None else shifted * rows.weight
            spread = scores.sum(x.rank - 1)
            whole = -spread if log_sum is None else log_sum * rows.total_weight - spread
            each = each + whole * (epsilon / int(x.shape[-1]))
        total = rows.valid.where(each, 0).sum()
        loss = total / rows.denominator if self.reduction == "mean" else total
        loss = loss.cast(operands[0].dtype)
        return (loss,) if lse is None else (loss, lse)

    def pullback(
        self,
        cotangents: tuple[Sym | None, ...],
        operands: tuple[Sym, ...],
        results: tuple[Sym, ...],
    ) -> tuple[Sym | None, ...]:
        """Return `(softmax - target) * scale`, nothing for labels, and the share of each class weight."""
        rows = _Rows.of(self, operands)
        log_p = rows.x if self.normalized else rows.x - results[1].expand_dims([-1])
        dlse = None if self.normalized else cotangents[1]
        scale = None if cotangents[0] is None else cotangents[0].cast(rows.x.dtype)
        if scale is not None and self.reduction == "mean":
            scale = scale / rows.denominator
        dx = self._for_scores(rows, log_p, scale, dlse).cast(operands[0].dtype)
        if len(operands) == 2:
            return dx, None
        dw = None if scale is None else self._for_weight(rows, log_p, scale, results[0])
        return dx, None, None if dw is None else dw.cast(operands[2].dtype)

    def _for_scores(self, rows: _Rows, log_p: Sym, scale: Sym | None, dlse: Sym | None) -> Sym:
        """Return the cotangent of the scores: `mass * softmax - target`, both scaled per row."""
        mass, target = dlse, None
        if scale is not None:
            smooth = self.label_smoothing / int(rows.x.shape[-1])
            row = rows.valid.where(scale.broadcast_to(rows.valid.shape), 0)
            hit = rows.weighted(row) * (1 - self.label_smoothing)
            target = rows.here.where(hit.expand_dims([-1]).broadcast_to(rows.x.shape), 0)
            if smooth:
                each = (row * smooth).expand_dims([-1])
                target = target + (each if rows.weight is None else each * rows.weight)
            whole = hit + row * rows.total_weight * smooth if smooth else hit
            mass = whole if mass is None else mass + whole
        if self.normalized:
            assert target is not None
            return -target
        assert mass is not None
        soft = rows.each * (mass / rows.each.sum(rows.x.rank - 1)).expand_dims([-1])
        return soft if target is None else soft - target

    def _for_weight(self, rows: _Rows, log_p: Sym, scale: Sym, loss: Sym) -> Sym:
        """Return the cotangent of the class weights."""
        smooth = self.label_smoothing / int(rows.x.shape[-1])
        part = rows.here.where(log_p * -(1 - self.label_smoothing), 0)
        if smooth:
            part = part - log_p * smooth
        if self.reduction == "mean":
            part = part - rows.here.where(loss.cast(rows.x.dtype).broadcast_to(rows.x.shape), 0)
        kept = rows.valid.expand_dims([-1]).broadcast_to(rows.x.shape).where(part, 0)
        return kept.sum(range(rows.x.rank - 1)) * scale

    def precondition(self, operands: tuple[Sym, ...]) -> tuple[Sym, str] | None:
        """Every label must be a class or `ignore_index`."""
        x, labels = operands[:2]
        outside = (labels < 0) | (labels >= int(x.shape[-1]))
        bad = (labels != self.ignore_index) & outside
        return bad.any(), f"labels hold a class outside 0..{int(x.shape[-1]) - 1}"

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """Return the loss row by row, as its definition says."""
        x, labels = arrays[0].astype(np.float64), arrays[1].ravel()
        classes = x.shape[-1]
        weight = arrays[2].astype(np.float64) if len(arrays) == 3 else np.ones(classes)
        flat = x.reshape(-1, classes)
        with np.errstate(all="ignore"):
            lse = np.logaddexp.reduce(flat, axis=1)
            log_p = flat if self.normalized else flat - lse[:, None]
            total, mass, epsilon = 0.0, 0.0, self.label_smoothing
            for row, label in zip(log_p, labels.tolist(), strict=True):
                if label == self.ignore_index:
                    continue
                smooth = epsilon / classes * (weight * row).sum() if epsilon else 0.0
                total -= (1 - epsilon) * weight[label] * row[label] + smooth
                mass += weight[label]
            mean = np.float64(total) / np.float64(mass)
        loss = np.asarray(mean if self.reduction == "mean" else total).astype(arrays[0].dtype)
        if self.normalized:
            return (loss,)
        wide = np.float32 if arrays[0].dtype.itemsize == 2 else arrays[0].dtype
        return loss, lse.reshape(arrays[1].shape).astype(wide)


@dataclass(frozen=True)
class _Rows:
    """What the loss and its gradient both need of the operands.

    Attributes:
        x: The scores, at least f32.
        valid: Which rows take part, bool [*].
        here: Where the label stands in its row, bool [*, C]; nowhere in rows that are ignored.
        weight: The weight per class [C], or None.
    """

    x: Sym
    valid: Sym
    here: Sym
    weight: Sym | None

    @classmethod
    def of(cls, op: SoftmaxCrossEntropy, operands: tuple[Sym, ...]) -> _Rows:
        """Return the parts of the operands."""
        x, labels = operands[:2]
        wide = f32 if x.dtype.bits == 16 else x.dtype
        valid = labels != op.ignore_index
        # i32 compares twice as many lanes as i64; -1 is no class.
        label = valid.where(labels, -1).cast(i32).expand_dims([-1]).broadcast_to(x.shape)
        here = iota(x.builder, x.shape, x.rank - 1) == label
        weight = operands[2].cast(wide) if len(operands) == 3 else None
        return cls(x.cast(wide), valid, here, weight)

    @property
    def each(self) -> Sym:
        """The exponential of each score, shifted by the greatest of its row: the loss and its gradient share it."""
        return (self.x - self.x.max(self.x.rank - 1, keepdims=True)).exp()

    @property
    def label_weight(self) -> Sym:
        """The weight of each row's label, 0 in rows that are ignored [*]."""
        assert self.weight is not None
        return self.here.where(self.weight.broadcast_to(self.x.shape), 0).sum(self.x.rank - 1)

    def weighted(self, row: Sym) -> Sym:
        """Return a number per row times the weight of its label."""
        return row if self.weight is None else row * self.label_weight

    @property
    def total_weight(self) -> Sym | int:
        """The sum of the class weights; without weights the number of classes."""
        return int(self.x.shape[-1]) if self.weight is None else self.weight.sum()

    @property
    def denominator(self) -> Sym:
        """What a mean divides by: the weights of the labels, or the number of rows that take part."""
        if self.weight is None:
            return self.valid.cast(i32).sum().cast(self.x.dtype)
        return self.label_weight.sum()


def cross_entropy(
    logits: Sym,
    labels: Sym,
    *,
    weight: Sym | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    normalized: bool = False,
) -> Sym:
    """Return the cross-entropy of scores against class indices.

    Args:
        logits: Scores [*, C]; log-probabilities if `normalized`.
        labels: Class of each row [*], 0..C-1 or `ignore_index`; other labels make the step fail before any update.
        weight: Weight per class [C].
        ignore_index: Label of rows that take no part.
        label_smoothing: Share of the target spread over all classes, 0..1.
        reduction: `mean` (over the weights of the rows that take part) or `sum`.
        normalized: Whether no log-softmax is to be applied (`nll_loss`).

    Returns:
        A scalar.

    Raises:
        ShapeError: The shapes do not fit.
        OptionError: An option has no meaning.
    """
    op = SoftmaxCrossEntropy(
        ignore_index=ignore_index,
        label_smoothing=float(label_smoothing),
        reduction=reduction,
        normalized=normalized,
    )
    target = labels.cast(i64) if labels.dtype.is_integer else labels
    operands = (logits, target) if weight is None else (logits, target, weight)
    return logits.emit_all(op, *operands)[0]


def softplus(x: Sym) -> Sym:
    """Return `log(1 + exp(x))`."""
    return x.unary(ew.Softplus())
