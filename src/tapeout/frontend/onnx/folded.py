"""What an exporter's optimiser has taken from a file: it is made for inference, and folds parameters into other tensors.

Exporters leave traces: names that they make up, and notes at the nodes. From them follows what is lost for training.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from tapeout.frontend.onnx.weights import TRAINABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from tapeout.frontend.onnx.session import Session
    from tapeout.ir.op import Array

REMEDY = (
    "export again for training: tapeout.export_torch(module, args, path), or torch.onnx.export(..., dynamo=True, "
    "optimize=False); in the older exporter do_constant_folding=False, training=TrainingMode.TRAINING"
)

_MADE_UP = re.compile(r"val_\d+|onnx::\w+_\d+|.*\.weight_bias")
# Results of PyTorch operations that the newer exporter computed at export.
_RESULTS = re.compile(
    r"(add|cat|clone|div|expand|getitem|index|index_select|linear|mul|neg|permute|pow|reshape|select|slice|squeeze|stack|sub|"
    r"t|to|_to_copy|transpose|unsqueeze|view)(_\d+)?"
)
_RULE = "pkg.onnxscript.rewriter.rule_name"
_PLACE = "namespace"
_RECURRENT = ("GRU", "LSTM", "RNN")
_PRODUCTS = ("Gemm", "MatMul")
_COPY_ELEMENTS = 1 << 24


def losses(session: Session) -> list[str]:
    """Return a line for each thing that a file has lost, nothing for a file that was not optimised."""
    if _held(session):
        return []
    graph = session.file.proto.graph
    made_up = _made_up(session)
    lines = [
        _normalisations(graph.node, made_up),
        _recurrences(graph.node, made_up),
        *_copies(session, made_up),
        _products(graph.node, made_up),
    ]
    told = {name for node in graph.node for name in _explained(node) if name in made_up}
    lines.append(_others([n for n in made_up if n not in told]))
    return [line for line in lines if line]


def still_dropouts(session: Session) -> list[str]:
    """Return the nodes that were dropout, exported in evaluation form: as the identity."""
    if _held(session):
        return []  # of ratio 0
    return [
        n.name or n.output[0]
        for n in session.file.proto.graph.node
        if n.op_type == "Identity"
        and any(p.key == _PLACE and "dropout" in p.value for p in n.metadata_props)
    ]


def softmax_outputs(session: Session) -> list[str]:
    """Return the outputs that are the results of a Softmax; a LogSoftmax is what `losses.nll` wants."""
    graph = session.file.proto.graph
    last = {
        name
        for n in graph.node
        if n.op_type == "Softmax" and n.domain in ("", "ai.onnx")
        for name in n.output
    }
    return [o.name for o in graph.output if o.name in last]


def _held(session: Session) -> bool:
    """Return whether `export_torch` wrote the file, which has held it against the module."""
    return any(entry.key == TRAINABLE for entry in session.file.proto.metadata_props)


def _made_up(session: Session) -> list[str]:
    """Return the parameters whose names an exporter made up."""
    return [
        name
        for name in session.weights.trainable
        if session.weights.stored[name].message.dims
        and not session.weights.stored[name].in_node
        and (_MADE_UP.fullmatch(name) or _RESULTS.fullmatch(name))
    ]


def _normalisations(nodes: Sequence[onnx.NodeProto], made_up: list[str]) -> str:
    found = [n.name or n.output[0] for n in nodes if n.op_type == "Conv" and _swallowed(n, made_up)]
    if not found:
        return ""
    count = "a convolution" if len(found) == 1 else f"{len(found)} convolutions"
    return (
        f"batch normalisation is folded into {count} ({_some(found)}): its scale, shift and statistics are gone, "
        "and the network trains without it"
    )


def _swallowed(node: onnx.NodeProto, made_up: list[str]) -> bool:
    """Return whether a convolution holds a batch normalisation."""
    noted = {p.key: p.value for p in node.metadata_props}
    if "FuseBatchNorm" in noted.get(_RULE, "") or "batchnorm" in noted.get(_PLACE, ""):
        return True
    # The older exporter names both tensors anew; a convolution of its own keeps its names.
    return len(node.input) == 3 and all(name in made_up for name in node.input[1:])


def _recurrences(nodes: Sequence[onnx.NodeProto], made_up: list[str]) -> str:
    found = [
        n.name or n.output[0]
        for n in nodes
        if n.op_type in _RECURRENT and any(name in made_up for name in n.input[1:4])
    ]
    if not found:
        return ""
    return (
        f"the weights of {_some(found)} are packed gate by gate under other names: they train, but not back into the module, "
        "and its two biases have become one"
    )


def _products(nodes: Sequence[onnx.NodeProto], made_up: list[str]) -> str:
    found = [
        name
        for n in nodes
        if n.op_type in _PRODUCTS
        for name in dict.fromkeys(n.input)
        if name in made_up
    ]
    if not found:
        return ""
    count = "a weight" if len(found) == 1 else f"{len(found)} weights"
    return f"{count} of linear layers went in transposed under other names ({_some(found)})"


def _copies(session: Session, made_up: list[str]) -> list[str]:
    """Return a line for each tensor that is a copy of another one: the module had one parameter there."""
    named = [n for n in session.weights.trainable if n not in made_up]
    return [
        f"{name} is a copy of {other}: what was one parameter trains apart"
        for name in made_up
        for other in named
        if _same(session, name, other)
    ]


def _same(session: Session, a: str, b: str) -> bool:
    dims = [list(session.weights.stored[n].message.dims) for n in (a, b)]
    if len(dims[0]) != 2 or sorted(dims[0]) != sorted(dims[1]):
        return False
    x, y = session.tensor(a), session.tensor(b)
    if x.size > _COPY_ELEMENTS or x.dtype != y.dtype:
        return False
    return _equal(x, y) or _equal(x.T, y)


def _equal(x: Array, y: Array) -> bool:
    return x.shape == y.shape and bool(np.array_equal(x[:1], y[:1])) and np.array_equal(x, y)


def _explained(node: onnx.NodeProto) -> Sequence[str]:
    """Return the operands that the lines about kinds of nodes speak of."""
    if node.op_type in (*_RECURRENT, "Conv"):
        return list(node.input[1:4])
    return list(node.input) if node.op_type in _PRODUCTS else []


def _others(names: list[str]) -> str:
    if not names:
        return ""
    count = "a tensor was" if len(names) == 1 else f"{len(names)} tensors were"
    return (
        f"{count} computed from parameters (tables of positions, masks, products of weights) or named anew: {_some(names)}; "
        "what they were made from is gone"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
