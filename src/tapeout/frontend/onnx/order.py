"""The order of nodes: as in the file where that is right, else sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.functions import all_nodes
from tapeout.support.errors import OnnxImportError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    import onnx


def in_order(
    nodes: Sequence[onnx.NodeProto], defined: Container[str], file: str
) -> Sequence[onnx.NodeProto]:
    """Return the nodes such that each comes after those whose results it reads.

    Args:
        nodes: In the order of the file, which the standard demands to be right and some exporters
            do not keep.
        defined: Names that no node makes.
        file: For errors.

    Raises:
        OnnxImportError: Nodes read each other's results in a circle.
    """
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    reads = [_makers(node, maker, defined) for node in nodes]
    if all(j < i for i, js in enumerate(reads) for j in js):
        return nodes
    readers: list[list[int]] = [[] for _ in nodes]
    for i, js in enumerate(reads):
        for j in js:
            readers[j].append(i)
    waiting = [len(js) for js in reads]
    ready = [i for i, n in enumerate(waiting) if n == 0]
    ordered: list[int] = []
    for i in ready:  # grows while it is walked
        ordered.append(i)
        for reader in readers[i]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    if len(ordered) < len(nodes):
        stuck = next(i for i, n in enumerate(waiting) if n)
        name = nodes[stuck].name or nodes[stuck].op_type
        raise OnnxImportError(f"node {name!r} depends on its own result", where=file)
    return [nodes[i] for i in ordered]


def _makers(node: onnx.NodeProto, maker: dict[str, int], defined: Container[str]) -> list[int]:
    """Return the nodes that a node, with the graphs inside it, must come after."""
    names = dict.fromkeys(node.input)
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        inner = list(all_nodes([node]))
        names.update((name, None) for n in inner for name in n.input)
        made_inside = {name for n in inner[1:] for name in n.output}
        names = {n: None for n in names if n not in made_inside}
    return [maker[n] for n in dict.fromkeys(names) if n in maker and n not in defined]
