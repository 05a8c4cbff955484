"""One kernel of level L as functions of LLVM IR.

    define void @SYMBOL(ptr %args, i64 %lo, i64 %hi)        loads the addresses of the buffers and calls the body
    define internal void @SYMBOL.body(ptr noalias …, …)     runs the iterations lo .. hi of the grid loop

The second function exists because `noalias` can only be said of parameters. A launch never passes overlapping buffers unless
it only reads them (`codegen.driver` refuses), and a buffer that a kernel updates in place is one `rw` parameter, so it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.codegen.convert import bitcast, cast
from tapeout.codegen.memory import FAULT, Faults, Memory, Place, ramp, splat
from tapeout.codegen.scalar import Scalars
from tapeout.codegen.text import Function, Value, constant, memory_type, register_type
from tapeout.ir.dtype import bool_, i64
from tapeout.kernel import loops
from tapeout.kernel.walk import parts
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapeout.kernel.target import Target

STACK = 640 * 1024
"""Bytes of local buffers that a kernel may keep on the stack of a thread."""

ATTRIBUTES = 'nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512"'
_COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}


class KernelEmitter:
    """Writes one kernel.

    Args:
        kernel: Verified and legalized.
        target: Machine class.
        checked: Test the bounds of every load and store.
    """

    def __init__(self, kernel: loops.Kernel, target: Target, checked: bool) -> None:
        """Start the body function."""
        self._kernel = kernel
        self._target = target
        self._checked = checked
        self._f = Function()
        self._faults = Faults()
        self._memory = Memory(self._f, target, self._faults if checked else None)
        self._scalars = Scalars(self._f, target)
        self._names: dict[str, Value] = {}
        self._stack = 0
        self._enclosing: list[tuple[str, int]] = []
        # Buffers in memory, by number: names may hold what a symbol may not.
        self._numbers = {p.name: i for i, p in enumerate(kernel.params)}
        self._places = {
            p.name: Place(p.name, p.dtype, p.size, f"%p{i}", number=i)
            for i, p in enumerate(kernel.params)
        }
        self._statements: dict[type[loops.Stmt], Callable[..., None]] = {
            loops.For: self._for,
            loops.Let: self._let,
            loops.Alloc: self._alloc,
            loops.Store: self._store,
            loops.If: self._if,
            loops.Barrier: self._barrier,
        }
        self._expressions: dict[type[loops.Expr], Callable[..., Value]] = {
            loops.Const: lambda e, _: constant(e.value, e.dtype, e.lanes),
            loops.Var: lambda e, _: self._names[e.name],
            loops.Load: self._load,
            loops.Apply: lambda e, xs: self._scalars.apply(e.op, xs),
            loops.Cast: lambda e, xs: cast(self._f, self._target, xs[0], e.dtype),
            loops.Bitcast: lambda e, xs: bitcast(self._f, xs[0], e.dtype),
            loops.Splat: lambda e, xs: splat(self._f, xs[0], e.lanes),
            loops.Ramp: lambda e, xs: ramp(self._f, xs[0], e.lanes),
            loops.Lanes: lambda e, xs: self._lanes(e.combine, xs[0]),
            loops.Cross: self._cross,
        }

    def text(self) -> str:
        """Return the functions and constants of the kernel."""
        self._grid()
        self._f.line("ret void")
        self._report()
        name = self._kernel.name
        params = [self._parameter(i, p) for i, p in enumerate(self._kernel.params)]
        if self._checked:
            params.append("ptr noalias %cell")
        body = self._f.finish(
            f'define internal void @"{name}.body"({", ".join([*params, "i64 %lo", "i64 %hi"])}) {ATTRIBUTES}'
        )
        return body + self._entry() + (self._fault_text() if self._checked else "")

    # --- the two functions -----------------------------------------------------------------------

    def _parameter(self, number: int, p: loops.Param) -> str:
        readonly = " readonly" if p.access == "r" else ""
        return f"ptr noalias{readonly} nofree align {p.align} %p{number}"

    def _entry(self) -> str:
        f = Function()
        passed = []
        for i in range(len(self._kernel.params) + self._checked):
            slot = f.pure(f"getelementptr inbounds ptr, ptr %args, i64 {i}")
            passed.append("ptr " + f.do(f"load ptr, ptr {slot}, align 8"))
        operands = ", ".join([*passed, "i64 %lo", "i64 %hi"])
        f.line(f'call void @"{self._kernel.name}.body"({operands})')
        f.line("ret void")
        return f.finish(
            f'define void @"{self._kernel.name}"(ptr noalias readonly %args, i64 %lo, i64 %hi) {ATTRIBUTES}'
        )

    def _grid(self) -> None:
        """Run the iterations `lo .. hi` of the grid loop, or the whole kernel as its only task."""
        body = self._kernel.body
        first = body[0] if len(body) == 1 else None
        lo, hi = Value("%lo", i64), Value("%hi", i64)
        if not (isinstance(first, loops.For) and first.kind == "grid"):
            self._loop(lo, hi, 1, lambda _: self._run(body))
            return

        def iteration(number: Value) -> None:
            step = self._scalars.apply("mul", [number, constant(first.step, i64)])
            self._names[first.var] = self._scalars.apply("add", [step, self._value(first.start)])
            self._run(first.body)

        self._loop(lo, hi, 1, iteration)

    def _report(self) -> None:
        """Write the one block that every access out of bounds goes to."""
        if not self._faults.edges:
            return
        f, name = self._f, self._kernel.name
        f.start(FAULT)
        indices = ", ".join(f"[ {index}, %{block} ]" for block, index, _ in self._faults.edges)
        names = ", ".join(f'[ @"{name}.name.{n}", %{b} ]' for b, _, n in self._faults.edges)
        index, buffer = f.do(f"phi i64 {indices}"), f.do(f"phi ptr {names}")
        f.line(f'call void @"{name}.fault"(ptr %cell, ptr {buffer}, i64 {index})')
        f.line("ret void")

    def _fault_text(self) -> str:
        """The function that keeps the first fault, and the names it reports."""
        name = self._kernel.name
        names = [name_text(f"{name}.name", name)]
        names += [name_text(f"{name}.name.{i}", b) for b, i in self._numbers.items()]
        f = Function()
        won = f.do("cmpxchg ptr %cell, i64 0, i64 1 acq_rel monotonic")
        first = f.pure(f"extractvalue {{ i64, i1 }} {won}, 1")
        write, done = f.label(), f.label()
        f.branch(first, write, done)
        f.start(write)
        for i, value in enumerate((f'ptr @"{name}.name"', "ptr %buffer", "i64 %index"), 1):
            f.line(
                f"store {value}, ptr {f.pure(f'getelementptr inbounds i64, ptr %cell, i64 {i}')}"
            )
        f.jump(done)
        f.start(done)
        f.line("ret void")
        header = f'define internal void @"{name}.fault"(ptr %cell, ptr %buffer, i64 %index) nounwind noinline cold'
        return "".join(names) + f.finish(header)

    # --- statements ------------------------------------------------------------------------------

    def _run(self, body: Sequence[loops.Stmt]) -> None:
        for statement in body:
            self._statements[type(statement)](statement)

    def _loop(self, start: Value, stop: Value, step: int, body: Callable[[Value], None]) -> None:
        """Write a loop tested at its end, with a test before it where it may not run at all."""
        f = self._f
        trips = None
        if start.number is not None and stop.number is not None:
            trips = max(0, -(-(stop.number - start.number) // step))
        if trips == 0:
            return
        if trips == 1:
            body(start)
            return
        head, after = f.label(), f.label()
        if trips is None:
            f.branch(f.pure(f"icmp slt {start}, {stop.text}"), head, after)
        else:
            f.jump(head)
        before = f.block
        f.start(head)
        # The name of the next value is known before its instruction is written.
        variable, following, latch = f"%i{head}", f"%n{head}", f.label()
        f.line(f"{variable} = phi i64 [ {start.text}, %{before} ], [ {following}, %{latch} ]")
        with f.scope():
            body(Value(variable, i64))
        f.jump(latch)
        f.start(latch)
        f.line(f"{following} = add nsw i64 {variable}, {step}")
        again = f.do(f"icmp slt i64 {following}, {stop.text}")
        f.branch(again, head, after)
        f.start(after)

    def _for(self, s: loops.For) -> None:
        start, stop = self._value(s.start), self._value(s.stop)

        def body(number: Value) -> None:
            self._names[s.var] = number
            self._run(s.body)

        if s.kind in ("group", "lane"):
            trips = -1
            if start.number is not None and stop.number is not None:
                trips = -(-(stop.number - start.number) // s.step)
            self._enclosing.append((s.kind, trips))
            self._loop(start, stop, s.step, body)
            self._enclosing.pop()
        elif s.kind == "unroll":
            self._unroll(s, start, stop, body)
        else:
            self._loop(start, stop, s.step, body)

    def _unroll(
        self, s: loops.For, start: Value, stop: Value, body: Callable[[Value], None]
    ) -> None:
        if start.number is None or stop.number is None:
            raise CompileError(
                f"unrolled loop {s.var} has bounds that are no constants", where="codegen"
            )
        for number in range(start.number, stop.number, s.step):
            body(constant(number, i64))

    def _let(self, s: loops.Let) -> None:
        self._names[s.var.name] = self._value(s.value)

    def _alloc(self, s: loops.Alloc) -> None:
        if s.scope == "register":
            type_ = register_type(s.dtype, s.lanes)
            align = max(1, min(64, s.dtype.bytes * s.lanes))
            slots = tuple(self._f.alloca(type_, align) for _ in range(s.count))
            self._places[s.name] = Place(s.name, s.dtype, s.count, slots=slots, lanes=s.lanes)
            return
        size = s.count * s.lanes
        if s.name not in self._numbers:
            self._stack += -(-size * s.dtype.bytes // 64) * 64
        if self._stack > STACK:
            raise CompileError(
                f"local buffers of {self._kernel.name} take {self._stack} bytes, {STACK} fit the stack",
                where="codegen",
                hint="lower large local buffers to scratch parameters",
            )
        number = self._numbers.setdefault(s.name, len(self._numbers))
        pointer = self._f.alloca(memory_type(s.dtype), 64, size)
        self._places[s.name] = Place(s.name, s.dtype, size, pointer, number=number)

    def _store(self, s: loops.Store) -> None:
        value, index, *rest = self._values((s.value, s.index, *([s.mask] if s.mask else [])))
        active = s.value.lanes if s.active is None else s.active
        self._memory.store(self._places[s.buffer], index, value, active, rest[0] if rest else None)

    def _if(self, s: loops.If) -> None:
        condition = self._value(s.condition).text
        if condition in ("true", "false"):
            self._run(s.then if condition == "true" else s.otherwise)
            return
        f = self._f
        then, otherwise, after = f.label(), f.label(), f.label()
        f.branch(condition, then, otherwise if s.otherwise else after)
        for label, body in ((then, s.then), (otherwise, s.otherwise)):
            if label == otherwise and not body:
                continue
            f.start(label)
            with f.scope():
                self._run(body)
            f.jump(after)
        f.start(after)

    def _barrier(self, s: loops.Barrier) -> None:
        self._refuse_threads("barrier", s.scope)

    def _refuse_threads(self, what: str, level: str) -> None:
        """A loop of one iteration has nobody to wait for; several would have to run at once."""
        if all(trips == 1 for kind, trips in self._enclosing if kind == level):
            return
        raise CompileError(
            f"{what} over a {level} loop of more than one iteration needs threads that run together",
            where=f"codegen for the CPU, kernel {self._kernel.name}",
            hint="schedule group and lane loops with extent 1 for CPUs",
        )

    # --- expressions -----------------------------------------------------------------------------

    def _value(self, root: loops.Expr) -> Value:
        return self._values((root,))[0]

    def _values(self, roots: Sequence[loops.Expr]) -> list[Value]:
        """Write expressions, operands first, without recursion: chains may be long.

        An expression that several share is written once per statement; loads are not shared across statements.
        """
        done: dict[int, Value] = {}
        stack = list(reversed(roots))
        while stack:
            expr = stack[-1]
            if id(expr) in done:
                stack.pop()
                continue
            operands = parts(expr)
            missing = [c for c in operands if id(c) not in done]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            done[id(expr)] = self._expressions[type(expr)](expr, [done[id(c)] for c in operands])
        return [done[id(r)] for r in roots]

    def _load(self, e: loops.Load, operands: list[Value]) -> Value:
        mask = operands[1] if e.mask is not None else None
        active = e.lanes if e.active is None else e.active
        place = self._places[e.buffer]
        return self._memory.load(place, operands[0], e.lanes, active, mask, e.other)

    def _lanes(self, combine: str, x: Value) -> Value:
        """Combine lane i with lane i + half, and again, until one is left."""
        f = self._f
        if x.lanes == 1:
            return x
        if combine in ("any", "all"):
            bits = f.pure(f"bitcast {x} to i{x.lanes}")
            test = (
                f"icmp ne i{x.lanes} {bits}, 0"
                if combine == "any"
                else f"icmp eq i{x.lanes} {bits}, -1"
            )
            return Value(f.pure(test), bool_)
        while x.lanes > 1:
            half = x.lanes // 2
            parts = []
            for first in (0, half):
                picked = ", ".join(f"i32 {i}" for i in range(first, first + half))
                mask = f"<{half} x i32> <{picked}>"
                part = (
                    f.pure(f"shufflevector {x}, {x.type} poison, {mask}")
                    if half > 1
                    else f.pure(f"extractelement {x}, i64 {first}")
                )
                parts.append(Value(part, x.dtype, half))
            x = self._scalars.apply(_COMBINE[combine], parts)
        return x

    def _cross(self, e: loops.Cross, operands: list[Value]) -> Value:
        self._refuse_threads("a combination", e.level)
        return operands[0]


def name_text(symbol: str, text: str) -> str:
    """Return a private constant that holds a name as a C string."""
    data = text.encode()
    body = "".join(chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\{b:02X}" for b in data)
    return f'@"{symbol}" = private unnamed_addr constant [{len(data) + 1} x i8] c"{body}\\00"\n'
