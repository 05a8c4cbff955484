"""Ways through expressions of level T, and rewriting them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine
from tapeout.kernel import compute
from tapeout.kernel.compute import Apply, Bitcast, Cast, Expr, ExprBuilder, Index, Load, Temp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tapeout.ir.affine import Axis


def parts(expr: Expr) -> tuple[Expr, ...]:
    """Return the expressions that an expression is made of."""
    if isinstance(expr, Apply):
        return expr.args
    if isinstance(expr, Cast | Bitcast):
        return (expr.arg,)
    if isinstance(expr, Load):
        return tuple(i for i in expr.index if isinstance(i, Expr))
    return ()


def postorder(*roots: Expr) -> list[Expr]:
    """Return every expression below the roots once, parts first; chains may be long, so there is no recursion."""
    found: dict[int, Expr] = {}
    stack = [(r, False) for r in reversed(roots)]
    while stack:
        expr, ready = stack.pop()
        if id(expr) in found:
            continue
        if ready:
            found[id(expr)] = expr
            continue
        stack.append((expr, True))
        stack.extend((p, False) for p in reversed(parts(expr)))
    return list(found.values())


def loads(*roots: Expr) -> list[Load]:
    """Return every load below the roots once."""
    return [e for e in postorder(*roots) if isinstance(e, Load)]


def widened(expr: Expr) -> Expr:
    """Return what an expression is as a wider float: the same element, read in fewer bytes; itself if it is no such thing."""
    if isinstance(expr, Cast) and expr.dtype.is_float and expr.arg.dtype.is_float:
        return expr.arg if expr.arg.dtype.bits < expr.dtype.bits else expr
    return expr


def indices(*roots: Expr) -> list[Affine]:
    """Return every index expression below the roots, those of guards included."""
    found: list[Affine] = []
    for e in postorder(*roots):
        if isinstance(e, Index):
            found.append(e.index)
        elif isinstance(e, Load):
            found += [i for i in e.index if isinstance(i, Affine)]
            found += [g.index for g in e.where]
    return found


def operations(*roots: Expr) -> int:
    """Return the number of floating-point operations of one evaluation (2 for a multiply-add)."""
    count = 0
    for e in postorder(*roots):
        if isinstance(e, Apply) and e.args[-1].dtype.is_float and e.op != "select":
            count += 2 if e.op == "fma" else 1
    return count


@dataclass(frozen=True)
class Rewriter:
    """Rebuilds expressions with axes, temporaries and loads replaced.

    Attributes:
        s: Makes the new expressions.
        axes: What an axis becomes.
        temps: What a temporary becomes.
        load: What a load (with its axes replaced) becomes; itself by default.
        whole: What an expression becomes as a whole, by its id.
    """

    s: ExprBuilder
    axes: Mapping[Axis, Affine]
    temps: Mapping[str, Expr]
    load: Callable[[Load], Expr] | None = None
    whole: Mapping[int, Expr] = field(default_factory=dict)

    def __call__(self, root: Expr) -> Expr:
        """Return the expression rebuilt."""
        new: dict[int, Expr] = {}
        for e in postorder(root):
            new[id(e)] = self.whole.get(id(e)) or self._one(e, new)
        return new[id(root)]

    def _one(self, e: Expr, new: Mapping[int, Expr]) -> Expr:
        if isinstance(e, Apply):
            return self.s.apply(e.op, *(new[id(a)] for a in e.args))
        if isinstance(e, Cast):
            return self.s.cast(new[id(e.arg)], e.dtype)
        if isinstance(e, Bitcast):
            return self.s.bitcast(new[id(e.arg)], e.dtype)
        if isinstance(e, Index):
            return self.s.index(e.index.substitute(self.axes))
        if isinstance(e, Temp):
            return self.temps.get(e.name) or self.s.temp(e.name, e.dtype)
        if isinstance(e, Load):
            return self._load(e, new)
        assert isinstance(e, compute.Const)
        return self.s.const(e.value, e.dtype)

    def _load(self, e: Load, new: Mapping[int, Expr]) -> Expr:
        at = tuple(
            i.substitute(self.axes) if isinstance(i, Affine) else new[id(i)] for i in e.index
        )
        where = tuple(g.substitute(self.axes) for g in e.where)
        moved = Load(e.dtype, e.buffer, at, where, e.other)
        return self.load(moved) if self.load else shared_load(self.s, moved)


def shared_load(s: ExprBuilder, load: Load) -> Expr:
    """Return a load as the builder shares it."""
    like = compute.Buffer(load.buffer, load.dtype, (), ())
    return s.load(like, load.index, load.where, load.other)


def axes_of(roots: Iterable[Expr]) -> set[Axis]:
    """Return the axes on which expressions depend; only for membership tests."""
    return {a for i in indices(*roots) for a in i.axes}
