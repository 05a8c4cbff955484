"""The builder DSL: a graph written in Python, ahead of time.

>>> with Builder("mlp") as g:
...     x = g.input("x", ("N", 784))
...     g.output("logits", linear(x, 10, name="fc"))
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from tapeout.frontend.init import Initializer, generator
from tapeout.frontend.modes import RANDOM, ByMode, with_modes
from tapeout.ir.build import Builder as GraphBuilder
from tapeout.ir.dtype import DType, f32, from_numpy, i64
from tapeout.ir.graph import Graph
from tapeout.ir.modes import Modes
from tapeout.ir.rebind import rebind
from tapeout.ir.type import Dim, TensorType
from tapeout.ops import control
from tapeout.ops.random import stream_of
from tapeout.ops.sym import Sym, constant, random_bits
from tapeout.support.errors import ShapeError, TapeoutError
from tapeout.support.loc import Loc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tapeout.ir.graph import Kind, Value
    from tapeout.ir.op import Array, Op
    from tapeout.ops.control import Branch, Step

_PACKAGE = str(Path(__file__).resolve().parent.parent)
# Preview numbers of unbound dimensions: distinct primes, so that two names never look equal by chance.
_PREVIEWS = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)


class Recorder(GraphBuilder):
    """A graph builder that gives each node the user's line, and knows layers that differ between training and inference."""

    def __init__(self, name: str, seed: int) -> None:
        """Start an empty graph."""
        super().__init__(name)
        self.seed = seed
        self.owners: dict[str, list[str]] = {}
        self._draws: set[str] = set()

    def emit(self, op: Op, *operands: Value, loc: Loc | None = None) -> tuple[Value, ...]:
        """Append a node at the user's line and return its results."""
        return super().emit(op, *operands, loc=loc or (self.loc if self.loc else user_line()))

    def declare(
        self,
        name: str,
        type: TensorType,
        init: Initializer | Array,
        kind: Kind = "parameter",
        *,
        trainable: bool = True,
    ) -> Sym:
        """Declare a variable with its initial value, drawn from the seed and its name.

        Raises:
            ShapeError: The shape depends on a dimension without a number, or the value does not fit.
        """
        unbound = [str(n) for n in type.sizes if not n.isdigit()]
        if unbound:
            raise ShapeError(
                f"{kind} {name!r} is {type.text}: it must not depend on an unbound dimension",
                where=str(user_line()),
            )
        type = type.with_shape(tuple(int(n) for n in type.shape))
        data = (
            init(type.shape, type.dtype, generator(self.seed, name))
            if callable(init)
            else np.asarray(init)
        )
        if data.shape != type.shape or data.dtype != type.dtype.numpy:
            raise ShapeError(
                f"initial value of {name!r} is {data.dtype}{list(data.shape)}, expected {type}",
                where=str(user_line()),
            )
        value = self.add_variable(name, type, kind, trainable=trainable, initial=data)
        return Sym(self, value)

    def by_mode(self, layer: str, in_training: Sym, in_inference: Sym) -> Sym:
        """Return one value in training and another in inference."""
        return in_training.emit(ByMode(layer=layer), in_training, in_inference)

    def update_for(self, layer: str, state: Sym, value: Sym) -> None:
        """Say what a state becomes after a step in which a layer was in training."""
        self.set_update(state.value.name, value.value)
        self.owners.setdefault(state.value.name, []).append(layer)

    def bits(self, layer: str, shape: Sequence[int]) -> Sym:
        """Return u32 random bits for a layer: another sequence for every layer, step and seed of the trainer.

        Raises:
            TapeoutError: A layer of that name draws already.
        """
        if layer in self._draws:
            raise TapeoutError(
                f"two layers that draw random numbers are called {layer!r}", where=str(user_line())
            )
        self._draws.add(layer)
        if RANDOM[0] not in self.variables:
            zero = np.zeros((), np.int64)
            self.add_variable("rng.seed", TensorType(i64), "hyper", trainable=False, initial=zero)
            self.add_variable("rng.step", TensorType(i64), "state", trainable=False, initial=zero)
        seed, step = (Sym(self, self.variables[n].value) for n in RANDOM)
        if "rng.step" not in self.updates:
            self.set_update("rng.step", (step + 1).value)
        self.owners.setdefault("rng.step", []).append(layer)
        return random_bits(seed, step, stream_of(layer), shape)


