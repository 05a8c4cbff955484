"""Reverse mode through `Scan` and `Cond`.

The derivative of a scan is a scan that runs the other way. What its body needs of the forward pass it reads from the histories of the
carries, the stacked operands and the stacked results (`residuals` adds those that are worth it); the rest it computes anew.
Cotangents that all steps share are summed after the loop (`over_time`). The derivative of a branch is a branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.autodiff.formulas import formulas
from tapeout.autodiff.over_time import OverTime, Term, shares_of
from tapeout.autodiff.step import Cutter, Derived, derive, live_inputs
from tapeout.ir.build import Builder
from tapeout.ops import elementwise as ew
from tapeout.ops import movement as mv
from tapeout.ops.control import BODY, OTHERWISE, THEN, Cond, Scan
from tapeout.ops.sym import Sym, constant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapeout.autodiff.step import Source
    from tapeout.ir.graph import Value
    from tapeout.ir.op import Op
    from tapeout.ir.type import TensorType

Cotangents = tuple["Sym | None", ...]


def pull_control(
    op: Op,
    cotangents: Cotangents,
    operands: Sequence[Sym],
    results: Sequence[Sym],
    live: Sequence[bool],
) -> Cotangents:
    """Return the cotangents of the operands of an operation with regions, None for zero.

    Args:
        op: `Scan` or `Cond`.
        cotangents: Of its results.
        operands: What it reads.
        results: What it gives.
        live: Which cotangents are asked for.
    """
    if isinstance(op, Scan):
        return _Reverse(op, cotangents, operands, results).run(live)
    assert isinstance(op, Cond)
    return _pull_cond(op, cotangents, operands, live)


@dataclass(frozen=True)
class _Direct:
    """The cotangent that a history gets from outside of the loop.

    Attributes:
        start: Of the slot that the reverse loop starts from.
        after: Of the slots after each step, [length, ...].
        init: Of the slot of the initial value.
    """

    start: Sym | None
    after: Sym | None
    init: Sym | None

    @property
    def in_loop(self) -> bool:
        """Whether the loop has to know of it."""
        return self.start is not None or self.after is not None


class _Reverse:
    """Writes the reverse scan of one scan."""

    def __init__(
        self, op: Scan, cotangents: Cotangents, operands: Sequence[Sym], results: Sequence[Sym]
    ) -> None:
        self.op, self.operands, self.results = op, operands, results
        self.body = formulas(op.body)
        self.builder = operands[0].builder
        self.cotangents = cotangents
        self.length = op.length
        # A carry before and after time t stands at these slots beyond t.
        self.before, self.after = (1, 0) if op.reverse else (0, 1)
        self.direct = [self._direct(c) for c in cotangents[: op.carries]]

    # -- what comes from outside --------------------------------------------------------------------

    def _direct(self, cotangent: Sym | None) -> _Direct:
        """Split the cotangent of a history; that of the last slot alone starts the loop and needs no stack."""
        first, last = (self.length, 0) if self.op.reverse else (0, self.length)
        starts: list[Sym] = []
        afters: list[Sym] = []
        inits: list[Sym] = []
        for term in _summands(cotangent):
            if self.length and _only_slot(term) == last:
                _append(starts, _slots(term, last, last + 1))
                continue
            if self.length:
                _append(afters, _slots(term, self.after, self.after + self.length))
            _append(inits, _slots(term, first, first + 1))
        return _Direct(_unstacked(_sum(starts)), _sum(afters), _unstacked(_sum(inits)))

    def _sources(self) -> dict[Value, Source]:
        """Return the forward values that exist outside: inputs and outputs of the body."""
        op, body = self.op, self.body
        n, stop = op.carries, op.carries + op.xs
        found: dict[Value, Source] = {}
        for i, value in enumerate(body.inputs):
            kind = "slice" if i < stop else "rest"
            source = self._history(i, self.before) if i < n else _constantly(self.operands[i])
            found[value] = (kind, source)
        for i, (_, value) in enumerate(body.outputs):
            source = self._history(i, self.after) if i < n else _constantly(self.results[i])
            found.setdefault(value, ("slice", source))
        return found

    def _history(self, i: int, start: int) -> Callable[[], Sym]:
        return lambda: _cut(self.results[i], start, start + self.length)

    # -- the reverse scan ---------------------------------------------------------------------------

    def run(self, live: Sequence[bool]) -> Cotangents:
        """Emit the reverse scan and return the cotangents of the operands."""
        n, stop = self.op.carries, self.op.carries + self.op.xs
        derived, flows = self._derive(live_inputs(self.body, n, live))
        found = [derived.found.get(v) for v in self.body.inputs]
        sources = self._sources()
        region = Builder(BODY)
        region.loc = self.builder.loc
        cut = Cutter(derived.builder.nodes, sources, region)
        carried = [i for i in flows if flows[i] is not None or self.direct[i].start is not None]
        self._totals(derived, carried, cut)
        stacks = {i: x for i, x in enumerate(found) if x is not None and live[i] and n <= i < stop}
        rest = {i: x.value for i, x in enumerate(found) if x is not None and live[i] and i >= stop}
        shares = shares_of(rest, sources)
        over = OverTime(sources, self.length)
        over.plan([t for terms in shares.values() for t in terms])
        loop = _Loop(self, cut, {i: flows[i] for i in carried})
        results = loop.emit([x.value for x in stacks.values()], over)
        return self._cotangents(live, results, carried, stacks, shares, over)

    def _derive(self, now: Sequence[bool]) -> tuple[Derived, dict[int, Sym | None]]:
        """Return the backward step, and what flows to each carry that has a cotangent after the step."""
        n = self.op.carries
        seeded = [i for i in range(n) if self.direct[i].in_loop]
        stacked = [i for i in range(n, len(self.results)) if self.cotangents[i] is not None]
        while True:
            derived = derive(self.body, now, [*seeded, *stacked])
            found = [derived.found.get(self.body.inputs[i]) for i in range(n)]
            more = [i for i in range(n) if found[i] is not None and i not in seeded]
            if not more:
                return derived, {i: found[i] for i in seeded}
            seeded = sorted([*seeded, *more])

    def _totals(self, derived: Derived, carried: Sequence[int], cut: Cutter) -> None:
        """Say where the cotangents of the body's outputs come from: the carry, and what comes from outside at each step."""
        n = self.op.carries
        region = cut.region
        carries = {
            i: region.add_input(f"c{m}", self.body.inputs[i].type) for m, i in enumerate(carried)
        }
        for i, seed in derived.seeds.items():
            outside = self.direct[i].after if i < n else self.cotangents[i]
            if outside is not None:
                cut.sources[seed] = ("slice", _constantly(outside))
            if i not in carries:
                continue
            carry = Sym(region, carries[i])
            if outside is not None:
                cut.given(seed)
                del cut.sources[seed]
                carry = carry + Sym(region, cut.made[seed])
            cut.made[seed] = carry.value

    def _cotangents(
        self,
        live: Sequence[bool],
        results: Sequence[Sym],
        carried: Sequence[int],
        stacks: dict[int, Sym],
        shares: dict[int, list[Term]],
        over: OverTime,
    ) -> Cotangents:
        """Return the cotangents of the operands from the results of the reverse scan."""
        out: list[Sym | None] = [None] * len(self.operands)
        slot = self.length if self.op.reverse else 0
        for i, direct in enumerate(self.direct):
            flow = [_slot(results[carried.index(i)], slot)] if i in carried else []
            init = [] if direct.init is None else [direct.init]
            out[i] = _sum(init + flow) if live[i] else None
        count = len(carried) + len(over.carried)
        for i in stacks:
            out[i] = results[count]
            count += 1
        stacked = {v: results[count + m] for m, v in enumerate(over.stacked)}
        totals = {v: _slot(results[len(carried) + m], slot) for m, v in enumerate(over.carried)}

        def stack(value: Value) -> Sym:
            if value in stacked:
                return stacked[value]
            kind, operand = over.sources[value]
            x = operand()
            spread = (self.length, *x.shape)
            return x if kind == "slice" else x.broadcast(spread, range(1, x.rank + 1))

        for i, terms in shares.items():
            out[i] = _sum([over.write(t, stack, totals.__getitem__) for t in terms])
        return tuple(out)


