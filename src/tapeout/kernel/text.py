"""Level L as text: complete, deterministic, readable; `kernel.parse` reads it back.

    kernel k_0123456789abcdef(in b0: f32[4096], in b1: f32[128] align 4, out b2: f32[4096]) {
      numerics lanes 8 accumulators 4 partials 1 {kc = 256}
      alloc acc: f32x8[4] register
      for %i in 0..32 grid {
        for %j in 0..128 step 8 {
          %x: f32x8 = b0[(%i * 128) + %j :8] + b1[%j :8]
          store b2[(%i * 128) + %j] = max(%x, 0.0:f32x8)
        }
      }
    }

`$0: f32x8 = …` is no statement: it abbreviates an expression that is used more than once or is long. It is evaluated where
it is used, so the text is linear in the number of distinct expression objects, and the parser gives back the same sharing.
A type after a colon stands where it does not follow from the parts (constants are i64, f32 or bool unless they say otherwise).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.attribute import hash_of
from tapeout.ir.dtype import DType, bool_, f32, i64
from tapeout.ir.literal import spell_name, spell_number
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.ir.tensor import Tensor
from tapeout.ir.text import HEADER, spell_loc
from tapeout.kernel import loops
from tapeout.kernel.compute import Numerics
from tapeout.kernel.program import Branch, Check, Item, Launch, Loop, Program
from tapeout.kernel.walk import parts, postorder, roots, statements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapeout.ir.op import Array

Type = tuple[DType, int]
"""Element type and number of lanes."""

INFIX = {"add": "+", "sub": "-", "mul": "*"}
ACCESS = {"r": "in", "w": "out", "rw": "inout"}
INLINE_DATA = 1024
"""Bytes of constants that stand in a program's text itself."""

_LONG = 72


def print_kernel(kernel: loops.Kernel) -> str:
    """Return the text of a kernel; ends with a newline."""
    return _Printer(kernel).text()


def named(kernel: loops.Kernel) -> loops.Kernel:
    """Return the kernel with the name that its content gives it: `k_` and 16 hex digits of its text's SHA-256."""
    digest = hashlib.sha256(print_kernel(replace(kernel, name="_")).encode()).hexdigest()
    return replace(kernel, name=f"k_{digest[:16]}")


def excerpt(kernel: loops.Kernel, stmt: loops.Stmt, around: int = 5) -> str:
    """Return the lines of a kernel's text around a statement, which is marked with `>`."""
    printer = _Printer(kernel)
    lines = printer.text().splitlines()
    at = printer.where[id(stmt)]
    first = max(0, at - around)
    shown = lines[first : at + around + 1]
    return "\n".join(f"{'>' if n == at else ' '} {t}" for n, t in enumerate(shown, first))


def spell_type(dtype: DType, lanes: int) -> str:
    """Return `f32` or `f32x8`."""
    return dtype.name if lanes == 1 else f"{dtype.name}x{lanes}"


def natural_type(expr: loops.Expr, arg: Type) -> Type:
    """Return the type that follows from the parts; `arg` is that of the last part."""
    if isinstance(expr, loops.Apply):
        signature = SCALAR_OPS.get(expr.op)
        lanes = max((a.lanes for a in expr.args), default=1)
        return (bool_ if signature and signature.result == "bool" else arg[0], lanes)
    if isinstance(expr, loops.Cast | loops.Bitcast):
        return (expr.dtype, arg[1])
    if isinstance(expr, loops.Splat):
        return (arg[0], expr.lanes)
    if isinstance(expr, loops.Ramp):
        return (i64, expr.lanes)
    return (arg[0], 1) if isinstance(expr, loops.Lanes) else arg


def literal_type(value: float) -> Type:
    """Return the type of a constant that does not name one."""
    return (bool_ if isinstance(value, bool) else i64 if isinstance(value, int) else f32, 1)


def proper_number(value: float, dtype: DType) -> float | int | bool:
    """Return a number in the Python type that suits the element type."""
    return float(value) if dtype.is_float else bool(value) if dtype == bool_ else int(value)


