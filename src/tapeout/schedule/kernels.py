"""From a group of nodes to its kernel at level T."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tapeout.ir.affine import Affine, Axis, Guard, index_of
from tapeout.ir.dtype import DType, bf16, bool_, f16, f32
from tapeout.ir.op import Contraction, Reduction, Running, Scatter
from tapeout.ir.type import TensorType
from tapeout.kernel import compute
from tapeout.kernel.compute import (
    Apply,
    Bitcast,
    Cast,
    ContractionKernel,
    Expr,
    Kernel,
    Load,
    LoopKernel,
    Reduce,
    ScatterKernel,
    Store,
    Temp,
)
from tapeout.schedule.contract import works_of
from tapeout.schedule.element import Elements, holds
from tapeout.schedule.facts import own_axes
from tapeout.schedule.frames import plain_axis
from tapeout.schedule.model import Group, Home, Homes, Scope, Work
from tapeout.support.errors import CompileError
from tapeout.support.loc import UNKNOWN, Loc

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from tapeout.ir.graph import Node, Value
    from tapeout.ir.op import Read
    from tapeout.ir.scalar import ScalarOps
    from tapeout.schedule.element import Index
    from tapeout.schedule.model import Frame


@dataclass(frozen=True)
class Kernels:
    """Builds the kernels of groups.

    Attributes:
        homes: Where each kept value lives.
        inlined: Values that are evaluated wherever they are read.
        stored: Values that another kernel, the caller or a variable needs.
    """

    homes: Homes
    inlined: Container[Value]
    stored: Container[Value]

    def build(self, group: Group) -> list[Work]:
        """Return the kernels of a group in the order in which they run."""
        if group.kind == "scatter":
            return _scatter(self, group)
        if group.kind == "contraction":
            return works_of(_contraction(self, group))
        return [_loops(self, group)]


def copy(source: Home, target: Home, *, late: bool, loc: Loc = UNKNOWN) -> Work:
    """Return the kernel that copies one home into another of the same type."""
    scope = Scope()
    axes = own_axes(source.type.shape, "a")
    index = index_of(axes)
    stage = scope.store(target, (), index, scope.load(source, index, (), 0.0))
    kernel = LoopKernel("", scope.buffers, axes, (stage,), loc)
    return Work(kernel, scope.homes, loc, f"copy {target.name}", late)


def nan_search(home: Home, name: str, work: Work) -> Work:
    """Return the kernel that writes whether any element of a home is NaN to a bool called `name`, its last operand."""
    scope = Scope()
    axes = own_axes(home.type.shape, "r")
    value = scope.s.apply("isnan", scope.load(home, index_of(axes), (), 0.0))
    flag = Home(name, TensorType(bool_), (), "activation")
    stages = (
        Reduce("t0", "any", axes, value, bool_),
        scope.store(flag, (), (), scope.s.temp("t0", bool_)),
    )
    kernel = LoopKernel("", scope.buffers, (), stages, work.loc)
    return Work(kernel, scope.homes, work.loc.as_role("check"), f"NaN? {work.label}")


class _Body:
    """Evaluates the members of a group inside one kernel."""

    def __init__(self, kernels: Kernels, group: Group) -> None:
        self.kernels, self.group = kernels, group
        self.scope = Scope()
        self.s = self.scope.s
        self.elements = Elements(self.s, kernels.inlined, self._leaf)
        self.known: dict[Value, tuple[Frame, Expr]] = {}

    def define(self, value: Value, frame: Frame, expr: Expr) -> None:
        """Give a member's result its expression at its frame."""
        self.known[value] = frame, expr

    def store(self, value: Value) -> Store:
        """Return the stage that writes a member's result to its home."""
        frame, expr = self.known[value]
        axes = self.group.inner if self.group.kind == "loop" and self.group.is_full(frame) else ()
        return self.scope.store(self.kernels.homes[value], axes, frame, expr)

    def needs_store(self, value: Value) -> bool:
        """Whether anything outside the group needs a value."""
        return value in self.kernels.stored

    def _leaf(self, value: Value, index: Index, where: tuple[Guard, ...], other: float) -> Expr:
        if value not in self.known:
            return self.scope.load(self.kernels.homes[value], index, where, other)
        frame, expr = self.known[value]
        if index != frame:
            raise CompileError(f"a kernel reads its own result at {index} and makes it at {frame}")
        if not where:
            return expr
        return self.s.select(holds(self.s, where), expr, self.s.const(other, expr.dtype))


