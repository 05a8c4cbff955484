"""Tensors that a tool merged because their numbers were equal, parted again.

A fresh network is full of equal vectors: scales of one, biases of zero, running statistics of zero and one. Exporters and
optimisers store them once. That is right for inference and wrong for training, where each goes its own way.

- PyTorch's older exporter keeps one of the tensors and gives the others its value: `b2.bias = Identity(b1.bias)`. Such an
  Identity becomes a tensor of its own, so that the model has the parameters again that it had in PyTorch.
- A tensor that BatchNormalization reads as a running statistic, and that is read otherwise as well, becomes a tensor for each
  such node, named after it. A layer that is applied twice, the same four tensors each time, keeps its one pair of statistics.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tapeout.frontend.onnx import tensors
from tapeout.frontend.onnx.functions import all_nodes
from tapeout.frontend.onnx.weights import stored_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

    from tapeout.frontend.onnx.read import ModelFile

_OPERANDS = ("", "scale", "bias", "running_mean", "running_var")
_MERGED = re.compile(r"Identity_\d+")
"""How the exporter calls the nodes that it adds: those of the model have a scope in their name."""

_COMPUTED = re.compile(r"/.*|.*_output_\d+|\d+|onnx::.*")


def untied(file: ModelFile) -> ModelFile:
    """Return the model with merged tensors parted; the same object when there are none.

    Args:
        file: A model that keeps the rules.

    Returns:
        The model that is trained, and that trained tensors are written back into: `data` are its bytes.
    """
    merged = _merged(file.proto)
    tied = _tied(file.proto)
    if not merged and not tied:
        return file
    proto = type(file.proto)()
    proto.CopyFrom(file.proto)
    for node in _merged(proto):  # equal nodes in the copy
        _store(proto, node.input[0], node.output[0])
        proto.graph.node.remove(node)
    # The same nodes as before: parting the first kind makes none of the second.
    for node, positions in _tied(proto):
        for i in positions:
            name = _fresh(proto, f"{node.name or node.output[0]}.{_OPERANDS[i]}")
            _store(proto, node.input[i], name)
            node.input[i] = name
    return replace(file, proto=proto, data=proto.SerializeToString(deterministic=True))


def _merged(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes that stand for a tensor of the model which was equal to another."""
    if proto.producer_name != "pytorch":
        return []
    floats = {t.name for t in proto.graph.initializer if tensors.is_float(t)}
    results = {o.name for o in proto.graph.output}
    return [
        n
        for n in proto.graph.node
        if n.op_type == "Identity"
        and len(n.input) == len(n.output) == 1
        and n.input[0] in floats
        and _MERGED.fullmatch(n.name)
        and not _COMPUTED.fullmatch(n.output[0])
        and n.output[0] not in results
    ]


def _tied(proto: onnx.ModelProto) -> list[tuple[onnx.NodeProto, list[int]]]:
    """Return the nodes of BatchNormalization that share a statistic, and the operands to part."""
    stored = {t.name for t in stored_tensors(proto.graph) if tensors.is_float(t.message)}
    layers = [
        n
        for n in proto.graph.node
        if n.op_type == "BatchNormalization" and n.domain in ("", "ai.onnx") and len(n.input) == 5
    ]
    statistics = {name for n in layers for name in n.input[3:5] if name in stored}
    if not statistics:
        return []
    readers = _readers(proto.graph.node, statistics)
    found = []
    for node in layers:
        mine = tuple(node.input)[1:5]
        shared = [i for i in (3, 4) if set(readers.get(node.input[i], ())) - {(i, mine)}]
        # A scale that is also somebody's variance was merged by its value.
        shared += [i for i in (1, 2) if shared and node.input[i] in statistics]
        if shared:
            found.append((node, sorted(shared)))
    return found


def _readers(
    nodes: Iterable[onnx.NodeProto], names: set[str]
) -> dict[str, list[tuple[int, tuple[str, ...]]]]:
    """Return for each tensor where it is read: the position, and the layer as its four tensors (empty for other nodes)."""
    found: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for node in all_nodes(nodes):
        layer = tuple(node.input)[1:5] if node.op_type == "BatchNormalization" else ()
        for i, name in enumerate(node.input):
            if name in names:
                found.setdefault(name, []).append((i, layer))
    return found


def _store(proto: onnx.ModelProto, source: str, name: str) -> None:
    """Add a tensor equal to a stored one."""
    found = next(t.message for t in stored_tensors(proto.graph) if t.name == source)
    copy = proto.graph.initializer.add()
    copy.CopyFrom(found)
    copy.name = name
    # Up to IR version 3, initializers are repeated among the inputs.
    declared = next((v for v in proto.graph.input if v.name == source), None)
    if declared is not None:
        also = proto.graph.input.add()
        also.CopyFrom(declared)
        also.name = name


def _fresh(proto: onnx.ModelProto, name: str) -> str:
    taken = {v for n in all_nodes(proto.graph.node) for v in (*n.input, *n.output)}
    taken |= {t.name for t in proto.graph.initializer} | {v.name for v in proto.graph.input}
    number, made = 0, name
    while made in taken:
        number += 1
        made = f"{name}_{number}"
    return made
