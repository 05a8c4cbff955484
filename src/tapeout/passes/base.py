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
        """Return `run(graph)`, applied again whenever named dimensions are bound."""
        return graph.then(self.run) if graph.source is not None else self.run(graph)
