"""The structure of expressions and kernels of level T as plain data: equal for what computes the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine
from tapeout.kernel.compute import (
    Apply,
    Bitcast,
    Cast,
    Const,
    ContractionKernel,
    Expr,
    Index,
    Kernel,
    Load,
    LoopKernel,
    Reduce,
    Temp,
)
from tapeout.schedule.lower.exprs import postorder

if TYPE_CHECKING:
    from tapeout.kernel.compute import Stage
    from tapeout.schedule.lower.chain import ChainKernel

Form = tuple[object, ...]


def form(root: Expr) -> Form:
    """Return the structure of an expression: one line per distinct part, parts first."""
    numbers: dict[int, int] = {}
    lines: list[Form] = []
    for e in postorder(root):
        numbers[id(e)] = len(lines)
        lines.append((type(e).__name__, e.dtype.name, *_line(e, numbers)))
    return tuple(lines)


def _line(e: Expr, numbers: dict[int, int]) -> Form:
    if isinstance(e, Load):
        at = tuple(i if isinstance(i, Affine) else numbers[id(i)] for i in e.index)
        return (e.buffer, at, e.where, repr(e.other))
    if isinstance(e, Apply):
        return (e.op, *(numbers[id(a)] for a in e.args))
    if isinstance(e, Cast | Bitcast):
        return (numbers[id(e.arg)],)
    if isinstance(e, Index):
        return (e.index,)
    if isinstance(e, Temp):
        return (e.name,)
    assert isinstance(e, Const)
    return (repr(e.value),)


def kernel_form(kernel: Kernel) -> Form:
    """Return the structure of a kernel, its name and origin left out."""
    if isinstance(kernel, LoopKernel):
        return ("loop", kernel.buffers, kernel.axes, tuple(map(_stage, kernel.stages)))
    if isinstance(kernel, ContractionKernel):
        axes = (kernel.batch, kernel.m, kernel.n, kernel.k)
        factors = (form(kernel.a), form(kernel.b), kernel.accumulate.name)
        stages = tuple(map(_stage, kernel.stages))
        return ("contraction", kernel.buffers, axes, factors, stages, kernel.fixed)
    at = tuple(i if isinstance(i, Affine) else form(i) for i in kernel.index)
    over = (kernel.axes, kernel.points, kernel.combine)
    return ("scatter", kernel.buffers, over, kernel.target, at, form(kernel.value))


def form_key(found: Form) -> str:
    """Return a name for the structure of a kernel: the same in every process."""
    return hashlib.sha256(repr(found).encode()).hexdigest()[:32]


def chain_form(chain: ChainKernel) -> Form:
    """Return the structure of a chain of kernels."""
    links = tuple((kernel_form(k.kernel), k.names, k.axes) for k in chain.links)
    return (chain.axes, links, chain.local)


def _stage(stage: Stage) -> Form:
    if isinstance(stage, Reduce):
        return (stage.name, stage.combine, stage.axes, stage.dtype.name, form(stage.value))
    return (stage.buffer, stage.axes, stage.index, form(stage.value))
