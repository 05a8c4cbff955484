"""Writes a kernel at level L.

Every operation becomes a Let in the outermost open block where its operands are known, and equal ones become one: loop-invariant
code leaves its loops here, because no later stage moves it. Loop variables are axes, so that index arithmetic is
`ir.affine` until it is written down.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, FloorDiv
from tapeout.ir.dtype import DType, bool_, i64
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.kernel import loops
from tapeout.kernel.loops import Expr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapeout.ir.affine import Atom
    from tapeout.kernel.loops import LoopKind, Scope, Stmt

Key = tuple[object, ...]


@dataclass
class _Block:
    """An open block: its statements, and the values named in it."""

    guarded: bool = False
    statements: list[Stmt] = field(default_factory=list)
    known: dict[Key, loops.Var] = field(default_factory=dict)


class Writer:
    """Writes statements; the methods that make values give back a constant or a variable.

    Args:
        readonly: Names of the buffers that nothing in the kernel writes: loads of them may move and be shared.
    """

    def __init__(self, readonly: Sequence[str] = ()) -> None:
        self._readonly = frozenset(readonly)
        self._blocks = [_Block()]
        self._depth: dict[str, int] = {}
        self._floor = 0
        self._count = 0
        self.read: dict[str, None] = {}
        self.written: dict[str, None] = {}

    @property
    def body(self) -> tuple[Stmt, ...]:
        """The finished statements."""
        assert len(self._blocks) == 1, "a block is still open"
        return tuple(self._blocks[0].statements)

    def fresh(self, prefix: str) -> str:
        """Return a name that is new in this kernel."""
        self._count += 1
        return f"{prefix}{self._count - 1}"

    # -- statements ---------------------------------------------------------------------------------

    @contextmanager
    def loop(
        self,
        count: int,
        kind: LoopKind = "serial",
        stop: Expr | None = None,
        start: Expr | None = None,
    ) -> Iterator[Affine]:
        """Run the statements inside for 0 .. count-1 (or from `start` up to `stop`, which lie within).

        A loop of one step is no loop, except of kind `grid`: what stands outside a grid loop would make it no longer the
        kernel's only statement.
        """
        if count == 1 and stop is None and start is None and kind != "grid":
            yield Affine()
            return
        axis = Axis(self.fresh("i"), count)
        with self._block() as block:
            self._depth[axis.name] = len(self._blocks) - 1
            if kind == "grid":
                self._floor = len(self._blocks) - 1
            yield Affine.of(axis)
        first = start if start is not None else self.i64(0)
        end = stop if stop is not None else self.i64(count)
        self._push(loops.For(axis.name, first, end, 1, kind, tuple(block.statements)))

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Run the statements inside if a scalar bool is true."""
        with self._block(guarded=True) as block:
            yield
        self._push(loops.If(condition, tuple(block.statements)))

    def alloc(
        self, dtype: DType, lanes: int, count: int, scope: Scope, called: str | None = None
    ) -> str:
        """Make a buffer that lives to the end of the present block; return its name."""
        name = called if called is not None else self.fresh("t")
        self._push(loops.Alloc(name, dtype, lanes, count, scope))
        return name

    def store(
        self,
        buffer: str,
        index: Expr,
        value: Expr,
        active: int | None = None,
        mask: Expr | None = None,
    ) -> None:
        """Write a value."""
        self.written[buffer] = None
        partial = None if active is None or active >= value.lanes else active
        self._push(loops.Store(buffer, index, value, partial, mask))

    def add(self, statements: Sequence[Stmt]) -> None:
        """Append finished statements, whose names are their own."""
        for stmt in statements:
            self._push(stmt)

    def barrier(self, scope: str) -> None:
        """Wait for all threads of the block (`group`) or of the warp (`lane`)."""
        assert scope in ("group", "lane")
        self._push(loops.Barrier("group" if scope == "group" else "lane"))

    @contextmanager
    def _block(self, guarded: bool = False) -> Iterator[_Block]:
        block = _Block(guarded)
        self._blocks.append(block)
        yield block
        self._blocks.pop()

    def _push(self, stmt: Stmt) -> None:
        self._blocks[-1].statements.append(stmt)

    # -- values -------------------------------------------------------------------------------------

    def const(self, value: float, dtype: DType, lanes: int = 1) -> Expr:
        """Return a number in every lane."""
        number: float | int | bool
        number = float(value) if dtype.is_float else bool(value) if dtype == bool_ else int(value)
        return loops.Const(dtype, lanes, number)

    def i64(self, value: int) -> Expr:
        """Return an index."""
        return loops.Const(i64, 1, int(value))

    def apply(self, op: str, *args: Expr) -> Expr:
        """Return an operation; scalar operands are spread over the lanes of the others."""
        lanes = max(a.lanes for a in args)
        args = tuple(self.splat(a, lanes) for a in args)
        is_test = op != loops.DOT2 and SCALAR_OPS[op].result == "bool"
        dtype = bool_ if is_test else args[-1].dtype
        return self._name(loops.Apply(dtype, lanes, op, args), ("apply", op), args)

    def cast(self, x: Expr, dtype: DType) -> Expr:
        """Return a value converted."""
        if x.dtype == dtype:
            return x
        if isinstance(x, loops.Const) and _exact(x.value, dtype):
            return self.const(x.value, dtype, x.lanes)
        return self._name(loops.Cast(dtype, x.lanes, x), ("cast", dtype.name), (x,))

    def bitcast(self, x: Expr, dtype: DType) -> Expr:
        """Return the same bits as another type."""
        if x.dtype == dtype:
            return x
        return self._name(loops.Bitcast(dtype, x.lanes, x), ("bitcast", dtype.name), (x,))

    def splat(self, x: Expr, lanes: int) -> Expr:
        """Return a scalar in every lane."""
        if x.lanes == lanes:
            return x
        assert x.lanes == 1, (x, lanes)
        if isinstance(x, loops.Const):
            return loops.Const(x.dtype, lanes, x.value)
        return self._name(loops.Splat(x.dtype, lanes, x), ("splat", lanes), (x,))

    def ramp(self, start: Expr, lanes: int) -> Expr:
        """Return `start, start+1, …`."""
        return self._name(loops.Ramp(i64, lanes, start), ("ramp", lanes), (start,))

    def lanes(self, combine: str, x: Expr) -> Expr:
        """Return all lanes combined."""
        if x.lanes == 1:
            return x
        return self._name(loops.Lanes(x.dtype, 1, combine, x), ("lanes", combine), (x,))

    def cross(self, combine: str, x: Expr, level: str) -> Expr:
        """Return a scalar combined over the threads of a warp (`lane`) or over the warps of a block (`group`)."""
        assert level in ("lane", "group")
        expr = loops.Cross(x.dtype, 1, combine, x, "lane" if level == "lane" else "group")
        return self._pin(expr)

    def load(
        self,
        buffer: str,
        dtype: DType,
        index: Expr,
        lanes: int = 1,
        active: int | None = None,
        mask: Expr | None = None,
        other: float = 0,
    ) -> Expr:
        """Return elements of a buffer."""
        self.read[buffer] = None
        partial = None if active is None or active >= lanes else active
        expr = loops.Load(dtype, lanes, buffer, index, partial, mask, other)
        if buffer not in self._readonly:
            return self._pin(expr)
        operands = (index,) if mask is None else (index, mask)
        return self._name(
            expr, ("load", buffer, lanes, partial, repr(other)), operands, moves=False
        )

    def index(self, at: Affine) -> Expr:
        """Return an index expression as a scalar; what varies slowly is added first, outside the inner loops.

        A constant part is added where the index is used and gets no name, so that it can become part of an address.
        """
        base: Expr | None = None
        for atom, factor in sorted(at.terms, key=lambda t: self._atom_depth(t[0])):
            value = self._atom(atom)
            part = value if factor == 1 else self.apply("mul", value, self.i64(factor))
            base = part if base is None else self.apply("add", base, part)
        if base is None:
            return self.i64(at.const)
        return loops.Apply(i64, 1, "add", (base, self.i64(at.const))) if at.const else base

    def derive(self, at: Affine, extent: int) -> Affine:
        """Return an index expression, which lies in 0 .. extent-1, as a variable of its own."""
        if at.is_constant or (len(at.terms) == 1 and at.is_linear and not at.const):
            return at
        if extent == 1:
            return Affine()
        var = self.named(self.index(at))
        assert isinstance(var, loops.Var)
        return Affine.of(Axis(var.name, extent))

    def named(self, x: Expr) -> Expr:
        """Return a value under a name (`index` leaves its last sum without one)."""
        if isinstance(x, loops.Var | loops.Const):
            return x
        assert isinstance(x, loops.Apply)
        return self.apply(x.op, *x.args)

    def _atom(self, atom: Atom) -> Expr:
        if isinstance(atom, Axis):
            return loops.Var(i64, 1, atom.name)
        lo, _ = atom.of.range
        # Division and remainder truncate; a multiple of the divisor makes the operand non-negative first.
        shift = max(0, -(lo // atom.by))
        x = self.named(self.index(atom.of + shift * atom.by))
        if not isinstance(atom, FloorDiv):
            return self.modulo(x, atom.by)
        return (
            self.apply("sub", self.divide(x, atom.by), self.i64(shift))
            if shift
            else self.divide(x, atom.by)
        )

    def divide(self, x: Expr, by: int) -> Expr:
        """Return `x // by` of non-negative i64s."""
        if by & (by - 1) == 0:
            return self.apply("shr", x, self.const(by.bit_length() - 1, i64))
        return self.apply("div", x, self.const(by, i64))

    def modulo(self, x: Expr, by: int) -> Expr:
        """Return `x % by` of non-negative i64s."""
        if by & (by - 1) == 0:
            return self.apply("and", x, self.const(by - 1, i64))
        return self.apply("rem", x, self.const(by, i64))

    def _atom_depth(self, atom: Atom) -> tuple[int, str]:
        axes = (atom,) if isinstance(atom, Axis) else atom.of.axes
        return max((self._depth[a.name] for a in axes), default=0), str(atom)

    # -- naming -------------------------------------------------------------------------------------

    def _pin(self, expr: Expr) -> Expr:
        """Name a value here: it reads what statements write."""
        return self._let(expr, len(self._blocks) - 1)

    def _name(self, expr: Expr, head: Key, operands: Sequence[Expr], moves: bool = True) -> Expr:
        """Name a value in the outermost block that knows its operands; an equal value is one."""
        key = (*head, *map(_key, operands))
        depth = max((self._depth_of(x) for x in operands), default=0)
        depth = max(depth, self._floor if moves else self._guarded())
        for block in self._blocks[depth:]:
            if key in block.known:
                return block.known[key]
        var = self._let(expr, depth)
        self._blocks[depth].known[key] = var
        return var

    def _guarded(self) -> int:
        """Return the innermost block that stands under a condition: a load may not leave it."""
        found = [d for d, b in enumerate(self._blocks) if b.guarded]
        return max([self._floor, *found])

    def _let(self, expr: Expr, depth: int) -> loops.Var:
        var = loops.Var(expr.dtype, expr.lanes, self.fresh("v"))
        self._depth[var.name] = depth
        self._blocks[depth].statements.append(loops.Let(var, expr))
        return var

    def _depth_of(self, x: Expr) -> int:
        if isinstance(x, loops.Var):
            return self._depth[x.name]
        if isinstance(x, loops.Apply):
            return max((self._depth_of(a) for a in x.args), default=0)
        return 0


def _key(x: Expr) -> object:
    if isinstance(x, loops.Var):
        return x.name
    if isinstance(x, loops.Apply):
        return (x.op, *map(_key, x.args))
    assert isinstance(x, loops.Const)
    return (x.dtype.name, repr(x.value), x.lanes)


def _exact(value: float, dtype: DType) -> bool:
    """Return whether a small whole number is the same in a type, so that its conversion needs no instruction."""
    whole = isinstance(value, int) or value.is_integer()
    return whole and dtype != bool_ and 0 <= value <= 127
