"""Which tensors of a file are parameters, and which of those training may change.

The rule, in order:

1. Only float tensors are parameters. A tensor that holds an infinity or a number as large as 1e30 is a mask, no weight.
2. A tensor that decides a shape or a setting (bounds of Clip, ratio of Dropout, values of OneHot, ...) is a constant. What
   decides a shape by way of arithmetic is found while importing.
3. An initializer of rank 1 or more is a parameter. A one-element tensor that an exporter named itself (`val_3`,
   `onnx::Mul_17`, `/Constant_output_0`) and that only arithmetic reads is a constant.
4. An initializer of rank 0 is a parameter only when `trainable` names it by more than `*`.
5. What BatchNormalization reads as running mean and variance is state: no parameter, whatever else reads it. So is what a
   file that tapeout wrote calls one.
6. The result of a Constant node is a parameter when it has two or more elements and a node reads it as a weight: Conv,
   Gemm, MatMul, normalisations, recurrences, PRelu, the table of a Gather, or arithmetic.
7. What the file's metadata say (those of `export_torch`) holds against the rules above for what `trainable` does not name by
   more than `*`: a scalar may be a parameter, and a parameter, such as a buffer of the module, may not train.

Identity, Cast, Transpose, Reshape, Flatten, Squeeze, Unsqueeze and Expand are looked through to find the readers.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.frontend.onnx import tensors
from tapeout.frontend.onnx.functions import all_nodes, key, node_key
from tapeout.support.patterns import Pattern, check_matched, globs_of, matcher

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

    from tapeout.frontend.onnx.read import ModelFile
    from tapeout.ir.op import Array

Trainable = Pattern | Mapping[str, bool]

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where", "Sqrt")
_SETTINGS: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2), "Dropout": (1, 2), "Expand": (1,), "OneHot": (1, 2), "Pad": (1, 2, 3), "Range": (0, 1, 2),
    "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Tile": (1,), "Upsample": (1,),
}  # fmt: skip
_WEIGHTS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2), "Conv": (1, 2), "ConvTranspose": (1, 2), "Gather": (0,), "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2), "GRU": (1, 2, 3), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7), "MatMul": (0, 1), "PRelu": (1,), "RMSNormalization": (1,), "RNN": (1, 2, 3),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), (0, 1)),
}  # fmt: skip
_STATISTICS = {"BatchNormalization": (3, 4)}
_TRANSPARENT = (
    "Identity",
    "Cast",
    "CastLike",
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Expand",
)
_GENERATED = re.compile(
    r"val_\d+|onnx::\w+|\d+|.*(^|/)Constant(_\d+)?(_output_\d+)?|scalar_tensor\w*|const\w*_\d+"
)
_HUGE = 1e30

TRAINABLE = "tapeout.trainable"
"""Key of a file's metadata: initializers by name, true or false: what trains unless `trainable` says otherwise, as JSON."""
VARIABLES = "tapeout.variables"
"""Key of the metadata of files that tapeout wrote: variables by name, their kinds among what is said of them, as JSON."""


@dataclass(frozen=True)
class Stored:
    """A tensor that is stored in the main graph: an initializer, or the value of a Constant node."""

    name: str
    message: onnx.TensorProto
    in_node: bool


@dataclass(frozen=True)
class Weights:
    """The stored tensors of a model.

    Attributes:
        stored: All of them by name, in the file's order.
        trainable: The parameters: whether training may change them.
        states: The running statistics.
    """

    stored: Mapping[str, Stored]
    trainable: Mapping[str, bool]
    states: Sequence[str] = ()


def find_weights(file: ModelFile, trainable: Trainable, read: Callable[[str], Array]) -> Weights:
    """Decide what is a parameter.

    Args:
        file: The model.
        trainable: Which parameters training may change: a glob, a list of globs of which the last
            that matches decides (`!` negates), a function of the name, or the answer by name: what
            is named is a parameter.
        read: Gives the content of a stored tensor.

    Raises:
        OptionError: A glob of `trainable` matches no parameter.
    """
    stored = {s.name: s for s in stored_tensors(file.proto.graph)}
    uses = _uses(file.proto, stored)
    patterns = globs_of(trainable, "trainable") if not isinstance(trainable, Mapping) else []
    own = _own_states(file)
    states = [s.name for s in stored.values() if _is_statistic(s, uses[s.name]) or s.name in own]
    noted = _noted(file)
    found = [
        s.name
        for s in stored.values()
        if s.name not in states
        and _is_parameter(s, uses[s.name], patterns, trainable, read, noted.get(s.name, False))
    ]
    check_matched(patterns, found, "trainable", "parameter", file.name)
    if isinstance(trainable, Mapping):
        return Weights(stored, {name: trainable.get(name, True) for name in found}, states)
    decide = matcher(trainable, "trainable")
    still = {n for n, t in noted.items() if not t and not _named(n, patterns, trainable)}
    return Weights(stored, {n: n not in still and bool(decide(n)) for n in found}, states)


