"""PTX for kernels of level L in blocks, warps and lanes.

    grid  -> one block per iteration (ctaid.x)
    group -> one warp per iteration (tid.x / 32)        lane -> one thread of a warp (tid.x % 32)

The same emitter of expressions as for CPUs writes the LLVM IR. Only operations of `OPERATIONS` may occur, all of which the back
end can select and `ptxas` accepts; functions have become formulas before (`kernel.math.legalize`). A launch has
`kernel.tasks` blocks of `threads(kernel)` threads; the addresses of the buffers are its parameters, in order.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.codegen.emit import KernelEmitter
from tapeout.codegen.memory import Memory, Place
from tapeout.codegen.text import Value, constant, memory_type
from tapeout.ir.dtype import i64
from tapeout.kernel import loops
from tapeout.kernel.math import legalize
from tapeout.kernel.target import Target
from tapeout.kernel.walk import postorder, roots, statements
from tapeout.support.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapeout.ir.dtype import DType

PTX = Target("ptx", triple="nvptx64-nvidia-cuda", vector_bytes=16, registers=255)
"""What formulas and expressions need to know of a GPU."""

OLDEST = "+ptx80"
"""PTX 8.0, which drivers from CUDA 12.0 on take; GPUs after sm_90 get the version that LLVM knows them from."""

WARP = 32
MOST_THREADS = 1024
SHARED = 48 * 1024
"""Bytes of shared memory that a block may have without asking the driver for more."""

_ARITHMETIC = "add sub mul div max min neg abs fma sqrt floor ceil round trunc select"
_TESTS = "eq ne lt le gt ge isnan isinf and or xor not shl shr"
OPERATIONS = frozenset(f"{_ARITHMETIC} {_TESTS}".split())
"""Operations that this back end has; `rem` of integers is one, too, of floats it is not."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_SM = re.compile(r"sm_([0-9]{2,3})[af]?\Z", re.ASCII)
_TIMEOUT = 120


def emit_kernel(kernel: loops.Kernel, sm: str = "sm_80") -> str:
    """Return the PTX of a verified kernel.

    Args:
        kernel: A kernel whose stores stand inside its loops over threads. Functions such as `exp` may occur.
        sm: The GPU to generate for, such as `sm_80` or `sm_90`.

    Raises:
        CompileError: The kernel holds what this back end cannot do, or LLVM refuses it; names the kernel.
    """
    found = _SM.match(sm)
    if found is None:
        raise CompileError(
            f"{sm!r} names no GPU; sm_80, for instance, does", where="codegen for PTX"
        )
    text = emit_llvm(legalize(kernel, PTX))
    worker = str(Path(__file__).with_name("ptx_worker.py"))
    # -P: the folder of the worker, whose files have common names, is no place to import from.
    features = OLDEST if int(found.group(1)) <= 90 else ""
    command = [sys.executable, "-P", worker, sm, features]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise _refused(kernel, f"LLVM did not finish in {_TIMEOUT} s") from None
    if done.returncode != 0 or not done.stdout:
        last = " ".join(done.stderr.split()[-60:])
        raise _refused(kernel, f"LLVM refuses it (exit code {done.returncode}): {last}")
    if ".extern .func" in done.stdout:
        raise _refused(kernel, "it calls a function that no GPU has")
    return done.stdout


def emit_llvm(kernel: loops.Kernel) -> str:
    """Return the LLVM IR of a verified, legalized kernel.

    Raises:
        CompileError: The kernel holds what this back end cannot do.
    """
    _check(kernel)
    return _PtxEmitter(kernel).text()


def threads(kernel: loops.Kernel) -> int:
    """Return the number of threads of a block."""
    return max(1, _trips(kernel, "group")) * (WARP if _trips(kernel, "lane") else 1)


def _trips(kernel: loops.Kernel, kind: str) -> int:
    """Return the most iterations of a loop of a kind, 0 if there is none."""
    found = (s for s in statements(kernel.body) if isinstance(s, loops.For) and s.kind == kind)
    return max((_length(s) for s in found), default=0)


