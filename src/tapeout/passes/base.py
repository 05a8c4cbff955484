"""What a pass is: a frozen record of options with one `run`."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph


@dataclass(frozen=True)
class Pass(abc.ABC):
    """A change of graphs that keeps their meaning.

    Subclasses are frozen dataclasses; the fields are the options, `name` is the word on the command line, the file and the folder
    of golden tests. `run` is pure and deterministic, keeps the place (`Loc`) of what it replaces, and returns the same object
    when it changes nothing.
    """

    name: ClassVar[str] = ""

    @abc.abstractmethod
    def run(self, graph: Graph) -> Graph:
        """Return the changed graph, or `graph` itself."""

    def __call__(self, graph: Graph) -> Graph:
        """Return `run(graph)`, applied again when named dimensions are bound and to the model in inference mode."""
        if graph.source is None and graph.evaluation is None:
            return self.run(graph)
        return graph.then(self.run)
