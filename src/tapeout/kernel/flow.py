"""Barriers, and values combined across threads, need that all threads of their scope come to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.kernel import loops
from tapeout.kernel.walk import postorder, roots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapeout.kernel.scope import Scope


def check_barriers(stmt: loops.Stmt, scope: Scope) -> Iterator[str]:
    """Yield what is wrong with a barrier, or with a `Cross` in a statement."""
    if isinstance(stmt, loops.Barrier):
        # A barrier of scope `group` is one of the whole block: lanes wait for it too.
        waiting = {"group", "lane"} if stmt.scope == "group" else {"lane"}
        if scope.varies & waiting:
            yield f"not all iterations of the {stmt.scope} loops come to this barrier"
    for root in roots(stmt):
        for expr in postorder(root, set()):
            if isinstance(expr, loops.Cross):
                yield from _cross(expr, scope)


def _cross(expr: loops.Cross, scope: Scope) -> Iterator[str]:
    if expr.level not in scope.teams:
        yield f"a value is combined across the {expr.level} loops, but none encloses it"
    waiting = {"group", "lane"} if expr.level == "group" else {"lane"}
    if scope.varies & waiting:
        yield f"not all iterations of the {expr.level} loops come to where a value is combined"
