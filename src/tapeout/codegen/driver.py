"""The step driver: a program as one function that runs its items in order.

    i32 @tapeout_NAME(ptr arena, ptr inputs, ptr pool, ptr data)

`inputs` points to the addresses of the program's inputs, `data` to its constants; `pool` is null for one thread. It returns 0,
the code of the first check that failed, or FAULT when a checked build met an access out of bounds. Nothing is allocated.

Launches are rows of a constant table, so the size of the code does not grow with the program.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tapeout.kernel.program import Check, Launch
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from tapeout.kernel.loops import Param
    from tapeout.kernel.program import Buffer, Program
    from tapeout.kernel.target import Target

ALONE = 1 << 16
"""A launch of fewer floating-point operations plus bytes than this runs on the calling thread."""

FAULT = -1

# Where a buffer lives, as the driver's table of base addresses numbers them.
_ARENA, _DATA, _INPUT = 0, 1, 2
_SPACE = {"constant": _DATA, "input": _INPUT}

_DRIVER = """\
%item = type {{ ptr, i64, i32, i32, i32, i32 }}  ; kernel (null: a check), tasks, first arg, args, code, shared by threads
%arg = type {{ i64, i64 }}  ; base, offset
{declarations}
@items = private unnamed_addr constant [{n_items} x %item] [{items}]
@args = private unnamed_addr constant [{n_args} x %arg] [{args}]
{fault}
define i32 @"{symbol}"(ptr %arena, ptr %inputs, ptr %pool, ptr %data) nounwind {{
entry:
  %addresses = alloca ptr, i64 {most}, align 64
  %bases = alloca [3 x ptr], align 8
  store ptr %arena, ptr %bases, align 8
  %bases.1 = getelementptr inbounds ptr, ptr %bases, i64 1
  store ptr %data, ptr %bases.1, align 8
  %bases.2 = getelementptr inbounds ptr, ptr %bases, i64 2
  store ptr %inputs, ptr %bases.2, align 8
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %done ]
  %more = icmp slt i64 %i, {real_items}
  br i1 %more, label %begin, label %end
end:
  ret i32 0
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
  %buffer = phi ptr [ %direct, %fill ], [ %passed, %given ]
  %slot = getelementptr inbounds ptr, ptr %addresses, i64 %k
  store ptr %buffer, ptr %slot, align 8
  %k.next = add i64 %k, 1
  br label %address
run:
  {pass_fault}
  %is.check = icmp eq ptr %kernel, null
  br i1 %is.check, label %check, label %launch
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
  %shared.at = getelementptr inbounds %item, ptr %row, i64 0, i32 5
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
  {test_fault}
done:
  %i.next = add i64 %i, 1
  br label %head
{stop_fault}}}
"""


def entry_symbol(name: str) -> str:
    """Return the symbol of a program's entry point.

    >>> entry_symbol("step"), entry_symbol("my net")
    ('tapeout_step', 'tapeout_my_20_net')
    """
    return "tapeout_" + re.sub(r"[^A-Za-z0-9_]", lambda m: f"_{ord(m[0]):x}_", name)


def fault_symbol(name: str) -> str:
    """Return the symbol of the record that a checked build's first fault fills."""
    return entry_symbol(name) + "__fault"


def emit_driver(program: Program, target: Target, checked: bool = False) -> str:
    """Return the LLVM IR of a program's entry point.

    Raises:
        CompileError: A launch passes one place in memory as two buffers, one of which it writes.
    """
    del target  # the driver holds nothing that differs between CPUs
    rows: list[str] = []
    args: list[str] = []
    for item in program.items:
        if isinstance(item, Launch):
            _refuse_overlap(program, item)
            rows.append(_launch_row(program, item, len(args)))
            args += [_address(program.buffers[a]) for a in item.args]
        else:
            rows.append(_check_row(item, len(args)))
            args.append(_address(program.buffers[item.buffer]))
    used = dict.fromkeys(i.kernel for i in program.items if isinstance(i, Launch))
    most = max((len(i.args) for i in program.items if isinstance(i, Launch)), default=1)
    return _DRIVER.format(
        symbol=entry_symbol(program.name),
        declarations="\n".join(f'declare void @"{k}"(ptr, i64, i64)' for k in used),
        real_items=len(rows),
        n_items=max(1, len(rows)),
        items=", ".join(rows) or "%item zeroinitializer",
        n_args=max(1, len(args)),
        args=", ".join(args) or "%arg zeroinitializer",
        most=max(1, most) + 1,
        **_fault_parts(program.name, checked),
    )


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


def _launch_row(program: Program, launch: Launch, first: int) -> str:
    kernel = program.kernels[launch.kernel]
    # A rule on the launch's own numbers: whether it is shared never depends on the number of threads.
    shared = int(launch.flops + launch.bytes >= ALONE)
    return (
        f'%item {{ ptr @"{launch.kernel}", i64 {kernel.tasks}, i32 {first}, i32 {len(launch.args)}, '
        f"i32 0, i32 {shared} }}"
    )


def _check_row(check: Check, first: int) -> str:
    return f"%item {{ ptr null, i64 0, i32 {first}, i32 1, i32 {check.code}, i32 0 }}"


def _address(buffer: Buffer) -> str:
    space = _SPACE.get(buffer.space, _ARENA)
    offset = buffer.offset * 8 if space == _INPUT else buffer.offset
    return f"%arg {{ i64 {space}, i64 {offset} }}"


def _refuse_overlap(program: Program, launch: Launch) -> None:
    """Kernels are compiled as if no buffer that they write overlapped another."""
    params = program.kernels[launch.kernel].params
    spans = [(_span(program.buffers[a], p), p, a) for a, p in zip(launch.args, params, strict=True)]
    for n, ((space, start, stop), p, a) in enumerate(spans):
        for (other, start2, stop2), q, b in spans[n + 1 :]:
            apart = space != other or stop <= start2 or stop2 <= start
            if apart or p.access == q.access == "r":
                continue
            raise CompileError(
                f"buffers {a!r} ({p.access}) and {b!r} ({q.access}) overlap in memory",
                where=f"{program.name}: launch {launch.label or launch.kernel}",
                hint="a kernel that updates in place takes the buffer once, as rw",
            )


def _span(buffer: Buffer, param: Param) -> tuple[int, int, int]:
    space = _SPACE.get(buffer.space, _ARENA)
    if space == _INPUT:
        # The caller's arrays are apart from all else; two of them may be one, but are only read.
        return space + buffer.offset, 0, 1
    return space, buffer.offset, buffer.offset + param.size * param.dtype.bytes
