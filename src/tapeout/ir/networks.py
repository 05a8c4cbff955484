"""A graph as one of networkx, for whatever its users want to ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph, Value


def to_networkx(graph: Graph) -> Any:  # noqa: ANN401 (the package has no types)
    """Return the graph as a `networkx.MultiDiGraph`; see `Graph.to_networkx`."""
    import networkx

    made = networkx.MultiDiGraph(name=graph.name)
    makers: dict[Value, str] = {}
    for v in graph.inputs:
        makers[v] = f"input:{v.name}"
        made.add_node(makers[v], kind="input", label=v.name)
    for variable in graph.variables:
        makers[variable.value] = f"variable:{variable.name}"
        made.add_node(makers[variable.value], kind="variable", label=variable.name)
    for i, node in enumerate(graph.nodes):
        name = f"op:{i}"
        made.add_node(name, kind="op", label=node.op.name, loc=str(node.loc))
        for position, v in enumerate(node.operands):
            _edge(made, makers, v, name, position)
        makers.update(dict.fromkeys(node.results, name))
    for out, v in graph.outputs:
        made.add_node(f"output:{out}", kind="output", label=out)
        _edge(made, makers, v, f"output:{out}", 0)
    return made


def _edge(made: Any, makers: dict[Value, str], value: Value, to: str, position: int) -> None:  # noqa: ANN401
    made.add_edge(makers[value], to, type=value.type.text, operand=position, result=value.index)
