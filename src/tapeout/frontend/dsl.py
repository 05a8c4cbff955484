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
from tapeout.ir.build import Builder as GraphBuilder
from tapeout.ir.dtype import DType, f32, from_numpy
from tapeout.ir.rebind import rebind
from tapeout.ir.type import Dim, TensorType
from tapeout.ops.sym import Sym, constant
from tapeout.support.errors import ShapeError, TapeoutError
from tapeout.support.loc import Loc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tapeout.ir.graph import Graph, Value
    from tapeout.ir.op import Array, Op

_PACKAGE = str(Path(__file__).resolve().parent.parent)
# Preview numbers of unbound dimensions: distinct primes, so that two names never look equal by chance.
_PREVIEWS = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)


class _Recorder(GraphBuilder):
    """A graph builder that gives each node the user's line."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(name)
        self.seed = seed

    def emit(self, op: Op, *operands: Value, loc: Loc | None = None) -> tuple[Value, ...]:
        return super().emit(op, *operands, loc=loc or (self.loc if self.loc else user_line()))


class Builder:
    """Records a graph. Errors name the line of the user's file that made them.

    Args:
        name: Name of the graph.
        seed: Seed of the initial values of parameters.
    """

    def __init__(self, name: str = "graph", seed: int = 0) -> None:
        """Start an empty graph."""
        self._recorder = _Recorder(name, seed)
        self._seed = seed
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
        dims = tuple(self._dim(d) if isinstance(d, str) else int(d) for d in shape)
        return Sym(
            self._recorder, self._recorder.add_input(name, TensorType(as_dtype(dtype), dims))
        )

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
        return self._variable(name, shape, init, dtype, "parameter", trainable)

    def state(
        self,
        name: str,
        shape: Sequence[int],
        init: Initializer | Array,
        dtype: DType | str | type = f32,
    ) -> Sym:
        """Declare a state: a tensor that `update` changes from step to step."""
        return self._variable(name, shape, init, dtype, "state", False)

    def update(self, state: Sym, value: Sym) -> None:
        """Say what a state becomes after a training step."""
        self._recorder.set_update(state.value.name, value.value)

    def constant(self, array: Array | float, dtype: DType | str | type | None = None) -> Sym:
        """Return a constant."""
        return constant(self._recorder, array, None if dtype is None else as_dtype(dtype))

    def output(self, name: str, value: Sym) -> None:
        """Name an output."""
        self._recorder.set_output(name, value.value)

    def graph(self) -> Graph:
        """Return the graph."""
        recorded = self._recorder.graph({n: int(d) for n, d in self._dims.items()})
        if not recorded.outputs:
            raise TapeoutError(
                f"graph {recorded.name!r} has no output", hint="call g.output(name, value)"
            )
        return (
            replace(recorded, source=lambda dims: rebind(recorded, dims))
            if self._dims
            else recorded
        )

    def _variable(
        self,
        name: str,
        shape: Sequence[int],
        init: Initializer | Array,
        dtype: DType | str | type,
        kind: str,
        trainable: bool,
    ) -> Sym:
        if any(isinstance(d, (Dim, str)) for d in shape):
            raise ShapeError(
                f"{kind} {name!r} has the shape {list(shape)}: it must not depend on an unbound dimension"
            )
        type_ = TensorType(as_dtype(dtype), tuple(int(d) for d in shape))
        data = (
            init(type_.shape, type_.dtype, generator(self._seed, name))
            if callable(init)
            else np.asarray(init)
        )
        if data.shape != type_.shape or data.dtype != type_.dtype.numpy:
            raise ShapeError(
                f"initial value of {name!r} is {data.dtype}{list(data.shape)}, expected {type_}"
            )
        value = self._recorder.add_variable(name, type_, kind, trainable=trainable, initial=data)  # type: ignore[arg-type]
        return Sym(self._recorder, value)

    def _dim(self, name: str) -> Dim:
        if name not in self._dims:
            count = len(self._dims)
            preview = _PREVIEWS[count] if count < len(_PREVIEWS) else 31 + 2 * count
            self._dims[name] = Dim.named(name, preview)
        return self._dims[name]


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
