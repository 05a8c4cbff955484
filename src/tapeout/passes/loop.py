"""One scan made simpler; see `passes.loops`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapeout.ir.build import Builder
from tapeout.ops import movement as mv
from tapeout.ops.control import BODY, Scan
from tapeout.ops.sym import Sym, constant
from tapeout.passes.branch import reached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.ir.tensor import Tensor

LEAST_HISTORY = 1 << 18
"""Bytes of a history below which it is kept whole: a step then writes the next slot, and no copy is made."""

_MOVES = (mv.Broadcast, mv.Reshape, mv.Transpose, mv.Slice, mv.Pad, mv.Reverse)


def simpler_loop(
    b: Builder,
    op: Scan,
    operands: tuple[Value, ...],
    used: Sequence[bool],
    last: Sequence[bool],
) -> tuple[Value, ...] | None:
    """Return the results of a simpler loop, None if there is none.

    Args:
        b: Where to append.
        op: The loop.
        operands: What it reads.
        used: Which results are read.
        last: Of which histories only the last slot is read.
    """
    if not any(used):
        return None  # nothing reads the node; `dce` removes it
    loop = _Loop(b, op, operands, used, last)
    return loop.emit() if loop.changes else None


@dataclass
class _Edit:
    """What becomes of the inputs of a body.

    Attributes:
        inside: Values that are made inside of the body instead of being given: by a node over a smaller operand, or as a number.
        same: Inputs that are equal to an earlier one.
    """

    inside: dict[Value, tuple[mv.Broadcast, Value | None, Tensor | None]] = field(
        default_factory=dict
    )
    same: dict[Value, Value] = field(default_factory=dict)


class _Loop:
    """A scan and what can be left out of it or moved."""

    def __init__(
        self,
        b: Builder,
        op: Scan,
        operands: tuple[Value, ...],
        used: Sequence[bool],
        last: Sequence[bool],
    ) -> None:
        self.b, self.op, self.body, self.operands = b, op, op.body, operands
        self.n, self.stop = op.carries, op.carries + op.xs
        self.inputs = op.body.inputs
        self.outputs = [v for _, v in op.body.outputs]
        self.operand = dict(zip(self.inputs, operands, strict=True))
        self.aliases = self._find_aliases(used)
        self.still = [i for i in range(self.n) if self.outputs[i] is self.inputs[i]]
        self.finals = self._find_finals(last)
        self.stacks = [
            j for j in range(self.n, len(self.outputs)) if used[j] and j not in self.aliases
        ]
        self.carries = self._live_carries(used)
        self.needed = reached(self.body, [self.outputs[i] for i in (*self.carries, *self.stacks)])
        self.edit = self._find_edits()
        self.hoisted = self._find_hoisted()

    @property
    def changes(self) -> bool:
        """Whether anything can be left out or moved."""
        fewer = len(self.carries) + len(self.stacks) < len(self.outputs)
        unread = any(v not in self.needed for v in self.inputs[self.n :])
        moved = self.edit.inside or self.edit.same or self.hoisted
        new = any(i not in self.op.finals for i in self.finals)
        return bool(fewer or unread or moved or new)

    # -- what can be left out -----------------------------------------------------------------------

    def _find_aliases(self, used: Sequence[bool]) -> dict[int, tuple[str, int]]:
        """Return the stacked results that exist anyway: (`operand`, number), (`before` or `after`, carry), (`stack`, result)."""
        found: dict[int, tuple[str, int]] = {}
        first: dict[Value, tuple[str, int]] = {}
        for i, v in enumerate(self.inputs):
            if i not in self.op.finals:
                first[v] = ("before", i) if i < self.n else ("operand", i)
        for i in range(self.n):
            if i not in self.op.finals:
                first.setdefault(self.outputs[i], ("after", i))
        for j in range(self.n, len(self.outputs)):
            if not used[j]:
                continue
            known = first.setdefault(self.outputs[j], ("stack", j))
            if known != ("stack", j):
                found[j] = known
        return found

    def _find_finals(self, last: Sequence[bool]) -> list[int]:
        """Return the carries of which the last value alone need be kept, where that saves enough."""
        asked = {i for kind, i in self.aliases.values() if kind in ("before", "after")}
        found = set(self.op.finals)
        for i in range(self.n):
            size = self.inputs[i].type.bytes * self.op.length
            if last[i] and i not in asked and i not in self.still and size >= LEAST_HISTORY:
                found.add(i)
        return sorted(found)

    def _live_carries(self, used: Sequence[bool]) -> list[int]:
        """Return the carries whose history is read, or that something needs; those that never change are none."""
        histories = {i for i in range(self.n) if used[i]}
        histories |= {i for kind, i in self.aliases.values() if kind in ("before", "after")}
        live = {i for i in histories if i not in self.still}
        while True:
            wanted = [self.outputs[i] for i in (*sorted(live), *self.stacks)]
            found = reached(self.body, wanted)
            more = {i for i in range(self.n) if self.inputs[i] in found and i not in self.still}
            if more <= live:
                return sorted(live)
            live |= more

    # -- what can be moved --------------------------------------------------------------------------

    def _find_edits(self) -> _Edit:
        """Return the inputs that repeat a smaller value or another input."""
        edit = _Edit()
        seen: dict[tuple[bool, Value], Value] = {}
        for i, v in enumerate(self.inputs):
            if i < self.n or v not in self.needed:
                continue
            stacked, operand = i < self.stop, self.operand[v]
            first = seen.setdefault((stacked, operand), v)
            if first is not v:
                edit.same[v] = first
                continue
            made = _inside(operand, v, stacked=stacked)
            if made is not None:
                edit.inside[v] = made
        return edit

    def _rest(self) -> list[Value]:
        """Return the inputs that are the same at every step."""
        still = [self.inputs[i] for i in self.still]
        return [*still, *(v for v in self.inputs[self.stop :])]

    def _find_hoisted(self) -> list[Node]:
        """Return the nodes to compute outside: the same at every step, and more than data movement."""
        same: set[Value] = set(self._rest())
        free: set[Value] = set()  # from nothing but constants
        found: list[Node] = []
        for node in self.body.nodes:
            if node.op.regions or not all(v in same or v in free for v in node.operands):
                continue
            if all(v in free for v in node.operands):
                free.update(node.results)
                continue
            same.update(node.results)
            if not isinstance(node.op, _MOVES) and any(r in self.needed for r in node.results):
                found.append(node)
        return found

    # -- the new loop -------------------------------------------------------------------------------

    def emit(self) -> tuple[Value, ...]:
        """Append the new loop and return what stands for the results of the old one."""
        inner = Builder(BODY)
        made: dict[Value, Value] = {}
        given: list[Value] = []
        for m, i in enumerate(self.carries):
            made[self.inputs[i]] = inner.add_input(f"c{m}", self.inputs[i].type)
            given.append(self.operands[i])
        slices = [v for v in self.inputs[self.n : self.stop] if self._is_given(v)]
        for m, v in enumerate(slices):
            made[v] = inner.add_input(f"x{m}", v.type)
            given.append(self.operand[v])
        outside = self._outside()
        rest = [(v, self.operand[v]) for v in self._rest() if self._is_given(v)]
        rest += list(outside.items())
        for m, (v, operand) in enumerate(rest):
            made[v] = inner.add_input(f"k{m}", v.type)
            given.append(operand)
        self._repeat(inner, made, given, len(rest))
        made.update((v, made[first]) for v, first in self.edit.same.items() if first in made)
        self._copy(inner, made)
        for letter, numbers in (("c", self.carries), ("y", self.stacks)):
            for m, i in enumerate(numbers):
                inner.set_output(f"{letter}{m}", made[self.outputs[i]])
        finals = tuple(m for m, i in enumerate(self.carries) if i in self.finals)
        op = Scan(
            inner.graph(),
            len(self.carries),
            len(slices),
            self.op.length,
            self.op.reverse,
            finals,
        )
        results = self.b.emit(op, *given) if self.carries or self.stacks else ()
        return self._results(dict(zip((*self.carries, *self.stacks), results, strict=True)))

    def _is_given(self, v: Value) -> bool:
        """Whether an input is still an input."""
        return v in self._wanted and v not in self.edit.same and v not in self.edit.inside

    @property
    def _wanted(self) -> set[Value]:
        """What the new body needs of the old one, up to what is computed outside."""
        hoisted = {r for node in self.hoisted for r in node.results}
        needed = {self.outputs[i] for i in (*self.carries, *self.stacks)}
        for node in reversed(self.body.nodes):
            open_ = [r for r in node.results if r in needed and r not in hoisted]
            if open_:
                needed.update(node.operands)
        needed.update(self.edit.same[v] for v in list(needed) if v in self.edit.same)
        return needed

    def _outside(self) -> dict[Value, Value]:
        """Compute what is the same at every step; return by old value what the new body reads of it."""
        if not self.hoisted:
            return {}
        wanted = {r for node in self.hoisted for r in node.results}
        found = reached(self.body, list(wanted))
        made = {v: self.operand[v] for v in self._rest()}
        for node in self.body.nodes:
            if not found.isdisjoint(node.results) and all(v in made for v in node.operands):
                results = self.b.emit(node.op, *(made[v] for v in node.operands), loc=node.loc)
                made.update(zip(node.results, results, strict=True))
        inside = self._wanted
        return {v: made[v] for node in self.hoisted for v in node.results if v in inside}

    def _repeat(
        self, inner: Builder, made: dict[Value, Value], given: list[Value], count: int
    ) -> None:
        """Make inside of the body what was repeated outside."""
        known: dict[Value, Value] = {}
        for v, (op, operand, tensor) in self.edit.inside.items():
            if v not in self._wanted:
                continue
            if tensor is not None:
                (source,) = inner.emit(mv.Constant(tensor=tensor))
            else:
                assert operand is not None
                if operand not in known:
                    known[operand] = inner.add_input(f"k{count}", operand.type)
                    given.append(operand)
                    count += 1
                source = known[operand]
            made[v] = inner.emit(op, source)[0] if source.type != v.type else source

    def _copy(self, inner: Builder, made: dict[Value, Value]) -> None:
        wanted = self._wanted
        for node in self.body.nodes:
            if all(r in made or r not in wanted for r in node.results):
                continue
            results = inner.emit(node.op, *(made[v] for v in node.operands), loc=node.loc)
            made.update(zip(node.results, results, strict=True))

    def _results(self, results: dict[int, Value]) -> tuple[Value, ...]:
        """Return a value per result of the old loop; what nothing reads becomes zeros."""
        out: list[Value] = []
        length = self.op.length
        for j, t in enumerate(self.op.infer(*(v.type for v in self.operands))):
            kind, i = self.aliases.get(j, ("result", j))
            if kind in ("before", "after"):
                at = int((kind == "after") != self.op.reverse)
                history = Sym(self.b, self._history(results, i))
                rest = history.rank - 1
                out.append(
                    history.slice([at] + [0] * rest, [at + length, *history.shape[1:]]).value
                )
            elif kind == "operand":
                x = Sym(self.b, self.operands[i])
                stacked = i < self.stop
                out.append(x.value if stacked else _over_time(x, length))
            elif kind == "stack":
                out.append(results[i])
            elif j in results:
                new = j in self.finals and j not in self.op.finals
                out.append(self._in_last_slot(results[j]) if new else results[j])
            elif j in self.still:
                x = Sym(self.b, self.operands[j])
                out.append(x.value if j in self.op.finals else _over_time(x, length + 1))
            else:
                out.append(constant(self.b, 0, t.dtype).broadcast_to(t.shape).value)
        return tuple(out)

    def _in_last_slot(self, value: Value) -> Value:
        """Return a history that holds the last value; nothing reads its other slots."""
        x = Sym(self.b, value)
        more, none = [self.op.length] + [0] * x.rank, [0] * (x.rank + 1)
        low, high = (none, more) if self.op.reverse else (more, none)
        return x.expand_dims([0]).pad(low, high).value

    def _history(self, results: dict[int, Value], i: int) -> Value:
        if i in results:
            return results[i]
        return _over_time(Sym(self.b, self.operands[i]), self.op.length + 1)


def _over_time(x: Sym, length: int) -> Value:
    return x.broadcast((length, *x.shape), range(1, x.rank + 1)).value


def _inside(
    operand: Value, v: Value, *, stacked: bool
) -> tuple[mv.Broadcast, Value | None, Tensor | None] | None:
    """Return how an input is made inside of the body: a broadcast of a smaller operand or of one number; None if it is not."""
    op = operand.node.op if operand.node is not None else None
    if isinstance(op, mv.Constant) and op.tensor.splat is not None:
        tensor = type(op.tensor).of(op.tensor.array.reshape(-1)[:1].reshape(()))
        return mv.Broadcast(shape=v.type.shape, axes=()), None, tensor
    if not isinstance(op, mv.Broadcast) or operand.node is None:
        return None
    (source,) = operand.node.operands
    if stacked and 0 in op.axes:
        return None
    axes = tuple(a - 1 for a in op.axes) if stacked else op.axes
    made = mv.Broadcast(shape=v.type.shape, axes=axes)
    number = source.node.op if source.node is not None else None
    if isinstance(number, mv.Constant) and not source.type.rank:
        return made, None, number.tensor
    return made, source, None
