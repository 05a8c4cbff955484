"""The step driver: a program as one function that runs its items in order.

    i32 @tapeout_NAME(ptr arena, ptr inputs, ptr pool, ptr data)

`inputs` points to the addresses of the program's inputs, `data` to its constants; `pool` is null for one thread. It returns 0,
the code of the first check that failed, or FAULT when a checked build met an access out of bounds. Nothing is allocated.

    i64 @tapeout_NAME__steps(ptr arena, ptr inputs, ptr pool, ptr data, i64 steps, ptr results, ptr code)

runs it up to `steps` times, with one row of addresses after the other, and stops behind the first run that does not return 0. What that returned
goes to `code` (i32); the number of runs before it is returned. After each of those the program's `scalar_outputs` go to the next row of `results`,
eight bytes for each.

A driver with clocks also adds up, in a record of its own, how long each launch took on the calling thread, fork and join included.

Items are rows of a constant table, so the size of the code does not grow with the program. A loop is a row where it begins and one
where it ends; how often it has run stands in a counter per level of nesting, with which parts of buffers move. A branch is a row that
jumps over what is not chosen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.codegen.machine import resolve
from tapeout.kernel.program import Branch, Check, Launch, Loop
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapeout.kernel.loops import Param
    from tapeout.kernel.program import Buffer, Item, Program, Times
    from tapeout.kernel.target import Target

ALONE = 1 << 16
"""A launch of fewer floating-point operations plus bytes than this runs on the calling thread."""

FAULT = -1

# Where a buffer lives, as the driver's table of base addresses numbers them.
_ARENA, _DATA, _INPUT = 0, 1, 2
_SPACE = {"constant": _DATA, "input": _INPUT}

_LAUNCH, _CHECK, _BEGIN, _END, _BRANCH, _JUMP = range(6)

_DRIVER = """\
; kernel, tasks or rounds, first arg, args, code or level or number of the launch, shared by threads, kind, where to jump
%item = type {{ ptr, i64, i32, i32, i32, i32, i64, i64 }}
; base, offset, bytes from there, bytes per round of the loops around
%arg = type {{ i64, i64, i64, [{depth} x i64] }}
{declarations}
@items = private unnamed_addr constant [{n_items} x %item] [{items}]
@args = private unnamed_addr constant [{n_args} x %arg] [{args}]
{fault}{clocks}
define i32 @"{symbol}"(ptr %arena, ptr %inputs, ptr %pool, ptr %data) nounwind {{
entry:
  %addresses = alloca ptr, i64 {most}, align 64
  %bases = alloca [3 x ptr], align 8
  store ptr %arena, ptr %bases, align 8
  %bases.1 = getelementptr inbounds ptr, ptr %bases, i64 1
  store ptr %data, ptr %bases.1, align 8
  %bases.2 = getelementptr inbounds ptr, ptr %bases, i64 2
  store ptr %inputs, ptr %bases.2, align 8
  %times = alloca [{depth} x i64], align 8
  store [{depth} x i64] zeroinitializer, ptr %times, align 8
  {start_run}br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %done ], [ %jump, %leap ]
  %more = icmp slt i64 %i, {real_items}
  br i1 %more, label %begin, label %end
end:
  {stop_run}ret i32 0
begin:
  %row = getelementptr inbounds %item, ptr @items, i64 %i
  %kernel = load ptr, ptr %row, align 8
  %tasks.at = getelementptr inbounds %item, ptr %row, i64 0, i32 1
  %tasks = load i64, ptr %tasks.at, align 8
  %first.at = getelementptr inbounds %item, ptr %row, i64 0, i32 2
  %first.short = load i32, ptr %first.at, align 8
  %first = zext i32 %first.short to i64
  %count.at = getelementptr inbounds %item, ptr %row, i64 0, i32 3
  %count.short = load i32, ptr %count.at, align 4
  %count = zext i32 %count.short to i64
  br label %address
address:
  %k = phi i64 [ 0, %begin ], [ %k.next, %filled ]
  %some = icmp slt i64 %k, %count
  br i1 %some, label %fill, label %run
fill:
  %number = add i64 %first, %k
  %arg = getelementptr inbounds %arg, ptr @args, i64 %number
  %base.number = load i64, ptr %arg, align 8
  %offset.at = getelementptr inbounds %arg, ptr %arg, i64 0, i32 1
  %offset = load i64, ptr %offset.at, align 8
  %base.at = getelementptr inbounds ptr, ptr %bases, i64 %base.number
  %base = load ptr, ptr %base.at, align 8
  %direct = getelementptr inbounds i8, ptr %base, i64 %offset
  %is.input = icmp eq i64 %base.number, 2
  br i1 %is.input, label %given, label %filled
given:
  %passed = load ptr, ptr %direct, align 8
  br label %filled
filled:
  %start = phi ptr [ %direct, %fill ], [ %passed, %given ]
  %shift.at = getelementptr inbounds %arg, ptr %arg, i64 0, i32 2
  %shift.0 = load i64, ptr %shift.at, align 8
{moves}
  %buffer = getelementptr inbounds i8, ptr %start, i64 %shift.{depth}
  %slot = getelementptr inbounds ptr, ptr %addresses, i64 %k
  store ptr %buffer, ptr %slot, align 8
  %k.next = add i64 %k, 1
  br label %address
run:
  {pass_fault}
  %kind.at = getelementptr inbounds %item, ptr %row, i64 0, i32 6
  %kind = load i64, ptr %kind.at, align 8
  switch i64 %kind, label %launch [
    i64 {check}, label %check
    i64 {begin}, label %enter
    i64 {end}, label %again
    i64 {branch}, label %choose
    i64 {jump}, label %leap
  ]
enter:
  %level.at = getelementptr inbounds %item, ptr %row, i64 0, i32 4
  %level = load i32, ptr %level.at, align 8
  %first.round = getelementptr inbounds i64, ptr %times, i32 %level
  store i64 0, ptr %first.round, align 8
  %none = icmp eq i64 %tasks, 0
  br i1 %none, label %leap, label %done
again:
  %same.at = getelementptr inbounds %item, ptr %row, i64 0, i32 4
  %same = load i32, ptr %same.at, align 8
  %round.at = getelementptr inbounds i64, ptr %times, i32 %same
  %round = load i64, ptr %round.at, align 8
  %round.next = add i64 %round, 1
  store i64 %round.next, ptr %round.at, align 8
  %left = icmp slt i64 %round.next, %tasks
  br i1 %left, label %leap, label %done
choose:
  %asked = load ptr, ptr %addresses, align 8
  %answer.byte = load i8, ptr %asked, align 1
  %answer = icmp ne i8 %answer.byte, 0
  br i1 %answer, label %done, label %leap
leap:
  %jump.at = getelementptr inbounds %item, ptr %row, i64 0, i32 7
  %jump = load i64, ptr %jump.at, align 8
  br label %head
check:
  %tested = load ptr, ptr %addresses, align 8
  %bad.byte = load i8, ptr %tested, align 1
  %bad = icmp ne i8 %bad.byte, 0
  br i1 %bad, label %stop, label %done
stop:
  %code.at = getelementptr inbounds %item, ptr %row, i64 0, i32 4
  %code = load i32, ptr %code.at, align 8
  ret i32 %code
launch:
  {start_launch}%shared.at = getelementptr inbounds %item, ptr %row, i64 0, i32 5
  %shared = load i32, ptr %shared.at, align 4
  %wanted = icmp ne i32 %shared, 0
  %threads = icmp ne ptr %pool, null
  %together = and i1 %wanted, %threads
  br i1 %together, label %parallel, label %alone
alone:
  call void %kernel(ptr %addresses, i64 0, i64 %tasks)
  br label %launched
parallel:
  %pool.run = load ptr, ptr %pool, align 8
  call void %pool.run(ptr %pool, ptr %kernel, ptr %addresses, i64 %tasks)
  br label %launched
launched:
  {stop_launch}{test_fault}
done:
  %i.next = add i64 %i, 1
  br label %head
{stop_fault}}}