@dataclass
class _Loop:
    """Emits the scan of a region that a cutter fills.

    Attributes:
        reverse: What the scan is the derivative of.
        cut: The region.
        flows: What flows to each carry, by its number.
    """

    reverse: _Reverse
    cut: Cutter
    flows: dict[int, Sym | None]

    def emit(self, stacks: Sequence[Value], over: OverTime) -> Sequence[Sym]:
        """Return the histories of the carries and of the carried sums, then `stacks` and what is stacked for sums."""
        cut, region, builder = self.cut, self.cut.region, self.reverse.builder
        flowing = [x.value for x in self.flows.values() if x is not None]
        made = iter(cut.cut([*flowing, *over.carried, *stacks, *over.stacked]))
        carries = [self.reverse.body.inputs[i].type for i in self.flows]
        after = [
            Sym(region, next(made)) if x is not None else _zeros(region, t)
            for x, t in zip(self.flows.values(), carries, strict=True)
        ]
        init = [
            _zeros(builder, t) if (start := self.reverse.direct[i].start) is None else start
            for i, t in zip(self.flows, carries, strict=True)
        ]
        for value in over.carried:
            total = Sym(region, region.add_input(f"c{len(after)}", value.type))
            after.append(total + Sym(region, next(made)))
            init.append(_zeros(builder, value.type))
        ys = [Sym(region, v) for v in made]
        if not after and not ys:
            return ()
        carry_inputs = [v for v in region.inputs.values() if v.name.startswith("c")]
        inputs = [*carry_inputs, *(v for _, v in cut.slices), *(v for _, v in cut.rest)]
        region.inputs = {v.name: v for v in inputs}
        for letter, outputs in (("c", after), ("y", ys)):
            for m, x in enumerate(outputs):
                region.set_output(f"{letter}{m}", x.value)
        forward = self.reverse.op
        op = Scan(region.graph(), len(after), len(cut.slices), forward.length, not forward.reverse)
        operands = [*init, *(s for s, _ in cut.slices), *(s for s, _ in cut.rest)]
        return self.reverse.operands[0].emit_all(op, *operands)