def _length(s: loops.For) -> int:
    if not isinstance(s.start, loops.Const) or not isinstance(s.stop, loops.Const):
        raise CompileError(f"the bounds of the {s.kind} loop %{s.var} are no constants")
    return max(0, -(-(int(s.stop.value) - int(s.start.value)) // s.step))


def _refused(kernel: loops.Kernel, why: str) -> CompileError:
    return CompileError(why, where=f"codegen for PTX, kernel {kernel.name}")


def _check(kernel: loops.Kernel) -> None:
    if not _NAME.match(kernel.name):
        raise _refused(kernel, f"{kernel.name!r} is no name that PTX takes")
    if _trips(kernel, "lane") > WARP or threads(kernel) > MOST_THREADS:
        raise _refused(kernel, f"a block has {threads(kernel)} threads, {MOST_THREADS} at most fit")
    done: set[int] = set()
    for stmt in statements(kernel.body):
        for root in roots(stmt):
            for e in postorder(root, done):
                _check_expression(kernel, e)
        if isinstance(stmt, loops.Store) and stmt.mask is not None and stmt.value.lanes > 1:
            raise _refused(kernel, f"{stmt.buffer} is stored with a mask of several lanes")


def _check_expression(kernel: loops.Kernel, e: loops.Expr) -> None:
    if isinstance(e, loops.Apply):
        integer_rem = e.op == "rem" and not e.dtype.is_float
        if e.op not in OPERATIONS and not integer_rem:
            raise _refused(kernel, f"the operation {e.op} of {e.dtype} is not supported")
    if isinstance(e, loops.Load) and e.mask is not None and e.lanes > 1:
        raise _refused(kernel, f"{e.buffer} is loaded with a mask of several lanes")


class _PtxMemory(Memory):
    """Loads and stores through generic pointers, whose space LLVM infers from where they come."""

    def _load_one(self, place: Place, index: Value, mask: Value | None, other: float) -> str:
        if mask is None:
            return super()._load_one(place, index, mask, other)
        f = self._f
        type_ = memory_type(place.dtype)
        address = self._address(place, index)
        read, after, before = f.label(), f.label(), f.block
        f.branch(mask.text, read, after)
        f.start(read)
        value = f.do(f"load {type_}, ptr {address}, align {place.dtype.bytes}")
        f.jump(after)
        f.start(after)
        rest = _raw_constant(other, place)
        return f.do(f"phi {type_} [ {value}, %{read} ], [ {rest}, %{before} ]")


def _raw_constant(value: float, place: Place) -> str:
    text = constant(value, place.dtype).text
    return {"true": "1", "false": "0"}.get(text, text)


class _PtxEmitter(KernelEmitter):
    """Writes one kernel for a GPU."""

    def __init__(self, kernel: loops.Kernel) -> None:
        super().__init__(kernel, PTX, checked=False)
        self._memory = _PtxMemory(self._f, PTX, None)
        self._threads = threads(kernel)
        self._lanes_per_warp = WARP if _trips(kernel, "lane") else 1
        self._levels = [k for k in ("group", "lane") if _trips(kernel, k)]
        self._globals: list[str] = []
        self._shared_bytes = 0

    def text(self) -> str:
        self._grid()
        self._f.line("ret void")
        params = [self._parameter(i, p) for i, p in enumerate(self._kernel.params)]
        attributes = f'nounwind "nvvm.maxntid"="{self._threads}"'
        body = self._f.finish(
            f"define ptx_kernel void @{self._kernel.name}({', '.join(params)}) {attributes}"
        )
        return "\n".join([f'target triple = "{PTX.triple}"', *self._globals, body])

    def _grid(self) -> None:
        """Run one iteration of the grid loop, that of this block."""
        body = self._kernel.body
        first = body[0] if len(body) == 1 else None
        if not (isinstance(first, loops.For) and first.kind == "grid"):
            self._run(body)
            return
        number = self._register("ctaid.x")
        self._names[first.var] = self._placed(first, number)
        self._run(first.body)

    def _register(self, name: str) -> Value:
        """Return a special register as an index."""
        word = self._f.pure(f"call i32 @llvm.nvvm.read.ptx.sreg.{name}()")
        return Value(self._f.pure(f"zext i32 {word} to i64"), i64)

    def _placed(self, s: loops.For, number: Value) -> Value:
        """Return a loop's variable in iteration `number`."""
        step = self._scalars.apply("mul", [number, constant(s.step, i64)])
        return self._scalars.apply("add", [step, self._value(s.start)])

    def _for(self, s: loops.For) -> None:
        if s.kind not in ("group", "lane"):
            super()._for(s)
            return
        number, size = self._own_number(s.kind)
        trips = _length(s)

        def body() -> None:
            self._names[s.var] = self._placed(s, number)
            self._enclosing.append((s.kind, trips))
            self._run(s.body)
            self._enclosing.pop()

        if trips == size:
            body()
            return
        if any(_waits(inner) for inner in statements(s.body)):
            raise _refused(
                self._kernel, f"the {s.kind} loop %{s.var} leaves out threads that are waited for"
            )
        self._guarded(f"icmp ult {number}, {trips}", body)

    def _own_number(self, kind: str) -> tuple[Value, int]:
        """Return this thread's number among the warps or lanes, and how many there are."""
        f = self._f
        per = self._lanes_per_warp
        thread = self._register("tid.x")
        if kind == "lane":
            return Value(f.pure(f"and {thread}, {per - 1}"), i64), per
        shift = per.bit_length() - 1
        number = Value(f.pure(f"lshr {thread}, {shift}"), i64) if shift else thread
        return number, self._threads // per

    def _guarded(self, condition: str, body: Callable[[], None]) -> None:
        f = self._f
        inside, after = f.label(), f.label()
        f.branch(f.pure(condition), inside, after)
        f.start(inside)
        with f.scope():
            body()
        f.jump(after)
        f.start(after)

    def _store(self, s: loops.Store) -> None:
        inside = [kind for kind, _ in self._enclosing]
        missing = [kind for kind in self._levels if kind not in inside]
        if missing:
            raise _refused(self._kernel, f"{s.buffer} is stored outside the {missing[0]} loop")
        super()._store(s)

    def _alloc(self, s: loops.Alloc) -> None:
        if s.scope != "shared":
            super()._alloc(s)
            return
        size = s.count * s.lanes
        self._shared_bytes += -(-size * s.dtype.bytes // 16) * 16
        if self._shared_bytes > SHARED:
            raise _refused(
                self._kernel, f"shared buffers take {self._shared_bytes} bytes, {SHARED} fit"
            )
        symbol = f"@{self._kernel.name}_s{len(self._globals)}"
        type_ = f"[{size} x {memory_type(s.dtype)}]"
        self._globals.append(f"{symbol} = internal addrspace(3) global {type_} undef, align 16")
        pointer = f"addrspacecast (ptr addrspace(3) {symbol} to ptr)"
        self._places[s.name] = Place(s.name, s.dtype, size, pointer)

    def _barrier(self, s: loops.Barrier) -> None:
        block = "call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)"
        self._f.line(block if s.scope == "group" else "call void @llvm.nvvm.bar.warp.sync(i32 -1)")

    def _cross(self, e: loops.Cross, operands: list[Value]) -> Value:
        (x,) = operands
        name = {"sum": "add", "prod": "mul", "any": "or", "all": "and"}.get(e.combine, e.combine)
        return self._across_lanes(name, x) if e.level == "lane" else self._across_warps(name, x)

    def _across_warps(self, name: str, x: Value) -> Value:
        """Exchange values through shared memory; every thread combines those of its lane as the tree of `Lanes`."""
        per = self._lanes_per_warp
        warps = self._threads // per
        place = self._exchange(x.dtype)
        thread = self._register("tid.x")
        self._memory.store(place, thread, x, 1, None)
        self._barrier(loops.Barrier("group"))
        lane = Value(self._f.pure(f"and {thread}, {per - 1}"), i64)
        found = []
        for w in range(warps):
            at = self._scalars.apply("add", [lane, constant(w * per, i64)])
            found.append(self._memory.load(place, at, 1, 1, None, 0))
        # The next exchange may not overwrite what others have yet to read.
        self._barrier(loops.Barrier("group"))
        while len(found) > 1:
            half = len(found) // 2
            found = [self._scalars.apply(name, [found[i], found[i + half]]) for i in range(half)]
        return found[0]

    def _exchange(self, dtype: DType) -> Place:
        """Return shared memory for one value of each thread."""
        name = f"exchange.{dtype}"
        if name not in self._places:
            self._alloc(loops.Alloc(name, dtype, 1, self._threads, "shared"))
        return self._places[name]

    def _across_lanes(self, name: str, x: Value) -> Value:
        """Combine lane i with lane i xor 16, then xor 8, …: each lane ends with the value of the tree of `Lanes`."""
        distance = self._lanes_per_warp // 2
        while distance:
            other = self._shuffled(x, distance)
            x = self._scalars.apply(name, [x, other])
            distance //= 2
        return x

    def _shuffled(self, x: Value, distance: int) -> Value:
        """Return the value of the lane whose number differs in one bit."""
        f = self._f
        bits = 1 if x.type == "i1" else x.dtype.bits
        word = f"i{bits}"
        raw = x.text if x.type == word else f.pure(f"bitcast {x} to {word}")
        wide = raw if bits >= WARP else f.pure(f"zext {word} {raw} to i32")
        halves = [wide] if bits <= WARP else list(self._halves(wide))
        moved = [
            f.do(f"call i32 @llvm.nvvm.shfl.sync.bfly.i32(i32 -1, i32 {h}, i32 {distance}, i32 31)")
            for h in halves
        ]
        if len(moved) == 2:
            low, high = (f.pure(f"zext i32 {m} to i64") for m in moved)
            back = f.pure(f"or i64 {low}, {f.pure(f'shl i64 {high}, 32')}")
        else:
            back = moved[0] if bits == WARP else f.pure(f"trunc i32 {moved[0]} to {word}")
        text = back if x.type == word else f.pure(f"bitcast {word} {back} to {x.type}")
        return Value(text, x.dtype, 1)

    def _halves(self, wide: str) -> Iterator[str]:
        yield self._f.pure(f"trunc i64 {wide} to i32")
        yield self._f.pure(f"trunc i64 {self._f.pure(f'lshr i64 {wide}, 32')} to i32")


def _waits(stmt: loops.Stmt) -> bool:
    if isinstance(stmt, loops.Barrier):
        return True
    done: set[int] = set()
    return any(isinstance(e, loops.Cross) for r in roots(stmt) for e in postorder(r, done))
