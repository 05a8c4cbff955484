"""Softmax, its logarithm, and the log-sum-exp: shifted by the maximum, so that nothing overflows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.op import Composite, register
from tapeout.ops import elementwise as ew
from tapeout.ops import movement as mv
from tapeout.ops import reduce as rd
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType
    from tapeout.ops.sym import Sym

    Cotangents = tuple[Sym | None, ...]


class _AlongAxis(Composite):
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the operand's type, which must be float and have the axis."""
        x = _float_operand(self.name, types)
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"{self.name}: axis {self.axis} of {x}")
        return (x,)


def _float_operand(name: str, types: tuple[TensorType, ...]) -> TensorType:
    if len(types) != 1:
        raise ShapeError(f"{name} takes one operand, got {len(types)}")
    if not types[0].dtype.is_float:
        raise ShapeError(f"{name} takes floats, got {types[0]}")
    return types[0]


@register
class Softmax(_AlongAxis):
    """`exp(x) / sum(exp(x))` along an axis; a row of -inf gives NaN."""

    name = "softmax"
    axis: int

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the exponentials of the shifted operand over their sum."""
        (x,) = operands
        e = (x - x.max(self.axis, keepdims=True)).exp()
        return (e / e.sum(self.axis, keepdims=True),)

    def reference(self, *arrays: Array) -> Array:
        return np.exp(_log_softmax(arrays[0], self.axis)).astype(arrays[0].dtype)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return `y * (dy - sum(dy * y))`."""
        (dy,), (y,) = cotangents, results
        assert dy is not None
        return (y * (dy - (dy * y).sum(self.axis, keepdims=True)),)


@register
class LogSoftmax(_AlongAxis):
    """`x - log(sum(exp(x)))` along an axis."""

    name = "log_softmax"
    axis: int

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the shifted operand minus the logarithm of the sum of its exponentials."""
        (x,) = operands
        shifted = x - x.max(self.axis, keepdims=True)
        return (shifted - shifted.exp().sum(self.axis, keepdims=True).log(),)

    def reference(self, *arrays: Array) -> Array:
        return _log_softmax(arrays[0], self.axis).astype(arrays[0].dtype)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return `dy - softmax(x) * sum(dy)`."""
        (dy,), (y,) = cotangents, results
        assert dy is not None
        return (dy - y.exp() * dy.sum(self.axis, keepdims=True),)


