"""Sums over time of what a step computes, written outside of the loop.

The cotangent of a value that every step reads is a sum over the steps. Where a step's share is a matrix product, the operands are
stacked and one product after the loop sums over time as well; what is linear (sums, transposes, broadcasts) moves behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tapeout.ops import elementwise as ew
from tapeout.ops import movement as mv
from tapeout.ops import reduce as rd
from tapeout.ops.contraction import Conv, DotGeneral

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from tapeout.autodiff.step import Source
    from tapeout.ir.graph import Value
    from tapeout.ir.op import Op
    from tapeout.ops.sym import Sym

    Path = tuple[Callable[[Sym], Sym], ...]

MOST = 64
"""Most terms that the cotangent of one value is taken apart into."""

LARGEST = 1 << 24
"""Bytes of a stack that is made only to be summed; a larger sum is carried from step to step."""

_LINEAR = (ew.Neg, mv.Transpose, mv.Reshape, mv.Broadcast, mv.Slice, mv.Reverse)


@dataclass(frozen=True)
class Term:
    """A share of a sum over time: a leaf, and what is done to its sum.

    Attributes:
        value: The leaf; for a product, its result.
        path: Linear functions, the first applied first.
        reduced: The sum inside of the step that the leaf is the operand of, if it stands next.
    """

    value: Value
    path: Path = ()
    reduced: Value | None = None


@dataclass
class OverTime:
    """Collects what the loop must stack, then writes the sums.

    Attributes:
        sources: Values that exist outside already.
        length: Number of steps.
        stacked: Values that the loop has to stack, in order.
        carried: Values that the loop has to sum, in order.
    """

    sources: Mapping[Value, Source]
    length: int
    stacked: dict[Value, None] = field(default_factory=dict)
    carried: dict[Value, None] = field(default_factory=dict)

    def plan(self, terms: list[Term]) -> None:
        """Note what the loop must stack or sum for terms; products first, so that sums can share their operands."""
        for t in terms:
            if _is_product(t.value):
                for v in t.value.node.operands:  # type: ignore[union-attr]
                    self._stack(v)
        for t in terms:
            if not _is_product(t.value):
                leaf = self.leaf(t).value
                if leaf.type.bytes * self.length > LARGEST and leaf not in self.sources:
                    self.carried[leaf] = None
                else:
                    self._stack(leaf)

    def leaf(self, term: Term) -> Term:
        """Return the term with the sum inside of the step as its leaf, unless the operand of that sum is stacked anyway."""
        known = term.value in self.stacked or term.value in self.sources
        if term.reduced is None or known:
            return term
        return Term(term.reduced, term.path[1:])

    def _stack(self, value: Value) -> None:
        if value not in self.sources:
            self.stacked[value] = None

    def write(
        self, term: Term, stack: Callable[[Value], Sym], total: Callable[[Value], Sym]
    ) -> Sym:
        """Return the sum over time of a term.

        Args:
            term: What to sum.
            stack: Gives the stack of a value.
            total: Gives the sum of a carried value.
        """
        if _is_product(term.value):
            y = _product(term.value, stack)
            return _along(y, term.path)
        leaf = self.leaf(term)
        if leaf.value in self.carried:
            return _along(total(leaf.value), leaf.path)
        if leaf.reduced is not None:
            op = leaf.reduced.node.op  # type: ignore[union-attr]
            assert isinstance(op, rd.ReduceSum)
            summed = stack(leaf.value).sum([0, *(a + 1 for a in op.axes)])
            return _along(summed, leaf.path[1:])
        kind = self.sources[leaf.value][0] if leaf.value in self.sources else "slice"
        if kind == "rest":
            return _along(self.sources[leaf.value][1]() * float(self.length), leaf.path)
        return _along(stack(leaf.value).sum([0]), leaf.path)


def shares_of(
    values: Mapping[int, Value], sources: Mapping[Value, Source]
) -> dict[int, list[Term]]:
    """Return the terms of several values; what products read is stacked, so that nothing behind it is taken apart."""
    first = [t for v in values.values() for t in terms_of(v, sources, ())]
    stacked = {
        v
        for t in first
        if _is_product(t.value)
        for v in t.value.node.operands  # type: ignore[union-attr]
    }
    return {i: terms_of(v, sources, stacked) for i, v in values.items()}


def terms_of(
    value: Value, sources: Mapping[Value, Source], stacked: Container[Value]
) -> list[Term]:
    """Return the shares that a step's value is the sum of, taken apart along what is linear."""
    done: list[Term] = []
    pending = [Term(value)]
    while pending and len(done) + len(pending) <= MOST:
        t = pending.pop()
        node = t.value.node
        if node is None or t.value in sources or t.value in stacked:
            done.append(t)
            continue
        op, operands = node.op, node.operands
        if isinstance(op, ew.Add):
            pending += [Term(v, t.path) for v in reversed(operands)]
        elif isinstance(op, _LINEAR) or _pads_zeros(op):
            pending.append(Term(operands[0], (_apply(op), *t.path)))
        elif isinstance(op, rd.ReduceSum):
            inner = operands[0]
            if inner not in stacked and _is_taken_apart(inner, sources):
                pending.append(Term(inner, (_apply(op), *t.path)))
            else:
                done.append(Term(inner, (_apply(op), *t.path), t.value))
        elif isinstance(op, DotGeneral) and _rest_of(operands, sources) is not None:
            side = _rest_of(operands, sources)
            assert side is not None
            other = sources[operands[side]][1]
            pending.append(Term(operands[1 - side], (_dot(op, side, other), *t.path)))
        else:
            done.append(t)
    return done if not pending else [Term(value)]