define i64 @"{symbol}__steps"(ptr %arena, ptr %inputs, ptr %pool, ptr %data, i64 %steps, ptr %results, ptr %code) nounwind {{
entry:
  store i32 0, ptr %code, align 4
  br label %head
head:
  %s = phi i64 [ 0, %entry ], [ %s.next, %keep ]
  %more = icmp slt i64 %s, %steps
  br i1 %more, label %run, label %end
run:
  %row = mul i64 %s, {row_bytes}
  %given = getelementptr inbounds i8, ptr %inputs, i64 %row
  %returned = call i32 @"{symbol}"(ptr %arena, ptr %given, ptr %pool, ptr %data)
  %good = icmp eq i32 %returned, 0
  br i1 %good, label %keep, label %stop
keep:
  %kept.at = mul i64 %s, {kept_bytes}
  %kept = getelementptr inbounds i8, ptr %results, i64 %kept.at
{keep}
  %s.next = add i64 %s, 1
  br label %head
stop:
  store i32 %returned, ptr %code, align 4
  br label %end
end:
  ret i64 %s
}}
"""

_KEEP = """\
  %from.{n} = getelementptr inbounds i8, ptr %arena, i64 {offset}
  %scalar.{n} = load i{bits}, ptr %from.{n}, align {align}
  %to.{n} = getelementptr inbounds i8, ptr %kept, i64 {at}
  store i{bits} %scalar.{n}, ptr %to.{n}, align {align}"""


def entry_symbol(name: str) -> str:
    """Return the symbol of a program's entry point.

    >>> entry_symbol("step"), entry_symbol("my net")
    ('tapeout_step', 'tapeout_my_20_net')
    """
    return "tapeout_" + re.sub(r"[^A-Za-z0-9_]", lambda m: f"_{ord(m[0]):x}_", name)


def steps_symbol(entry: str) -> str:
    """Return the symbol of the function that runs an entry point many times."""
    return entry + "__steps"


def fault_symbol(name: str) -> str:
    """Return the symbol of the record that a checked build's first fault fills."""
    return entry_symbol(name) + "__fault"


