"""Reductions that reduce nothing, extremes of extremes, and transposes that a matrix product takes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.rewrite import Rule, match, rule
from tapeout.ops import contraction
from tapeout.ops import movement as mv
from tapeout.ops import reduce as rd
from tapeout.passes.rules.patterns import P, Q, X, Y

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapeout.ir.op import Op
    from tapeout.ir.rewrite import Site
    from tapeout.ops.sym import Sym

Ints = tuple[int, ...]

transpose, dot = match(mv.Transpose), match(contraction.DotGeneral)
PLAIN = {
    "sum": rd.ReduceSum,
    "prod": rd.ReduceProd,
    "max": rd.ReduceMax,
    "min": rd.ReduceMin,
    "any": rd.ReduceAny,
    "all": rd.ReduceAll,
}
EXACT = ("max", "min", "any", "all")
"""Combinations that give the same bits in any order."""


def _less_axes(make: Callable[..., Op]) -> Callable[..., Sym | None]:
    """Leave out axes of size 1; what is left of them is a reshape."""

    def result(x: Sym, p: Ints, node: Site) -> Sym | None:
        kept = tuple(a for a in p if x.shape[a] != 1)
        if len(kept) == len(p):
            return None
        y = x.emit(make(axes=kept), x) if kept else x
        return y.reshape(node.type.shape)

    return result


def _joined(make: Callable[..., Op]) -> Callable[..., Sym]:
    """Axes `p` of `x`, then axes `q` of what is left, at once."""

    def result(x: Sym, p: Ints, q: Ints) -> Sym:
        left = [d for d in range(x.rank) if d not in p]
        return x.emit(make(axes=tuple(sorted((*p, *(left[a] for a in q))))), x)

    return result


def _rules() -> tuple[Rule, ...]:
    out = []
    for name, cls in PLAIN.items():
        reduce = match(cls)
        out.append(rule(f"reduce-{name}-of-ones", reduce(X, axes=P), _less_axes(cls)))
        if name in EXACT:
            twice = reduce(reduce(X, axes=P), axes=Q)
            out.append(rule(f"reduce-{name}-twice", twice, _joined(cls)))
    return tuple(out)


def _free(rank: int, op: contraction.DotGeneral, which: str) -> list[int]:
    used = op.contract_a + op.batch_a if which == "a" else op.contract_b + op.batch_b
    return [d for d in range(rank) if d not in used]


def _dot(node: Site) -> contraction.DotGeneral:
    assert isinstance(node.op, contraction.DotGeneral)
    return node.op


def _transposed_a(x: Sym, y: Sym, p: Ints, node: Site) -> Sym | None:
    """The product names the dimensions of `x` itself, if the free ones keep their order."""
    op = _dot(node)
    free = [p[d] for d in _free(x.rank, op, "a")]
    if free != sorted(free):
        return None
    contract, batch = [p[d] for d in op.contract_a], [p[d] for d in op.batch_a]
    return x.dot_general(y, contract=(contract, op.contract_b), batch=(batch, op.batch_b))


def _transposed_b(x: Sym, y: Sym, p: Ints, node: Site) -> Sym | None:
    op = _dot(node)
    free = [p[d] for d in _free(y.rank, op, "b")]
    if free != sorted(free):
        return None
    contract, batch = [p[d] for d in op.contract_b], [p[d] for d in op.batch_b]
    return x.dot_general(y, contract=(op.contract_a, contract), batch=(op.batch_a, batch))


def _swapped(x: Sym, y: Sym, p: Ints, node: Site, once: bool) -> Sym | None:
    """A transpose that puts the free dimensions of `y` before those of `x` is the product of `y` and `x`."""
    below = node.operands[0].node
    assert below is not None
    if not once:
        return None  # the product is needed as it is, too
    op = below.op
    assert isinstance(op, contraction.DotGeneral)
    batch, a, b = len(op.batch_a), len(_free(x.rank, op, "a")), len(_free(y.rank, op, "b"))
    wanted = (*range(batch), *range(batch + a, batch + a + b), *range(batch, batch + a))
    if p != wanted:
        return None
    return y.dot_general(x, contract=(op.contract_b, op.contract_a), batch=(op.batch_b, op.batch_a))


REDUCTIONS = (
    *_rules(),
    rule("dot-of-transposed-a", dot(transpose(X, perm=P), Y), _transposed_a),
    rule("dot-of-transposed-b", dot(X, transpose(Y, perm=P)), _transposed_b),
    rule("transpose-of-dot", transpose(dot(X, Y), perm=P), _swapped),
)
"""Tried from top to bottom at each operation."""
