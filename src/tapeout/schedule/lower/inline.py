"""Writes the loops of one kernel into another: names get a prefix, indices of buffers the place where they begin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.kernel import loops
from tapeout.kernel.walk import postorder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.kernel.loops import Expr, Stmt

Where = tuple[str, "Expr | None"]


def inlined(kernel: loops.Kernel, prefix: str, where: Mapping[str, Where]) -> tuple[Stmt, ...]:
    """Return the statements of a kernel for the inside of another.

    Args:
        kernel: Its grid loop becomes an ordinary one.
        prefix: Put before the names of its variables and buffers.
        where: For each param the buffer that it stands for and, if it does not begin at 0, its first element (an i64 scalar).
    """
    return _Inliner(prefix, where).block(kernel.body)


class _Inliner:
    """Rewrites the statements of one kernel."""

    def __init__(self, prefix: str, where: Mapping[str, Where]) -> None:
        self.prefix, self.where = prefix, where
        self.made: dict[int, Expr] = {}
        self.alive: list[Expr] = []

    def block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """Return statements rewritten; blocks nest a few deep."""
        return tuple(self.statement(s) for s in body)

    def statement(self, s: Stmt) -> Stmt:
        """Return one statement rewritten."""
        if isinstance(s, loops.For):
            kind: loops.LoopKind = "serial" if s.kind == "grid" else s.kind
            start, stop = self.value(s.start), self.value(s.stop)
            return loops.For(self.name(s.var), start, stop, s.step, kind, self.block(s.body))
        if isinstance(s, loops.Let):
            var = loops.Var(s.var.dtype, s.var.lanes, self.name(s.var.name))
            return loops.Let(var, self.value(s.value))
        if isinstance(s, loops.Alloc):
            return replace(s, name=self.name(s.name))
        if isinstance(s, loops.Store):
            buffer, index = self.place(s.buffer, self.value(s.index))
            mask = None if s.mask is None else self.value(s.mask)
            return loops.Store(buffer, index, self.value(s.value), s.active, mask)
        if isinstance(s, loops.If):
            condition = self.value(s.condition)
            return loops.If(condition, self.block(s.then), self.block(s.otherwise))
        return s

    def name(self, name: str) -> str:
        """Return the name of a variable or buffer."""
        return self.prefix + name

    def place(self, buffer: str, index: Expr) -> tuple[str, Expr]:
        """Return the buffer that one stands for, and where in it an index points."""
        if buffer not in self.where:
            return self.name(buffer), index
        name, start = self.where[buffer]
        return name, index if start is None else _moved(index, start)

    def value(self, root: Expr) -> Expr:
        """Return an expression rewritten; one that is shared stays shared."""
        for e in postorder(root, set(), self.made):
            self.made[id(e)] = self.one(e)
            self.alive.append(e)
        return self.made[id(root)]

    def one(self, e: Expr) -> Expr:
        """Return an expression whose parts are rewritten."""
        made = self.made
        if isinstance(e, loops.Var):
            return loops.Var(e.dtype, e.lanes, self.name(e.name))
        if isinstance(e, loops.Load):
            buffer, index = self.place(e.buffer, made[id(e.index)])
            mask = None if e.mask is None else made[id(e.mask)]
            return replace(e, buffer=buffer, index=index, mask=mask)
        if isinstance(e, loops.Apply):
            return replace(e, args=tuple(made[id(a)] for a in e.args))
        if isinstance(e, loops.Ramp):
            return replace(e, start=made[id(e.start)])
        if isinstance(e, loops.Cast | loops.Bitcast | loops.Splat | loops.Lanes | loops.Cross):
            return replace(e, arg=made[id(e.arg)])
        return e


def _moved(index: Expr, start: Expr) -> Expr:
    """Return an index counted from `start` on; a constant part stays outermost, where it becomes part of an address."""
    i64 = index.dtype
    if index.lanes > 1:
        start = loops.Splat(i64, index.lanes, start)
        return loops.Apply(i64, index.lanes, "add", (index, start))
    if isinstance(index, loops.Const):
        if isinstance(start, loops.Const):
            return loops.Const(i64, 1, int(index.value) + int(start.value))
        return start if not index.value else loops.Apply(i64, 1, "add", (start, index))
    if isinstance(index, loops.Apply) and index.op == "add":
        first, second = index.args
        if isinstance(second, loops.Const) and not isinstance(first, loops.Const):
            if isinstance(start, loops.Const):
                total = loops.Const(i64, 1, int(second.value) + int(start.value))
                return replace(index, args=(first, total))
            moved = loops.Apply(i64, 1, "add", (first, start))
            return replace(index, args=(moved, second))
    return loops.Apply(i64, 1, "add", (index, start))