def _is_taken_apart(value: Value, sources: Mapping[Value, Source]) -> bool:
    if value.node is None or value in sources:
        return False
    return isinstance(value.node.op, (*_LINEAR, ew.Add, rd.ReduceSum)) or _is_product(value)


def _is_product(value: Value) -> bool:
    op = value.node.op if value.node is not None else None
    return isinstance(op, DotGeneral) or (isinstance(op, Conv) and op.out == "w")


def _pads_zeros(op: Op) -> bool:
    return isinstance(op, mv.Pad) and op.value == 0.0


def _rest_of(operands: tuple[Value, ...], sources: Mapping[Value, Source]) -> int | None:
    """Return which of two operands is the same at every step, None if both or neither are."""
    same = [v in sources and sources[v][0] == "rest" for v in operands]
    return same.index(True) if sum(same) == 1 else None


def _apply(op: Op) -> Callable[[Sym], Sym]:
    return lambda x: x.emit(op, x)


def _dot(op: DotGeneral, side: int, other: Callable[[], Sym]) -> Callable[[Sym], Sym]:
    def applied(x: Sym) -> Sym:
        k = other()
        return x.emit(op, k, x) if side == 0 else x.emit(op, x, k)

    return applied


def _product(value: Value, stack: Callable[[Value], Sym]) -> Sym:
    """Return the sum over time of a product of a step: one product of the stacks."""
    assert value.node is not None
    op, (a, b) = value.node.op, map(stack, value.node.operands)
    if isinstance(op, DotGeneral):
        moved = {k: tuple(d + 1 for d in getattr(op, k)) for k in ("batch_a", "batch_b")}
        contract_a = (0, *(d + 1 for d in op.contract_a))
        contract_b = (0, *(d + 1 for d in op.contract_b))
        return a.emit(DotGeneral(contract_a=contract_a, contract_b=contract_b, **moved), a, b)
    assert isinstance(op, Conv)
    # Time joins the batch, over which the gradient of a weight sums anyway.
    x, y = (s.reshape([s.shape[0] * s.shape[1], *s.shape[2:]]) for s in (a, b))
    return x.emit(replace(op), x, y)


def _along(x: Sym, path: Path) -> Sym:
    for step in path:
        x = step(x)
    return x
