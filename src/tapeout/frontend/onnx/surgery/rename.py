"""Other names for inputs, outputs, parameters, values and nodes of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.functions import all_nodes
from tapeout.frontend.onnx.surgery.draft import Draft, begin, finish
from tapeout.support.errors import OptionError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

    from tapeout.frontend.onnx.session import Imported
    from tapeout.ir.graph import Graph


def rename(graph: Graph, imported: Imported, names: Mapping[str, str]) -> Graph:
    """Return the model with other names, wherever they stand in the file; all at once, so that two may be swapped.

    Args:
        graph: The model.
        imported: What it was imported from.
        names: Old names to new ones, of inputs, outputs, parameters, values or nodes. A node and a value that share a name are
            renamed together.

    Raises:
        OptionError: An old name is unknown, or a new one is taken.
    """
    draft = begin(graph, imported)
    values = dict.fromkeys(_value_names(draft.proto.graph))
    nodes = dict.fromkeys(n.name for n in all_nodes(draft.proto.graph.node) if n.name)
    _check(draft, names, values, nodes)
    for node in all_nodes(draft.proto.graph.node):
        if node.name in names:
            node.name = names[node.name]
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    for inner in _graphs(draft.proto.graph):
        for part in (inner.input, inner.output, inner.value_info, inner.initializer):
            for declared in part:
                if declared.name in names:
                    declared.name = names[declared.name]
    draft.trainable = {names.get(n, n): t for n, t in draft.trainable.items()}
    draft.names.update(names)
    draft.notes.append(f"renamed {', '.join(f'{old} to {new}' for old, new in names.items())}")
    return finish(draft, graph)


def _check(
    draft: Draft,
    names: Mapping[str, str],
    values: Mapping[str, None],
    nodes: Mapping[str, None],
) -> None:
    for old, new in names.items():
        if old not in values and old not in nodes:
            hint = nearest(old, dict.fromkeys((*values, *nodes)))
            text = f"rename: nothing is called {old!r}"
            raise OptionError(text, where=draft.where, hint=hint)
        if not isinstance(new, str) or not new:
            raise OptionError(f"rename: {old!r} gets the name {new!r}", where=draft.where)
    for known in (values, nodes):
        now = [names.get(n, n) for n in known]
        for new in names.values():
            if now.count(new) > 1:
                text = f"rename: two things would be called {new!r}"
                raise OptionError(text, where=draft.where, hint="choose a name that is not taken")


def _value_names(graph: onnx.GraphProto) -> Iterator[str]:
    for inner in _graphs(graph):
        yield from (v.name for v in (*inner.input, *inner.initializer))
    for node in all_nodes(graph.node):
        yield from (n for n in node.output if n)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those inside of its nodes."""
    yield graph
    for node in all_nodes(graph.node):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs
