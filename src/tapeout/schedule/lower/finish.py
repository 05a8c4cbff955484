"""Ends a kernel: params, canonical names, the name by content."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapeout.kernel import loops
from tapeout.kernel.text import named
from tapeout.kernel.walk import postorder, roots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.kernel.compute import Buffer, Numerics
    from tapeout.kernel.loops import Stmt
    from tapeout.schedule.lower.writer import Writer


@dataclass(frozen=True)
class Finished:
    """A kernel in loops, and the names of the buffers that its params stand for."""

    kernel: loops.Kernel
    args: tuple[str, ...]


def finish(w: Writer, buffers: Sequence[Buffer], numerics: Numerics) -> Finished:
    """Return what the writer wrote as a kernel whose params are the buffers that it touches."""
    params = []
    for b in buffers:
        access = "r" * (b.name in w.read) + "w" * (b.name in w.written)
        if access:
            align = 1 if b.of else b.dtype.bytes
            params.append(loops.Param(b.name, b.dtype, b.span, access, align))
    kernel = named(loops.Kernel("k", tuple(params), _used(w.body, set()), numerics))
    whole = {b.name: b.of or b.name for b in buffers}
    return Finished(kernel, tuple(whole[p.name] for p in params))


def _used(body: Sequence[Stmt], needed: set[str]) -> tuple[Stmt, ...]:
    """Return statements without the Lets that nothing needs; `needed` gains the variables that these use."""
    kept: list[Stmt] = []
    for stmt in reversed(body):
        if isinstance(stmt, loops.Let) and stmt.var.name not in needed:
            continue
        slim = _slim(stmt, needed)
        for root in roots(slim):
            needed.update(e.name for e in postorder(root, set()) if isinstance(e, loops.Var))
        kept.append(slim)
    return tuple(reversed(kept))


def _slim(stmt: Stmt, needed: set[str]) -> Stmt:
    if isinstance(stmt, loops.For):
        return replace(stmt, body=_used(stmt.body, needed))
    if isinstance(stmt, loops.If):
        otherwise = _used(stmt.otherwise, needed)
        return replace(stmt, then=_used(stmt.then, needed), otherwise=otherwise)
    return stmt
