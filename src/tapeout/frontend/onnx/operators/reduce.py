"""Operators that combine elements along axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.registry import add, op
from tapeout.ir.dtype import bool_, f32, i64
from tapeout.ops.composite.softmax import logsumexp
from tapeout.ops.running import CumSum, cumulative_product

if TYPE_CHECKING:
    from tapeout.frontend.onnx.call import Call
    from tapeout.ops.sym import Sym

Reduce = Callable[["Sym", tuple[int, ...], bool], "Sym"]


def _by_attribute(reduce: Reduce) -> Callable[[Call, Sym], Sym]:
    """Return the older form: axes are an attribute, and none means all."""

    def run(call: Call, x: Sym) -> Sym:
        axes = call.integers("axes")
        at = tuple(range(x.rank)) if not axes else call.axes(axes, x.rank)
        return reduce(x, at, call.flag("keepdims", default=True))

    return run


def _by_operand(reduce: Reduce) -> Callable[..., Sym]:
    """Return the newer form: axes are an operand, and none means all or nothing."""

    def run(call: Call, x: Sym, axes: Sym | None = None) -> Sym:
        keepdims = call.flag("keepdims", default=True)
        nothing = call.flag("noop_with_empty_axes")
        numbers: Sequence[int] = () if axes is None else call.numbers(axes, "the axes")
        if not numbers and nothing:
            return reduce(x, (), keepdims)
        at = tuple(range(x.rank)) if not numbers else call.axes(numbers, x.rank)
        return reduce(x, at, keepdims)

    return run


def _sum(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    return x.sum(axes, keepdims=keepdims)


def _mean(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    if x.dtype.is_float:
        return x.mean(axes, keepdims=keepdims)
    return x.sum(axes, keepdims=keepdims) / math.prod(int(x.shape[a]) for a in axes)


def _max(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    return (x.any if x.dtype == bool_ else x.max)(axes, keepdims=keepdims)


def _min(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    return (x.all if x.dtype == bool_ else x.min)(axes, keepdims=keepdims)


def _prod(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    return x.prod(axes, keepdims=keepdims)


def _l1(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    return x.abs().sum(axes, keepdims=keepdims)


def _l2(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    return norm(x, axes, keepdims)


def _sum_square(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    return x.square().sum(axes, keepdims=keepdims)


def _log_sum(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    return x.sum(axes, keepdims=keepdims).log()


def norm(x: Sym, axes: Sequence[int], keepdims: bool) -> Sym:
    """Return the Euclidean norm; the gradient at the zero vector is 0."""
    squares = x.square().sum(axes, keepdims=keepdims)
    zero = squares == 0
    # The root of a 1 in the place of a 0 keeps the infinite slope at 0 out of the gradient.
    return zero.where(0, zero.where(1, squares).cast(x.dtype).sqrt())


def _log_sum_exp(x: Sym, axes: tuple[int, ...], keepdims: bool) -> Sym:
    return logsumexp(x, axes, keepdims=keepdims)


# operator: (meaning, version from which the axes are an operand)
_REDUCTIONS: dict[str, tuple[Reduce, int]] = {
    "ReduceSum": (_sum, 13),
    "ReduceMean": (_mean, 18),
    "ReduceMax": (_max, 18),
    "ReduceMin": (_min, 18),
    "ReduceProd": (_prod, 18),
    "ReduceL1": (_l1, 18),
    "ReduceL2": (_l2, 18),
    "ReduceSumSquare": (_sum_square, 18),
    "ReduceLogSum": (_log_sum, 18),
    "ReduceLogSumExp": (_log_sum_exp, 18),
}
for _name, (_reduce, _since) in _REDUCTIONS.items():
    add(_name, 1, _by_attribute(_reduce))
    add(_name, _since, _by_operand(_reduce), note="axes: known at import")


@op("ArgMax", "ArgMin", since=1)
def arg_extreme(call: Call, x: Sym) -> Sym:
    axis = call.axis(call.integer("axis", 0), x.rank)
    last = call.flag("select_last_index") if call.opset >= 12 else False
    keepdims = call.flag("keepdims", default=True)
    call.require(x.shape[axis] > 0, f"axis {axis} is empty")
    y = x.reverse([axis]) if last else x
    found = (y.argmax if call.op_type == "ArgMax" else y.argmin)([axis], keepdims=keepdims).cast(
        i64
    )
    return (int(x.shape[axis]) - 1) - found if last else found


@op("Hardmax", since=1)
def hardmax_flat(call: Call, x: Sym) -> Sym:
    axis = call.integer("axis", 1)
    return flattened(call, x, axis, lambda rows: _hardmax(call, rows, 1))


@op("Hardmax", since=13)
def hardmax(call: Call, x: Sym) -> Sym:
    return _hardmax(call, x, call.axis(call.integer("axis", -1), x.rank))


def _hardmax(call: Call, x: Sym, axis: int) -> Sym:
    first = x.argmax([axis], keepdims=True).cast(i64)
    return (call.iota(x.shape, axis) == first).cast(x.dtype)


def flattened(call: Call, x: Sym, axis: int, rows: Callable[[Sym], Sym]) -> Sym:
    """Return a function of the rows of a matrix: the axes from `axis` on are one row (opset < 13)."""
    call.require(-x.rank <= axis <= x.rank, f"axis {axis} is out of range for rank {x.rank}")
    axis += x.rank if axis < 0 else 0
    matrix = x.reshape([math.prod(map(int, x.shape[:axis])), math.prod(map(int, x.shape[axis:]))])
    return rows(matrix).reshape(x.shape)


@op("CumSum", since=11, note="axis: known at import")
def cumulative_sum(call: Call, x: Sym, axis: Sym) -> Sym:
    at = call.axis(int(call.scalar(axis, "the axis")), x.rank)
    exclusive, backwards = call.flag("exclusive"), call.flag("reverse")
    short = x.dtype.is_float and x.dtype.bits == 16
    wide = x.cast(f32) if short else x  # so that it is rounded once, not at every element
    total = wide.emit(CumSum(axis=at, exclusive=exclusive, reverse=backwards), wide)
    return total.cast(x.dtype)


@op("CumProd", since=26, note="axis: known at import")
def cumulative_product_(call: Call, x: Sym, axis: Sym) -> Sym:
    at = call.axis(int(call.scalar(axis, "the axis")), x.rank)
    exclusive, backwards = call.flag("exclusive"), call.flag("reverse")
    short = x.dtype.is_float and x.dtype.bits == 16
    wide = x.cast(f32) if short else x
    return cumulative_product(wide, at, exclusive=exclusive, reverse=backwards).cast(x.dtype)


@op("LpNormalization", since=1)
def lp_normalization(call: Call, x: Sym) -> Sym:
    axis = call.axis(call.integer("axis", -1), x.rank)
    p = call.integer("p", 2)
    call.require(p in (1, 2), f"p is {p}, it must be 1 or 2")
    size = _l1(x, (axis,), True) if p == 1 else norm(x, (axis,), True)
    # The zero vector stays what it is.
    return x / (size == 0).where(1, size)


@op("LRN", since=1)
def local_response_normalization(call: Call, x: Sym) -> Sym:
    size, bias = call.integer("size"), call.real("bias", 1.0)
    alpha, beta = call.real("alpha", 0.0001), call.real("beta", 0.75)
    call.require(x.rank >= 2 and 0 < size < 1 << 31, f"size is {size}, the operand {x.type}")
    low, high = (size - 1) // 2, size // 2
    squares = x.square().windows([1], [size], low=[low], high=[high]).sum([x.rank])
    return x / (squares * (alpha / size) + bias) ** beta
