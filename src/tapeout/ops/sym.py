"""`Sym`: a value and the builder that it belongs to. Everything that writes graph is written with it.

Gradient rules, ONNX operators, losses, optimisers and the user's own graphs use the same methods. Operands of different
shapes broadcast as in numpy (an explicit `broadcast` node is made); Python numbers take the type of the other operand.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir.dtype import DType, bool_, from_numpy, i32
from tapeout.ir.type import Dim
from tapeout.ops import contraction, gather, random
from tapeout.ops import elementwise as ew
from tapeout.ops import movement as mv
from tapeout.ops import reduce as rd
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapeout.ir.build import Builder
    from tapeout.ir.graph import Value
    from tapeout.ir.op import Array, Op
    from tapeout.ir.type import Shape, TensorType
    from tapeout.support.loc import Loc

Scalar = int | float | bool


class Sym:
    """A value under construction."""

    __slots__ = ("builder", "value")
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # numpy operands defer to our operators

    def __init__(self, builder: Builder, value: Value) -> None:
        """Wrap a value of a builder."""
        self.builder, self.value = builder, value

    @property
    def type(self) -> TensorType:
        """Element type and shape."""
        return self.value.type

    @property
    def shape(self) -> Shape:
        """Shape; named dimensions stand at their preview number."""
        return self.value.type.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.value.type.dtype

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def loc(self) -> Loc:
        """The place of the node that made this value."""
        return self.value.node.loc if self.value.node else self.builder.loc

    def __repr__(self) -> str:
        return f"<Sym {self.value.name}: {self.type}>"

    # -- making nodes -----------------------------------------------------------------------------------------------

    def emit(self, op: Op, *operands: Sym) -> Sym:
        """Append a node with one result. Operands are as given: `self` is not one of them unless named."""
        (result,) = self.emit_all(op, *operands)
        return result

    def emit_all(self, op: Op, *operands: Sym) -> tuple[Sym, ...]:
        """Append a node and return all its results."""
        for o in operands:
            if o.builder is not self.builder:
                raise ShapeError(
                    f"{op.name}: an operand belongs to another graph ({o.builder.name!r})"
                )
        results = self.builder.emit(op, *(o.value for o in operands))
        return tuple(Sym(self.builder, v) for v in results)

    def constant(self, array: Array | Scalar, dtype: DType | None = None) -> Sym:
        """Return a constant of the same builder."""
        return constant(self.builder, array, dtype)

    def like(self, value: Scalar) -> Sym:
        """Return a constant of this type and shape."""
        return self.constant(value, self.dtype).broadcast_to(self.shape)

    def zeros_like(self) -> Sym:
        """Return zeros of this type and shape."""
        return self.like(0)

    def lift(self, other: Sym | Scalar | Array) -> Sym:
        """Return a number or an array as a constant beside this value; a Sym as it is."""
        if isinstance(other, Sym):
            return other
        if isinstance(other, np.ndarray):
            return self.constant(other)
        return number(self.builder, other, self.dtype)

    def _binary(
        self, make: Callable[[], Op], other: Sym | Scalar | Array, *, flip: bool = False
    ) -> Sym:
        a, b = broadcast_together(self, self.lift(other))
        return self.emit(make(), b, a) if flip else self.emit(make(), a, b)

    # -- arithmetic -------------------------------------------------------------------------------------------------

    def __add__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.Add, other)

    def __radd__(self, other: Scalar) -> Sym:
        return self._binary(ew.Add, other, flip=True)

    def __sub__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.Sub, other)

    def __rsub__(self, other: Scalar) -> Sym:
        return self._binary(ew.Sub, other, flip=True)

    def __mul__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.Mul, other)

    def __rmul__(self, other: Scalar) -> Sym:
        return self._binary(ew.Mul, other, flip=True)

    def __truediv__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.Div, other)

    def __rtruediv__(self, other: Scalar) -> Sym:
        return self._binary(ew.Div, other, flip=True)

    def __pow__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.Pow, other)

    def __rpow__(self, other: Scalar) -> Sym:
        return self._binary(ew.Pow, other, flip=True)

    def __matmul__(self, other: Sym) -> Sym:
        return self.matmul(other)

    def __neg__(self) -> Sym:
        return self.emit(ew.Neg(), self)

    def __and__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.And, other)

    def __or__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.Or, other)

    def __xor__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.Xor, other)

    def __invert__(self) -> Sym:
        return self.emit(ew.Not(), self)

    def __lshift__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.ShiftLeft, other)

    def __rshift__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.ShiftRight, other)

    def __eq__(self, other: object) -> Sym:  # type: ignore[override]
        return self._binary(ew.Equal, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Sym:  # type: ignore[override]
        return self._binary(ew.NotEqual, other)  # type: ignore[arg-type]

    def __lt__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.Less, other)

    def __le__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.LessEqual, other)

    def __gt__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.Greater, other)

    def __ge__(self, other: Sym | Scalar) -> Sym:
        return self._binary(ew.GreaterEqual, other)

    def __bool__(self) -> bool:
        raise TypeError("a Sym has no truth value while the graph is built; use .where(a, b)")

    def maximum(self, other: Sym | Scalar) -> Sym:
        """Return the greater of two; a tie shares the gradient."""
        return self._binary(ew.Max, other)

    def minimum(self, other: Sym | Scalar) -> Sym:
        """Return the lesser of two; a tie shares the gradient."""
        return self._binary(ew.Min, other)

    def remainder(self, other: Sym | Scalar) -> Sym:
        """Return the remainder with the sign of the dividend (C's fmod)."""
        return self._binary(ew.Rem, other)

    def floor_mod(self, other: Sym | Scalar) -> Sym:
        """Return the remainder with the sign of the divisor (Python's %)."""
        return self._binary(ew.Mod, other)

    def atan2(self, other: Sym | Scalar) -> Sym:
        """Return the angle of (other, self)."""
        return self._binary(ew.Atan2, other)

    def unary(self, op: Op) -> Sym:
        """Return an elementwise operation of this value."""
        return self.emit(op, self)

    def abs(self) -> Sym:
        """Return `|x|`; its gradient at 0 is 0."""
        return self.emit(ew.Abs(), self)

    def sign(self) -> Sym:
        """Return -1, 0 or 1."""
        return self.emit(ew.Sign(), self)

    def exp(self) -> Sym:
        """Return `e**x`."""
        return self.emit(ew.Exp(), self)

    def expm1(self) -> Sym:
        """Return `exp(x) - 1`."""
        return self.emit(ew.Expm1(), self)

    def log(self) -> Sym:
        """Return the natural logarithm."""
        return self.emit(ew.Log(), self)

    def log1p(self) -> Sym:
        """Return `log(1 + x)`."""
        return self.emit(ew.Log1p(), self)

    def sqrt(self) -> Sym:
        """Return the square root."""
        return self.emit(ew.Sqrt(), self)

    def rsqrt(self) -> Sym:
        """Return `1 / sqrt(x)`."""
        return self.emit(ew.Rsqrt(), self)

    def sin(self) -> Sym:
        """Return the sine."""
        return self.emit(ew.Sin(), self)

    def cos(self) -> Sym:
        """Return the cosine."""
        return self.emit(ew.Cos(), self)

    def tanh(self) -> Sym:
        """Return the hyperbolic tangent."""
        return self.emit(ew.Tanh(), self)

    def sinh(self) -> Sym:
        """Return the hyperbolic sine."""
        return self.emit(ew.Sinh(), self)

    def cosh(self) -> Sym:
        """Return the hyperbolic cosine."""
        return self.emit(ew.Cosh(), self)

    def sigmoid(self) -> Sym:
        """Return `1 / (1 + exp(-x))`."""
        return self.emit(ew.Sigmoid(), self)

    def erf(self) -> Sym:
        """Return the error function."""
        return self.emit(ew.Erf(), self)

    def relu(self) -> Sym:
        """Return `max(x, 0)`; its gradient at 0 is 0."""
        return self.emit(ew.Relu(), self)

    def floor(self) -> Sym:
        """Round down."""
        return self.emit(ew.Floor(), self)

    def is_nan(self) -> Sym:
        """Return whether an element is NaN."""
        return self.emit(ew.IsNan(), self)

    def square(self) -> Sym:
        """Return `x * x`."""
        return self * self

    def clip(self, low: float, high: float) -> Sym:
        """Return `x` kept between two numbers; the gradient on a bound is 1."""
        return self.emit(ew.Clip(low=low, high=high), self)

    def where(self, if_true: Sym | Scalar, if_false: Sym | Scalar) -> Sym:
        """Return elements of one or the other by this bool."""
        if not isinstance(if_true, Sym):
            assert isinstance(if_false, Sym), "one branch must be a Sym to give the type"
            if_true = if_false.constant(if_true, if_false.dtype)
        if_false = if_true.lift(if_false)
        c, a, b = broadcast_together(self, if_true, if_false)
        return self.emit(ew.Select(), c, a, b)

    def cast(self, dtype: DType) -> Sym:
        """Return the value converted to another element type."""
        return self if dtype == self.dtype else self.emit(ew.Cast(dtype=dtype), self)

    def bitcast(self, dtype: DType) -> Sym:
        """Return the same bits as another element type of the same width."""
        return self.emit(ew.Bitcast(dtype=dtype), self)

    # -- movement ---------------------------------------------------------------------------------------------------

    def reshape(self, shape: Sequence[int]) -> Sym:
        """Return the elements in row-major order in another shape; one -1 is computed."""
        wanted = mv.complete_shape(self.type, tuple(shape))
        return self if wanted == self.shape else self.emit(mv.Reshape(shape=wanted), self)

    def transpose(self, perm: Sequence[int] | None = None) -> Sym:
        """Return the dimensions in another order (default: reversed)."""
        order = (
            tuple(reversed(range(self.rank)))
            if perm is None
            else tuple(p % self.rank for p in perm)
        )
        return (
            self if order == tuple(range(self.rank)) else self.emit(mv.Transpose(perm=order), self)
        )

    def broadcast(self, shape: Sequence[int], axes: Sequence[int]) -> Sym:
        """Return the value in `shape`, its dimension i standing at `axes[i]`, repeated along the others (and along size 1)."""
        shape, axes = tuple(shape), tuple(axes)
        if shape == self.shape and axes == tuple(range(self.rank)):
            return self
        return self.emit(mv.Broadcast(shape=shape, axes=axes), self)

    def broadcast_to(self, shape: Sequence[int]) -> Sym:
        """Return the value broadcast to `shape` by numpy's rule."""
        shape = tuple(shape)
        return self.broadcast(shape, range(len(shape) - self.rank, len(shape)))

    def expand_dims(self, axes: Sequence[int]) -> Sym:
        """Insert dimensions of size 1 so that they stand at `axes` of the result."""
        rank = self.rank + len(axes)
        at = {a % rank for a in axes}
        sizes = iter(self.shape)
        return self.reshape([1 if i in at else next(sizes) for i in range(rank)])

    def squeeze(self, axes: Sequence[int]) -> Sym:
        """Remove dimensions of size 1."""
        at = {a % self.rank for a in axes}
        return self.reshape([n for i, n in enumerate(self.shape) if i not in at])

    def slice(
        self, starts: Sequence[int], limits: Sequence[int], strides: Sequence[int] | None = None
    ) -> Sym:
        """Return elements `start, start+stride, … < limit` of every dimension (0 <= start <= limit <= size, stride > 0)."""
        steps = tuple(strides) if strides is not None else (1,) * self.rank
        return self.emit(mv.Slice(starts=tuple(starts), limits=tuple(limits), strides=steps), self)

    def pad(
        self,
        low: Sequence[int],
        high: Sequence[int],
        value: float = 0.0,
        interior: Sequence[int] | None = None,
    ) -> Sym:
        """Return the value with `value` around it (negative numbers crop) and between neighbours (`interior`)."""
        between = tuple(interior) if interior is not None else (0,) * self.rank
        return self.emit(
            mv.Pad(low=tuple(low), high=tuple(high), interior=between, value=value), self
        )

    def reverse(self, axes: Sequence[int]) -> Sym:
        """Return the value with the order along `axes` turned round."""
        return self.emit(mv.Reverse(axes=tuple(sorted(a % self.rank for a in axes))), self)

    def concat(self, others: Sequence[Sym], axis: int) -> Sym:
        """Return this value and others one after the other along `axis`."""
        return self.emit(mv.Concat(axis=axis % self.rank), self, *others)

    def windows(
        self,
        axes: Sequence[int],
        sizes: Sequence[int],
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        low: Sequence[int] | None = None,
        high: Sequence[int] | None = None,
        value: float = 0.0,
    ) -> Sym:
        """Return sliding windows over `axes`: those dimensions become window counts, and the window sizes are appended."""
        n = len(axes)
        op = mv.Windows(
            axes=tuple(axes),
            sizes=tuple(sizes),
            strides=tuple(strides or (1,) * n),
            dilations=tuple(dilations or (1,) * n),
            low=tuple(low or (0,) * n),
            high=tuple(high or (0,) * n),
            value=value,
        )
        return self.emit(op, self)

    def __getitem__(self, key: Any) -> Sym:
        return mv.basic_index(self, key)

    # -- reductions -------------------------------------------------------------------------------------------------

    def _reduce(
        self, make: Callable[..., Op], axes: Sequence[int] | int | None, keepdims: bool
    ) -> Sym:
        at = rd.normal_axes(axes, self.rank)
        y = self.emit(make(axes=at), self) if at else self
        return y.reshape([1 if i in at else n for i, n in enumerate(self.shape)]) if keepdims else y

    def sum(self, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Sym:
        """Return the sum over `axes` (None: all)."""
        return self._reduce(rd.ReduceSum, axes, keepdims)

    def mean(self, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Sym:
        """Return the mean over `axes` (None: all)."""
        total = self.sum(axes, keepdims=keepdims)
        at = rd.normal_axes(axes, self.rank)
        count = math.prod(self.shape[a] for a in at)
        if isinstance(count, Dim):
            return total * (1.0 / number(self.builder, count, self.dtype))
        return total * (1.0 / max(count, 1))

    def max(self, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Sym:
        """Return the greatest over `axes`; ties share the gradient."""
        return self._reduce(rd.ReduceMax, axes, keepdims)

    def min(self, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Sym:
        """Return the least over `axes`; ties share the gradient."""
        return self._reduce(rd.ReduceMin, axes, keepdims)

    def prod(self, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Sym:
        """Return the product over `axes`."""
        return self._reduce(rd.ReduceProd, axes, keepdims)

    def any(self, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Sym:
        """Return whether any bool over `axes` is true."""
        return self._reduce(rd.ReduceAny, axes, keepdims)

    def all(self, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Sym:
        """Return whether all bools over `axes` are true."""
        return self._reduce(rd.ReduceAll, axes, keepdims)

    def argmax(self, axes: Sequence[int] | int, *, keepdims: bool = False) -> Sym:
        """Return the row-major number (i32) of the first greatest element over `axes`."""
        return self._reduce(rd.ArgMax, axes, keepdims)

    def argmin(self, axes: Sequence[int] | int, *, keepdims: bool = False) -> Sym:
        """Return the row-major number (i32) of the first least element over `axes`."""
        return self._reduce(rd.ArgMin, axes, keepdims)

    # -- contractions -----------------------------------------------------------------------------------------------

    def dot_general(
        self,
        other: Sym,
        *,
        contract: tuple[Sequence[int], Sequence[int]],
        batch: tuple[Sequence[int], Sequence[int]] = ((), ()),
    ) -> Sym:
        """Return sums of products; the result has batch dimensions, then the free ones of self, then of other."""
        op = contraction.DotGeneral(
            contract_a=tuple(contract[0]),
            contract_b=tuple(contract[1]),
            batch_a=tuple(batch[0]),
            batch_b=tuple(batch[1]),
        )
        return self.emit(op, self, other)

    def matmul(self, other: Sym) -> Sym:
        """Return the matrix product by numpy's rule, leading dimensions broadcast."""
        return contraction.matmul(self, other)

    def conv(
        self,
        weight: Sym,
        *,
        strides: Sequence[int],
        low: Sequence[int],
        high: Sequence[int],
        dilations: Sequence[int] | None = None,
        groups: int = 1,
    ) -> Sym:
        """Return the convolution of `self` [N, C, *spatial] with `weight` [O, C/groups, *kernel] (ONNX's Conv)."""
        return contraction.conv(self, weight, strides, low, high, dilations, groups)

    # -- gather, scatter --------------------------------------------------------------------------------------------

    def take(self, indices: Sym, axis: int) -> Sym:
        """Return slices along `axis` named by `indices` of any shape, which replaces that dimension (ONNX's Gather).

        Negative indices count from the end; others out of range make the step fail before any update.
        """
        return self.emit(gather.Take(axis=axis % self.rank), self, indices)

    def scatter_add(self, indices: Sym, updates: Sym, axis: int) -> Sym:
        """Return self with `updates` added at places along `axis` (the adjoint of take)."""
        return self.emit(gather.ScatterAdd(axis=axis % self.rank), self, indices, updates)

    def take_along(self, indices: Sym, axis: int) -> Sym:
        """Return elements at `indices` along `axis`, other dimensions alike (ONNX's GatherElements)."""
        return self.emit(gather.TakeAlong(axis=axis % self.rank), self, indices)


def constant(builder: Builder, array: Array | Scalar, dtype: DType | None = None) -> Sym:
    """Return a constant of a builder; a Python number needs a `dtype` unless numpy's choice will do."""
    data = np.asarray(array, None if dtype is None else dtype.numpy)
    op = mv.Constant(tensor=mv.Tensor.of(data))
    from_numpy(data.dtype)
    (value,) = builder.emit(op)
    return Sym(builder, value)


def number(builder: Builder, value: Scalar, dtype: DType) -> Sym:
    """Return a number as a constant; a dimension that is not bound is counted when it is."""
    if not isinstance(value, Dim):
        return constant(builder, value, dtype)
    return constant(builder, 1, i32).broadcast([value], ()).sum().cast(dtype)


def iota(builder: Builder, shape: Sequence[int], axis: int, dtype: DType = i32) -> Sym:
    """Return numbers 0, 1, … along `axis`."""
    (value,) = builder.emit(mv.Iota(shape=tuple(shape), axis=axis, dtype=dtype))
    return Sym(builder, value)


def random_bits(seed: Sym, counter: Sym, stream: int, shape: Sequence[int]) -> Sym:
    """Return u32 random bits by Philox-4x32-10 keyed by `seed` (i64 scalar) and `stream`, at step `counter` (i64 scalar)."""
    return seed.emit(random.RandomBits(shape=tuple(shape), stream=stream), seed, counter)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Return the common shape by numpy's rule.

    Raises:
        ShapeError: Two sizes differ and neither is 1.
    """
    rank = max((len(s) for s in shapes), default=0)
    out: list[int] = [1] * rank
    for shape in shapes:
        for i, n in enumerate(shape, rank - len(shape)):
            if out[i] == 1:
                out[i] = n
            elif n not in (1, out[i]):
                raise ShapeError(
                    "shapes do not broadcast: "
                    + " and ".join(str(list(map(int, s))) for s in shapes)
                )
    return tuple(out)


def broadcast_together(*xs: Sym) -> tuple[Sym, ...]:
    """Return the operands in their common shape."""
    shape = broadcast_shapes(*(x.shape for x in xs))
    return tuple(x.broadcast_to(shape) for x in xs)


__all__ = [
    "Scalar",
    "Sym",
    "bool_",
    "broadcast_shapes",
    "broadcast_together",
    "constant",
    "iota",
    "random_bits",
]
