"""Level T: what a fused kernel computes, with no threads, memory spaces or vector widths.

    Expr  = Const | Index(affine) | Load(buffer, index, where, other) | Temp(name) | Apply(op, args) | Cast | Bitcast
    Stage = Reduce(name, combine, axes, value)        a temporary per point of the kernel's outer axes
          | Store(buffer, axes, index, value)         for every point of the outer axes and `axes`
    LoopKernel        = axes, stages                  maps, row kernels, reductions: stages run in order at each outer point
    ContractionKernel = batch, m, n, k axes, a, b, stages    Temp("acc") = sum over k of a*b; the stages are the epilogue
    ScatterKernel     = updates combined into a buffer in a fixed order

Expressions are made by one `ExprBuilder` per kernel, which shares equal ones, so that identity is equality inside a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.affine import Affine, Axis, Guard, guards
from tapeout.ir.dtype import DType, bool_, f32, i64
from tapeout.ir.scalar import SCALAR_OPS, ScalarOps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.support.loc import Loc


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor in memory as a kernel sees it.

    Attributes:
        name: Unique in the kernel; canonical names (`b0`, `b1`, …) make equal kernels equal text.
        dtype: Element type.
        shape: The logical shape that loads and stores index.
        strides: Elements from one index to the next, per dimension (the layout; 0 never).
        access: `r`, `w` or `rw`.
        of: The buffer whose memory this is, read as elements of another type; empty: its own.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    access: str = "r"
    of: str = ""

    @property
    def span(self) -> int:
        """Number of elements from the first to one past the last."""
        return (
            1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
            if all(self.shape)
            else 0
        )

    def offset(self, index: Sequence[Affine]) -> Affine:
        """Return the element offset of an affine index."""
        flat = Affine()
        for i, s in zip(index, self.strides, strict=True):
            flat = flat + i * s
        return flat


@dataclass(frozen=True, slots=True, eq=False)
class Expr:
    """One scalar of a kernel, at a point of its axes."""

    dtype: DType


@dataclass(frozen=True, slots=True, eq=False)
class Const(Expr):
    """A number."""

    value: float | int | bool


@dataclass(frozen=True, slots=True, eq=False)
class Index(Expr):
    """An index expression as an i64."""

    index: Affine


@dataclass(frozen=True, slots=True, eq=False)
class Load(Expr):
    """The element of a buffer at an index, or `other` where a guard fails (then memory is not touched).

    An index entry that is an `Expr` is a gather: an i64 that a precondition has bounded, clamped again when lowered.
    """

    buffer: str
    index: tuple[Affine | Expr, ...]
    where: tuple[Guard, ...] = ()
    other: float | int | bool = 0


@dataclass(frozen=True, slots=True, eq=False)
class Temp(Expr):
    """The result of a `Reduce` stage (or `acc` of a contraction) at the present outer point."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Expr):
    """An operation of `SCALAR_OPS`."""

    op: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Cast(Expr):
    """A conversion between element types."""

    arg: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Bitcast(Expr):
    """The same bits as another type."""

    arg: Expr


_EITHER_ORDER = frozenset(["add", "mul"])
"""Operations that are one expression in either order of their operands."""


class ExprBuilder(ScalarOps[Expr]):
    """Makes expressions; equal ones are one object."""

    def __init__(self) -> None:
        """Start empty."""
        self._made: dict[tuple[object, ...], Expr] = {}

    def _share(self, key: tuple[object, ...], expr: Expr) -> Expr:
        return self._made.setdefault(key, expr)

    def const(self, value: float, dtype: DType) -> Expr:
        """Return a number of a type."""
        number: float | int | bool = (
            float(value) if dtype.is_float else bool(value) if dtype == bool_ else int(value)
        )
        if dtype == f32:
            # What it becomes anyway; then spellings of one number are one constant.
            with np.errstate(over="ignore"):
                number = float(np.float32(number))
        return self._share(("const", dtype.name, repr(number)), Const(dtype, number))

    def cast(self, x: Expr, dtype: DType) -> Expr:
        """Return `x` converted."""
        return x if x.dtype == dtype else self._share(("cast", dtype.name, id(x)), Cast(dtype, x))

    def bitcast(self, x: Expr, dtype: DType) -> Expr:
        """Return the bits of `x` as another type."""
        return (
            x
            if x.dtype == dtype
            else self._share(("bitcast", dtype.name, id(x)), Bitcast(dtype, x))
        )

    def index(self, index: Affine) -> Expr:
        """Return an index expression as an i64."""
        return self._share(("index", index), Index(i64, index))

    def dtype(self, x: Expr) -> DType:
        """Return the element type."""
        return x.dtype

    def apply(self, name: str, *xs: Expr) -> Expr:
        """Return an operation of the vocabulary."""
        dtype = bool_ if SCALAR_OPS[name].result == "bool" else xs[-1].dtype
        places = sorted(map(id, xs)) if name in _EITHER_ORDER else map(id, xs)
        return self._share((name, *places), Apply(dtype, name, xs))

    def temp(self, name: str, dtype: DType) -> Expr:
        """Return the result of a stage."""
        return self._share(("temp", name), Temp(dtype, name))

    def load(
        self,
        buffer: Buffer,
        index: Sequence[Affine | Expr],
        where: Sequence[Guard] = (),
        other: float = 0.0,
    ) -> Expr:
        """Return an element of a buffer; guards that ranges prove are dropped."""
        needed = guards(*where)
        at = tuple(index)
        key = (
            "load",
            buffer.name,
            tuple(i if isinstance(i, Affine) else id(i) for i in at),
            needed,
            repr(other),
        )
        return self._share(key, Load(buffer.dtype, buffer.name, at, needed, other))