class _Printer:
    """Prints one kernel."""

    def __init__(self, kernel: loops.Kernel) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.depth = 1
        self.uses = _count_uses(kernel)
        self.spelled: dict[int, str] = {}
        self.abbreviated: dict[int, str] = {}
        self.where: dict[int, int] = {}
        self.vars: dict[str, Type] = {}
        self.buffers: dict[str, tuple[DType, int]] = {p.name: (p.dtype, 1) for p in kernel.params}

    def text(self) -> str:
        params = ", ".join(_param(p) for p in self.kernel.params)
        self.lines.append(f"kernel {spell_name(self.kernel.name)}({params}) {{")
        if self.kernel.numerics != Numerics():
            self.line(_numerics(self.kernel.numerics))
        self.block(self.kernel.body)
        self.lines.append("}")
        return "\n".join(self.lines) + "\n"

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def head(self, stmt: loops.Stmt, text: str) -> None:
        """Print the (first) line of a statement itself."""
        self.where.setdefault(id(stmt), len(self.lines))
        self.line(text)

    def block(self, body: tuple[loops.Stmt, ...]) -> None:
        # Recursion over the nesting of loops, which is shallow; expressions are walked without it.
        for stmt in body:
            self.statement(stmt)

    def inside(self, body: tuple[loops.Stmt, ...]) -> None:
        self.depth += 1
        self.block(body)
        self.depth -= 1

    def statement(self, stmt: loops.Stmt) -> None:
        if isinstance(stmt, loops.For):
            self.loop(stmt)
        elif isinstance(stmt, loops.Let):
            value = self.spell(stmt.value)
            self.vars[stmt.var.name] = (stmt.var.dtype, stmt.var.lanes)
            type_ = spell_type(stmt.var.dtype, stmt.var.lanes)
            self.head(stmt, f"%{spell_name(stmt.var.name)}: {type_} = {value}")
        elif isinstance(stmt, loops.Alloc):
            self.buffers[stmt.name] = (stmt.dtype, stmt.lanes if stmt.scope == "register" else 1)
            type_ = spell_type(stmt.dtype, stmt.lanes)
            self.head(stmt, f"alloc {spell_name(stmt.name)}: {type_}[{stmt.count}] {stmt.scope}")
        elif isinstance(stmt, loops.Store):
            index = self.spell(stmt.index)
            mask = "" if stmt.mask is None else self.spell(stmt.mask)
            at = _place(stmt.buffer, index, 0, stmt.active, mask)
            self.head(stmt, f"store {at} = {self.spell(stmt.value)}")
        elif isinstance(stmt, loops.If):
            self.branch(stmt)
        else:
            self.head(stmt, f"barrier {stmt.scope}")

    def loop(self, stmt: loops.For) -> None:
        start, stop = self.spell(stmt.start), self.spell(stmt.stop)
        step = f" step {stmt.step}" if stmt.step != 1 else ""
        kind = f" {stmt.kind}" if stmt.kind != "serial" else ""
        self.head(stmt, f"for %{spell_name(stmt.var)} in {start}..{stop}{step}{kind} {{")
        self.vars[stmt.var] = (i64, 1)
        self.inside(stmt.body)
        self.line("}")

    def branch(self, stmt: loops.If) -> None:
        self.head(stmt, f"if {self.spell(stmt.condition)} {{")
        self.inside(stmt.then)
        if stmt.otherwise:
            self.line("} else {")
            self.inside(stmt.otherwise)
        self.line("}")

    # -- expressions --------------------------------------------------------------------------------------------------

    def spell(self, root: loops.Expr) -> str:
        """Return the text of an expression for a statement, after the abbreviations that it needs."""
        for expr in postorder(root, set(), self.abbreviated):
            text, natural = self.one(expr)
            declared = (expr.dtype, expr.lanes)
            leaf = isinstance(expr, loops.Const | loops.Var)
            if declared != natural:
                text = f"{text if leaf else f'({text})'}:{spell_type(*declared)}"
            if not leaf and (self.uses[id(expr)] > 1 or (len(text) > _LONG and expr is not root)):
                name = f"${len(self.abbreviated)}"
                self.abbreviated[id(expr)] = name
                self.line(f"{name}: {spell_type(*declared)} = {text}")
                text = name
            self.spelled[id(expr)] = text
        return self.spelled[id(root)]

    def one(self, expr: loops.Expr) -> tuple[str, Type]:
        """Return the text of an expression of spelled parts, and the type that follows from it."""
        if isinstance(expr, loops.Const):
            number = proper_number(expr.value, expr.dtype)
            return spell_number(number), literal_type(number)
        if isinstance(expr, loops.Var):
            return f"%{spell_name(expr.name)}", self.vars.get(expr.name, (i64, 1))
        if isinstance(expr, loops.Load):
            return self.load(expr)
        below = parts(expr)
        args = [self.spelled[id(p)] for p in below]
        arg = (below[-1].dtype, below[-1].lanes) if below else (i64, 1)
        natural = natural_type(expr, arg)
        if isinstance(expr, loops.Apply) and expr.op in INFIX and len(args) == 2:
            left, right = (self.operand(p) for p in below)
            return f"{left} {INFIX[expr.op]} {right}", natural
        return f"{_head(expr)}({', '.join(args)})", natural

    def operand(self, expr: loops.Expr) -> str:
        text = self.spelled[id(expr)]
        infix = isinstance(expr, loops.Apply) and expr.op in INFIX and len(expr.args) == 2
        return f"({text})" if infix and not text.startswith("$") else text

    def load(self, expr: loops.Load) -> tuple[str, Type]:
        dtype, lanes = self.buffers.get(expr.buffer, (expr.dtype, 1))
        lanes = expr.index.lanes if expr.index.lanes > 1 else lanes
        width = expr.lanes if expr.index.lanes == 1 and expr.lanes != lanes else 0
        mask = "" if expr.mask is None else self.spelled[id(expr.mask)]
        index = self.spelled[id(expr.index)]
        text = _place(expr.buffer, index, width, expr.active, mask, _other(expr))
        return text, (dtype, width or lanes)


