"""The rules of level L, as a list of small named checks.

The message of a `VerifyError` shows the statement with its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.kernel import loops
from tapeout.kernel.flow import check_barriers
from tapeout.kernel.scope import Scope, walk
from tapeout.kernel.text import excerpt, print_kernel
from tapeout.kernel.types import check_types
from tapeout.kernel.walk import postorder, roots
from tapeout.support.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapeout.kernel.scope import Known


def verify_kernel(kernel: loops.Kernel, *, round_trip: bool = False) -> None:
    """Check a kernel.

    Args:
        kernel: What to check.
        round_trip: Also print it, parse the text, and compare.

    Raises:
        VerifyError: The first fault found, with the statement, five lines on each side, and the reason.
    """
    where = f"kernel {kernel.name}"
    for reason in check_params(kernel):
        raise VerifyError(reason, where=where)
    for stmt, scope in walk(kernel):
        for check in CHECKS:
            for reason in check(stmt, scope):
                raise VerifyError(f"{reason}\n{excerpt(kernel, stmt)}", where=where)
    if round_trip:
        _check_round_trip(kernel)


def _check_round_trip(kernel: loops.Kernel) -> None:
    from tapeout.kernel.parse import parse_kernel

    text = print_kernel(kernel)
    if print_kernel(parse_kernel(text)) != text:
        raise VerifyError("its text reads back as another kernel", where=f"kernel {kernel.name}")


def check_params(kernel: loops.Kernel) -> Iterator[str]:
    """Params have different names, an access, a size and an alignment."""
    seen: set[str] = set()
    for p in kernel.params:
        if p.name in seen or not p.name:
            yield f"two params are called {p.name!r}" if p.name else "a param has no name"
        seen.add(p.name)
        if p.access not in ("r", "w", "rw"):
            yield f"param {p.name!r} has the access {p.access!r}; r, w or rw is expected"
        if p.size < 0 or p.align < 1 or p.align & (p.align - 1):
            yield f"param {p.name!r} has the size {p.size} and the alignment {p.align}"


def check_names(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    """Names of Lets and buffers are unique in the kernel; a loop variable hides nothing."""
    if isinstance(stmt, loops.Let) and stmt.var.name in scope.taken:
        yield f"%{stmt.var.name} is defined twice"
    if isinstance(stmt, loops.Alloc) and stmt.name in scope.taken_buffers:
        yield f"two buffers are called {stmt.name!r}"
    if isinstance(stmt, loops.For) and stmt.var in scope.vars:
        yield f"loop variable %{stmt.var} hides a variable of that name"


def check_visible(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    """Variables and buffers are defined before, in an enclosing block."""
    for root in roots(stmt):
        for expr in postorder(root, set()):
            if isinstance(expr, loops.Var) and expr.name not in scope.vars:
                yield f"%{expr.name} is not defined here"
            if isinstance(expr, loops.Load):
                yield from _reachable(expr.buffer, scope)
    if isinstance(stmt, loops.Store):
        yield from _reachable(stmt.buffer, scope)


def check_access(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    """Params are read and written as they declare."""
    if isinstance(stmt, loops.Store) and "w" not in scope.buffers[stmt.buffer].access:
        yield f"{stmt.buffer} is only read by its declaration, but it is written"
    for load in _loads(stmt):
        if "r" not in scope.buffers[load.buffer].access:
            yield f"{load.buffer} is only written by its declaration, but it is read"


def check_loops(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    """`grid` is outermost and alone; group loops hold lane loops, not the other way; steps are positive."""
    if not isinstance(stmt, loops.For):
        return
    if stmt.step < 1:
        yield f"the step is {stmt.step}, a positive number is expected"
    constant = isinstance(stmt.start, loops.Const) and isinstance(stmt.stop, loops.Const)
    if stmt.kind == "grid" and not (scope.outermost and constant):
        yield "a grid loop is the only statement of its kernel, and its bounds are constants"
    if stmt.kind in ("group", "lane") and not constant:
        yield f"the bounds of a {stmt.kind} loop are constants"
    if stmt.kind == "group" and "lane" in scope.teams:
        yield "a lane loop may not hold a group loop"
    if stmt.kind == "unroll" and not _unrollable(stmt, scope):
        yield "the bounds of an unrolled loop are constants or follow from unrolled loops"


def check_allocations(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    """Buffers have a size; shared ones are made outside the loops over threads."""
    if not isinstance(stmt, loops.Alloc):
        return
    if stmt.count < 1 or stmt.lanes < 1:
        yield f"{stmt.name} has {stmt.count} elements of {stmt.lanes} lanes"
    if stmt.scope == "shared" and scope.teams:
        yield f"{stmt.name} is shared: it is allocated outside the group and lane loops"


def check_registers(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    """Register buffers are indexed by numbers known after unrolling, in whole vectors."""
    for buffer, index, lanes, partial in _accesses(stmt):
        known = scope.buffers[buffer]
        if known.scope != "register":
            continue
        if lanes != known.lanes or partial:
            yield f"register buffer {buffer} holds vectors of {known.lanes} lanes, accessed whole"
        if not _is_unrolled(index, scope):
            yield f"register buffer {buffer} is indexed by something that is no constant"


def check_bounds(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    """No access lies outside its buffer, as far as the ranges of the loop variables tell."""
    if scope.conditional:
        return
    for access in _sites(stmt):
        known = scope.buffers[access.buffer]
        if access.index.lanes != 1 or access.mask is not None:
            continue
        lanes = access.value.lanes if isinstance(access, loops.Store) else access.lanes
        touched = lanes if access.active is None else access.active
        yield from _inside(access, known, touched if known.scope != "register" else 1, scope)


def _inside(
    access: loops.Load | loops.Store, known: Known, touched: int, scope: Scope
) -> Iterator[str]:
    at = scope.ranges.of(access.index)
    if touched == 0:
        return
    low, high = (at.lo, at.hi) if at.exact else (at.hi, at.lo)
    if low < 0 or high + touched > known.size:
        first = at.lo if at.lo == at.hi else f"{at.lo}..{at.hi}"
        more = f" and {touched - 1} more" if touched > 1 else ""
        yield f"{access.buffer} has {known.size} elements, but {first}{more} is accessed"


CHECKS: tuple[Callable[[loops.Stmt, Scope], Iterator[str]], ...] = (
    check_names,
    check_visible,  # before all that look up variables and buffers
    check_types,
    check_access,
    check_loops,
    check_allocations,
    check_registers,
    check_bounds,
    check_barriers,
)


def _reachable(buffer: str, scope: Scope) -> Iterator[str]:
    known = scope.buffers.get(buffer)
    if known is None:
        yield f"no buffer is called {buffer!r} here"
    elif known.scope in ("register", "local") and known.teams != scope.teams:
        yield f"{buffer} belongs to the thread outside this {scope.teams[-1]} loop; make it shared"


def _sites(stmt: loops.Stmt) -> Iterator[loops.Load | loops.Store]:
    yield from _loads(stmt)
    if isinstance(stmt, loops.Store):
        yield stmt


def _loads(stmt: loops.Stmt) -> Iterator[loops.Load]:
    done: set[int] = set()
    for root in roots(stmt):
        for expr in postorder(root, done):
            if isinstance(expr, loops.Load):
                yield expr


def _accesses(stmt: loops.Stmt) -> Iterator[tuple[str, loops.Expr, int, bool]]:
    """Yield (buffer, index, lanes, whether only some lanes are touched)."""
    for access in _sites(stmt):
        lanes = access.value.lanes if isinstance(access, loops.Store) else access.lanes
        partial = access.active not in (None, lanes) or access.mask is not None
        yield access.buffer, access.index, lanes, partial


def _is_unrolled(index: loops.Expr, scope: Scope) -> bool:
    return all(
        not isinstance(e, loops.Load | loops.Cross)
        and not (isinstance(e, loops.Var) and not scope.vars[e.name].unrolled)
        for e in postorder(index, set())
    )


def _unrollable(stmt: loops.For, scope: Scope) -> bool:
    return _is_unrolled(stmt.start, scope) and _is_unrolled(stmt.stop, scope)