class Builder:
    """Records a graph. Errors name the line of the user's file that made them.

    Args:
        name: Name of the graph.
        seed: Seed of the initial values of parameters.
    """

    def __init__(self, name: str = "graph", seed: int = 0) -> None:
        """Start an empty graph."""
        self._recorder = Recorder(name, seed)
        self._dims: dict[str, Dim] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the block; nothing needs closing."""

    def input(self, name: str, shape: Sequence[int | str], dtype: DType | str | type = f32) -> Sym:
        """Declare an input; a name in the shape is a dimension bound later, at the first batch at the latest."""
        type_ = TensorType(as_dtype(dtype), self._shape(shape))
        return Sym(self._recorder, self._recorder.add_input(name, type_))

    def parameter(
        self,
        name: str,
        shape: Sequence[int],
        init: Initializer | Array,
        dtype: DType | str | type = f32,
        *,
        trainable: bool = True,
    ) -> Sym:
        """Declare a parameter with its initial value: an array, or one of `tapeout.init`."""
        type_ = TensorType(as_dtype(dtype), self._shape(shape))
        return self._recorder.declare(name, type_, init, trainable=trainable)

    def state(
        self,
        name: str,
        shape: Sequence[int],
        init: Initializer | Array,
        dtype: DType | str | type = f32,
    ) -> Sym:
        """Declare a state: a tensor that `update` changes from step to step."""
        type_ = TensorType(as_dtype(dtype), self._shape(shape))
        return self._recorder.declare(name, type_, init, "state", trainable=False)

    def update(self, state: Sym, value: Sym) -> None:
        """Say what a state becomes after a training step."""
        self._recorder.set_update(state.value.name, value.value)

    def constant(self, array: Array | float, dtype: DType | str | type | None = None) -> Sym:
        """Return a constant."""
        return constant(self._recorder, array, None if dtype is None else as_dtype(dtype))

    def scan(
        self,
        step: Step,
        init: Sequence[Sym],
        xs: Sequence[Sym] = (),
        consts: Sequence[Sym] = (),
        *,
        length: int | None = None,
        reverse: bool = False,
    ) -> tuple[list[Sym], list[Sym]]:
        """Run a function once per time step, each step reading what the one before carried on.

        Args:
            step: Called once, as `step(carries, slices, consts)`, with lists of Syms of the loop's body; returns (next carries, values
                to stack). It reads only what it is given, and declares nothing.
            init: The initial carries; a carry keeps its shape and element type.
            xs: Values [length, ...]; each step reads its slice.
            consts: What every step reads, parameters above all.
            length: Number of steps; that of `xs` if there are any.
            reverse: Whether time runs from the last slice to the first.

        Returns:
            (histories [length + 1, ...] of the carries, stacks [length, ...]), both aligned with time. Forward, slot 0 of a history is
            the initial value and slot t + 1 that after time t; in reverse, slot `length` is the initial value and slot t that after
            time t.

        Raises:
            ShapeError: Lengths differ or are unknown, a carry changes its type, or the body reads what it was not given.
        """
        with self._recorder.at(user_line()):
            return control.scan(step, init, xs, consts, length, reverse=reverse)

    def cond(
        self, predicate: Sym, then: Branch, otherwise: Branch, operands: Sequence[Sym] = ()
    ) -> list[Sym]:
        """Run one of two functions, chosen at run time; the other is not run, and neither is its gradient.

        Args:
            predicate: A bool scalar.
            then: Called once with the operands as the branch sees them; returns a list of Syms. It reads only what it is given.
            otherwise: Likewise; its results have the same types.
            operands: What the branches read.

        Returns:
            The results of the branch that ran.

        Raises:
            ShapeError: The predicate is no bool scalar, or the branches give different types.
        """
        with self._recorder.at(user_line()):
            return control.cond(predicate, then, otherwise, operands)

    def output(self, name: str, value: Sym) -> None:
        """Name an output."""
        self._recorder.set_output(name, value.value)

    def graph(self) -> Graph:
        """Return the graph, in training mode; it knows itself in inference mode if it has layers that differ.

        Raises:
            TapeoutError: There is no output.
        """
        recorder = self._recorder
        recorded = recorder.graph({n: int(d) for n, d in self._dims.items()})
        if not recorded.outputs:
            raise TapeoutError(
                f"graph {recorded.name!r} has no output", hint="call g.output(name, value)"
            )
        return with_modes(recorded, dict(recorder.owners), _bindable, Modes())

    def _shape(self, shape: Sequence[int | str]) -> tuple[int, ...]:
        return tuple(
            self._dim(d) if isinstance(d, str) else d if isinstance(d, Dim) else int(d)
            for d in shape
        )

    def _dim(self, name: str) -> Dim:
        if name not in self._dims:
            count = len(self._dims)
            preview = _PREVIEWS[count] if count < len(_PREVIEWS) else 31 + 2 * count
            self._dims[name] = Dim.named(name, preview)
        return self._dims[name]


def _bindable(graph: Graph) -> Graph:
    """Return the graph so that named dimensions can be bound."""
    return replace(graph, source=lambda dims: rebind(graph, dims)) if graph.dims else graph


def user_line() -> Loc:
    """Return the innermost line outside this package."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame is None:
        return Loc()
    return Loc(Path(frame.f_code.co_filename).name, str(frame.f_lineno))


def as_dtype(dtype: DType | str | type) -> DType:
    """Return an element type from ours, its name, or numpy's."""
    if isinstance(dtype, DType):
        return dtype
    from tapeout.ir.dtype import BY_NAME

    return (
        BY_NAME[dtype]
        if isinstance(dtype, str) and dtype in BY_NAME
        else from_numpy(np.dtype(dtype))
    )
