"""The oracle of kernels: a slow interpreter of level L, on flat numpy arrays, in place.

Loops of kind `group` and `lane` run as threads, one after another from barrier to barrier. The interpreter reports accesses
out of bounds, barriers that not all threads reach, and two threads (or two iterations of the grid) that touch one element,
one of them writing, with no barrier between. Memory that a kernel allocates is poisoned at first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from tapeout.kernel import loops
from tapeout.kernel.text import excerpt
from tapeout.kernel.walk import postorder, roots, statements
from tapeout.oracle import scalars
from tapeout.oracle.memory import Memory, Stamp, poisoned
from tapeout.oracle.tape import Number, Tape, as_lanes, as_number, touched
from tapeout.support.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from tapeout.ir.op import Array

THREADS = ("group", "lane")


def run(kernel: loops.Kernel, buffers: Mapping[str, Array], seed: int | None = None) -> None:
    """Run a kernel in place.

    Args:
        kernel: A kernel at level L.
        buffers: One array per param, of its element type, contiguous, at least `size` elements; any shape.
        seed: Runs grid iterations, and threads between barriers, in a random order drawn from it; None: in order.

    Raises:
        VerifyError: A buffer is missing or does not fit, or the kernel breaks a rule of level L while it runs; the message
            shows the statement.
    """
    _Interpreter(kernel, buffers, seed).run()


@dataclass
class _Block:
    """One iteration of the grid loop."""

    task: int
    epoch: int = 0
    warp_epochs: dict[tuple[int, ...], int] = field(default_factory=dict)
    numbers: dict[tuple[object, ...], int] = field(default_factory=dict)


@dataclass
class _Thread:
    """One thread: its variables, the buffers it sees, and the team loops that it is in."""

    block: _Block
    vars: dict[str, Number]
    buffers: dict[str, Memory]
    stamp: Stamp
    levels: tuple[str, ...] = ()
    warp: tuple[int, ...] = ()
    place: tuple[int, ...] = ()

    def memory(self, name: str) -> Memory:
        found = self.buffers.get(name)
        if found is None:
            raise VerifyError(f"no buffer is called {name!r} here")
        if found.owner is not None and found.owner != self.place:
            raise VerifyError(
                f"{name} belongs to the thread outside this {self.levels[-1]} loop; make it shared"
            )
        return found

    def refresh(self) -> None:
        """Take the epochs of the block."""
        warp_epoch = self.block.warp_epochs.get(self.warp, 0)
        self.stamp = self.stamp._replace(block_epoch=self.block.epoch, warp_epoch=warp_epoch)

    def member(self, loop: loops.For, value: int) -> _Thread:
        """Return the thread of one iteration of a team loop."""
        place = (*self.place, value)
        warp = (*self.warp, value) if loop.kind == "group" else self.warp
        numbers = self.block.numbers
        stamp = Stamp(
            self.block.task,
            numbers.setdefault(("warp", *warp), len(numbers)),
            numbers.setdefault(("thread", *place), len(numbers)),
        )
        made = _Thread(
            self.block,
            {**self.vars, loop.var: value},
            dict(self.buffers),
            stamp,
            (*self.levels, loop.kind),
            warp,
            place,
        )
        made.refresh()
        return made


@dataclass
class _Event:
    """What a thread waits for. `value` has one axis per team loop that the event has left, outermost first."""

    at: object
    scope: Literal["group", "lane"]
    levels: tuple[str, ...] = ()
    combine: str = ""
    value: Number = None
    warp: tuple[int, ...] = ()


class _Interpreter:
    """Runs one kernel."""

    def __init__(
        self, kernel: loops.Kernel, buffers: Mapping[str, Array], seed: int | None
    ) -> None:
        self.kernel = kernel
        self.random = None if seed is None else np.random.default_rng(seed)
        self.threaded = any(
            isinstance(s, loops.For) and s.kind in THREADS for s in statements(kernel.body)
        )
        self.params = {p.name: self.bind(p, buffers) for p in kernel.params}
        self.tapes: dict[int, Tape] = {}
        self.waits: dict[int, bool] = {}
        self.runs: dict[int, Callable[[_Thread], None]] = {}
        self.current: loops.Stmt | None = None

    def bind(self, param: loops.Param, buffers: Mapping[str, Array]) -> Memory:
        array = buffers.get(param.name)
        where = f"kernel {self.kernel.name}"
        if array is None:
            raise VerifyError(f"no buffer is given for {param.name!r}", where=where)
        if (
            array.dtype != param.dtype.numpy
            or array.size < param.size
            or not array.flags.c_contiguous
        ):
            raise VerifyError(
                f"{param.name!r} is {array.dtype}[{array.size}], a contiguous {param.dtype}[{param.size}] is expected",
                where=where,
            )
        watched = "w" in param.access and (self.threaded or self.kernel.tasks > 1)
        return Memory(
            param.name, array.reshape(-1), param.size, access=param.access, watched=watched
        )

    def run(self) -> None:
        with np.errstate(all="ignore"):
            try:
                self.tasks()
            except VerifyError as e:
                if self.current is None or e.where:
                    raise
                shown = excerpt(self.kernel, self.current)
                raise type(e)(f"{e.message}\n{shown}", where=f"kernel {self.kernel.name}") from None

    def tasks(self) -> None:
        first = self.kernel.body[0] if len(self.kernel.body) == 1 else None
        if not isinstance(first, loops.For) or first.kind != "grid":
            self.task(0, {}, self.kernel.body)
            return
        self.current = first
        values = self.span(first, self.thread(0, {}))
        order = range(len(values)) if self.random is None else self.random.permutation(len(values))
        for n in order:
            self.task(int(n), {first.var: values[int(n)]}, first.body)

    def thread(self, task: int, bound: dict[str, Number]) -> _Thread:
        return _Thread(_Block(task), bound, dict(self.params), Stamp(task))

    def task(self, number: int, bound: dict[str, Number], body: tuple[loops.Stmt, ...]) -> None:
        thread = self.thread(number, bound)
        for event in self.flow(body, thread):
            # No team loop is left that the event could wait for.
            raise AssertionError(event)

    # -- statements ---------------------------------------------------------------------------------------------------

    def tape(self, stmt: loops.Stmt) -> Tape:
        found = self.tapes.get(id(stmt))
        if found is None:
            found = self.tapes[id(stmt)] = Tape(roots(stmt))
        return found

    def may_wait(self, stmt: loops.Stmt) -> bool:
        """Whether a statement holds a barrier, a `Cross` or a team loop."""
        found = self.waits.get(id(stmt))
        if found is None:
            found = any(_waits(s) for s in statements((stmt,)))
            self.waits[id(stmt)] = found
        return found

    def flow(self, body: tuple[loops.Stmt, ...], t: _Thread) -> Generator[_Event, Number, None]:
        """Run a block; yields whenever the thread waits."""
        for stmt in body:
            if not self.may_wait(stmt):
                self.plain(stmt, t)
                continue
            self.current = stmt
            if isinstance(stmt, loops.Barrier):
                yield from self.wait(_Event(stmt, stmt.scope, warp=t.warp), t)
                continue
            values = yield from self.evaluate(stmt, t)
            if isinstance(stmt, loops.For) and stmt.kind in THREADS:
                yield from self.team(stmt, t)
            elif isinstance(stmt, loops.For):
                for value in range(values[0], values[1], stmt.step):
                    t.vars[stmt.var] = value
                    yield from self.flow(stmt.body, t)
            elif isinstance(stmt, loops.If):
                yield from self.flow(stmt.then if values[0][0] else stmt.otherwise, t)
            else:
                self.act(stmt, values, t)

    def plain(self, stmt: loops.Stmt, t: _Thread) -> None:
        """Run a statement that never waits."""
        run = self.runs.get(id(stmt))
        if run is None:
            run = self.runs[id(stmt)] = self.compiled(stmt)
        run(t)

    def compiled(self, stmt: loops.Stmt) -> Callable[[_Thread], None]:
        """Return a statement that never waits as a function, with those inside it."""
        if isinstance(stmt, loops.Alloc):
            return lambda t: self.allocate(stmt, t)
        tape = self.tape(stmt)
        if isinstance(stmt, loops.For):
            return self.loop(stmt, tape, [self.compiled(s) for s in stmt.body])
        if isinstance(stmt, loops.If):
            branches = [[self.compiled(s) for s in b] for b in (stmt.otherwise, stmt.then)]

            def branch(t: _Thread) -> None:
                self.current = stmt
                for run in branches[bool(tape.run(t)[0][0])]:
                    run(t)

            return branch

        def act(t: _Thread) -> None:
            self.current = stmt
            self.act(stmt, tape.run(t), t)

        return act

    def loop(
        self, stmt: loops.For, tape: Tape, body: list[Callable[[_Thread], None]]
    ) -> Callable[[_Thread], None]:
        def loop(t: _Thread) -> None:
            self.current = stmt
            start, stop = tape.run(t)
            for value in range(start, stop, stmt.step):
                t.vars[stmt.var] = value
                for run in body:
                    run(t)

        return loop

    def act(self, stmt: loops.Stmt, values: list[Number], t: _Thread) -> None:
        if isinstance(stmt, loops.Let):
            t.vars[stmt.var.name] = values[0]
            return
        assert isinstance(stmt, loops.Store)
        memory = t.memory(stmt.buffer)
        if stmt.value.lanes == 1 and stmt.mask is None and stmt.active is None:
            value = as_lanes(values[-1], stmt.value.dtype)
            memory.write_one(values[0] * memory.unit, value, t.stamp)
            return
        mask = values[1] if stmt.mask is not None else None
        at, live = touched(stmt, stmt.value.lanes, values[0], mask, memory.unit)
        array = as_lanes(values[-1], stmt.value.dtype)
        memory.write(at[live], array[live], t.stamp)

    def allocate(self, stmt: loops.Alloc, t: _Thread) -> None:
        count = stmt.lanes * stmt.count
        if stmt.scope == "shared" and t.place:
            raise VerifyError(
                f"{stmt.name}: shared memory is allocated outside the group and lane loops"
            )
        shared = stmt.scope == "shared"
        t.buffers[stmt.name] = Memory(
            stmt.name,
            poisoned(stmt.dtype, count),
            count,
            unit=stmt.lanes if stmt.scope == "register" else 1,
            owner=None if shared else t.place,
            watched=shared and self.threaded,
        )

    def span(self, stmt: loops.For, t: _Thread) -> range:
        start, stop = self.tape(stmt).run(t)
        return range(start, stop, stmt.step)

    def evaluate(self, stmt: loops.Stmt, t: _Thread) -> Generator[_Event, Number, list[Number]]:
        """Return the values of the expressions of a statement; waits at each `Cross`."""
        tape = self.tape(stmt)
        slots: list[Number] = []
        for step, at in zip(tape.steps, tape.args, strict=True):
            if not isinstance(step, loops.Cross):
                slots.append(step(t, slots))
                continue
            value = as_lanes(slots[at[0]], step.arg.dtype)
            event = _Event(step, step.level, combine=step.combine, value=value, warp=t.warp)
            joined = yield from self.wait(event, t)
            slots.append(as_number(joined, step.dtype, step.lanes))
        return [slots[r] for r in tape.roots]

    # -- teams --------------------------------------------------------------------------------------------------------

    def wait(self, event: _Event, t: _Thread) -> Generator[_Event, Number, Number]:
        """Wait until the threads of the scope have come; return the combined value."""
        if not _outside(event, t.levels):
            reply = _resolve(event, t.block)
        else:
            reply = yield event
        t.refresh()
        return reply

    def team(self, loop: loops.For, parent: _Thread) -> Generator[_Event, Number, None]:
        """Run the iterations of a group or lane loop as threads."""
        members = [parent.member(loop, value) for value in self.span(loop, parent)]
        flows = [self.flow(loop.body, m) for m in members]
        replies: list[Number] = [None] * len(members)
        while flows:
            events = [e for _, e in sorted(self.advance(flows, replies), key=lambda p: p[0])]
            if all(e is None for e in events):
                break
            merged = self.merge(events, loop)
            if _outside(merged, parent.levels):
                reply = yield merged
            else:
                reply = _resolve(merged, parent.block)
            replies = [None] * len(members) if reply is None else list(reply)
        parent.refresh()

    def advance(
        self, flows: list[Generator[_Event, Number, None]], replies: list[Number]
    ) -> Iterator[tuple[int, _Event | None]]:
        """Run every thread to its next wait."""
        order = range(len(flows)) if self.random is None else self.random.permutation(len(flows))
        for n in order:
            try:
                yield int(n), flows[n].send(replies[n])
            except StopIteration:
                yield int(n), None

    def merge(self, events: list[_Event | None], loop: loops.For) -> _Event:
        first = events[0]
        if first is None or any(e is None or e.at is not first.at for e in events):
            raise VerifyError(
                f"not all iterations of the {loop.kind} loop %{loop.var} reach the same barrier"
            )
        values = [e.value for e in events if e is not None]
        value = None if first.value is None else np.stack(values)
        return replace(first, levels=(loop.kind, *first.levels), value=value)


def _waits(stmt: loops.Stmt) -> bool:
    if isinstance(stmt, loops.Barrier):
        return True
    if isinstance(stmt, loops.For) and stmt.kind in THREADS:
        return True
    done: set[int] = set()
    return any(isinstance(e, loops.Cross) for r in roots(stmt) for e in postorder(r, done))


def _outside(event: _Event, levels: tuple[str, ...]) -> bool:
    """Whether a team loop further out takes part in the event: a barrier of the block waits for every loop."""
    if event.scope == "group" and not event.combine:
        return bool(levels)
    return event.scope in levels


def _resolve(event: _Event, block: _Block) -> Number:
    """Return what the threads that waited are given: the combined value for each, None after a barrier."""
    if event.combine:
        return _combine(event)
    if event.scope == "group":
        block.epoch += 1
    else:
        block.warp_epochs[event.warp] = block.warp_epochs.get(event.warp, 0) + 1
    return None


def _combine(event: _Event) -> Array:
    assert isinstance(event.at, loops.Cross)
    value: Array = np.asarray(event.value)
    inside = [n for n, level in enumerate(event.levels) if level == event.scope]
    if not inside:
        return value
    first = np.moveaxis(value, inside, range(len(inside)))
    flat = first.reshape(-1, *first.shape[len(inside) :])
    total = scalars.tree(event.combine, flat, event.at.arg.dtype)
    spread = np.broadcast_to(total, first.shape)
    return np.moveaxis(spread, range(len(inside)), inside)
