"""The kinds of operations. An operation is one class that owns all its facts.

Attributes are the fields of a frozen dataclass. A kind says how one element of the result follows from elements of the
operands (`at`), which is all that fusion and code generation know of an operation:

- `Pointwise`: an expression of operand elements at mapped indices (elementwise operations, data movement, gather, iota);
- `Reduction`: such an expression, combined over further axes; `Contraction` is a sum of products of two operands;
- `Scatter`: elements of an operand combined into places chosen by another operand;
- `Running`: elements that follow from the ones before them along an axis (running sums, recurrences);
- `Composite`: a formula of other operations, differentiated first and decomposed late.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, dataclass_transform

import numpy as np

from tapeout.ir.type import Dim, TensorType
from tapeout.support.errors import NotDifferentiable, ShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.ir.affine import Affine, Guard
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ir.type import Shape
    from tapeout.ops.sym import Sym

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Array = np.ndarray[Any, np.dtype[Any]]
OpClass = TypeVar("OpClass", bound="type[Op]")

REGISTRY: dict[str, type[Op]] = {}


@dataclass_transform(frozen_default=True)
def register(cls: OpClass) -> OpClass:
    """Make an operation known to the parser by its name, and make it a frozen dataclass."""
    made = dataclass(frozen=True, repr=False)(cls)
    if made.name in REGISTRY:
        raise ValueError(f"two operations are called {made.name!r}")
    REGISTRY[made.name] = made
    return cls


class Read(Protocol[T_co]):
    """Reads one element of an operand; outside the guards it gives `other` and touches no memory."""

    def __call__(
        self, index: Sequence[Affine | Any], where: Sequence[Guard] = (), other: float = 0.0
    ) -> T_co:
        """Return the element at `index`: one index expression, or one integer scalar (gather), per dimension."""


@dataclass(frozen=True, repr=False)
class Op:
    """An operation with its attributes. Equal attributes make equal operations."""

    name: ClassVar[str] = ""
    regions: ClassVar[tuple[str, ...]] = ()
    """The attributes that hold graphs (see `ir.region`)."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the types of the results.

        Raises:
            ShapeError: The operands do not fit; the message says what was expected and got.
        """
        raise NotImplementedError(self.name)

    def reference(self, *arrays: Array) -> Array | tuple[Array, ...]:
        """Return the results computed with numpy: the oracle of every later stage."""
        raise NotImplementedError(self.name)

    def pullback(
        self,
        cotangents: tuple[Sym | None, ...],
        operands: tuple[Sym, ...],
        results: tuple[Sym, ...],
    ) -> tuple[Sym | None, ...]:
        """Return one cotangent per operand, None for zero.

        Called only when at least one cotangent is not None. Cotangents have the types of the results.
        """
        raise NotDifferentiable(f"{self.name} has no gradient")

    def precondition(self, operands: tuple[Sym, ...]) -> tuple[Sym, str] | None:
        """Return (a bool scalar that is true when the data break a rule, what to tell the user), or None."""
        return None

    @property
    def attributes(self) -> dict[str, object]:
        """The attributes that differ from their defaults, in order of name."""
        found = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.default is dataclasses.MISSING or getattr(self, f.name) != f.default
        }
        return dict(sorted(found.items()))

    def resolve(self, dims: Mapping[str, int]) -> Op:
        """Return the operation with named dimensions in its attributes bound."""
        changed = {}
        for f in dataclasses.fields(self):
            old = getattr(self, f.name)
            new = _resolve(old, dims)
            if new is not old:
                changed[f.name] = new
        return dataclasses.replace(self, **changed) if changed else self

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.name}{{{inside}}}" if inside else self.name


def _resolve(x: object, dims: Mapping[str, int]) -> object:
    if isinstance(x, Dim):
        return x.resolve(dims)
    if isinstance(x, tuple):
        new = tuple(_resolve(e, dims) for e in x)
        return new if any(a is not b for a, b in zip(new, x, strict=True)) else x
    return x


class Pointwise(Op):
    """An operation with one result whose element is an expression of operand elements."""

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the result element at `index`; `types` are the operands' types."""
        raise NotImplementedError(self.name)