def clock_symbol(name: str) -> str:
    """Return the symbol of the record that a driver with clocks fills.

    It holds two words per launch in the order of the text, nanoseconds and number of runs, added up until somebody sets them to
    0, and at last two more for the whole program.
    """
    return entry_symbol(name) + "__clocks"


def emit_driver(
    program: Program, target: Target, checked: bool = False, clocks: bool = False
) -> str:
    """Return the LLVM IR of a program's entry point.

    Args:
        program: What it runs.
        target: The class of machine.
        checked: Whether the kernels fill a fault record.
        clocks: Whether it times its launches.

    Raises:
        CompileError: A launch passes one place in memory as two buffers, one of which it writes; or the system has no clock.
    """
    table = _Table(program)
    table.add(program.items, ())
    used = dict.fromkeys(i.kernel for i in program.launches)
    most = max((len(i.args) for i in program.launches), default=1)
    return _DRIVER.format(
        symbol=entry_symbol(program.name),
        declarations="\n".join(f'declare void @"{k}"(ptr, i64, i64)' for k in used),
        real_items=len(table.rows),
        n_items=max(1, len(table.rows)),
        items=", ".join(table.text()) or "%item zeroinitializer",
        n_args=max(1, len(table.args)),
        args=", ".join(table.args) or "%arg zeroinitializer",
        most=max(1, most) + 1,
        depth=table.depth,
        moves=_moves(table.depth),
        check=_CHECK,
        begin=_BEGIN,
        end=_END,
        branch=_BRANCH,
        jump=_JUMP,
        row_bytes=8 * len(program.inputs),
        kept_bytes=8 * len(program.scalar_outputs),
        keep=_kept(program),
        **_fault_parts(program.name, checked),
        **_clock_parts(program, target, clocks),
    )


def _kept(program: Program) -> str:
    """The lines that copy what one step gives to its row of results."""
    return "\n".join(
        _KEEP.format(
            n=n,
            offset=buffer.offset,
            bits=8 * buffer.bytes,
            align=buffer.bytes,
            at=8 * n,
        )
        for n, buffer in enumerate(program.scalar_outputs.values())
    )


def _moves(depth: int) -> str:
    """The lines that add up how far the loops around have moved a buffer."""
    return "\n".join(
        f"  %step.at.{d} = getelementptr inbounds %arg, ptr %arg, i64 0, i32 3, i64 {d}\n"
        f"  %step.{d} = load i64, ptr %step.at.{d}, align 8\n"
        f"  %time.at.{d} = getelementptr inbounds i64, ptr %times, i64 {d}\n"
        f"  %time.{d} = load i64, ptr %time.at.{d}, align 8\n"
        f"  %move.{d} = mul i64 %step.{d}, %time.{d}\n"
        f"  %shift.{d + 1} = add i64 %shift.{d}, %move.{d}"
        for d in range(depth)
    )


@dataclass
class _Row:
    """A row of the table of items; `target` is the number of the row to jump to."""

    kind: int
    kernel: str = "null"
    tasks: int = 0
    first: int = 0
    args: int = 0
    code: int = 0
    shared: int = 0
    target: int = 0

    def text(self) -> str:
        return (
            f"%item {{ ptr {self.kernel}, i64 {self.tasks}, i32 {self.first}, i32 {self.args}, "
            f"i32 {self.code}, i32 {self.shared}, i64 {self.kind}, i64 {self.target} }}"
        )


