"""Control flow: nodes with regions. `Scan` runs a graph once per time step, `Cond` runs one of two graphs.

A region gets all that it uses as explicit operands. `scan` and `cond` make the nodes from Python functions over `Sym`:

    def step(carries, slices, consts):
        (h,), (x,), (w,) = carries, slices, consts
        new = (x + h @ w).tanh()
        return [new], []

    (hs,), _ = scan(step, init=[h0], xs=[x], consts=[w])      # hs: [time + 1, ...], slot 0 is h0
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.ir.build import Builder
from tapeout.ir.dtype import bool_
from tapeout.ir.graph import Graph
from tapeout.ir.op import Composite, Op, register
from tapeout.ir.rebind import rebind
from tapeout.ir.region import bodies, digest
from tapeout.ir.type import TensorType
from tapeout.ops.sym import Sym
from tapeout.support.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tapeout.ir.graph import Node
    from tapeout.ir.op import Array

    Step = Callable[[list[Sym], list[Sym], list[Sym]], tuple[Sequence[Sym], Sequence[Sym]]]
    Branch = Callable[..., Sequence[Sym]]

BODY, THEN, OTHERWISE = "body", "then", "otherwise"


class Control(Op):
    """An operation with regions. Equal regions, but for provenance, make equal operations."""

    def _key(self) -> tuple[object, ...]:
        plain = tuple(v for k, v in self.attributes.items() if k not in self.regions)
        return (self.name, *plain, *map(digest, bodies(self)))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        inside = [f"{k}={v}" for k, v in self.attributes.items() if k not in self.regions]
        inside += [f"{k}=#{digest(getattr(self, k))}" for k in self.regions]
        return f"{self.name}{{{', '.join(inside)}}}"

    def resolve(self, dims: Mapping[str, int]) -> Op:
        """Return the operation with named dimensions bound, inside of its regions too."""
        changed: dict[str, Any] = {k: rebind(getattr(self, k), dims) for k in self.regions}
        return dataclasses.replace(super().resolve(dims), **changed)


@register
class Scan(Control):
    """A graph run once per time step; carried values go from each step to the next.

    Operands are the initial carries, then `xs` stacked values [length, ...], then values that every step reads. The body takes the
    carries, one slice of each stacked value, and the rest; it gives the next carries, then what is stacked. Results are, per
    carry, its whole history [length + 1, ...] aligned with time (forward: slot 0 is the initial value, slot t + 1 that after
    time t; reverse: slot `length` is the initial value, slot t that after time t), then the stacks [length, ...]. Of the
    carries in `finals` only the last value is a result.
    """

    name = "scan"
    regions = ("body",)
    body: Graph
    carries: int
    xs: int
    length: int
    reverse: bool = False
    finals: tuple[int, ...] = ()

    __eq__ = Control.__eq__
    __hash__ = Control.__hash__

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the types of the histories and stacks; the operands must fit the body's inputs."""
        given, made = self.body.inputs, self.body.outputs
        _check_region("scan", BODY, self.body)
        if len(types) != len(given):
            raise ShapeError(f"scan: the body takes {len(given)} values, got {len(types)} operands")
        if not all(0 <= i < self.carries for i in self.finals):
            raise ShapeError(f"scan: finals {list(self.finals)} of {self.carries} carries")
        if self.length < 0 or self.carries > len(made) or self.carries + self.xs > len(given):
            raise ShapeError(
                f"scan: {self.carries} carries, {self.xs} stacked operands and length {self.length} do not fit a body of "
                f"{len(given)} inputs and {len(made)} outputs"
            )
        for i, (t, value) in enumerate(zip(types, given, strict=True)):
            stacked = self.carries <= i < self.carries + self.xs
            wanted = self._stack(value.type) if stacked else value.type
            if t != wanted:
                what = "stacked value" if stacked else "carry" if i < self.carries else "value"
                raise ShapeError(f"scan: operand {i} ({what}) is {t}, {wanted} is expected")
        for i, (value, (name, after)) in enumerate(zip(given[: self.carries], made, strict=False)):
            if value.type != after.type:
                raise ShapeError(
                    f"scan: carry {i} is {value.type}, and {after.type} after a step ({name})",
                    hint="a carried value keeps its shape and element type; cast or broadcast the initial value",
                )
        stacks = [self._stack(v.type) for _, v in made[self.carries :]]
        histories = [
            v.type if i in self.finals else self._stack(v.type, 1)
            for i, v in enumerate(given[: self.carries])
        ]
        return (*histories, *stacks)

    def _stack(self, type_: TensorType, more: int = 0) -> TensorType:
        return type_.with_shape((self.length + more if more else self.length, *type_.shape))

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """Return the results of a plain loop."""
        stop = self.carries + self.xs
        start, stacked, rest = arrays[: self.carries], arrays[self.carries : stop], arrays[stop:]
        whole = dataclasses.replace(self, finals=())
        types = whole.infer(*(_type_of(a) for a in arrays))
        results = tuple(np.zeros(tuple(map(int, t.shape)), t.dtype.numpy) for t in types)
        histories, stacks = results[: self.carries], results[self.carries :]
        before, after = (1, 0) if self.reverse else (0, 1)
        for history, x in zip(histories, start, strict=True):
            history[self.length if self.reverse else 0] = x
        order = range(self.length)
        for t in reversed(order) if self.reverse else order:
            made = evaluate(
                self.body, *(h[t + before] for h in histories), *(x[t] for x in stacked), *rest
            )
            for history, y in zip(histories, made, strict=False):
                history[t + after] = y
            for stack, y in zip(stacks, made[self.carries :], strict=True):
                stack[t] = y
        last = 0 if self.reverse else self.length
        return tuple(a[last] if i in self.finals else a for i, a in enumerate(results))


