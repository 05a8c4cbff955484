"""What a node reads, and how dear its element is: found by evaluating it once over its own axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard, guards, index_of
from tapeout.ir.op import Contraction, Pointwise, Reduction
from tapeout.kernel.compute import Apply, Bitcast, Cast, Expr, ExprBuilder, Load
from tapeout.schedule.lower.exprs import widened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.ir.type import TensorType
    from tapeout.schedule.element import Index

CHEAP = frozenset(
    [
        "add",
        "sub",
        "mul",
        "max",
        "min",
        "neg",
        "abs",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "and",
        "or",
        "xor",
        "not",
        "select",
        "isnan",
        "isinf",
        "shl",
        "shr",
        "fma",
    ]
)
"""Operations that cost about as much as a load; all others are never computed twice."""

INDEX_OPERATIONS = 4
"""Most operations of a value made from indices alone that is made anew at each reader."""


@dataclass(frozen=True, slots=True)
class Access:
    """One read: which operand, where (in the node's own axes), and under which guards."""

    operand: int
    index: Index
    where: tuple[Guard, ...]
    other: float

    @property
    def gathers(self) -> bool:
        """Whether the place depends on data."""
        return any(isinstance(i, Expr) for i in self.index)


@dataclass(frozen=True, slots=True)
class Facts:
    """A node seen from outside.

    Attributes:
        axes: One per dimension of the result.
        reduced: One per reduced axis; empty for pointwise nodes.
        accesses: Every distinct read.
        cheap: Operations of one element that cost about as much as a load (casts included).
        dear: Other operations of one element.
        widens: Whether the element is one of an operand as a wider float: that loses nothing and costs next to nothing.
    """

    axes: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    accesses: tuple[Access, ...]
    cheap: int
    dear: int
    widens: bool = False

    @property
    def moves(self) -> bool:
        """Whether the element is a number, made from indices, or one element of one operand as it is."""
        if not self.accesses:
            return not self.dear and self.cheap <= INDEX_OPERATIONS
        return not self.cheap and not self.dear and len(self.accesses) == 1


def facts(node: Node) -> Facts:
    """Return the facts of a pointwise node, a reduction or a contraction."""
    s, types, accesses = ExprBuilder(), tuple(v.type for v in node.operands), dict[Access, None]()
    axes = own_axes(node.results[0].type.shape)
    reads = [_reader(s, i, t, accesses) for i, t in enumerate(types)]
    op = node.op
    if isinstance(op, Reduction):
        reduced = own_axes(op.reduced(*types), "r")
        element = op.at(s, index_of(axes), index_of(reduced), types, *reads)
    else:
        assert isinstance(op, Pointwise), op
        reduced = ()
        element = op.at(s, index_of(axes), types, *reads)
    cheap, dear = _cost([element, *(i for a in accesses for i in a.index if isinstance(i, Expr))])
    if isinstance(op, Contraction):
        cheap, dear = 0, cheap + dear
    widens = not reduced and widened(element) is not element and (cheap, dear) == (1, 0)
    return Facts(axes, reduced, tuple(accesses), cheap, dear, widens)


def is_factor(e: Expr) -> bool:
    """Whether an expression is a load, maybe of a narrower float: then it can be a factor of a contraction without being kept."""
    return isinstance(widened(e), Load)


def own_axes(shape: Iterable[int], letter: str = "i") -> tuple[Axis, ...]:
    """Return one axis per dimension: `i0`, `i1` and so on."""
    return tuple(Axis(f"{letter}{d}", int(n)) for d, n in enumerate(shape))


def _reader(
    s: ExprBuilder, operand: int, type_: TensorType, accesses: dict[Access, None]
) -> Callable[..., Expr]:
    def read(
        index: Sequence[Affine | Expr], where: Sequence[Guard] = (), other: float = 0.0
    ) -> Expr:
        access = Access(operand, tuple(index), guards(*where), other)
        accesses[access] = None
        name = f"{operand}.{list(accesses).index(access)}"
        return s.temp(name, type_.dtype)

    return read


def _cost(exprs: Iterable[Expr]) -> tuple[int, int]:
    """Return the numbers of cheap and of dear operations in expressions, shared ones once."""
    seen: dict[int, None] = {}
    cheap = dear = 0
    stack = list(exprs)
    while stack:
        e = stack.pop()
        if id(e) in seen:
            continue
        seen[id(e)] = None
        if isinstance(e, Apply):
            cheap += e.op in CHEAP
            dear += e.op not in CHEAP
            stack += e.args
        elif isinstance(e, Cast | Bitcast):
            cheap += 1
            stack.append(e.arg)
        elif isinstance(e, Load):
            stack += [i for i in e.index if isinstance(i, Expr)]
    return cheap, dear


class FactTable:
    """Facts by node, found once per node."""

    def __init__(self) -> None:
        self._known: dict[Node, Facts] = {}

    def __getitem__(self, node: Node) -> Facts:
        if node not in self._known:
            self._known[node] = facts(node)
        return self._known[node]

    def accessed(self, node: Node) -> list[tuple[Value, Access]]:
        """Return every read of a node with the value read."""
        return [(node.operands[a.operand], a) for a in self[node].accesses]