# -- branches -------------------------------------------------------------------------------------------------


def _pull_cond(
    op: Cond, cotangents: Cotangents, operands: Sequence[Sym], live: Sequence[bool]
) -> Cotangents:
    """Emit a `Cond` of the derivatives of both branches, each of which computes its forward pass anew."""
    seeded = [i for i, c in enumerate(cotangents) if c is not None]
    graphs = [formulas(op.then), formulas(op.otherwise)]
    derived = [derive(g, live_inputs(g, 0, live[1:]), seeded) for g in graphs]
    found = [[d.found.get(v) for v in g.inputs] for d, g in zip(derived, graphs, strict=True)]
    asked = [
        i for i, parts in enumerate(zip(*found, strict=True)) if any(x is not None for x in parts)
    ]
    if not asked:
        return (None,) * len(operands)
    given = [*operands[1:], *(c for c in cotangents if c is not None)]
    regions = []
    for name, g, d, grads in zip((THEN, OTHERWISE), graphs, derived, found, strict=True):
        b = Builder(name)
        inputs = [b.add_input(f"x{m}", x.type) for m, x in enumerate(given)]
        cut = Cutter(d.builder.nodes, {}, b)
        cut.made = dict(zip([*g.inputs, *d.seeds.values()], inputs, strict=True))
        made = iter(cut.cut([x.value for i in asked if (x := grads[i]) is not None]))
        for m, i in enumerate(asked):
            zero = grads[i] is None
            y = _zeros(b, g.inputs[i].type).value if zero else next(made)
            b.set_output(f"y{m}", y)
        regions.append(b.graph())
    results = operands[0].emit_all(Cond(*regions), operands[0], *given)
    out: list[Sym | None] = [None] * len(operands)
    for i, x in zip(asked, results, strict=True):
        out[i + 1] = x
    return tuple(out)


# -- small parts ----------------------------------------------------------------------------------------------


def _summands(x: Sym | None) -> list[Sym]:
    """Return the terms of a sum, at most some."""
    pending = [x] if x is not None else []
    done: list[Sym] = []
    while pending:
        term = pending.pop()
        node = term.value.node
        if node is not None and isinstance(node.op, ew.Add) and len(pending) + len(done) < 16:
            pending += [Sym(term.builder, v) for v in reversed(node.operands)]
        else:
            done.append(term)
    return done


def _padded(x: Sym) -> tuple[Sym, int] | None:
    """Return what is padded with zeros in front and behind along dimension 0, and at which slot it starts."""
    node = x.value.node
    if node is None or not isinstance(node.op, mv.Pad):
        return None
    op = node.op
    rest = (*op.low[1:], *op.high[1:], *op.interior)
    if op.value != 0.0 or any(rest) or op.low[0] < 0 or op.high[0] < 0:
        return None
    return Sym(x.builder, node.operands[0]), int(op.low[0])


def _only_slot(x: Sym) -> int | None:
    """Return the only slot that can be other than zero, None if there is none or more than one."""
    found = _padded(x)
    return found[1] if found is not None and found[0].shape[0] == 1 else None


def _slots(x: Sym, start: int, stop: int) -> Sym | None:
    """Return slots of dimension 0, None if they are zero."""
    found = _padded(x)
    if found is None:
        return _cut(x, start, stop)
    inner, at = found
    low, high = max(start, at), min(stop, at + inner.shape[0])
    if low >= high:
        return None
    part = _cut(inner, low - at, high - at)
    if low == start and high == stop:
        return part
    more = (0,) * (x.rank - 1)
    return part.pad((low - start, *more), (stop - high, *more))


def _cut(x: Sym, start: int, stop: int) -> Sym:
    if (start, stop) == (0, x.shape[0]):
        return x
    return x.slice([start] + [0] * (x.rank - 1), [stop, *x.shape[1:]])


def _slot(x: Sym, t: int) -> Sym:
    return _cut(x, t, t + 1).reshape(x.shape[1:])


def _unstacked(x: Sym | None) -> Sym | None:
    return None if x is None else x.reshape(x.shape[1:])


def _append(parts: list[Sym], part: Sym | None) -> None:
    if part is not None:
        parts.append(part)


def _sum(parts: Sequence[Sym]) -> Sym | None:
    total: Sym | None = None
    for part in parts:
        total = part if total is None else total + part
    return total


def _zeros(b: Builder, type_: TensorType) -> Sym:
    return constant(b, 0, type_.dtype).broadcast_to(type_.shape)


def _constantly(x: Sym) -> Callable[[], Sym]:
    return lambda: x
