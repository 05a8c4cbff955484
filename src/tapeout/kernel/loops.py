"""Level L: loops. The only thing that code generation, the kernel oracle and the PTX emitter read.

    Kernel = name, params[Param], body[Stmt], numerics
    Stmt   = For(var, start, stop, step, kind, body)   kind: grid | serial | unroll | group | lane
           | Let(var, value)                           single assignment
           | Alloc(name, dtype, lanes, count, scope)   scope: register | local | shared; visible to the end of the enclosing block
           | Store(buffer, index, value, active, mask)
           | If(condition, then, otherwise)
           | Barrier(scope)                            scope: group | lane (all threads of a block, of a warp)
    Expr   = Const | Var | Load | Apply | Cast | Bitcast | Splat | Ramp | Lanes(reduce) | Cross(reduce over lane/group loops)

Every expression has an element type and a number of lanes (1: scalar). Indices are i64 scalars, in elements of the buffer. A
vector load or store touches `lanes` elements that follow each other, of which only the first `active` (all by default), and
only those whose `mask` is true. A load whose index is a vector is a gather (one element per lane).

`grid` marks the outermost loop: its iterations are independent and are dealt to threads (CPU) or blocks (GPU). `group` and
`lane` are the warps of a block and the lanes of a warp. A buffer of scope `register` is indexed by constants only (in units
of its `lanes`); `local` belongs to one grid iteration, `shared` to one block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tapeout.kernel.compute import Numerics

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType

DOT2 = "dot2"
"""`dot2(a, b, total)`: u32 lanes `a` and `b` hold two bf16 each, `total` is f32. The product of the upper halves is added to
`total`, then that of the lower ones; each sum is rounded once, to nearest even. Subnormal halves, totals and sums count as
zero of their sign where a machine has this as an instruction, and are kept elsewhere."""

LoopKind = Literal["grid", "serial", "unroll", "group", "lane"]
Scope = Literal["register", "local", "shared"]


@dataclass(frozen=True, slots=True)
class Param:
    """A buffer that the launch passes.

    Attributes:
        name: Unique in the kernel.
        dtype: Element type.
        size: Number of elements that may be touched.
        access: `r`, `w` or `rw`.
        align: Bytes that divide its address: 64 inside the arena, the element size for a user's array.
    """

    name: str
    dtype: DType
    size: int
    access: str = "r"
    align: int = 64


@dataclass(frozen=True, slots=True, eq=False)
class Expr:
    """A scalar or a vector."""

    dtype: DType
    lanes: int


@dataclass(frozen=True, slots=True, eq=False)
class Const(Expr):
    """A number, in every lane."""

    value: float | int | bool


@dataclass(frozen=True, slots=True, eq=False)
class Var(Expr):
    """A loop variable (i64, 1 lane) or the variable of a Let."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Load(Expr):
    """Elements of a buffer; lanes that are not touched give `other`."""

    buffer: str
    index: Expr
    active: int | None = None
    mask: Expr | None = None
    other: float | int | bool = 0


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Expr):
    """An operation of `ir.scalar.SCALAR_OPS`, or `dot2`, lane by lane."""

    op: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Cast(Expr):
    """A conversion, lane by lane (as `ScalarOps.cast`)."""

    arg: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Bitcast(Expr):
    """The same bits, lane by lane."""

    arg: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Splat(Expr):
    """A scalar in every lane."""

    arg: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Ramp(Expr):
    """`start, start+1, …` (i64), one per lane."""

    start: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Lanes(Expr):
    """All lanes of a vector combined into a scalar as a fixed tree: lane i with lane i + lanes/2, then halves again.

    `combine`: sum prod max min any all. `lanes` of the argument is a power of two.
    """

    combine: str
    arg: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Cross(Expr):
    """A scalar combined over all iterations of the enclosing loops of kind `level` (`lane` or `group`), given to each of them.

    A GPU lowers it to shuffles (lane) or to shared memory and a barrier (group); the tree is the same as that of `Lanes`.
    """

    combine: str
    arg: Expr
    level: Literal["lane", "group"]


@dataclass(frozen=True, slots=True, eq=False)
class For:
    """`for var in start .. stop step step`; the bounds are scalars (numbers or expressions of outer variables)."""

    var: str
    start: Expr
    stop: Expr
    step: int
    kind: LoopKind
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Let:
    """Name a value. Names are unique in the kernel."""

    var: Var
    value: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Alloc:
    """A buffer of `count` elements of `lanes` lanes each; its content is undefined at first."""

    name: str
    dtype: DType
    lanes: int
    count: int
    scope: Scope


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """Write a scalar or vector."""

    buffer: str
    index: Expr
    value: Expr
    active: int | None = None
    mask: Expr | None = None


@dataclass(frozen=True, slots=True, eq=False)
class If:
    """Run one of two blocks by a scalar bool."""

    condition: Expr
    then: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Barrier:
    """Wait for all iterations of the enclosing `group` (or `lane`) loops; writes before it are seen after it."""

    scope: Literal["group", "lane"]


Stmt = For | Let | Alloc | Store | If | Barrier


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel in loops.

    Attributes:
        name: `k_` and the first 16 hex digits of the SHA-256 of its text without the name.
        params: Buffers, in the order in which a launch passes them.
        body: Statements. If the first-level statement is one `For` of kind `grid`, it may be dealt to threads.
        numerics: What decides its rounding.
    """

    name: str
    params: tuple[Param, ...]
    body: tuple[Stmt, ...]
    numerics: Numerics = field(default_factory=Numerics)

    @property
    def tasks(self) -> int:
        """Number of independent iterations of the grid loop, 1 if there is none."""
        first = self.body[0] if len(self.body) == 1 else None
        if isinstance(first, For) and first.kind == "grid":
            assert isinstance(first.start, Const) and isinstance(first.stop, Const)
            return max(0, -(-(int(first.stop.value) - int(first.start.value)) // first.step))
        return 1
