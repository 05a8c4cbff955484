"""What this machine can do at best: the two lines of its roofline, measured by kernels that do nothing else.

Multiply-adds that touch registers only give the arithmetic's ceiling; `c = a * s + b` over arrays beyond every cache gives that of
memory, and over arrays that stay in the second-level cache that of the cache. They run as the user's programs do: same code
generator, same thread pool, same number of threads. What was found is kept per machine.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.codegen.build import build, version
from tapeout.codegen.cache import store_of
from tapeout.codegen.machine import resolve
from tapeout.ir.dtype import f32, i64
from tapeout.ir.type import TensorType
from tapeout.kernel import loops
from tapeout.kernel.program import Buffer, Launch, Layout, Program
from tapeout.kernel.text import named
from tapeout.runtime.executable import Executable
from tapeout.support.loc import UNKNOWN

if TYPE_CHECKING:
    from tapeout.kernel.target import Target

_SECONDS = 0.15
"""How long each ceiling is looked for."""
_TASKS = 64
_STEPS = 1 << 13
_REPEATS = 16
_CACHED = 8192
"""Elements of each of the three arrays that stay in the second-level cache: 96 KiB together."""


@dataclass(frozen=True)
class Ceiling:
    """The best this machine does with a number of threads.

    Attributes:
        machine: What kind of processor it is.
        target: The class of machine that code is made for.
        threads: Threads.
        flops: Single-precision operations per second, a multiply-add counting as two.
        memory: Bytes per second read and written in memory.
        cache: Bytes per second read and written in the second-level cache.
    """

    machine: str
    target: str
    threads: int
    flops: float
    memory: float
    cache: float

    def seconds(self, flops: float, bytes_: float) -> float:
        """Return the least time for so much work whose operands come from memory."""
        return max(flops / self.flops, bytes_ / self.memory)

    def bound(self, flops: float, bytes_: float) -> str:
        """Return which of the two ceilings such work meets: `compute` or `memory`."""
        return "compute" if flops / self.flops >= bytes_ / self.memory else "memory"


def ceiling(target: Target, threads: int, *, again: bool = False) -> Ceiling:
    """Return the ceilings of this machine, measured in about half a second or as they were found before.

    Args:
        target: The class of machine that code is made for.
        threads: Number of threads.
        again: Measure anew even if they are known.
    """
    store, key = store_of("machine"), _key(target, threads)
    found = None if again else store.get(key)
    if found is not None:
        return Ceiling(**json.loads(found))
    lanes, task = target.lanes(4), _CACHED * _REPEATS
    large = _beyond_caches()
    made = Ceiling(
        processor(),
        target.name,
        threads,
        _rate(
            _multiply_adds(target), target, threads, 2 * _chains(target) * lanes * _STEPS * _TASKS
        ),
        _rate(_stream(large // _TASKS, 1, lanes), target, threads, 12 * large),
        _rate(_stream(_CACHED, _REPEATS, lanes), target, threads, 12 * task * _TASKS),
    )
    store.put(key, json.dumps(asdict(made)).encode())
    return made


def processor() -> str:
    """Return the name of the processor."""
    import platform

    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def _key(target: Target, threads: int) -> str:
    facts = f"ceiling 1\n{version()}\n{resolve(target)!r}\n{processor()}\n{threads}\n"
    return hashlib.sha256(facts.encode()).hexdigest()


def _beyond_caches() -> int:
    """Return how many floats an array must have so that three of them fit into no cache."""
    known = 32 << 20
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        known = int(text.rstrip("K")) * 1024
    except (OSError, ValueError):
        pass
    return max(8 << 20, min(32 << 20, known // 4)) // 4096 * 4096


def _rate(kernel: loops.Kernel, target: Target, threads: int, work: float) -> float:
    """Return how much of a work per second the kernel does at its best."""
    program = _program(kernel, int(work))
    objects, entry = build(program, target)
    run = Executable(program, objects, entry=entry, threads=threads)
    best, end = float("inf"), time.perf_counter() + _SECONDS
    tries = 0
    while tries < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run.run({})
        best = min(best, time.perf_counter() - start)
        tries += 1
    return work / best


def _program(kernel: loops.Kernel, work: int) -> Program:
    """Return a program of one launch, its buffers side by side."""
    buffers, at = {}, 0
    for p in kernel.params:
        type_ = TensorType(p.dtype, (p.size,))
        buffers[p.name] = Buffer(p.name, type_, (0,), "activation", at, 0, 1)
        at += -(-prod(type_.shape) * 4 // 64) * 64 + 64
    launch = Launch(kernel.name, tuple(buffers), UNKNOWN, "ceiling", work, work)
    return Program("ceiling", (), {}, buffers, (launch,), {kernel.name: kernel}, Layout((), 0), at)


def _number(value: int) -> loops.Const:
    return loops.Const(i64, 1, value)


def _loop(var: str, stop: int, step: int, kind: loops.LoopKind, *body: loops.Stmt) -> loops.For:
    return loops.For(var, _number(0), _number(stop), step, kind, body)


def _chains(target: Target) -> int:
    """Independent chains of multiply-adds: enough to hide their latency, few enough for the registers."""
    return 12 if target.registers >= 16 else 6


def _multiply_adds(target: Target) -> loops.Kernel:
    """Return the kernel of independent chains of multiply-adds in registers."""
    lanes, chains = target.lanes(4), range(_chains(target))
    factor, term = loops.Const(f32, lanes, 0.999), loops.Const(f32, lanes, 1e-3)
    places = [_number(c) for c in chains]

    def acc(c: int) -> loops.Expr:
        return loops.Load(f32, lanes, "acc", places[c])

    def step(c: int) -> loops.Stmt:
        value = loops.Apply(f32, lanes, "fma", (acc(c), factor, term))
        return loops.Store("acc", places[c], value)

    total = acc(0)
    for c in chains[1:]:
        total = loops.Apply(f32, lanes, "add", (total, acc(c)))
    t = loops.Var(i64, 1, "t")
    place = loops.Apply(i64, 1, "mul", (t, _number(lanes)))
    task: tuple[loops.Stmt, ...] = (
        loops.Alloc("acc", f32, lanes, len(chains), "register"),
        *(loops.Store("acc", places[c], term) for c in chains),
        _loop("k", _STEPS, 1, "serial", *(step(c) for c in chains)),
        loops.Store("out", place, total),
    )
    out = loops.Param("out", f32, lanes * _TASKS, "w")
    return named(loops.Kernel("", (out,), (_loop("t", _TASKS, 1, "grid", *task),)))


def _stream(elements: int, repeats: int, lanes: int) -> loops.Kernel:
    """Return the kernel `c = a * s + b` over so many elements per task, as often as asked."""
    t, k = loops.Var(i64, 1, "t"), loops.Var(i64, 1, "k")
    start = loops.Apply(i64, 1, "mul", (t, _number(elements)))
    place = loops.Apply(i64, 1, "add", (start, k))
    a, b = (loops.Load(f32, lanes, name, place) for name in ("a", "b"))
    value = loops.Apply(f32, lanes, "fma", (a, loops.Const(f32, lanes, 0.5), b))
    sweep = _loop("k", elements, lanes, "serial", loops.Store("c", place, value))
    task = sweep if repeats == 1 else _loop("r", repeats, 1, "serial", sweep)
    params = tuple(
        loops.Param(n, f32, elements * _TASKS, a) for n, a in zip("abc", "rrw", strict=True)
    )
    return named(loops.Kernel("", params, (_loop("t", _TASKS, 1, "grid", task),)))