def _loops(kernels: Kernels, group: Group) -> Work:
    body = _Body(kernels, group)
    stages: list[Reduce | Store] = []
    for node, frame in group.members.items():
        (result,) = node.results
        if isinstance(node.op, Reduction):
            value = _summand(body, node, frame, at := _reduced(node, group))
            if any(i.terms for i in at):
                name, dtype = f"t{len(stages)}", accumulator(node)
                stages.append(Reduce(name, _combine(node), group.inner, value, dtype))
                value = body.s.temp(name, dtype)
            elif _combine(node).startswith("arg"):
                value = body.s.const(0, result.type.dtype)
            body.define(result, frame, body.s.cast(value, result.type.dtype))
        else:
            body.define(result, frame, body.elements.pointwise(node, frame))
        if body.needs_store(result):
            stages.append(body.store(result))
    kernel = LoopKernel("", body.scope.buffers, group.outer, in_passes(stages), group.anchor.loc)
    return _work(kernel, body, group)


def _summand(body: _Body, node: Node, frame: Frame, at: Frame) -> Expr:
    """Return what a reduction combines; the product of a contraction in the type of its sum."""
    if not isinstance(node.op, Contraction):
        return body.elements.reduced(node, frame, at)
    dtype = accumulator(node)
    a, b = body.elements.factors(node, frame, at)
    return body.s.mul(body.s.cast(a, dtype), body.s.cast(b, dtype))


def _reduced(node: Node, group: Group) -> Frame:
    """Return the index of a reduction's own reduced axes in the group's inner axes."""
    assert isinstance(node.op, Reduction)
    return group.inner_index(own_axes(node.op.reduced(*(v.type for v in node.operands)), "r"))


def _combine(node: Node) -> str:
    assert isinstance(node.op, Reduction)
    return "sum" if isinstance(node.op, Contraction) else node.op.combine


def accumulator(node: Node) -> DType:
    """Return the element type in which a reduction or contraction accumulates: sums of products of narrow floats are f32."""
    dtype = node.results[0].type.dtype
    return f32 if isinstance(node.op, Contraction) and dtype in (bf16, f16) else dtype


def in_passes(stages: list[Reduce | Store]) -> tuple[Reduce | Store, ...]:
    """Return stages that need the same temporaries side by side, so that they can share a loop.

    A stage's pass is one more than the last pass among the reductions that it reads.
    """
    made: dict[str, int] = {}
    passes: list[int] = []
    for stage in stages:
        needed = 1 + max((made[t] for t in temps(stage.value)), default=-1)
        passes.append(needed)
        if isinstance(stage, Reduce):
            made[stage.name] = needed
    order = sorted(range(len(stages)), key=lambda i: passes[i])
    return tuple(stages[i] for i in order)


def temps(expr: Expr) -> tuple[str, ...]:
    """Return the names of the temporaries in an expression."""
    return tuple(dict.fromkeys(e.name for e in walk(expr) if isinstance(e, Temp)))


def walk(*exprs: Expr) -> list[Expr]:
    """Return every distinct expression inside, parents first."""
    seen: dict[int, Expr] = {}
    stack = list(reversed(exprs))
    while stack:
        e = stack.pop()
        if id(e) in seen:
            continue
        seen[id(e)] = e
        if isinstance(e, Apply):
            stack += reversed(e.args)
        elif isinstance(e, Cast | Bitcast):
            stack.append(e.arg)
        elif isinstance(e, Load):
            stack += [i for i in e.index if isinstance(i, Expr)]
    return list(seen.values())


def axes_of(expr: Expr) -> dict[Axis, None]:
    """Return the axes that an expression depends on, those of its guards included."""
    found: dict[Axis, None] = {}
    for e in walk(expr):
        parts: list[Affine] = []
        if isinstance(e, compute.Index):
            parts = [e.index]
        elif isinstance(e, Load):
            parts = [i for i in e.index if isinstance(i, Affine)] + [g.index for g in e.where]
        found.update((a, None) for p in parts for a in p.axes)
    return found


def _contraction(kernels: Kernels, group: Group) -> Work:
    body = _Body(kernels, group)
    node = group.anchor
    frame = group.members[node]
    a, b = body.elements.factors(node, frame, _reduced(node, group))
    acc = body.s.temp("acc", accumulator(node))
    body.define(node.results[0], frame, body.s.cast(acc, node.results[0].type.dtype))
    stages = [body.store(node.results[0])] if body.needs_store(node.results[0]) else []
    for other, at in group.members.items():
        if other is node:
            continue
        body.define(other.results[0], at, body.elements.pointwise(other, at))
        if body.needs_store(other.results[0]):
            stages.append(body.store(other.results[0]))
    batch, m, n = _roles(group.outer, a, b)
    kernel = ContractionKernel(
        "", body.scope.buffers, batch, m, n, _real(group.inner), a, b,
        accumulator(node), tuple(stages), node.loc,
    )  # fmt: skip
    return _work(kernel, body, group)