@dataclass(frozen=True, slots=True, eq=False)
class Reduce:
    """Combine `value` over `axes` into the temporary `name`.

    `combine`: sum prod max min any all argmax argmin. The temporary has the type `dtype`; sums of f16/bf16 accumulate in f32.
    """

    name: str
    combine: str
    axes: tuple[Axis, ...]
    value: Expr
    dtype: DType


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """Write `value` to a buffer at an affine index, for every point of the outer axes and of `axes`."""

    buffer: str
    axes: tuple[Axis, ...]
    index: tuple[Affine, ...]
    value: Expr


Stage = Reduce | Store


@dataclass(frozen=True, eq=False)
class LoopKernel:
    """A map, a reduction or a row kernel: at each point of `axes` (independent of each other) the stages run in order.

    Neighbouring stores without axes of their own happen together: all values are made before the first is written, so that
    a map may overwrite several buffers that its values depend on.
    """

    name: str
    buffers: tuple[Buffer, ...]
    axes: tuple[Axis, ...]
    stages: tuple[Stage, ...]
    loc: Loc | None = None


@dataclass(frozen=True, eq=False)
class ContractionKernel:
    """`acc[batch, m, n] = sum over k of a * b`, then the epilogue at each point of (batch, m, n).

    `a` does not depend on the n axes, `b` not on the m axes. Each is a `Load` or an expression over loads (the prologue). The
    epilogue stages are stores whose own `axes` are empty; `Temp("acc")` is the sum, of type `accumulate`.

    Buffers that are `fixed` hold the same each time that a loop around runs the kernel: a copy of them is made but once.
    """

    name: str
    buffers: tuple[Buffer, ...]
    batch: tuple[Axis, ...]
    m: tuple[Axis, ...]
    n: tuple[Axis, ...]
    k: tuple[Axis, ...]
    a: Expr
    b: Expr
    accumulate: DType
    stages: tuple[Store, ...]
    loc: Loc | None = None
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ScatterKernel:
    """`target[outer, index[point], inner] += update[...]`, in row-major order of the points for each target element.

    `axes` are independent (the dimensions that the scatter does not cross); `points` run in order. `target` starts with its
    present content, so a launch that fills or copies it comes before. `combine` is `add`, `mul`, `max`, `min` or `set`; with
    `set`, `value` may load what earlier points have written to the target.
    """

    name: str
    buffers: tuple[Buffer, ...]
    axes: tuple[Axis, ...]
    points: tuple[Axis, ...]
    target: str
    index: tuple[Affine | Expr, ...]
    value: Expr
    loc: Loc | None = None
    combine: str = "add"


Kernel = LoopKernel | ContractionKernel | ScatterKernel


@dataclass(frozen=True)
class Numerics:
    """What decides the rounding of a kernel: a fixed function of shape, dtype and target class, never of threads.

    Attributes:
        lanes: Elements that one vector accumulator holds.
        accumulators: Independent accumulators of a reduction along vectors, added as a balanced tree at the end.
        partials: Parts into which a long reduction is split, each summed on its own, then added in order.
        extra: Further facts by name (the K block of a contraction, …).
    """

    lanes: int = 1
    accumulators: int = 1
    partials: int = 1
    extra: Mapping[str, int] = field(default_factory=dict)
