"""What profiles and tuning time: an entry point on a batch, over the memory of its owner, which is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tapeout.api.batches import fit_array
from tapeout.api.compile import Executable
from tapeout.api.example import example_batch
from tapeout.api.trainer import Trainer
from tapeout.runtime.executable import Executable as Native
from tapeout.support.errors import DataError, OptionError

if TYPE_CHECKING:
    from tapeout.api.session import Session
    from tapeout.driver.pipeline import Compiled
    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array


@dataclass(frozen=True, eq=False)
class Timed:
    """What is timed.

    Attributes:
        name: Model and entry point.
        model: The model.
        graph: The entry point, every dimension bound.
        session: Its variables.
        inputs: Its arrays.
        call: Runs it as a user does.
    """

    name: str
    model: Graph
    graph: Graph
    session: Session
    inputs: dict[str, Array]
    call: Callable[[], object]

    @contextmanager
    def kept(self) -> Iterator[Callable[[], None]]:
        """Put the variables back at the end, and whenever the function that is given is called."""
        size = self.session.layout.bytes
        values = self.session.arena.memory[:size].copy()

        def restore() -> None:
            self.session.arena.memory[:size] = values

        try:
            yield restore
        finally:
            restore()

    def native(self, compiled: Compiled) -> Native:
        """Return a program with clocks over the memory of the session."""
        self.session.make_room(compiled.program.arena)
        return Native(
            compiled.program,
            compiled.objects,
            entry=compiled.entry,
            checked=self.session.options.checked,
            threads=self.session.threads,
            arena=self.session.arena,
            clocks=True,
        )

    def run(self, native: Native) -> None:
        """Run a program once.

        Raises:
            DataError: A check of the program fired.
        """
        native.bind(self.session.arena)
        if native.run(self.inputs):
            raise DataError("a check of the step fired on this batch", where=self.name)


def timed(what: Trainer | Executable, batch: Mapping[str, Any] | None, predict: bool) -> Timed:
    """Return what is to be timed of a trainer or of a compiled graph.

    Raises:
        OptionError: `what` is neither.
        DataError: The batch does not fit.
    """
    if isinstance(what, Trainer):
        kind = "predict" if predict else "step" if what.optimizer else "gradients"
        graph = what.graph_for(kind, batch)
        made = _arrays(graph, batch)
        calls: dict[str, Callable[[dict[str, Array]], object]] = {
            "predict": what.predict,
            "step": what.step,
            "gradients": what.gradients,
        }
        call = calls[kind]
        name = f"{what.model.name} {kind}"
        return Timed(name, what.model, graph, what.session, made, lambda: call(made))
    if isinstance(what, Executable):
        graph = what.graph_for(batch)
        made = _arrays(graph, batch)
        return Timed(what.graph.name, what.graph, graph, what.session, made, lambda: what(made))
    raise OptionError(
        f"{type(what).__name__} cannot be timed",
        hint="pass a Trainer or what tapeout.compile returned",
    )


def _arrays(graph: Graph, batch: Mapping[str, Any] | None) -> dict[str, Array]:
    if batch is None:
        return example_batch(graph)
    return {v.name: fit_array(v.name, batch[v.name], v.type) for v in graph.inputs}
