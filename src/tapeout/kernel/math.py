"""Functions of floats without an instruction, written out as formulas before code generation.

LLVM would call libm once per lane on a CPU and has nothing to call on a GPU. `legalize` leaves only operations that every
machine has: arithmetic, `sqrt`, comparisons, `select`, and operations on bits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.ir.dtype import bf16, f16, f32
from tapeout.kernel import loops
from tapeout.kernel.formula import Formulas, X
from tapeout.kernel.functions import FORMATS, FUNCTIONS
from tapeout.kernel.walk import parts, postorder, roots, statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.kernel.target import Target

MAX_ULP: dict[str, tuple[float, float]] = {
    "exp": (0.9, 0.9),
    "expm1": (1.7, 2.0),
    "log": (0.9, 0.9),
    "log1p": (1.5, 1.5),
    "tanh": (1.4, 1.4),
    "sigmoid": (1.9, 1.9),
    "erf": (1.0, 1.3),
    "rsqrt": (1.5, 1.5),
    "pow": (0.51, 0.8),
    "sin": (0.8, 0.8),
    "cos": (0.8, 0.8),
    "tan": (2.3, 2.3),
    "asin": (2.1, 2.1),
    "acos": (1.2, 1.2),
    "atan": (2.0, 2.0),
    "atan2": (2.2, 2.2),
    "sinh": (2.3, 2.4),
    "cosh": (1.3, 1.3),
    "asinh": (1.8, 1.9),
    "acosh": (2.1, 2.5),
    "atanh": (1.8, 1.8),
}
"""How far each function is at most from the true value, in units in its last place, for f32 and f64.

f32 was measured at every 257th number there is, f64 at some millions.

On machines without fused multiply-add it may be `WITHOUT_FMA` more.
"""

WITHOUT_FMA = 0.4


PAIR_LANES = (4, 8, 16)
"""Lanes of the vectors for which a machine may have a dot product of pairs."""


def legalize(kernel: loops.Kernel, target: Target) -> loops.Kernel:
    """Return the kernel with every function of `FUNCTIONS` written out, and dot products of pairs where there is no instruction.

    f16 and bf16 are computed in f32 and rounded once. The name of the kernel stays.
    """
    body = _Legalizer(kernel, target).block(kernel.body)
    return kernel if body is kernel.body else replace(kernel, body=body)


class _Legalizer:
    def __init__(self, kernel: loops.Kernel, target: Target) -> None:
        self._target = target
        self._taken = {p.name for p in kernel.params}
        for s in statements(kernel.body):
            if isinstance(s, loops.Let):
                self._taken.add(s.var.name)
            elif isinstance(s, loops.Alloc):
                self._taken.add(s.name)
            elif isinstance(s, loops.For):
                self._taken.add(s.var)
        self._count = 0

    def _fresh(self) -> str:
        while True:
            name = f"m{self._count}"
            self._count += 1
            if name not in self._taken:
                return name

    def block(self, body: tuple[loops.Stmt, ...]) -> tuple[loops.Stmt, ...]:
        """Return the statements, each after what its formulas need before it; the same tuple if nothing changes."""
        out: list[loops.Stmt] = []
        changed = False
        for stmt in body:
            before: list[loops.Stmt] = []
            new = self._statement(stmt, before)
            changed = changed or new is not stmt
            out += [*before, new]
        return tuple(out) if changed else body

    def _statement(self, s: loops.Stmt, before: list[loops.Stmt]) -> loops.Stmt:
        new = self._expressions(roots(s), before)
        if isinstance(s, loops.For):
            start, stop, body = new[id(s.start)], new[id(s.stop)], self.block(s.body)
            if start is s.start and stop is s.stop and body is s.body:
                return s
            return replace(s, start=start, stop=stop, body=body)
        if isinstance(s, loops.If):
            condition, then = new[id(s.condition)], self.block(s.then)
            otherwise = self.block(s.otherwise)
            if condition is s.condition and then is s.then and otherwise is s.otherwise:
                return s
            return replace(s, condition=condition, then=then, otherwise=otherwise)
        if all(new[id(r)] is r for r in roots(s)):
            return s
        if isinstance(s, loops.Let):
            return replace(s, value=new[id(s.value)])
        assert isinstance(s, loops.Store)
        mask = None if s.mask is None else new[id(s.mask)]
        return replace(s, index=new[id(s.index)], value=new[id(s.value)], mask=mask)

    def _expressions(
        self, exprs: Sequence[loops.Expr], before: list[loops.Stmt]
    ) -> dict[int, loops.Expr]:
        """Return the new expression for every one below `exprs`, by identity."""
        new: dict[int, loops.Expr] = {}
        done: set[int] = set()
        for root in exprs:
            for e in postorder(root, done):
                made = _with_parts(e, [new[id(p)] for p in parts(e)])
                if isinstance(made, loops.Apply) and made.op in FUNCTIONS:
                    made = self._write(made, before)
                elif isinstance(made, loops.Apply) and made.op == loops.DOT2:
                    made = self._pairs(made)
                new[id(e)] = made
        return new

    def _write(self, e: loops.Apply, before: list[loops.Stmt]) -> loops.Expr:
        """Return an application of a function as its formula."""
        args = [X(a) for a in e.args]
        narrow = e.dtype in (f16, bf16)
        if narrow:
            args = [a.to(f32) for a in args]
        form = FORMATS["f32" if narrow else e.dtype.name]
        formulas = Formulas(form, self._target, before, self._fresh)
        return FUNCTIONS[e.op](formulas, *args).to(e.dtype).e

    def _pairs(self, e: loops.Apply) -> loops.Expr:
        """Return a dot product of pairs as two multiply-adds, unless the machine has it."""
        if self._target.pairs and e.lanes in PAIR_LANES:
            return e
        a, b, total = map(X, e.args)
        total = _upper(a).fma(_upper(b), total)
        return _upper(a << 16).fma(_upper(b << 16), total).e


def _upper(x: X) -> X:
    """Return the upper half of u32 lanes, a bf16, as f32."""
    return (x & 0xFFFF0000).bits(f32)


def _with_parts(e: loops.Expr, new: Sequence[loops.Expr]) -> loops.Expr:
    """Return an expression with other parts, in the order of `walk.parts`; itself if they are the same."""
    if all(a is b for a, b in zip(parts(e), new, strict=True)):
        return e
    if isinstance(e, loops.Apply):
        return replace(e, args=tuple(new))
    if isinstance(e, loops.Load):
        return replace(e, index=new[0], mask=new[1] if e.mask is not None else None)
    if isinstance(e, loops.Ramp):
        return replace(e, start=new[0])
    assert isinstance(e, loops.Cast | loops.Bitcast | loops.Splat | loops.Lanes | loops.Cross)
    return replace(e, arg=new[0])