class Elementwise(Pointwise):
    """A pointwise operation on operands of one shape, at the same index."""

    arity: ClassVar[int] = 1

    def body(self, s: ScalarOps[T], *xs: T) -> T:
        """Return the result element of operand elements."""
        raise NotImplementedError(self.name)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return `body` of the elements at the same index."""
        return self.body(s, *(r(index) for r in reads))

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the common type; all operands must have it."""
        self._check_arity(types)
        for i, t in enumerate(types[1:], 1):
            if t != types[0]:
                raise ShapeError(
                    f"{self.name}: operand {i} is {t}, operand 0 is {types[0]}; both must be equal"
                )
        return (types[0],)

    def _check_arity(self, types: tuple[TensorType, ...]) -> None:
        if len(types) != self.arity:
            raise ShapeError(f"{self.name} takes {self.arity} operands, got {len(types)}")


class Unary(Elementwise):
    """An elementwise operation of one operand."""

    arity = 1

    def grad(self, dy: Sym, x: Sym, y: Sym) -> Sym | None:
        """Return the cotangent of `x`, None for zero."""
        raise NotDifferentiable(f"{self.name} has no gradient")

    def pullback(
        self,
        cotangents: tuple[Sym | None, ...],
        operands: tuple[Sym, ...],
        results: tuple[Sym, ...],
    ) -> tuple[Sym | None, ...]:
        """Return what `grad` says."""
        (dy,), (x,), (y,) = cotangents, operands, results
        assert dy is not None
        return (self.grad(dy, x, y),)


class Binary(Elementwise):
    """An elementwise operation of two operands."""

    arity = 2

    def grad(self, dy: Sym, a: Sym, b: Sym, y: Sym) -> tuple[Sym | None, Sym | None]:
        """Return the cotangents of `a` and `b`, None for zero."""
        raise NotDifferentiable(f"{self.name} has no gradient")

    def pullback(
        self,
        cotangents: tuple[Sym | None, ...],
        operands: tuple[Sym, ...],
        results: tuple[Sym, ...],
    ) -> tuple[Sym | None, ...]:
        """Return what `grad` says."""
        (dy,), (a, b), (y,) = cotangents, operands, results
        assert dy is not None
        return self.grad(dy, a, b, y)


class Reduction(Op):
    """An operation with one result whose element combines an expression over reduced axes.

    `combine` is `sum`, `prod`, `max`, `min`, `any`, `all`, `argmax` or `argmin`. The arg forms give the row-major number (i32) of
    the first extreme over the reduced axes (NaN counts as extreme).
    """

    @property
    def combine(self) -> str:
        """How elements are combined."""
        return "sum"

    def reduced(self, *types: TensorType) -> Shape:
        """Return the extents of the reduced axes, in row-major order."""
        raise NotImplementedError(self.name)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        reduced: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the element to combine at `index` of the result and `reduced` of the reduced axes."""
        raise NotImplementedError(self.name)


class Contraction(Reduction):
    """A sum of products of one element of each of two operands: matrix products and convolutions.

    `at` must be `s.mul(reads[0](...), reads[1](...))`. The tile templates are chosen by the maps that it reads with. Sums of
    f16 and bf16 are f32, rounded once; all others have the type of the result.
    """


class Scatter(Op):
    """`result = operand 0`, then every element of operand 2 combined into the place that `place` names, in row-major order.

    Operand 1 holds the integer indices. `combine` is `add`, `mul`, `max`, `min` or `set` (the last writer wins).
    """

    @property
    def combine(self) -> str:
        """How an element and what stands at its place are combined."""
        return "add"

    def place(
        self,
        s: ScalarOps[T],
        point: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        indices: Read[T],
    ) -> tuple[Affine | T, ...]:
        """Return where the element of operand 2 at `point` goes: an index expression or an i64 scalar per dimension.

        Dimensions of `point` that stand as plain axes in the result are independent of each other.
        """
        raise NotImplementedError(self.name)


class Running(Scatter):
    """An operation with one result that is made along `axis` in order: each element may read those made before.

    The other dimensions are independent of each other.
    """

    axis: int
    reverse: bool

    def step(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        made: Read[T],
        *reads: Read[T],
    ) -> T:
        """Return the result element at `index`; `made` reads the result, at elements that come earlier."""
        raise NotImplementedError(self.name)


class Composite(Op):
    """A formula of other operations. It may have a gradient rule of its own; otherwise its formula is differentiated."""

    def decompose(self, *operands: Sym) -> tuple[Sym, ...]:
        """Return the results as a formula of the operands."""
        raise NotImplementedError(self.name)

    @property
    def has_gradient(self) -> bool:
        """Whether the class overrides `pullback`."""
        return type(self).pullback is not Op.pullback
