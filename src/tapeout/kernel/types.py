"""Types and lanes of expressions at level L."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.dtype import bool_, f32, i64, u32
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.kernel import loops
from tapeout.kernel.text import spell_type
from tapeout.kernel.walk import parts, postorder, roots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapeout.kernel.scope import Scope

COMBINATIONS = {"sum": "fiu", "prod": "fiu", "max": "fiub", "min": "fiub", "any": "b", "all": "b"}
"""Kinds of element types that each combination takes."""


def check_types(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    """Yield what is wrong with the types of a statement and its expressions."""
    done: set[int] = set()
    for root in roots(stmt):
        for expr in postorder(root, done):
            yield from _expression(expr, scope)
    yield from _statement(stmt, scope)


def _statement(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    if isinstance(stmt, loops.For):
        for what, bound in (("start", stmt.start), ("stop", stmt.stop)):
            yield from _is(bound, i64, 1, f"the {what} of a loop")
    elif isinstance(stmt, loops.Let):
        if stmt.value.dtype != stmt.var.dtype or stmt.value.lanes != stmt.var.lanes:
            yield f"%{stmt.var.name} is {_type(stmt.var)}, its value is {_type(stmt.value)}"
    elif isinstance(stmt, loops.If):
        yield from _is(stmt.condition, bool_, 1, "a condition")
    elif isinstance(stmt, loops.Store):
        dtype = scope.buffers[stmt.buffer].dtype
        if stmt.value.dtype != dtype:
            yield f"{stmt.buffer} holds {dtype}, {stmt.value.dtype} is stored"
        yield from _is(stmt.index, i64, 1, "the index of a store")
        yield from _touched(stmt.active, stmt.mask, stmt.value.lanes)


def _expression(e: loops.Expr, scope: Scope) -> Iterator[str]:
    if e.lanes < 1:
        yield f"an expression has {e.lanes} lanes"
    if isinstance(e, loops.Const):
        yield from _const(e)
    elif isinstance(e, loops.Var):
        v = scope.vars[e.name]
        if (v.dtype, v.lanes) != (e.dtype, e.lanes):
            yield f"%{e.name} is {spell_type(v.dtype, v.lanes)}, used as {_type(e)}"
    elif isinstance(e, loops.Load):
        yield from _load(e, scope)
    elif isinstance(e, loops.Apply):
        yield from _apply(e)
    else:
        yield from _shape(e)


def _const(e: loops.Const) -> Iterator[str]:
    if e.dtype.kind == "b":
        fits = e.value in (0, 1)
    elif e.dtype.is_float:
        fits = isinstance(e.value, int | float)
    else:
        low = -(1 << (e.dtype.bits - 1)) if e.dtype.kind == "i" else 0
        fits = int(e.value) == e.value and low <= e.value < low + (1 << e.dtype.bits)
    if not fits:
        yield f"the constant {e.value!r} is no {e.dtype}"


def _load(e: loops.Load, scope: Scope) -> Iterator[str]:
    dtype = scope.buffers[e.buffer].dtype
    if e.dtype != dtype:
        yield f"{e.buffer} holds {dtype}, it is loaded as {e.dtype}"
    if e.index.dtype != i64 or e.index.lanes not in (1, e.lanes):
        yield f"the index of a load of {e.lanes} lanes is {_type(e.index)}"
    yield from _touched(e.active, e.mask, e.lanes)


def _touched(active: int | None, mask: loops.Expr | None, lanes: int) -> Iterator[str]:
    if active is not None and not 0 <= active <= lanes:
        yield f"{active} of {lanes} lanes are active"
    if mask is not None:
        yield from _is(mask, bool_, lanes, "a mask")


def _dot2(e: loops.Apply) -> Iterator[str]:
    found = [a.dtype for a in e.args]
    if found != [u32, u32, f32] or e.dtype != f32 or any(a.lanes != e.lanes for a in e.args):
        given = ", ".join(map(_type, e.args))
        yield f"{e.op} of {e.lanes} lanes has the operands {given}; u32, u32 and f32 are expected"


def _apply(e: loops.Apply) -> Iterator[str]:
    if e.op == loops.DOT2:
        yield from _dot2(e)
        return
    signature = SCALAR_OPS.get(e.op)
    if signature is None:
        yield f"no scalar operation is called {e.op!r}"
        return
    if len(e.args) != signature.arity:
        yield f"{e.op} takes {signature.arity} operands, got {len(e.args)}"
        return
    args = e.args
    if e.op == "select":
        condition, *rest = args
        args = tuple(rest)
        if condition.dtype != bool_ or condition.lanes not in (1, e.lanes):
            yield f"the condition of a select of {e.lanes} lanes is {_type(condition)}"
    last = args[-1]
    if last.dtype.kind not in signature.kinds:
        yield f"{e.op} does not take {last.dtype}"
    if any(a.dtype != last.dtype or a.lanes != e.lanes for a in args):
        yield f"{e.op} of {e.lanes} lanes has the operands {', '.join(map(_type, args))}"
    result = bool_ if signature.result == "bool" else last.dtype
    if e.dtype != result:
        yield f"{e.op} of {last.dtype} gives {result}, not {e.dtype}"


def _shape(e: loops.Expr) -> Iterator[str]:
    (arg,) = parts(e)
    if isinstance(e, loops.Cast | loops.Bitcast):
        if arg.lanes != e.lanes:
            yield f"a conversion to {e.lanes} lanes has the operand {_type(arg)}"
        if isinstance(e, loops.Bitcast) and arg.dtype.bits != e.dtype.bits:
            yield f"a bitcast to {e.dtype} has the operand {_type(arg)}"
    elif isinstance(e, loops.Splat):
        yield from _is(arg, e.dtype, 1, "the operand of a splat")
    elif isinstance(e, loops.Ramp):
        yield from _is(arg, i64, 1, "the start of a ramp")
        if e.dtype != i64:
            yield f"a ramp is {e.dtype}, i64 is expected"
    elif isinstance(e, loops.Lanes | loops.Cross):
        yield from _combined(e, arg)
    else:
        yield f"{type(e).__name__} is no expression of level L"


def _combined(e: loops.Lanes | loops.Cross, arg: loops.Expr) -> Iterator[str]:
    kinds = COMBINATIONS.get(e.combine)
    if kinds is None or e.dtype.kind not in kinds:
        yield f"{e.combine!r} does not combine {e.dtype}"
    if arg.dtype != e.dtype or e.lanes != 1:
        yield f"a combination gives {_type(e)} of {_type(arg)}"
    if isinstance(e, loops.Cross) and arg.lanes != 1:
        yield f"a value combined across threads is {_type(arg)}, a scalar is expected"
    if arg.lanes & (arg.lanes - 1):
        yield f"{arg.lanes} lanes are no power of two"


def _is(e: loops.Expr, dtype: object, lanes: int, what: str) -> Iterator[str]:
    if e.dtype != dtype or e.lanes != lanes:
        wanted = str(dtype) if lanes == 1 else f"{dtype}x{lanes}"
        yield f"{what} is {_type(e)}, {wanted} is expected"


def _type(e: loops.Expr) -> str:
    return spell_type(e.dtype, e.lanes)
