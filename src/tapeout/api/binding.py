"""Binding named dimensions from the shapes of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tapeout.ir.type import Dim
from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph


def bind_dims(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the numbers of the graph's named dimensions that fit the shapes of a batch.

    Args:
        graph: Its inputs' shapes hold named dimensions where they are unbound.
        shapes: Shape by input name; inputs that are missing bind nothing.

    Raises:
        DataError: A shape does not fit, or two inputs disagree about a dimension; names input and dimension.
    """
    dims: dict[str, int] = {}
    owner: dict[str, str] = {}
    for value in graph.inputs:
        given = shapes.get(value.name)
        if given is None:
            continue
        declared = value.type.shape
        shown = f"[{', '.join(value.type.sizes)}]"
        if len(given) != len(declared):
            raise DataError(f"shape is {list(given)}, the model takes {shown}", where=value.name)
        for want, got in zip(declared, given, strict=True):
            name = want.expr[1] if isinstance(want, Dim) and want.expr[0] == "dim" else None
            if name is None:
                if int(want) != got:
                    raise DataError(
                        f"shape is {list(given)}, the model takes {shown}", where=value.name
                    )
                continue
            name = str(name)
            if dims.setdefault(name, got) != got:
                raise DataError(
                    f"dimension {name} is {got}, but {dims[name]} in input {owner[name]!r}",
                    where=value.name,
                )
            owner.setdefault(name, value.name)
    return {**graph.dims, **dims}
