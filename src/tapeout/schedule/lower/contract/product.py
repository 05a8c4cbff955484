"""A contraction in the form that the tiles want: rows are broadcast, columns lie across lanes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard
from tapeout.ir.dtype import u32
from tapeout.kernel.compute import Buffer, ContractionKernel, Expr, ExprBuilder, Load, Store
from tapeout.schedule.lower.domain import Domain, sort_axes
from tapeout.schedule.lower.exprs import Rewriter, indices, loads
from tapeout.schedule.lower.normal import offset_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tapeout.ir.dtype import DType

Axes = tuple[Axis, ...]
ROLES = ("batch", "rows", "cols", "k")


@dataclass(frozen=True)
class Product:
    """`acc[batch, rows, cols] = sum over k of a[batch, rows, k] * b[batch, cols, k]`, then the stages.

    Attributes:
        buffers: All that the expressions and stages name.
        batch: Axes of both operands.
        rows: Axes of `a` alone, slowest first; tiles run along the last one.
        cols: Axes of `b` alone, slowest first; lanes run along the last one.
        k: Summed axes, in the order of the sum.
        a: The operand that is broadcast.
        b: The operand that is loaded in vectors.
        accumulate: Type of the sum.
        stages: The epilogue.
        limits: Where one does not hold, `a` or `b` is zero: a padded border, whose products need not be taken.
        pairs: Whether an element of an operand is a pair of bf16, for two steps of the sum.
        fixed: Names of the buffers that are the same each time that a loop around runs it.
        exact: Whether they must not be taken: where a limit does not hold there is no element.
    """

    name: str
    buffers: tuple[Buffer, ...]
    batch: Axes
    rows: Axes
    cols: Axes
    k: Axes
    a: Expr
    b: Expr
    accumulate: DType
    stages: tuple[Store, ...]
    limits: tuple[Guard, ...] = ()
    exact: bool = False
    pairs: bool = False
    fixed: tuple[str, ...] = ()

    @property
    def element(self) -> DType:
        """The type in which tiles read both operands."""
        return u32 if self.pairs else self.accumulate

    @property
    def by_name(self) -> dict[str, Buffer]:
        """The buffers by name."""
        return {b.name: b for b in self.buffers}

    @property
    def limited(self) -> set[Axis]:
        """The axes of k whose loops the limits cut short."""
        return {a for g in self.limits for a in g.index.axes if a in self.k}

    @property
    def steps(self) -> int:
        """How many products a sum has."""
        return prod(a.extent for a in self.k)

    def place(self, load: Load) -> Affine:
        """Return where an affine load reads, in elements."""
        return offset_of(load, self.by_name)

    def is_fixed(self, operand: Expr) -> bool:
        """Whether an operand is the same each time that a loop around runs the product."""
        return bool(self.fixed) and all(e.buffer in self.fixed for e in loads(operand))

    def store_place(self) -> Affine:
        """Return where the first stage of the epilogue writes, in elements."""
        first = self.stages[0]
        return self.by_name[first.buffer].offset(first.index)


def oriented(kernel: ContractionKernel, swap: bool) -> Product:
    """Return a contraction with its m axes as rows, or (swapped) as columns; axes of one step are left out."""
    rows, cols = (kernel.n, kernel.m) if swap else (kernel.m, kernel.n)
    a, b = (kernel.b, kernel.a) if swap else (kernel.a, kernel.b)
    batch, rows, cols, k = (_real(x) for x in (kernel.batch, rows, cols, kernel.k))
    product = Product(
        kernel.name, kernel.buffers, batch, rows, cols, k, a, b, kernel.accumulate, kernel.stages,
        fixed=kernel.fixed,
    )  # fmt: skip
    return sort_roles(split(product))


def _real(axes: Axes) -> Axes:
    return tuple(a for a in axes if a.extent > 1)


def split(product: Product) -> Product:
    """Return the contraction with axes split where indices divide them."""
    domain = Domain(_indices(product))
    new = {
        role: tuple(domain.split(getattr(product, role), getattr(product, role))) for role in ROLES
    }
    return rebind(product, domain.bind, new) if domain.bind else product


def sort_roles(product: Product) -> Product:
    """Return the contraction with the axes of each role in the order of memory."""
    stores = [product.by_name[s.buffer].offset(s.index) for s in product.stages]
    in_a, in_b = ([product.place(e) for e in loads(x)] for x in (product.a, product.b))
    return replace(
        product,
        batch=tuple(sort_axes(product.batch, [*stores, *in_a, *in_b])),
        rows=tuple(sort_axes(product.rows, [*in_a, *stores])),
        cols=tuple(sort_axes(product.cols, [*stores, *in_b])),
        k=_order_of_sum(product),
    )


def _order_of_sum(product: Product) -> Axes:
    """Return the axes of k in the order of memory, but those that a border cuts short outermost: their loops may be very short."""
    places = [product.place(e) for e in loads(product.a, product.b)]
    short = product.limited
    order = sort_axes(product.k, places)
    return (*(a for a in order if a in short), *(a for a in order if a not in short))


def merge(product: Product, roles: Sequence[str] = ROLES) -> Product:
    """Return the contraction with neighbouring axes of some roles merged where every index agrees."""
    domain = Domain(_indices(product))
    new = {
        role: tuple(domain.merge(axes, axes)) if role in roles else axes
        for role, axes in ((r, getattr(product, r)) for r in ROLES)
    }
    return rebind(product, domain.bind, new) if domain.bind else product


def flatten_rows(product: Product) -> Product:
    """Return the contraction with its last two row axes as one, whatever their strides: tiles then cross from line to line."""
    *outer, slow, fast = product.rows
    both = Axis(f"{slow.name}.{fast.name}", slow.extent * fast.extent)
    line = Affine.of(both)
    roles = {
        "batch": product.batch,
        "rows": (*outer, both),
        "cols": product.cols,
        "k": product.k,
    }
    return rebind(product, {slow: line // fast.extent, fast: line % fast.extent}, roles)


def _indices(product: Product) -> list[Affine]:
    buffers = product.by_name
    exprs = (product.a, product.b, *(s.value for s in product.stages))
    found = [buffers[s.buffer].offset(s.index) for s in product.stages]
    addresses: set[int] = set()
    for e in loads(*exprs):
        found.append(offset_of(e, buffers))
        addresses.update(id(i) for i in e.index)
    found += [g.index for g in product.limits if product.exact]
    return found + [i for i in indices(*exprs) if id(i) not in addresses]


def rebind(
    product: Product, bind: Mapping[Axis, Affine], roles: Mapping[str, Sequence[Axis]]
) -> Product:
    """Return the contraction over other axes."""
    rewrite = Rewriter(ExprBuilder(), bind, {})
    stages = tuple(
        replace(s, index=tuple(i.substitute(rewrite.axes) for i in s.index), value=rewrite(s.value))
        for s in product.stages
    )
    return replace(
        product,
        batch=tuple(roles["batch"]),
        rows=tuple(roles["rows"]),
        cols=tuple(roles["cols"]),
        k=tuple(roles["k"]),
        a=rewrite(product.a),
        b=rewrite(product.b),
        stages=stages,
        limits=tuple(g.substitute(bind) for g in product.limits),
    )