class _Table:
    """The rows of a program's items and of their arguments."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.rows: list[_Row] = []
        self.args: list[str] = []
        self.depth = _depth(program.items)
        self.launches = 0

    def text(self) -> list[str]:
        """Return the rows of items."""
        return [r.text() for r in self.rows]

    def add(self, items: Iterable[Item], counts: Times) -> None:
        """Append items inside of loops that run `counts` times."""
        for item in items:
            if isinstance(item, Launch):
                _refuse_overlap(self.program, item, counts)
                self._launch(item)
            elif isinstance(item, Check):
                self.rows.append(_Row(_CHECK, first=len(self.args), args=1, code=item.code))
                self.args.append(self._address(item.buffer))
            elif isinstance(item, Loop):
                self._loop(item, counts)
            else:
                self._branch(item, counts)

    def _launch(self, launch: Launch) -> None:
        kernel = self.program.kernels[launch.kernel]
        # A rule on the launch's own numbers: whether it is shared never depends on the number of threads.
        shared = int(launch.flops + launch.bytes >= ALONE)
        name, count = f'@"{launch.kernel}"', len(launch.args)
        first, number = len(self.args), self.launches
        self.rows.append(_Row(_LAUNCH, name, kernel.tasks, first, count, number, shared))
        self.launches += 1
        self.args += [self._address(a) for a in launch.args]

    def _loop(self, loop: Loop, counts: Times) -> None:
        begin = _Row(_BEGIN, tasks=loop.count, code=len(counts))
        self.rows.append(begin)
        start = len(self.rows)
        self.add(loop.items, (*counts, loop.count))
        self.rows.append(_Row(_END, tasks=loop.count, code=len(counts), target=start))
        begin.target = len(self.rows)

    def _branch(self, branch: Branch, counts: Times) -> None:
        choose = _Row(_BRANCH, first=len(self.args), args=1)
        self.args.append(self._address(branch.buffer))
        self.rows.append(choose)
        self.add(branch.then, counts)
        skip = _Row(_JUMP)
        self.rows.append(skip)
        choose.target = len(self.rows)
        self.add(branch.otherwise, counts)
        skip.target = len(self.rows)

    def _address(self, name: str) -> str:
        base, shift, steps = _part(self.program, name)
        space = _SPACE.get(base.space, _ARENA)
        offset = base.offset * 8 if space == _INPUT else base.offset
        moves = ", ".join(f"i64 {steps.get(d, 0)}" for d in range(self.depth))
        return f"%arg {{ i64 {space}, i64 {offset}, i64 {shift}, [{self.depth} x i64] [{moves}] }}"


def _depth(items: Iterable[Item]) -> int:
    """How deep loops are nested."""
    inside = [0]
    for item in items:
        if isinstance(item, Loop):
            inside.append(1 + _depth(item.items))
        elif isinstance(item, Branch):
            inside += [_depth(item.then), _depth(item.otherwise)]
    return max(inside)


def _part(program: Program, name: str) -> tuple[Buffer, int, dict[int, int]]:
    """Return what a buffer is a part of at last, where it starts there, and its bytes per round by level of loop."""
    buffer, shift = program.buffers[name], 0
    steps: dict[int, int] = {}
    while buffer.of:
        shift += buffer.offset
        if buffer.step:
            steps[buffer.level] = steps.get(buffer.level, 0) + buffer.step
        buffer = program.buffers[buffer.of]
    return buffer, shift, steps


def _fault_parts(name: str, checked: bool) -> dict[str, str]:
    """The parts of the driver that pass the fault record to the kernels and look at it after each."""
    if not checked:
        return {
            "fault": "",
            "pass_fault": "",
            "test_fault": "br label %done",
            "stop_fault": "",
        }
    record = f'@"{fault_symbol(name)}"'
    return {
        "fault": f"{record} = global [4 x i64] zeroinitializer, align 64",
        "pass_fault": f"%fault.slot = getelementptr inbounds ptr, ptr %addresses, i64 %count\n"
        f"  store ptr {record}, ptr %fault.slot, align 8",
        "test_fault": f"%state = load i64, ptr {record}, align 8\n"
        "  %faulted = icmp ne i64 %state, 0\n"
        "  br i1 %faulted, label %fault, label %done",
        "stop_fault": f"fault:\n  ret i32 {FAULT}\n",
    }


_CLOCK = """\
{record} = global [{count} x [2 x i64]] zeroinitializer, align 64
declare i32 @clock_gettime(i32, ptr)
define internal i64 @now() nounwind {{
  %time = alloca [2 x i64], align 8
  %r = call i32 @clock_gettime(i32 {clock}, ptr %time)
  %seconds = load i64, ptr %time, align 8
  %rest.at = getelementptr inbounds i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at, align 8
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %rest
  ret i64 %sum
}}
define internal void @count(i64 %number, i64 %began) nounwind {{
  %now = call i64 @now()
  %spent = sub i64 %now, %began
  %sum.at = getelementptr inbounds [2 x i64], ptr {record}, i64 %number
  %sum = load i64, ptr %sum.at, align 8
  %sum.next = add i64 %sum, %spent
  store i64 %sum.next, ptr %sum.at, align 8
  %runs.at = getelementptr inbounds i64, ptr %sum.at, i64 1
  %runs = load i64, ptr %runs.at, align 8
  %runs.next = add i64 %runs, 1
  store i64 %runs.next, ptr %runs.at, align 8
  ret void
}}
"""

_MONOTONIC = {"linux": 1, "darwin": 6, "macosx": 6}
"""What the systems call the clock that never goes back."""


def _clock_parts(program: Program, target: Target, clocks: bool) -> dict[str, str]:
    """The parts of the driver that time the launches."""
    if not clocks:
        return dict.fromkeys(("clocks", "start_run", "stop_run", "start_launch", "stop_launch"), "")
    triple = resolve(target).triple
    clock = next((c for system, c in _MONOTONIC.items() if system in triple), None)
    if clock is None:
        raise CompileError(f"no clock is known for {triple}", where="driver")
    launches = len(program.launches)
    record = f'@"{clock_symbol(program.name)}"'
    return {
        "clocks": _CLOCK.format(record=record, count=launches + 1, clock=clock),
        "start_run": "%run.began = call i64 @now()\n  ",
        "stop_run": f"call void @count(i64 {launches}, i64 %run.began)\n  ",
        "start_launch": "%began = call i64 @now()\n  ",
        "stop_launch": "%number.at = getelementptr inbounds %item, ptr %row, i64 0, i32 4\n"
        "  %number.short = load i32, ptr %number.at, align 8\n"
        "  %number.long = zext i32 %number.short to i64\n"
        "  call void @count(i64 %number.long, i64 %began)\n  ",
    }


def _refuse_overlap(program: Program, launch: Launch, counts: Times) -> None:
    """Kernels are compiled as if no buffer that they write overlapped another."""
    params = program.kernels[launch.kernel].params
    spans = [(_span(program, a, p), p, a) for a, p in zip(launch.args, params, strict=True)]
    for n, (x, p, a) in enumerate(spans):
        for y, q, b in spans[n + 1 :]:
            if p.access == q.access == "r" or x.is_apart(y, counts):
                continue
            raise CompileError(
                f"buffers {a!r} ({p.access}) and {b!r} ({q.access}) overlap in memory",
                where=f"{program.name}: launch {launch.label or launch.kernel}",
                hint="a kernel that updates in place takes the buffer once, as rw",
            )


@dataclass(frozen=True)
class _Span:
    """Where the elements lie that a kernel may touch.

    Attributes:
        space: Of the memory; each input is a space of its own.
        start: First byte, in the first round of all loops.
        size: Number of bytes.
        steps: Bytes per round, by level of loop.
    """

    space: int
    start: int
    size: int
    steps: dict[int, int]

    def is_apart(self, other: _Span, counts: Times) -> bool:
        """Whether two spans never overlap, in no round of the loops around."""
        if self.space != other.space or not self.size or not other.size:
            return True
        moves = [self.steps.get(d, 0) - other.steps.get(d, 0) for d in range(len(counts))]
        found = [self.start - other.start]
        for move, count in zip(moves, counts, strict=True):
            if move:
                found = [at + move * t for at in found for t in range(count)]
        return all(at >= other.size or at + self.size <= 0 for at in found)


def _span(program: Program, name: str, param: Param) -> _Span:
    base, shift, steps = _part(program, name)
    space = _SPACE.get(base.space, _ARENA)
    size = param.size * param.dtype.bytes
    # The caller's arrays are apart from all else; two of them may be one, but are only read.
    if space == _INPUT:
        return _Span(space + base.offset, shift, size, steps)
    return _Span(space, base.offset + shift, size, steps)