def _noted(file: ModelFile) -> dict[str, bool]:
    """Return what the file itself says of what trains."""
    return {n: t is True for n, t in _metadata(file, TRAINABLE).items()}


def _own_states(file: ModelFile) -> set[str]:
    """Return what the file itself says is state: one that tapeout wrote holds batch normalisation spelled out."""
    floats = {s.name for s in stored_tensors(file.proto.graph) if tensors.is_float(s.message)}
    kinds = _metadata(file, VARIABLES).items()
    return {n for n, v in kinds if isinstance(v, dict) and v.get("kind") == "state"} & floats


def _metadata(file: ModelFile, key: str) -> dict[str, Any]:
    """Return an entry of the file's metadata; empty where there is none, or none that can be read."""
    for entry in file.proto.metadata_props:
        if entry.key == key:
            try:
                made = json.loads(entry.value)
            except (ValueError, RecursionError):
                return {}
            return made if isinstance(made, dict) else {}
    return {}


def stored_tensors(graph: onnx.GraphProto) -> Iterable[Stored]:
    """Yield the initializers, then the values of Constant nodes."""
    for tensor in graph.initializer:
        yield Stored(tensor.name, tensor, in_node=False)
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield Stored(node.output[0], attribute.t, in_node=True)


def _uses(proto: onnx.ModelProto, stored: Mapping[str, Stored]) -> dict[str, list[tuple[str, int]]]:
    """Return for each stored tensor the operators that read it, and as which operand; those inside of functions too."""
    uses: dict[str, list[tuple[str, int]]] = {name: [] for name in stored}
    functions = {key(f.domain, f.name, f.overload): f for f in proto.functions}
    todo = [(proto.graph.node, {name: name for name in stored})]
    while todo:
        nodes, alias = todo.pop()
        for node in all_nodes(nodes):
            function = functions.get(node_key(node))
            inner: dict[str, str] = {}
            for position, name in enumerate(node.input):
                source = alias.get(name)
                if source is None:
                    continue
                if node.op_type in _TRANSPARENT and position == 0 and node.output:
                    alias[node.output[0]] = source
                uses[source].append((node.op_type, position))
                if function is not None and position < len(function.input):
                    inner[function.input[position]] = source
            if function is not None and inner:
                todo.append((function.node, inner))
    return uses


def _is_statistic(s: Stored, uses: list[tuple[str, int]]) -> bool:
    read = any(position in _STATISTICS.get(op, ()) for op, position in uses)
    return read and tensors.is_float(s.message)


def _is_parameter(
    s: Stored,
    uses: list[tuple[str, int]],
    patterns: list[str],
    trainable: Trainable,
    read: Callable[[str], Array],
    scalar: bool,
) -> bool:
    if not tensors.is_float(s.message) or not uses:
        return False
    if any(position in _SETTINGS.get(op, ()) for op, position in uses):
        return False
    size = math.prod(max(n, 0) for n in s.message.dims)
    if isinstance(trainable, Mapping) and s.name in trainable:
        wanted = True  # it was one before
    elif s.in_node:
        wanted = (
            size > 1
            and len(s.message.dims) > 0
            and any(p in _WEIGHTS.get(op, ()) for op, p in uses)
        )
    elif not s.message.dims:
        wanted = scalar or _named(s.name, patterns, trainable)
    else:
        anonymous = size == 1 and _GENERATED.fullmatch(s.name) is not None
        wanted = not (anonymous and all(op in (*_ARITHMETIC, *_TRANSPARENT) for op, _ in uses))
    return wanted and not _is_mask(read(s.name))


def _is_mask(array: Array) -> bool:
    if not array.size:
        return True
    largest = 65504.0 if array.dtype == np.float16 else _HUGE
    with np.errstate(invalid="ignore"):
        return float(array.max()) >= largest or float(array.min()) <= -largest


def _named(name: str, patterns: list[str], trainable: Trainable) -> bool:
    if isinstance(trainable, Mapping):
        return False
    if callable(trainable):
        return bool(trainable(name))
    return any(
        p != "*" and not p.startswith("!") and fnmatch.fnmatchcase(name, p) for p in patterns
    )
