"""A new last layer, where the old one stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.init import fan_in_uniform, generator
from tapeout.frontend.onnx import tensors
from tapeout.frontend.onnx.session import node_name
from tapeout.frontend.onnx.surgery.draft import Draft, begin, fill, finish
from tapeout.frontend.onnx.surgery.find import Head, Slot, find_head
from tapeout.support.errors import OptionError, TapeoutError

if TYPE_CHECKING:
    import onnx

    from tapeout.frontend.onnx.session import Imported
    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array

LIMIT_CLASSES = 1 << 24
"""The most results of a layer."""


def replace_head(
    graph: Graph,
    imported: Imported,
    classes: int,
    *,
    output: str | None = None,
    at: str | None = None,
    seed: int = 0,
) -> Graph:
    """Return the model with another number of classes, weight and bias of its last layer drawn as PyTorch's Linear draws them.

    Names, nodes, metadata and everything else of the file stay. What the layer's tensors were called, the new ones are
    called; where something else reads an old one too, that one stays and the new one gets a name of its own.

    Args:
        graph: The model.
        imported: What it was imported from.
        classes: How many results the layer gets.
        output: The output whose layer it is, where there are several.
        at: The layer's node, where it is not found by itself.
        seed: Seed of the weights.

    Raises:
        OptionError: No layer is recognised, or what stands behind it needs the old number of classes.
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or not 0 < classes < LIMIT_CLASSES:
        raise OptionError(f"replace_head: classes is {classes!r}, a number from 1 on is expected")
    draft = begin(graph, imported)
    head = find_head(draft, output, at)
    made = [_renewed(draft, head.weight, head, classes, seed)]
    if head.bias is not None:
        made.append(_renewed(draft, head.bias, head, classes, seed))
    for node in head.reshapes:
        _resize(draft, node, head.classes, classes)
    draft.changed += _changed(head)
    draft.notes.append(_told(head, classes, made))
    try:
        return finish(draft, graph)
    except TapeoutError as e:
        text = (
            f"replace_head: what stands behind {node_name(head.node)!r} does not take {classes} "
            f"classes for {head.classes}: {e.message}"
        )
        hint = "cut the model in front of it with truncate"
        raise OptionError(text, where=e.where or draft.where, hint=hint) from e


def _renewed(draft: Draft, slot: Slot, head: Head, classes: int, seed: int) -> str:
    """Put a new tensor in place of a layer's, and return its name."""
    old = slot.stored
    dtype = tensors.element_type(old.message.data_type, draft.where)
    shape = [int(n) for n in old.message.dims]
    shape[slot.axis] = classes
    name = old.name if _is_alone(draft, slot) else draft.fresh(f"{old.name}_head")
    array = fan_in_uniform(head.fan_in)(tuple(shape), dtype, generator(seed, name))
    draft.trainable[name] = True
    if name == old.name:
        fill(old.message, array)
        draft.retype(name, array.shape)
        return name
    draft.add(name, _as_read(array, slot, draft))
    slot.reader.input[slot.position] = name
    return name


def _is_alone(draft: Draft, slot: Slot) -> bool:
    """Return whether nothing but the layer reads its tensor."""
    names = [slot.stored.name, *(node.output[0] for node in slot.between)]
    return all(draft.readers(name) == 1 for name in names)


def _as_read(array: Array, slot: Slot, draft: Draft) -> Array:
    """Return what the reader gets of a tensor, after the nodes between."""
    for node in slot.between:
        if node.op_type == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            array = np.ascontiguousarray(array.transpose(perm))
        elif node.op_type != "Identity":
            text = f"replace_head: {slot.stored.name!r} is read elsewhere too, and by way of {node_name(node)!r}"
            raise OptionError(text, where=draft.where, hint="cut the model with truncate")
    return array


def _resize(draft: Draft, node: onnx.NodeProto, old: int, new: int) -> None:
    """Where a node states the old number of classes as a size, state the new one."""
    found = _stated(draft, node, old) if old != new else None
    if found is None:
        return
    owner, position, target = found
    target[np.flatnonzero(target == old)[-1]] = new
    known = draft.stored()[owner.input[position]]
    if draft.readers(known.name) == 1:
        fill(known.message, target)
        return
    name = draft.fresh(f"{known.name}_head")
    draft.add(name, target)
    owner.input[position] = name


def _stated(
    draft: Draft, node: onnx.NodeProto, size: int
) -> tuple[onnx.NodeProto, int, Array] | None:
    """Return which operand of which node holds a size in the shape that a node is given, and the operand's content."""
    stored, maker = draft.stored(), draft.makers().get(node.input[1])
    places = [(node, 1)]
    if maker is not None and maker.op_type == "Concat" and draft.readers(node.input[1]) == 1:
        places = [(maker, i) for i in reversed(range(len(maker.input)))]
    for owner, position in places:
        known = stored.get(owner.input[position])
        if known is not None and (content := draft.array(known)).ndim == 1 and size in content:
            return owner, position, content.copy()
    return None


def _changed(head: Head) -> list[str]:
    """Return the values that have another shape now."""
    slots = [slot for slot in (head.weight, head.bias) if slot is not None]
    nodes = [node for slot in slots for node in (*slot.between, slot.reader)]
    return [out for node in (*nodes, *head.tail) for out in node.output]


def _told(head: Head, classes: int, made: list[str]) -> str:
    behind = ", ".join(node_name(node) for node in head.tail)
    return (
        f"new head {node_name(head.node)} ({head.node.op_type}): {classes} classes for {head.classes}, "
        f"{' and '.join(made)} drawn anew" + (f"; behind it as before: {behind}" if behind else "")
    )
