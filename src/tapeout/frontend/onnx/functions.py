"""The model's own functions: how large they are when written out, found before any of it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.read import LIMIT_NODES
from tapeout.support.errors import OnnxImportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx

    from tapeout.frontend.onnx.read import ModelFile

Key = tuple[str, str, str]
LIMIT_DEPTH = 64
"""How deep functions and branches may call each other."""


def key(domain: str, name: str, overload: str = "") -> Key:
    """Return what a function is found by."""
    return ("" if domain == "ai.onnx" else domain, name, overload)


def node_key(node: onnx.NodeProto) -> Key:
    """Return the key of the function that a node may call."""
    return key(node.domain, node.op_type, node.overload)


def local_functions(file: ModelFile) -> dict[Key, onnx.FunctionProto]:
    """Return the functions of a model that its graph calls.

    Raises:
        OnnxImportError: Two have one name, one calls itself, or they grow beyond the limits of depth
            and number of nodes when written out.
    """
    functions: dict[Key, onnx.FunctionProto] = {}
    for function in file.proto.functions:
        k = key(function.domain, function.name, function.overload)
        if k in functions:
            text = f"two functions are called {function.domain}.{function.name}"
            raise OnnxImportError(text, where=file.name)
        functions[k] = function
    _check_size(file, functions)
    return functions


def _check_size(file: ModelFile, functions: Mapping[Key, onnx.FunctionProto]) -> None:
    sizes: dict[Key, tuple[int, int]] = {}
    for root in functions:
        _measure(root, functions, sizes, file.name)
    total = 0
    for node in all_nodes(file.proto.graph.node):
        total += sizes.get(node_key(node), (1, 0))[0]
        if total > LIMIT_NODES:
            text = f"its functions written out have more than {LIMIT_NODES} nodes"
            raise OnnxImportError(text, where=file.name)


def _measure(
    root: Key,
    functions: Mapping[Key, onnx.FunctionProto],
    sizes: dict[Key, tuple[int, int]],
    file: str,
) -> None:
    """Enter (nodes, depth) of a function and all that it calls."""
    open_: dict[Key, None] = {}
    todo = [root]
    while todo:
        top = todo[-1]
        if top in sizes:
            todo.pop()
            continue
        called = [node_key(n) for n in all_nodes(functions[top].node)]
        missing = [k for k in dict.fromkeys(called) if k in functions and k not in sizes]
        if not missing:
            inner = [sizes.get(k, (1, 0)) for k in called]
            depth = 1 + max((d for _, d in inner), default=0)
            sizes[top] = (1 + sum(n for n, _ in inner), depth)
            if depth > LIMIT_DEPTH:
                raise OnnxImportError(f"functions call each other {depth} deep", where=file)
            continue
        open_[top] = None
        for k in missing:
            if k in open_:
                raise OnnxImportError(f"function {k[0]}.{k[1]} calls itself", where=file)
        todo += missing


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    """Yield nodes and those of their inner graphs (branches, loop bodies)."""
    todo = [nodes]
    while todo:
        for node in todo.pop():
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    todo.append(attribute.g.node)
                todo += [g.node for g in attribute.graphs]
