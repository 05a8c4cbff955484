"""What is visible at each statement of a kernel, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapeout.ir.dtype import DType, i64
from tapeout.kernel import loops
from tapeout.kernel.ranges import Ranges
from tapeout.kernel.walk import parts, postorder

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Known:
    """A visible buffer.

    Attributes:
        dtype: Element type.
        lanes: Lanes of a register buffer's vectors, else 1.
        size: Positions that an index may name.
        scope: `param`, `register`, `local` or `shared`.
        access: `r`, `w` or `rw`.
        teams: The loops over threads inside which it was allocated.
    """

    dtype: DType
    lanes: int
    size: int
    scope: str
    access: str = "rw"
    teams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """A visible variable.

    Attributes:
        dtype: Element type.
        lanes: Number of lanes.
        varies: Kinds of loops over threads (`group`, `lane`) between whose iterations the value may differ.
        unrolled: Whether its number is known after unrolling.
    """

    dtype: DType
    lanes: int
    varies: frozenset[str] = frozenset()
    unrolled: bool = False


@dataclass
class Scope:
    """What is visible at a statement. One object that changes along the walk."""

    vars: dict[str, Variable] = field(default_factory=dict)
    buffers: dict[str, Known] = field(default_factory=dict)
    ranges: Ranges = field(default_factory=Ranges)
    teams: tuple[str, ...] = ()
    varies: frozenset[str] = frozenset()
    """Kinds of loops over threads whose iterations may not all come here, or not equally often."""
    conditional: bool = False
    """Whether this may not run at all."""
    outermost: bool = True
    taken: set[str] = field(default_factory=set)
    taken_buffers: set[str] = field(default_factory=set)

    def varying(self, root: loops.Expr) -> frozenset[str]:
        """Return the kinds of loops over threads between whose iterations an expression may differ."""
        known: dict[int, frozenset[str]] = {}
        for expr in postorder(root, set()):
            found: frozenset[str] = frozenset().union(*(known[id(p)] for p in parts(expr)))
            if isinstance(expr, loops.Var):
                variable = self.vars.get(expr.name)
                found = variable.varies if variable else found
            elif isinstance(expr, loops.Load):
                found |= self._memory_varies(expr.buffer)
            elif isinstance(expr, loops.Cross):
                found -= {expr.level}
            known[id(expr)] = found
        return known[id(root)]

    def _memory_varies(self, buffer: str) -> frozenset[str]:
        known = self.buffers.get(buffer)
        private = known is not None and known.scope in ("register", "local")
        return frozenset(self.teams) if private else frozenset()


def walk(kernel: loops.Kernel) -> Iterator[tuple[loops.Stmt, Scope]]:
    """Yield each statement with what is visible before it; the scope changes while the walk goes on."""
    scope = Scope(outermost=len(kernel.body) == 1)
    for p in kernel.params:
        scope.buffers[p.name] = Known(p.dtype, 1, p.size, "param", p.access)
        scope.taken_buffers.add(p.name)
    yield from _block(kernel.body, scope)


def _block(body: tuple[loops.Stmt, ...], scope: Scope) -> Iterator[tuple[loops.Stmt, Scope]]:
    # Recursion over the nesting of blocks, which is shallow.
    variables: list[str] = []
    buffers: list[str] = []
    for stmt in body:
        yield stmt, scope
        if isinstance(stmt, loops.Let):
            _define(stmt, scope)
            variables.append(stmt.var.name)
        elif isinstance(stmt, loops.Alloc):
            _allocate(stmt, scope)
            buffers.append(stmt.name)
        elif isinstance(stmt, loops.For):
            yield from _inside_loop(stmt, scope)
        elif isinstance(stmt, loops.If):
            yield from _inside_branches(stmt, scope)
    for name in variables:
        scope.vars.pop(name, None)
        scope.ranges.vars.pop(name, None)
    for name in buffers:
        scope.buffers.pop(name, None)


def _define(stmt: loops.Let, scope: Scope) -> None:
    v = stmt.var
    unrolled = all(
        isinstance(e, loops.Const | loops.Apply | loops.Cast)
        or (isinstance(e, loops.Var) and e.name in scope.vars and scope.vars[e.name].unrolled)
        for e in postorder(stmt.value, set())
    )
    scope.vars[v.name] = Variable(v.dtype, v.lanes, scope.varying(stmt.value), unrolled)
    scope.taken.add(v.name)
    if v.dtype == i64 and v.lanes == 1:
        scope.ranges.vars[v.name] = scope.ranges.of(stmt.value)


def _allocate(stmt: loops.Alloc, scope: Scope) -> None:
    register = stmt.scope == "register"
    size = stmt.count if register else stmt.count * stmt.lanes
    lanes = stmt.lanes if register else 1
    scope.buffers[stmt.name] = Known(stmt.dtype, lanes, size, stmt.scope, "rw", scope.teams)
    scope.taken_buffers.add(stmt.name)


def _inside_loop(stmt: loops.For, scope: Scope) -> Iterator[tuple[loops.Stmt, Scope]]:
    before = (scope.teams, scope.varies, scope.conditional, scope.outermost)
    range_, runs = scope.ranges.loop(stmt)
    bounds = scope.varying(stmt.start) | scope.varying(stmt.stop)
    team = stmt.kind in ("group", "lane")
    scope.teams = (*scope.teams, stmt.kind) if team else scope.teams
    scope.varies |= bounds
    scope.conditional |= not runs
    scope.outermost = False
    varies = bounds | ({stmt.kind} if team else frozenset())
    hidden = scope.vars.get(stmt.var)
    scope.vars[stmt.var] = Variable(i64, 1, varies, stmt.kind == "unroll")
    scope.taken.add(stmt.var)
    scope.ranges.vars[stmt.var] = range_
    yield from _block(stmt.body, scope)
    scope.vars.pop(stmt.var)
    if hidden is not None:
        scope.vars[stmt.var] = hidden
    scope.ranges.vars.pop(stmt.var, None)
    scope.teams, scope.varies, scope.conditional, scope.outermost = before


def _inside_branches(stmt: loops.If, scope: Scope) -> Iterator[tuple[loops.Stmt, Scope]]:
    before = (scope.varies, scope.conditional, scope.outermost)
    scope.varies |= scope.varying(stmt.condition)
    scope.conditional = True
    scope.outermost = False
    yield from _block(stmt.then, scope)
    yield from _block(stmt.otherwise, scope)
    scope.varies, scope.conditional, scope.outermost = before