def _place(
    buffer: str, index: str, lanes: int, active: int | None, mask: str, other: str = ""
) -> str:
    """Return `name[index :lanes active n mask m else x]`."""
    inside = [index]
    if lanes:
        inside.append(f":{lanes}")
    if active is not None:
        inside.append(f"active {active}")
    if mask:
        inside.append(f"mask {mask}")
    if other:
        inside.append(f"else {other}")
    return f"{spell_name(buffer)}[{' '.join(inside)}]"


def _other(expr: loops.Load) -> str:
    number = proper_number(expr.other, expr.dtype)
    text = spell_number(number)
    return "" if text in ("0", "0.0", "false") else text


def _head(expr: loops.Expr) -> str:
    if isinstance(expr, loops.Apply):
        return spell_name(expr.op)
    if isinstance(expr, loops.Cast):
        return f"cast<{expr.dtype.name}>"
    if isinstance(expr, loops.Bitcast):
        return f"bitcast<{expr.dtype.name}>"
    if isinstance(expr, loops.Splat):
        return f"splat<{expr.lanes}>"
    if isinstance(expr, loops.Ramp):
        return f"ramp<{expr.lanes}>"
    if isinstance(expr, loops.Lanes):
        return f"lanes<{expr.combine}>"
    assert isinstance(expr, loops.Cross)
    return f"cross<{expr.combine}, {expr.level}>"


def _param(p: loops.Param) -> str:
    align = f" align {p.align}" if p.align != 64 else ""
    return f"{ACCESS[p.access]} {spell_name(p.name)}: {p.dtype.name}[{p.size}]{align}"


def _numerics(n: Numerics) -> str:
    extra = ", ".join(f"{spell_name(k)} = {v}" for k, v in sorted(n.extra.items()))
    text = f"numerics lanes {n.lanes} accumulators {n.accumulators} partials {n.partials}"
    return f"{text} {{{extra}}}" if extra else text