@register
class Cond(Control):
    """One of two graphs is run, chosen by a bool scalar; the other is not.

    Operands are the predicate, then what both graphs take; the graphs have equal types of inputs and of outputs.
    """

    name = "cond"
    regions = ("then", "otherwise")
    then: Graph
    otherwise: Graph

    __eq__ = Control.__eq__
    __hash__ = Control.__hash__

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return the types of the graphs' outputs; the operands must fit the inputs of both."""
        if not types or types[0].dtype != bool_ or types[0].shape:
            got = types[0] if types else "no operand"
            raise ShapeError(f"cond: the predicate is {got}, a bool scalar is expected")
        made = []
        for name, graph in ((THEN, self.then), (OTHERWISE, self.otherwise)):
            _check_region("cond", name, graph)
            wanted = tuple(v.type for v in graph.inputs)
            if types[1:] != wanted:
                raise ShapeError(
                    f"cond: {name!r} takes {_listed(wanted)}, got {_listed(types[1:])}"
                )
            made.append(tuple(v.type for _, v in graph.outputs))
        if made[0] != made[1]:
            raise ShapeError(
                f"cond: 'then' gives {_listed(made[0])}, 'otherwise' gives {_listed(made[1])}",
                hint="both branches must give equal types; cast or broadcast inside of them",
            )
        return made[0]

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """Return what the chosen graph gives."""
        return evaluate(self.then if arrays[0].any() else self.otherwise, *arrays[1:])


def _check_region(op: str, name: str, body: Graph) -> None:
    if body.variables or body.updates or body.checks or body.name != name:
        raise ShapeError(
            f"{op}: a region is called {name!r} and has no variables, updates or checks",
            hint="pass what the region reads as operands",
        )


def _listed(types: Sequence[TensorType]) -> str:
    return ", ".join(map(str, types)) or "nothing"


def _type_of(array: Array) -> TensorType:
    from tapeout.ir.dtype import from_numpy

    return TensorType(from_numpy(array.dtype), array.shape)


# -- running regions in numpy ---------------------------------------------------------------------------------


def evaluate(body: Graph, *arrays: Array) -> tuple[Array, ...]:
    """Return the outputs of a region, each node through its reference, composites through their formula."""
    known = dict(zip(body.inputs, arrays, strict=True))
    for node in body.nodes:
        operands = [known[v] for v in node.operands]
        known.update(zip(node.results, _results(node, operands), strict=True))
    return tuple(known[v] for _, v in body.outputs)


def _results(node: Node, operands: list[Array]) -> tuple[Array, ...]:
    if isinstance(node.op, Composite):
        return evaluate(formula(node.op, [v.type for v in node.operands]), *operands)
    with np.errstate(all="ignore"):
        made = node.op.reference(*operands)
    return tuple(np.asarray(a) for a in (made if isinstance(made, tuple) else (made,)))


