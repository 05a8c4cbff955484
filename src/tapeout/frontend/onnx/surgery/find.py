"""Finding the last layer of a model: the matrix product or 1x1 convolution whose results are the scores of the classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from tapeout.frontend.onnx.functions import all_nodes
from tapeout.frontend.onnx.session import node_name
from tapeout.support.errors import OptionError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from tapeout.frontend.onnx.surgery.draft import Draft
    from tapeout.frontend.onnx.weights import Stored

LAYERS = ("Gemm", "MatMul", "Conv")
TAIL = (
    "Softmax", "LogSoftmax", "Sigmoid", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout",
    "Relu", "GlobalAveragePool", "GlobalMaxPool", "AveragePool", "ReduceMean",
)  # fmt: skip
"""What may stand between the last layer and the output: nothing of it has weights, or asks how many classes there are."""

_BEFORE_WEIGHT = ("Identity", "Cast", "Transpose")
_BEFORE_BIAS = ("Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Expand")


@dataclass(frozen=True)
class Slot:
    """A stored tensor that a layer reads.

    Attributes:
        reader: The node that reads it, or what was made of it.
        position: As which operand.
        stored: The tensor.
        axis: Its axis of classes.
        between: The nodes between tensor and reader, the tensor's own first.
    """

    reader: onnx.NodeProto
    position: int
    stored: Stored
    axis: int
    between: tuple[onnx.NodeProto, ...]


@dataclass(frozen=True)
class Head:
    """A last layer.

    Attributes:
        node: The product or convolution.
        weight: Its weight.
        bias: Its bias: an operand of its own, or of the Add behind it.
        classes: How many results it has.
        fan_in: How many products are summed up to one result.
        tail: The nodes behind it that come before anything with weights, up to the output.
    """

    node: onnx.NodeProto
    weight: Slot
    bias: Slot | None
    classes: int
    fan_in: int
    tail: tuple[onnx.NodeProto, ...]

    @property
    def reshapes(self) -> list[onnx.NodeProto]:
        """The nodes that may state the number of classes as a size."""
        before = self.bias.between if self.bias else ()
        shaped = ("Reshape", "Expand")
        return [n for n in (*before, *self.tail) if n.op_type in shaped and len(n.input) > 1]


def find_head(draft: Draft, output: str | None, at: str | None) -> Head:
    """Return the last layer on the way to an output.

    Args:
        draft: The model.
        output: The output; None for the only one.
        at: The layer's node, by name; None to walk back from the output.

    Raises:
        OptionError: None is recognised; says what stands in the way.
    """
    if at is not None:
        return _named(draft, at)
    return _walked(draft, _output(draft, output))


def _output(draft: Draft, output: str | None) -> str:
    names: list[str] = [o.name for o in draft.proto.graph.output]
    if output is None and len(names) == 1:
        return names[0]
    if output is not None and output in names:
        return output
    if output is None:
        text = f"replace_head: the model has {len(names)} outputs: {', '.join(names)}"
        raise OptionError(text, where=draft.where, hint="say which: output=")
    text = f"replace_head: no output is called {output!r}"
    raise OptionError(text, where=draft.where, hint=nearest(output, names))


def _named(draft: Draft, at: str) -> Head:
    nodes = {node_name(n): n for n in draft.proto.graph.node}
    layers = [name for name, n in nodes.items() if n.op_type in LAYERS]
    if at not in nodes:
        text = f"replace_head: no node is called {at!r}"
        raise OptionError(text, where=draft.where, hint=nearest(at, layers))
    if nodes[at].op_type not in LAYERS:
        text = f"replace_head: {at!r} is a {nodes[at].op_type}, {' or '.join(LAYERS)} is expected"
        raise OptionError(text, where=draft.where, hint=nearest(at, layers))
    head = _recognised(draft, nodes[at])
    if head is None:
        text = f"replace_head: the weight of {at!r} is no stored matrix"
        raise OptionError(text, where=draft.where, hint=nearest(at, layers))
    return head


def _walked(draft: Draft, output: str) -> Head:
    makers, stored = draft.makers(), draft.stored()
    name, seen = output, [output]
    while True:
        node = makers.get(name)
        if node is None:
            _fail(draft, seen, f"{name!r}, which no node makes")
        if node.op_type in LAYERS:
            head = _recognised(draft, node)
            if head is not None and _is_classifier(head):
                return head
            _fail(draft, seen, f"{node_name(node)!r}, whose weight is no stored matrix")
        if node.op_type == "Add":
            name = _summed(node, makers, stored)
        elif node.op_type in TAIL:
            name = node.input[0]
        else:
            name = ""
        if not name:
            _fail(draft, seen, f"{node_name(node)!r} ({node.op_type})")
        seen.append(node_name(node))


def _is_classifier(head: Head) -> bool:
    """Return whether a layer found on the way is one of scores: a convolution must be 1x1."""
    return head.node.op_type != "Conv" or all(n == 1 for n in head.weight.stored.message.dims[2:])


def _summed(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], stored: Mapping[str, Stored]
) -> str:
    """Return the operand of an Add beside which a stored tensor stands; empty when there is none."""
    for this, other in ((0, 1), (1, 0)):
        if _behind(node.input[other], makers, stored, _BEFORE_BIAS) is not None:
            return str(node.input[this])
    return ""


def _fail(draft: Draft, seen: Sequence[str], met: str) -> NoReturn:
    way = f"looked back from {' through '.join(repr(s) for s in seen)} and met {met}"
    stored, makers = draft.stored(), draft.makers()
    layers = [
        node_name(n)
        for n in draft.proto.graph.node
        if n.op_type in LAYERS and _behind(n.input[1], makers, stored, _BEFORE_WEIGHT)
    ]
    last = ", ".join(repr(n) for n in layers[-4:])
    hint = f"name the layer with at= (the last are {last}), or cut the model there with truncate"
    text = f"replace_head: no last layer is recognised: {way}"
    raise OptionError(
        text, where=draft.where, hint=hint if layers else "it has no layer with weights"
    )


def _recognised(draft: Draft, node: onnx.NodeProto) -> Head | None:
    """Return a node as a last layer, with its weight, its bias and what stands behind; None if its weight is not stored."""
    makers, stored = draft.makers(), draft.stored()
    found = _behind(node.input[1], makers, stored, _BEFORE_WEIGHT)
    if found is None:
        return None
    source, between = found
    axis = _axis_of_classes(node, between)
    dims = list(source.message.dims)
    spatial = node.op_type == "Conv"
    if len(dims) != 2 and not (spatial and len(dims) > 2 and _integer(node, "group", 1) == 1):
        return None
    classes = dims[axis]
    readers = _readers(draft)
    bias, end = _bias(node, classes, readers, makers, stored)
    return Head(
        node,
        Slot(node, 1, source, axis, between),
        bias,
        classes,
        math.prod(dims) // max(classes, 1),
        _tail(end, readers),
    )


def _axis_of_classes(node: onnx.NodeProto, between: Sequence[onnx.NodeProto]) -> int:
    """Return which axis of the stored weight counts the classes."""
    if node.op_type == "Conv":
        axis, rank = 0, 0
    else:
        axis, rank = 0 if _integer(node, "transB", 0) else 1, 2
    for step in reversed(between):
        if step.op_type == "Transpose":
            perm = next((list(a.ints) for a in step.attribute if a.name == "perm"), [])
            axis = perm[axis] if perm else rank - 1 - axis
    return axis


def _bias(
    node: onnx.NodeProto,
    classes: int,
    readers: Mapping[str, list[onnx.NodeProto]],
    makers: Mapping[str, onnx.NodeProto],
    stored: Mapping[str, Stored],
) -> tuple[Slot | None, onnx.NodeProto]:
    """Return the bias, and the node that the layer ends with."""
    if len(node.input) > 2 and node.input[2]:
        return _bias_slot(node, 2, classes, makers, stored), node
    behind = readers.get(node.output[0], [])
    if len(behind) != 1 or behind[0].op_type != "Add":
        return None, node
    add = behind[0]
    other = 1 if add.input[0] == node.output[0] else 0
    slot = _bias_slot(add, other, classes, makers, stored)
    return (None, node) if slot is None else (slot, add)


def _bias_slot(
    reader: onnx.NodeProto,
    position: int,
    classes: int,
    makers: Mapping[str, onnx.NodeProto],
    stored: Mapping[str, Stored],
) -> Slot | None:
    found = _behind(reader.input[position], makers, stored, _BEFORE_BIAS)
    if found is None or math.prod(found[0].message.dims) != classes:
        return None
    dims = list(found[0].message.dims)
    if classes not in dims:
        return None
    return Slot(reader, position, found[0], dims.index(classes), found[1])


def _behind(
    name: str,
    makers: Mapping[str, onnx.NodeProto],
    stored: Mapping[str, Stored],
    through: Sequence[str],
) -> tuple[Stored, tuple[onnx.NodeProto, ...]] | None:
    """Return the stored tensor that a value is made of, and the nodes between."""
    between: list[onnx.NodeProto] = []
    while name not in stored:
        node = makers.get(name)
        if node is None or node.op_type not in through:
            return None
        between.append(node)
        name = node.input[0]
    return stored[name], tuple(reversed(between))


def _readers(draft: Draft) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in all_nodes(draft.proto.graph.node):
        for name in dict.fromkeys(node.input):
            found.setdefault(name, []).append(node)
    return found


def _tail(
    end: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]]
) -> tuple[onnx.NodeProto, ...]:
    found: list[onnx.NodeProto] = []
    while True:
        behind = readers.get(end.output[0], [])
        if len(behind) != 1 or behind[0].op_type not in TAIL:
            return tuple(found)
        end = behind[0]
        found.append(end)


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