@register
class LogSumExp(Composite):
    """`log(sum(exp(x)))` over axes, which are removed."""

    name = "logsumexp"
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the operand's type without the axes."""
        x = _float_operand(self.name, types)
        if any(not 0 <= a < x.rank for a in self.axes) or len(set(self.axes)) < len(self.axes):
            raise ShapeError(f"{self.name}: axes {list(self.axes)} of {x}")
        return (x.with_shape(tuple(n for i, n in enumerate(x.shape) if i not in self.axes)),)

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the maximum plus the logarithm of the sum of the shifted exponentials."""
        (x,) = operands
        if not self.axes:
            return (x,)
        most = x.max(self.axes)
        # A row of -inf (or one with inf) is not shifted: inf - inf would be NaN.
        shift = most.unary(ew.IsInf()).where(0, most)
        kept = shift.expand_dims(self.axes)
        return (shift + (x - kept).exp().sum(self.axes).log(),)

    def reference(self, *arrays: Array) -> Array:
        x = arrays[0].astype(np.float64)
        with np.errstate(all="ignore"):
            y = (
                np.logaddexp.reduce(x, axis=self.axes)
                if len(self.axes) == 1
                else _flat(x, self.axes)
            )
        return np.asarray(y).astype(arrays[0].dtype)

    def pullback(
        self, cotangents: Cotangents, operands: tuple[Sym, ...], results: tuple[Sym, ...]
    ) -> Cotangents:
        """Return `dy * exp(x - y)`."""
        (dy,), (x,), (y,) = cotangents, operands, results
        assert dy is not None
        if not self.axes:
            return (dy,)
        return (dy.expand_dims(self.axes) * (x - y.expand_dims(self.axes)).exp(),)


def _flat(x: Array, axes: tuple[int, ...]) -> Array:
    kept = [i for i in range(x.ndim) if i not in axes]
    moved = x.transpose(*kept, *axes).reshape(*(x.shape[i] for i in kept), -1)
    return np.asarray(np.logaddexp.reduce(moved, axis=-1))


def _log_softmax(x: Array, axis: int) -> Array:
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        shifted = wide - wide.max(axis=axis, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def softmax(x: Sym, axis: int = -1) -> Sym:
    """Return `exp(x) / sum(exp(x))` along an axis."""
    return x.emit(Softmax(axis=axis % max(x.rank, 1)), x)


def log_softmax(x: Sym, axis: int = -1) -> Sym:
    """Return `x - log(sum(exp(x)))` along an axis."""
    return x.emit(LogSoftmax(axis=axis % max(x.rank, 1)), x)


def logsumexp(x: Sym, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Sym:
    """Return `log(sum(exp(x)))` over axes (None: all)."""
    at = rd.normal_axes(axes, x.rank)
    y = x.emit(LogSumExp(axes=at), x)
    return y.expand_dims(at) if keepdims else y


# -- recognition --------------------------------------------------------------------------------------------------------


def decomposed_logits(value: Value) -> tuple[str, Value] | None:
    """Recognise a softmax or log-softmax that is written out in primitives.

    Returns:
        (`softmax` or `log_softmax`, the value that it is taken of), or None. A shift that is constant along the axis, such as the
        maximum, is taken off.
    """
    node = value.node
    if node is None:
        return None
    if isinstance(node.op, ew.Div):
        return _as_softmax(node)
    if isinstance(node.op, ew.Log):
        return _as_log_of_softmax(node.operands[0])
    if isinstance(node.op, ew.Sub):
        return _as_log_softmax(node)
    return None


def _as_softmax(node: Node) -> tuple[str, Value] | None:
    """Match `e / sum(e)` with `e = exp(z)`."""
    top, below = node.operands
    z, spread = _operand(top, ew.Exp), _spread(below)
    if z is None or spread is None or _summed(spread[1], spread[0]) is not top:
        return None
    return "softmax", _unshifted(z, spread[0])


def _as_log_of_softmax(p: Value) -> tuple[str, Value] | None:
    """Match `log(softmax(x))`, whether the softmax is whole or written out."""
    whole = _operand(p, Softmax)
    if whole is not None:
        return "log_softmax", whole
    node = p.node
    found = _as_softmax(node) if node is not None and isinstance(node.op, ew.Div) else None
    return None if found is None else ("log_softmax", found[1])


def _as_log_softmax(node: Node) -> tuple[str, Value] | None:
    """Match `z - log(sum(exp(z)))` and `z - logsumexp(z)`."""
    z, below = node.operands
    spread = _spread(below)
    if spread is None:
        return None
    axis, source = spread
    made = _squeezed(source).node
    if made is not None and made.op == LogSumExp(axes=(axis,)) and made.operands[0] is z:
        return "log_softmax", z
    logarithm = _operand(_squeezed(source), ew.Log)
    total = None if logarithm is None else _summed(logarithm, axis)
    if total is None or _operand(total, ew.Exp) is not z:
        return None
    return "log_softmax", _unshifted(z, axis)


def _unshifted(z: Value, axis: int) -> Value:
    """Return `x` of `z = x - m` when `m` is constant along the axis."""
    node = z.node
    if node is None or not isinstance(node.op, ew.Sub):
        return z
    spread = _spread(node.operands[1])
    return node.operands[0] if spread is not None and spread[0] == axis else z


def _summed(value: Value, axis: int) -> Value | None:
    """Return what a value is the sum of along an axis, kept as size 1 or removed."""
    node = _squeezed(value).node
    if node is None or node.op != rd.ReduceSum(axes=(axis,)):
        return None
    return node.operands[0]


def _spread(value: Value) -> tuple[int, Value] | None:
    """Return (axis, source) of a value that repeats a source along just one axis."""
    node = value.node
    if node is None or not isinstance(node.op, mv.Broadcast):
        return None
    (source,) = node.operands
    place = dict(zip(node.op.axes, source.type.shape, strict=True))
    repeated = [d for d, n in enumerate(value.type.shape) if place.get(d, 1) != n]
    return (repeated[0], source) if len(repeated) == 1 else None


def _squeezed(value: Value) -> Value:
    """Return the operand of a reshape that only puts in sizes of 1."""
    source = _operand(value, mv.Reshape)
    if source is None:
        return value
    wide = [[n for n in v.type.shape if n != 1] for v in (source, value)]
    return source if wide[0] == wide[1] else value


def _operand(value: Value, kind: type) -> Value | None:
    """Return the operand of the node that made a value, if its operation is of a kind."""
    node = value.node
    return node.operands[0] if node is not None and isinstance(node.op, kind) else None
