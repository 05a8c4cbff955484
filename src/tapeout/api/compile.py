"""Compiling any graph, and the training step as a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.api.batches import array_of, fit_array
from tapeout.api.binding import bind_dims
from tapeout.api.session import CheckFailed, Entry, Session
from tapeout.driver.step import mixed
from tapeout.driver.step import training_step as _training_step
from tapeout.ir.precision import Choice, Precision
from tapeout.passes.mixed import layers_of
from tapeout.support.errors import DataError, nearest
from tapeout.training.losses import as_loss

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array
    from tapeout.training.losses import Loss
    from tapeout.training.optimizers import Optimizer


class Executable:
    """A graph as native code. Calling it runs the graph once, updates included."""

    def __init__(self, graph: Graph, session: Session) -> None:
        """Use `compile` instead."""
        self.graph, self._session = graph, session
        self._entries: dict[tuple[Any, ...], Entry] = {}

    def __call__(
        self, arrays: Mapping[str, Any] | None = None, /, **named: Any
    ) -> dict[str, Array]:
        """Run with arrays by input name (a mapping for names that Python cannot spell) and return outputs by name.

        Raises:
            DataError: An array is missing, unknown or does not fit, or an index is out of range.
        """
        given = {**(arrays or {}), **named}
        unknown = [n for n in given if n not in self.graph.input]
        if unknown:
            raise DataError(
                f"the graph has no input {unknown[0]!r}", hint=nearest(unknown[0], self.graph.input)
            )
        entry = self.prepare({n: tuple(np.shape(array_of(a))) for n, a in given.items()})
        inputs = {}
        for name, type_ in entry.program.input_types.items():
            if name not in given:
                raise DataError(
                    f"input {name!r} is missing", hint=f"the graph takes {list(self.graph.input)}"
                )
            inputs[name] = fit_array(name, given[name], type_)
        try:
            return entry.run(inputs)
        except CheckFailed as failed:
            raise DataError(failed.message) from None

    @property
    def session(self) -> Session:
        """The variables and what is compiled over them."""
        return self._session

    def graph_for(self, arrays: Mapping[str, Any] | None = None) -> Graph:
        """Return the graph with its dimensions bound by the shapes of arrays; None: as they are known."""
        shapes = {n: tuple(np.shape(array_of(a))) for n, a in (arrays or {}).items()}
        return self.graph.bind(bind_dims(self.graph, shapes))

    def recompile(self) -> None:
        """Compile anew at the next call, with what tuning has found since."""
        self._entries.clear()

    def variable(self, name: str) -> Array:
        """Return a copy of a parameter or state."""
        return self._session.read(name)

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> Entry:
        """Compile for the shapes of the inputs, once for each binding of dimensions."""
        key = tuple(sorted(shapes.items()))
        found = self._entries.get(key)
        if found is None:
            bound = self.graph.bind(bind_dims(self.graph, shapes))
            found = self._entries[key] = self._session.prepare(bound)
        return found


def compile(
    graph: Graph,
    target: str = "native",
    threads: int | None = None,
    *,
    precision: Choice | None = None,
    checked: bool | None = None,
) -> Executable:
    """Compile a graph; unbound dimensions are bound at the call, one specialisation each.

    Args:
        graph: Any graph.
        target: `native` (this machine) or the name of a target class.
        threads: Threads to run with; results do not depend on it.
        precision: `bf16`, or one of `f32` and `bf16` by glob of layers, as `Trainer` takes it; None: the types of the graph.
        checked: Test the bounds of every memory access; None: as TAPEOUT_CHECKED says.
    """
    chosen = Precision.of(precision, "precision")
    if not chosen.is_full:
        chosen.check(layers_of(graph), graph.name)
        graph = graph.then(lambda g: mixed(g, chosen))
    session = Session(graph.variables, target=target, threads=threads, checked=checked)
    executable = Executable(graph, session)
    if not graph.dims:
        executable.prepare({v.name: v.type.shape for v in graph.inputs})
    return executable


def training_step(
    graph: Graph,
    loss: Loss | str | Callable[..., Any],
    optimizer: Optimizer,
    *,
    clip_norm: float | None = None,
    precision: Choice | None = None,
) -> Graph:
    """Return the whole training step as one graph: output `loss`, and updates of parameters and states.

    Args:
        graph: The model.
        loss: One of `tapeout.losses`, the name of a scalar output, or a function over Sym.
        optimizer: One of `tapeout.optimizers`.
        clip_norm: Scale all gradients together so that their norm is at most this; None: no clipping.
        precision: `bf16`, or one of `f32` and `bf16` by glob of layers, as `Trainer` takes it; None: the types of the model.
    """
    chosen = Precision.of(precision, "precision")
    return _training_step(graph, as_loss(loss), optimizer, clip_norm=clip_norm, precision=chosen)