def formula(op: Composite, types: Sequence[TensorType]) -> Graph:
    """Return the formula of a composite as a graph."""
    b = Builder(BODY)
    operands = [Sym(b, b.add_input(f"x{i}", t)) for i, t in enumerate(types)]
    for i, y in enumerate(op.decompose(*operands)):
        b.set_output(f"y{i}", y.value)
    return b.graph()


# -- making nodes ---------------------------------------------------------------------------------------------


def scan(
    step: Step,
    init: Sequence[Sym],
    xs: Sequence[Sym] = (),
    consts: Sequence[Sym] = (),
    length: int | None = None,
    *,
    reverse: bool = False,
) -> tuple[list[Sym], list[Sym]]:
    """Run a function once per time step.

    Args:
        step: Called once, as `step(carries, slices, consts)`, with values of the body; returns (next carries, values to stack).
        init: The initial carries.
        xs: Values [length, ...]; each step reads its slice.
        consts: Values that every step reads.
        length: Number of steps; that of `xs` if there are any.
        reverse: Whether time runs from the last slice to the first.

    Returns:
        (histories [length + 1, ...] of the carries, stacks [length, ...]), both aligned with time: going forward,
        slot 0 of a history is the initial value and slot t + 1 that after time t; in reverse, slot `length` is the initial
        value and slot t that after time t.

    Raises:
        ShapeError: Lengths differ or are unknown, or a carry changes its type.
    """
    operands = [*init, *xs, *consts]
    steps = _length(xs, length)
    if not operands:
        raise ShapeError("scan needs an initial carry or a stacked value")
    outer = operands[0].builder
    inner = Builder(BODY)
    inner.loc = outer.loc
    carries = [Sym(inner, inner.add_input(f"c{i}", v.type)) for i, v in enumerate(init)]
    slices = [
        Sym(inner, inner.add_input(f"x{i}", v.type.with_shape(v.shape[1:])))
        for i, v in enumerate(xs)
    ]
    rest = [Sym(inner, inner.add_input(f"k{i}", v.type)) for i, v in enumerate(consts)]
    after, stacked = step(carries, slices, rest)
    if len(after) != len(init):
        raise ShapeError(f"scan: {len(init)} carries go into a step, {len(after)} come out")
    _set_outputs(inner, [(f"c{i}", v) for i, v in enumerate(after)])
    _set_outputs(inner, [(f"y{i}", v) for i, v in enumerate(stacked)])
    op = Scan(inner.graph(), len(init), len(xs), steps, reverse)
    results = list(operands[0].emit_all(op, *operands))
    return results[: len(init)], results[len(init) :]


def _length(xs: Sequence[Sym], length: int | None) -> int:
    for i, x in enumerate(xs):
        if not x.rank:
            raise ShapeError(f"scan: stacked value {i} is a scalar; it needs a dimension of time")
        if length is None:
            length = x.shape[0]
        if x.shape[0] != length:
            raise ShapeError(
                f"scan: stacked value {i} has {int(x.shape[0])} slices, {int(length)} are expected"
            )
    if length is None:
        raise ShapeError("scan: without stacked values its length must be given")
    return length


def cond(
    predicate: Sym, then: Branch, otherwise: Branch, operands: Sequence[Sym] = ()
) -> list[Sym]:
    """Run one of two functions, chosen at run time; the other is not run, and neither is its gradient.

    Args:
        predicate: A bool scalar.
        then: Called once with the operands' values inside of the branch; returns its results.
        otherwise: Likewise; its results have the same types.
        operands: What the branches read.

    Returns:
        The results of the branch that ran.

    Raises:
        ShapeError: The predicate is no bool scalar, or the branches give different types.
    """
    graphs = []
    for name, branch in ((THEN, then), (OTHERWISE, otherwise)):
        inner = Builder(name)
        inner.loc = predicate.builder.loc
        given = [Sym(inner, inner.add_input(f"x{i}", v.type)) for i, v in enumerate(operands)]
        _set_outputs(inner, [(f"y{i}", v) for i, v in enumerate(branch(*given))])
        graphs.append(inner.graph())
    return list(predicate.emit_all(Cond(*graphs), predicate, *operands))


def _set_outputs(inner: Builder, outputs: Sequence[tuple[str, Sym]]) -> None:
    for name, value in outputs:
        if value.builder is not inner:
            raise ShapeError(
                f"{inner.name}: result {name} belongs to another graph ({value.builder.name!r})",
                hint="a region reads only what it is given: pass the value as an operand",
            )
        inner.set_output(name, value.value)
