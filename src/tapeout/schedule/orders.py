"""Chooses the order of dimensions in memory of values around convolutions: channels fastest, or the batch where channels are few.

A convolution is recognised by its index maps: an operand is read at sums of an axis of the result (or of the other operand) and an axis
of the kernel. Its three tensors are then the windowed one, the one that shares the sliding axes with it, and the weights, which
share the kernel's axes. The dimension that the first two have in common with the weights is the channel, and goes last in
memory; what follows from or leads to such a value element by element, or by pooling, goes along.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis
from tapeout.ir.op import Contraction, Pointwise, Reduction

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.schedule.facts import Access, FactTable
    from tapeout.schedule.inline import Orders
    from tapeout.schedule.uses import Uses

FEWEST_CHANNELS = 8
"""Below this many channels, vectors along them would be mostly empty."""


FEW_CHANNELS = 32
"""Up to so many channels, the batch fills vectors better than they do, and needs no copy with a border."""

BATCH_BYTES = 64
"""A batch is a multiple of so many bytes of one element each if it may be the fastest dimension."""


@dataclass(frozen=True)
class Role:
    """A tensor of a convolution.

    Attributes:
        value: The tensor.
        channel: Its dimension of channels.
        batch: Its dimension that the windows do not slide over, None if there is no such one.
    """

    value: Value
    channel: int
    batch: int | None

    @property
    def channels_last(self) -> tuple[int, ...]:
        """The order with the channels fastest."""
        return _last(self.channel, self.value.type.rank)

    @property
    def batch_last(self) -> tuple[int, ...]:
        """The order with the channels slowest and the batch fastest."""
        batch = 0 if self.batch is None else self.batch
        rest = (d for d in range(self.value.type.rank) if d not in (self.channel, batch))
        return (self.channel, *rest, batch)


Roles = tuple[Role, Role]
"""The windowed tensor of a convolution and the one that its windows slide over."""


def choose_orders(
    nodes: Sequence[Node], facts: FactTable, uses: Uses, fixed: Container[Value]
) -> Orders:
    """Return the order of dimensions of every value that is not row-major.

    Args:
        nodes: The nodes that matter, in order.
        facts: What each reads.
        uses: Who reads what.
        fixed: Values that stay row-major: sources and outputs.
    """
    chooser = _Chooser(facts, uses, fixed)
    contractions = [n for n in nodes if isinstance(n.op, Contraction)]
    found = {n: r for n in contractions if (r := convolution(n, facts)) is not None}
    batch_last = _prefers_batch(found, facts)
    for roles in found.values():
        for role in roles:
            if batch_last:
                chooser.spread(role.value, role.batch_last)
            elif role.value.type.shape[role.channel] >= FEWEST_CHANNELS:
                chooser.spread(role.value, role.channels_last)
    return {v: o for v, o in chooser.orders.items() if o != tuple(range(len(o)))}


def _prefers_batch(found: Mapping[Node, Roles], facts: FactTable) -> bool:
    """Whether most of the work is in convolutions of few channels, and every batch fills vectors.

    One order for all: values that change theirs would be copied.
    """
    few = total = 0
    for node, roles in found.items():
        if any(r.batch is None or r.value.type.shape[r.batch] % _lanes(r) for r in roles):
            return False
        axes = (*facts[node].axes, *facts[node].reduced)
        work = prod(a.extent for a in axes)
        total += work
        few += work if all(r.value.type.shape[r.channel] <= FEW_CHANNELS for r in roles) else 0
    return 2 * few > total


def _lanes(role: Role) -> int:
    return max(1, BATCH_BYTES // role.value.type.dtype.bytes)


def convolution(node: Node, facts: FactTable) -> Roles | None:
    """Return the tensors of a convolution, None if a contraction is none."""
    accesses = {a.operand: a for a in facts[node].accesses}
    if len(accesses) != 2 or len(facts[node].accesses) != 2:
        return None
    result = [Affine.of(a) for a in facts[node].axes]
    found: list[tuple[int, Roles]] = []
    for windowed, other in ((0, 1), (1, 0)):
        a, entries = accesses[windowed], _entries(accesses[other])
        for second, sliding, weights in (
            (node.results[0], result, entries),
            (node.operands[other], entries, result),
        ):
            roles = _roles(node.operands[windowed], a, second, sliding, weights)
            if roles is not None:
                found.append(roles)
    # The sliding axes and the kernel's play the same part in the form; what slides is longer than the kernel.
    return max(found, key=lambda f: f[0])[1] if found else None


def _roles(
    first: Value,
    access: Access,
    second: Value,
    sliding: Sequence[Affine],
    weights: Sequence[Affine],
) -> tuple[int, Roles] | None:
    """Return the number of sliding points and the tensors, if the windows of `first` slide over `second`."""
    slid, kernel = _axes(sliding), _axes(weights)
    windows: list[Axis] = []
    channels: list[int] = []
    batches: list[tuple[int, Affine]] = []
    for d, entry in enumerate(_entries(access)):
        own = [a for a in entry.axes if a in slid and a not in kernel]
        if own and any(a in kernel and a not in slid for a in entry.axes):
            windows += own
        elif not own:
            channels.append(d)
        else:
            batches.append((d, entry))
    shared = [
        d
        for d, e in enumerate(sliding)
        if any(a in kernel for a in e.axes) and not any(a in windows for a in e.axes)
    ]
    if not windows or len(channels) != 1 or len(shared) != 1:
        return None
    batch = other = None
    if len(batches) == 1 and batches[0][1] in sliding:
        batch, other = batches[0][0], list(sliding).index(batches[0][1])
    roles = Role(first, channels[0], batch), Role(second, shared[0], other)
    return prod(a.extent for a in windows), roles


def _last(d: int, rank: int) -> tuple[int, ...]:
    return (*(i for i in range(rank) if i != d), d)


def _entries(access: Access) -> list[Affine]:
    return [i if isinstance(i, Affine) else Affine() for i in access.index]


def _axes(entries: Sequence[Affine]) -> set[Axis]:
    return {a for i in entries for a in i.axes}


class _Chooser:
    """Spreads orders from convolutions to their neighbours."""

    def __init__(self, facts: FactTable, uses: Uses, fixed: Container[Value]) -> None:
        self.facts, self.uses, self.fixed = facts, uses, fixed
        self.orders: Orders = {}

    def spread(self, value: Value, order: tuple[int, ...]) -> None:
        """Give an order to a value and to all that go along, unless they have one."""
        pending = [(value, order)]
        while pending:
            v, o = pending.pop()
            if v in self.orders or not self._may_order(v):
                continue
            self.orders[v] = o
            pending += self._neighbours(v, o)

    def _may_order(self, value: Value) -> bool:
        if value in self.fixed or value.node is None or value.type.rank < 3:
            return False
        # A reader that merges dimensions wants them as they stand: then the maker stores across.
        return not any(self._merges(r, value) for r in self.uses.of_value(value))

    def _merges(self, node: Node, value: Value) -> bool:
        """Whether a node moves a value such that divided indices would remain in another order."""
        if not isinstance(node.op, Pointwise) or not self.facts[node].moves:
            return False
        return any(
            not i.is_linear for v, a in self.facts.accessed(node) if v is value for i in _entries(a)
        )

    def _neighbours(
        self, value: Value, order: tuple[int, ...]
    ) -> Iterator[tuple[Value, tuple[int, ...]]]:
        """Return the operands and results that hold the same elements, or windows of them, and their orders."""
        if value.node is not None and not isinstance(value.node.op, Contraction):
            for v, a in self._plain(value.node):
                yield v, _carried(_own(value.node), order, _entries(a))
        for node in self.uses.of_value(value):
            if isinstance(node.op, Contraction):
                continue
            for v, a in self._plain(node):
                if v is value:
                    yield node.results[0], _carried(_entries(a), order, _own(node))

    def _plain(self, node: Node) -> list[tuple[Value, Access]]:
        """Return the reads of a node that neither gather nor divide."""
        if not isinstance(node.op, Pointwise | Reduction):
            return []
        found = self.facts.accessed(node)
        return [(v, a) for v, a in found if not a.gathers and all(i.is_linear for i in _entries(a))]


def _own(node: Node) -> list[Affine]:
    shape = node.results[0].type.shape
    return [Affine.of(Axis(f"i{d}", int(n))) for d, n in enumerate(shape)]


def _carried(
    known: Sequence[Affine], order: Sequence[int], entries: Sequence[Affine]
) -> tuple[int, ...]:
    """Return the order of a tensor whose dimensions move as `entries`, after one whose dimensions move as `known`.

    Dimensions that the other lacks go before the fastest.
    """
    place: dict[Axis, int] = {}
    for rank, d in enumerate(order):
        for a in known[d].axes:
            place.setdefault(a, rank)
    fastest = len(order) - 1

    def rank_of(d: int) -> tuple[float, int]:
        found = [place[a] for a in entries[d].axes if a in place]
        return (min(found) if found else fastest - 0.5), d

    return tuple(sorted(range(len(entries)), key=rank_of))
