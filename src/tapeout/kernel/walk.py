"""Ways through a kernel at level L: what statements and expressions are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.kernel import loops

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator


def parts(expr: loops.Expr) -> tuple[loops.Expr, ...]:
    """Return the expressions that an expression is made of, in the order in which they are printed."""
    if isinstance(expr, loops.Apply):
        return expr.args
    if isinstance(expr, loops.Cast | loops.Bitcast | loops.Splat | loops.Lanes | loops.Cross):
        return (expr.arg,)
    if isinstance(expr, loops.Ramp):
        return (expr.start,)
    if isinstance(expr, loops.Load):
        return (expr.index,) if expr.mask is None else (expr.index, expr.mask)
    return ()


def roots(stmt: loops.Stmt) -> tuple[loops.Expr, ...]:
    """Return the expressions that stand in a statement itself, not in the blocks inside it."""
    if isinstance(stmt, loops.For):
        return (stmt.start, stmt.stop)
    if isinstance(stmt, loops.Let):
        return (stmt.value,)
    if isinstance(stmt, loops.Store):
        mask = () if stmt.mask is None else (stmt.mask,)
        return (stmt.index, *mask, stmt.value)
    return (stmt.condition,) if isinstance(stmt, loops.If) else ()


def blocks(stmt: loops.Stmt) -> tuple[tuple[loops.Stmt, ...], ...]:
    """Return the blocks inside a statement."""
    if isinstance(stmt, loops.For):
        return (stmt.body,)
    return (stmt.then, stmt.otherwise) if isinstance(stmt, loops.If) else ()


def statements(body: Iterable[loops.Stmt]) -> Iterator[loops.Stmt]:
    """Yield every statement, in the order of the text."""
    stack = [iter(body)]
    while stack:
        stmt = next(stack[-1], None)
        if stmt is None:
            stack.pop()
            continue
        yield stmt
        stack.extend(iter(b) for b in reversed(blocks(stmt)))


def postorder(root: loops.Expr, done: set[int], known: Container[int] = ()) -> Iterator[loops.Expr]:
    """Yield `root` and what is below it, parts first, each object once.

    Objects whose id is in `done` (which grows) or in `known` are left out, with all below them.
    """
    if isinstance(root, loops.Var | loops.Const):
        # Most roots are names or numbers, and most time of printing goes by here.
        if id(root) not in done and id(root) not in known:
            done.add(id(root))
            yield root
        return
    stack: list[tuple[loops.Expr, bool]] = [(root, False)]
    while stack:
        expr, ready = stack.pop()
        if id(expr) in done or id(expr) in known:
            continue
        if ready:
            done.add(id(expr))
            yield expr
            continue
        stack.append((expr, True))
        stack.extend((p, False) for p in reversed(parts(expr)))
