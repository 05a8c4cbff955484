"""Cutting a model at one of its values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.functions import all_nodes
from tapeout.frontend.onnx.session import node_name
from tapeout.frontend.onnx.surgery.draft import Draft, begin, finish, keep
from tapeout.support.errors import OptionError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from tapeout.frontend.onnx.session import Imported
    from tapeout.ir.graph import Graph


def truncate(graph: Graph, imported: Imported, at: Sequence[str]) -> Graph:
    """Return the model that ends in the values named, with whatever only its old outputs needed left out.

    Args:
        graph: The model.
        imported: What it was imported from.
        at: Names of values, of outputs, or of nodes (their first results).

    Raises:
        OptionError: A name is unknown, or names no result of a node.
    """
    import onnx

    draft = begin(graph, imported)
    proto = draft.proto.graph
    names = dict.fromkeys(_value(draft, name) for name in at)
    known = {o.name: o for o in imported.file.proto.graph.output}
    before = len(proto.node)
    del proto.output[:]
    proto.output.extend(known.get(n) or onnx.ValueInfoProto(name=n) for n in names)
    _prune(draft)
    ends = ", ".join(names)
    draft.notes.append(f"cut at {ends}: {len(proto.node)} of {before} nodes are left")
    return finish(draft, graph)


def _value(draft: Draft, name: str) -> str:
    makers = draft.makers()
    if name in makers:
        return name
    nodes = {node_name(node): node for node in draft.proto.graph.node}
    results = [str(out) for out in nodes[name].output if out] if name in nodes else []
    if results:
        return results[0]
    given = {v.name for v in draft.proto.graph.input} | set(draft.stored())
    if name in given:
        text = f"truncate: {name!r} is an input or a stored tensor; nothing computes it"
        raise OptionError(text, where=draft.where, hint="name the result of a node")
    hint = nearest(name, dict.fromkeys((*makers, *nodes)))
    raise OptionError(
        f"truncate: no value and no node is called {name!r}", where=draft.where, hint=hint
    )


def _prune(draft: Draft) -> None:
    """Drop the nodes, tensors, inputs and types that no output depends on."""
    proto, makers = draft.proto.graph, draft.makers()
    needed: dict[str, None] = {}
    todo = [o.name for o in proto.output]
    while todo:
        name = todo.pop()
        if name in needed:
            continue
        needed[name] = None
        if name in makers:
            # What inner graphs read counts too; names of their own that get in here name nothing outside.
            todo += [n for node in all_nodes([makers[name]]) for n in node.input]
            todo += [o.name for g in _inner(makers[name]) for o in g.output]
    keep(proto.node, lambda node: any(out in needed for out in node.output))
    left = {name for node in all_nodes(proto.node) for name in (*node.input, *node.output)}
    left.update(needed)
    keep(proto.initializer, lambda tensor: tensor.name in left)
    keep(proto.input, lambda value: value.name in left)
    keep(proto.value_info, lambda value: value.name in left)


def _inner(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs inside of a node, at any depth."""
    return [g for n in all_nodes([node]) for a in n.attribute for g in (a.g, *a.graphs)]
