"""The names in a model: that they are text, and that each stands for one thing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.functions import all_nodes
from tapeout.support.errors import OnnxImportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx

    from tapeout.frontend.onnx.read import ModelFile


def check_names(file: ModelFile) -> None:
    """Check the names of a model.

    Raises:
        OnnxImportError: A name is no text, is missing, or is given twice.
    """
    _check_text(file)
    graph = file.proto.graph
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise OnnxImportError(f"sparse tensor {name!r} is not supported", where=file.name)
    initializers = [t.name for t in graph.initializer]
    inputs = [v.name for v in graph.input]
    _check_unique(initializers, "initializers", file.name)
    _check_unique(inputs, "inputs", file.name)
    _check_unique([v.name for v in graph.output], "outputs", file.name)
    made = [name for node in graph.node for name in node.output if name]
    _check_unique(made, "results of nodes", file.name)
    parameters = set(initializers)
    given = parameters.union(inputs)
    for name in made:
        if name in given:
            kind = "a parameter" if name in parameters else "an input"
            text = f"{name!r} is the name of {kind} and of a node's result"
            raise OnnxImportError(text, where=file.name, hint="rename one of them")


def _check_unique(names: list[str], what: str, file: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise OnnxImportError(f"two {what} are called {twice[0]!r}", where=file)
    if "" in names:
        raise OnnxImportError(f"one of the {what} has no name", where=file)


def _check_text(file: ModelFile) -> None:
    """Protobuf does not check that strings are UTF-8; those that are not come as bytes."""
    proto = file.proto
    for text in (*_model_strings(proto), *_strings(proto.graph.node)):
        if not isinstance(text, str):
            raise OnnxImportError(f"the name {text!r} is not UTF-8 text", where=file.name)
    for function in proto.functions:
        words = (function.name, function.domain, function.overload, *function.input)
        named = (*words, *function.output, *(o.domain for o in function.opset_import))
        for text in (*named, *_strings(function.node)):
            if not isinstance(text, str):
                raise OnnxImportError(f"the name {text!r} is not UTF-8 text", where=file.name)


def _model_strings(proto: onnx.ModelProto) -> Iterator[str]:
    graph = proto.graph
    yield from (graph.name, proto.producer_name, proto.producer_version)
    yield from (o.domain for o in proto.opset_import)
    yield from (t.name for t in graph.initializer)
    yield from (
        text for t in graph.initializer for e in t.external_data for text in (e.key, e.value)
    )
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (d.dim_param for d in value.type.tensor_type.shape.dim)


def _strings(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    for node in all_nodes(nodes):
        yield from (node.name, node.op_type, node.domain, node.overload)
        yield from node.input
        yield from node.output
        for attribute in node.attribute:
            yield attribute.name
            yield attribute.ref_attr_name
            for graph in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
                yield from (t.name for t in graph.initializer)
                yield from (v.name for v in graph.output)