def _real(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    # An axis of one step takes no part in any index.
    return tuple(x for x in axes if x.extent != 1)


def _roles(
    axes: tuple[Axis, ...], a: Expr, b: Expr
) -> tuple[tuple[Axis, ...], tuple[Axis, ...], tuple[Axis, ...]]:
    """Return the axes that both factors depend on, only the first, only the second."""
    in_a, in_b = axes_of(a), axes_of(b)
    real = _real(axes)
    batch = tuple(x for x in real if x in in_a and x in in_b)
    n = tuple(x for x in real if x in in_b and x not in in_a)
    m = tuple(x for x in real if x not in batch and x not in n)
    return batch, m, n


def _running(kernels: Kernels, group: Group) -> Work:
    """Return the kernel that makes the result in order along its axis, reading what it has written."""
    node = group.anchor
    op, (result,) = node.op, node.results
    assert isinstance(op, Running)
    home = kernels.homes[result]
    body = _Body(kernels, group)
    own = own_axes(result.type.shape, "r")
    place = list(index_of(own))
    if op.reverse:
        place[op.axis] = place[op.axis] * -1 + (own[op.axis].extent - 1)
    at = tuple(place)
    reads = [partial(body.elements.read, v) for v in node.operands]
    types = tuple(v.type for v in node.operands)
    s: ScalarOps[Expr] = body.s
    value = op.step(s, at, types, _reader(body.scope, home), *reads)
    target = body.scope.buffer(home, "w").name
    axes = tuple(a for d, a in enumerate(own) if d != op.axis)
    kernel = ScatterKernel(
        "", body.scope.buffers, axes, (own[op.axis],), target, at, value, node.loc, "set"
    )
    return _work(kernel, body, group)


def _reader(scope: Scope, home: Home) -> Read[Expr]:
    """Return what reads elements of a home."""

    def read(
        index: Sequence[Affine | Expr], where: Sequence[Guard] = (), other: float = 0.0
    ) -> Expr:
        return scope.load(home, tuple(index), where, other)

    return read


def _scatter(kernels: Kernels, group: Group) -> list[Work]:
    """Return the kernel that copies operand 0, then the one that combines the updates into it."""
    node = group.anchor
    if isinstance(node.op, Running):
        return [_running(kernels, group)]
    assert isinstance(node.op, Scatter)
    base, indices, updates = node.operands
    home = kernels.homes[node.results[0]]
    start = _Body(kernels, group)
    frame = index_of(group.outer)
    stage = start.scope.store(home, (), frame, start.elements.read(base, frame))
    first = LoopKernel("", start.scope.buffers, group.outer, (stage,), node.loc)

    body = _Body(kernels, group)
    own = own_axes(updates.type.shape, "r")
    types = tuple(v.type for v in node.operands)
    read = partial(body.elements.read, indices)
    s: ScalarOps[Expr] = body.s
    place = node.op.place(s, index_of(own), types, read)
    value = body.elements.read(updates, index_of(own))
    target = body.scope.buffer(home, "r").name
    body.scope.buffer(home, "w")
    independent = {plain_axis(p) for p in place if isinstance(p, Affine)}
    axes = tuple(a for a in own if a in independent)
    points = tuple(a for a in own if a not in independent)
    kernel = ScatterKernel(
        "", body.scope.buffers, axes, points, target, place, value, node.loc, node.op.combine
    )
    return [_work(first, start, group), _work(kernel, body, group)]


def _work(kernel: Kernel, body: _Body, group: Group) -> Work:
    return Work(
        kernel,
        body.scope.homes,
        group.anchor.loc,
        label(group),
        group.late,
        sources=tuple(dict.fromkeys(n.loc for n in (group.anchor, *body.elements.evaluated))),
    )


def label(group: Group) -> str:
    """Return the names of the operations and the places they came from, such as `dot+add+relu fc1/Gemm`."""
    names = list(dict.fromkeys(n.op.name for n in group.members))
    places = list(dict.fromkeys(n.loc.name for n in group.members if n.loc.name))
    shown = "+".join(names[:6]) + ("+…" if len(names) > 6 else "")
    role = group.anchor.loc.role
    mark = "" if role == "forward" else f" ({role})"
    return f"{shown} {places[0]}{mark}" if places else shown + mark