def _count_uses(kernel: loops.Kernel) -> dict[int, int]:
    """Return how often each expression object is used, by id; the kernel keeps the objects alive."""
    uses: dict[int, int] = {}
    done: set[int] = set()
    for stmt in statements(kernel.body):
        for root in roots(stmt):
            uses[id(root)] = uses.get(id(root), 0) + 1
            for expr in postorder(root, done):
                for p in parts(expr):
                    uses[id(p)] = uses.get(id(p), 0) + 1
    return uses


# -- programs -------------------------------------------------------------------------------------------------


def print_program(program: Program) -> str:
    """Return a program with its kernels as text; `kernel.parse.parse_program` reads it back.

    Constants of more than `INLINE_DATA` bytes are named by hash; `program_data` gives the tensor for a side file.
    """
    lines = [HEADER, f"program {spell_name(program.name)} arena {program.arena} {{"]
    lines += [f"  {line}" for line in _program_lines(program)]
    for symbol, kernel in program.kernels.items():
        if symbol != kernel.name:
            lines.append(f"  symbol {spell_name(symbol)}")
        lines += [f"  {line}" for line in print_kernel(kernel).splitlines()]
    return "\n".join([*lines, "}"]) + "\n"


def program_data(program: Program) -> dict[str, Array]:
    """Return the constants of a program for a side file, by hash; empty if the text holds them."""
    if len(program.data) <= INLINE_DATA:
        return {}
    tensor = Tensor(np.frombuffer(program.data, np.uint8))
    return {hash_of(tensor): tensor.array}


def _program_lines(p: Program) -> Iterator[str]:
    yield f"layout {p.layout.bytes} {{"
    for slot in p.layout.slots:
        yield f"  {spell_name(slot.kind)} {spell_name(slot.name)}: {slot.type} at {slot.offset}"
    yield "}"
    if p.data:
        tensor = Tensor(np.frombuffer(p.data, np.uint8))
        short = len(p.data) <= INLINE_DATA
        yield f'data "{p.data.hex()}"' if short else f"data {len(p.data)} #{hash_of(tensor)}"
    for b in p.buffers.values():
        order = "" if b.order == tuple(range(b.type.rank)) else f" order {list(b.order)}"
        part = f" of {spell_name(b.of)}" if b.of else ""
        moves = f" step {b.step} loop {b.level}" if b.step else ""
        place = f"{b.space} at {b.offset}{part}{moves} live {b.first} {b.last}"
        yield f"buffer {spell_name(b.name)}: {b.type}{order} {place}"
    for name in p.inputs:
        yield f"input {spell_name(name)}"
    for name, type_ in p.input_types.items():
        yield f"takes {spell_name(name)}: {type_}"
    for name, buffer in p.outputs.items():
        yield f"output {spell_name(name)} = {spell_name(buffer)}"
    for item in p.items:
        yield from _item(item)


def _item(item: Item) -> Iterator[str]:
    if isinstance(item, Loop):
        yield _opening(f"loop {item.count}", item)
        yield from (f"  {line}" for i in item.items for line in _item(i))
        yield "}"
    elif isinstance(item, Branch):
        yield _opening(f"branch {spell_name(item.buffer)}", item)
        yield from (f"  {line}" for i in item.then for line in _item(i))
        yield "} else {"
        yield from (f"  {line}" for i in item.otherwise for line in _item(i))
        yield "}"
    else:
        yield _call(item)


def _opening(start: str, item: Loop | Branch) -> str:
    facts = [start, json.dumps(item.label) if item.label else "", spell_loc(item.loc), "{"]
    return " ".join(f for f in facts if f)


def _call(item: Launch | Check) -> str:
    if isinstance(item, Check):
        return f"check {spell_name(item.buffer)} code {item.code} {json.dumps(item.message)}"
    args = ", ".join(spell_name(a) for a in item.args)
    facts = [
        "update" if item.update else "",
        f"flops {item.flops}" if item.flops else "",
        f"bytes {item.bytes}" if item.bytes else "",
        json.dumps(item.label) if item.label else "",
        spell_loc(item.loc),
    ]
    return " ".join(f for f in (f"launch {spell_name(item.kernel)}({args})", *facts) if f)
