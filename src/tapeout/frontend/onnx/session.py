"""A model with the user's options: all that does not depend on the numbers of a binding."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from tapeout.frontend.onnx import tensors
from tapeout.frontend.onnx.bodies import has_body
from tapeout.frontend.onnx.dims import Input, bind_inputs, bound_value
from tapeout.frontend.onnx.functions import Key, all_nodes, local_functions, node_key
from tapeout.frontend.onnx.names import check_names
from tapeout.frontend.onnx.read import LIMIT_BYTES
from tapeout.frontend.onnx.registry import find
from tapeout.frontend.onnx.untie import untied
from tapeout.frontend.onnx.weights import (
    Stored,
    Trainable,
    Weights,
    find_weights,
    stored_tensors,
)
from tapeout.ir.dtype import from_numpy
from tapeout.ir.graph import Variable
from tapeout.ir.modes import Mode, Modes
from tapeout.ir.type import TensorType
from tapeout.support.errors import OnnxImportError, OptionError, UnsupportedOperator, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx
    from numpy.typing import ArrayLike

    from tapeout.frontend.onnx.read import ModelFile
    from tapeout.ir.graph import Kind
    from tapeout.ir.op import Array

# What the importer does itself, without an entry in the table.
BUILT_IN = ("Constant", "If", "Loop", "Scan", "SequenceMap")

_WITH_MODES = ("Dropout", "BatchNormalization")


@dataclass(frozen=True)
class Options:
    """What the user asked for; see `load`."""

    dims: Mapping[str, int]
    shapes: Mapping[str, Sequence[int | None]]
    values: Mapping[str, ArrayLike]
    trainable: Trainable
    mode: Mode | Modes


@dataclass(frozen=True)
class Imported:
    """What a graph was read from, and how: enough to read it again, or to edit the file and read that.

    Attributes:
        file: The model.
        options: As for `load`; `dims` holds what was bound later as well.
    """

    file: ModelFile
    options: Options


class Session:
    """A model that has been read and checked, ready to be imported for any binding.

    Attributes:
        file: The model.
        inputs: What it must be fed, with the sizes that the user bound.
        values: Inputs that the user bound to constants.
        functions: The model's own functions.
        weights: Its stored tensors, and which are parameters.
    """

    def __init__(self, file: ModelFile, options: Options) -> None:
        """Check the model against the rules and the options against the model."""
        self.file, self.options = file, options
        mode = options.mode
        self.modes = mode if isinstance(mode, Modes) else Modes().over(mode, file.name)
        self._with_modes: dict[str, None] = {}
        check_names(file)
        file = self.file = untied(file)
        self.functions = local_functions(file)
        self._arrays: dict[str, Array] = {}
        self._variables: dict[str, Variable] = {}
        self.weights = Weights(_all_stored(file), {})
        self.weights = find_weights(file, options.trainable, self.tensor)
        self.inputs, self.values = self._bind(options)

    def _bind(self, options: Options) -> tuple[list[Input], dict[str, Array]]:
        graph = self.file.proto.graph
        # Up to IR version 3, initializers are repeated among the inputs.
        fed = [v for v in graph.input if v.name not in self.weights.stored]
        inputs = bind_inputs(fed, options.shapes, options.dims, self.file.name)
        by_name = {i.name: i for i in inputs}
        for name in options.values:
            if name not in by_name:
                text, hint = f"values: no input {name!r}", nearest(name, by_name)
                raise OptionError(text, where=self.file.name, hint=hint)
        values = {n: bound_value(v, by_name[n], self.file.name) for n, v in options.values.items()}
        return [i for i in inputs if i.name not in values], values

    @cached_property
    def origin(self) -> bytes | None:
        """The file's bytes with external data put inside; None where they would not fit into one."""
        if not any(
            s.message.data_location == tensors.EXTERNAL for s in self.weights.stored.values()
        ):
            return self.file.data
        return embedded(self)

    def tensor(self, name: str) -> Array:
        """Return the content of a stored tensor."""
        if name not in self._arrays:
            where = f"{self.file.name}: tensor {name!r}"
            message = self.weights.stored[name].message
            self._arrays[name] = tensors.decode(message, where, self.file.folder)
        return self._arrays[name]

    def is_variable(self, name: str) -> bool:
        """Return whether a stored tensor is a parameter or a state, and no constant."""
        return name in self.weights.trainable or name in self.weights.states

    def variable(self, name: str) -> Variable:
        """Return the variable of a parameter or a state: the same one for every binding."""
        if name not in self._variables:
            array = self.tensor(name)
            made = TensorType(from_numpy(array.dtype), array.shape)
            kind: Kind = "state" if name in self.weights.states else "parameter"
            trainable = self.weights.trainable.get(name, False)
            self._variables[name] = Variable(name, made, kind, trainable, array)
        return self._variables[name]

    def make_constant(self, name: str) -> None:
        """Take a tensor that decides a shape for a constant, for every binding and mode."""
        kept = {n: t for n, t in self.weights.trainable.items() if n != name}
        self.weights = Weights(self.weights.stored, kept, self.weights.states)

    def own_variable(self, variable: Variable) -> Variable:
        """Return a variable that the importer adds: the same one for every binding."""
        if self.is_variable(variable.name):
            text = f"a parameter is called {variable.name!r}, which random numbers need"
            raise OnnxImportError(text, where=self.file.name)
        return self._variables.setdefault(variable.name, variable)

    @property
    def has_modes(self) -> bool:
        """Whether a mode makes another model of it."""
        nodes = [self.file.proto.graph.node, *(f.node for f in self.file.proto.functions)]
        return any(n.op_type in _WITH_MODES for group in nodes for n in all_nodes(group))

    def in_mode(self, mode: Mode) -> Session:
        """Return the same model, over the same variables, with modes laid over those it has."""
        other = copy.copy(self)
        other.modes = self.modes.over(mode, self.file.name)
        other.options = replace(self.options, mode=other.modes)
        return other

    def mode_of(self, label: str, node: onnx.NodeProto) -> str:
        """Return the mode of a node: `train`, `eval` or `as-exported`."""
        names = [label, *(name for name in node.input if name in self.weights.stored)]
        if node.op_type in _WITH_MODES:
            self._with_modes.update(dict.fromkeys(names))
        return self.modes.of(*names)

    def check_modes(self, asked: Mode) -> None:
        """Fail when a glob that was asked for names no node that has modes; the model must have been imported.

        Raises:
            OptionError: There is such a glob.
        """
        Modes().over(asked).check(list(self._with_modes), self.file.name)

    def check_supported(self) -> None:
        """Fail when the model holds operators that are not imported, naming all of them.

        Raises:
            UnsupportedOperator: There is at least one.
        """
        lines = unsupported_lines(self)
        if not lines:
            return
        count = "an operator" if len(lines) == 1 else f"{len(lines)} operators"
        raise UnsupportedOperator(
            f"holds {count} that cannot be imported:\n  " + "\n  ".join(lines),
            where=self.file.name,
            hint="docs/reference/onnx-support.md lists what can be",
        )


def embedded(session: Session) -> bytes | None:
    """Return the bytes of the model with external data put inside; None where they would not fit."""
    import onnx

    stored = session.weights.stored.values()
    outside = [s for s in stored if s.message.data_location == tensors.EXTERNAL]
    size = sum(session.tensor(s.name).nbytes for s in outside)
    if len(session.file.data) + size > LIMIT_BYTES:
        return None
    whole = onnx.ModelProto()
    whole.CopyFrom(session.file.proto)
    for s in stored_tensors(whole.graph):
        if s.message.data_location == tensors.EXTERNAL:
            s.message.raw_data = session.tensor(s.name).tobytes()
            s.message.ClearField("external_data")
            s.message.ClearField("data_location")
    return bytes(whole.SerializeToString(deterministic=True))


def unsupported_lines(session: Session) -> list[str]:
    """Return a line for each operator that cannot be imported, with some of its nodes."""
    lines = []
    for name, nodes in unsupported(session).items():
        shown = ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")
        lines.append(f"{name} ({len(nodes)}x): {shown}")
    return lines


def unsupported(session: Session) -> dict[str, list[str]]:
    """Return the operators that cannot be imported, with the names of their nodes."""
    missing: dict[str, list[str]] = {}
    proto = session.file.proto
    groups: list[tuple[str, Iterable[onnx.NodeProto], int]] = [
        ("", proto.graph.node, session.file.opset)
    ]
    for function in _called(session):
        versions = {
            ("" if o.domain == "ai.onnx" else o.domain): o.version for o in function.opset_import
        }
        groups.append((f"{function.name}/", function.node, versions.get("", session.file.opset)))
    for scope, nodes, opset in groups:
        for node in all_nodes(nodes):
            if node_key(node) in session.functions:
                continue
            name = _operator(node, opset)
            if name:
                missing.setdefault(name, []).append(scope + node_name(node))
    return dict(sorted(missing.items()))


def _called(session: Session) -> list[onnx.FunctionProto]:
    """Return the functions that the graph reaches."""
    reached: dict[Key, None] = {}
    todo = [node_key(n) for n in all_nodes(session.file.proto.graph.node)]
    while todo:
        k = todo.pop()
        if k in session.functions and k not in reached:
            reached[k] = None
            todo += [node_key(n) for n in all_nodes(session.functions[k].node)]
    return [session.functions[k] for k in reached]


def _operator(node: onnx.NodeProto, opset: int) -> str:
    """Return what to call the node's operator when it cannot be imported, else the empty string."""
    if has_body(node, opset):
        return ""
    if node.domain not in ("", "ai.onnx"):
        return f"{node.domain}.{node.op_type}"
    if node.op_type in BUILT_IN or find(node.op_type, opset) is not None:
        return ""
    return f"{node.op_type} (opset {opset})"


def node_name(node: onnx.NodeProto) -> str:
    """Return the node's name, or its operator and first result when it has none."""
    if node.name:
        return node.name
    return f"{node.op_type}->{node.output[0] if node.output else ''}"


def operators(file: ModelFile) -> dict[str, str]:
    """Return the operator of every node by its name with scope, those of bodies and of the model's own functions included."""
    functions = local_functions(file)
    found: dict[str, str] = {}
    pending: list[tuple[str, Sequence[onnx.NodeProto]]] = [("", file.proto.graph.node)]
    while pending:
        scope, nodes = pending.pop()
        for node in nodes:
            label = scope + node_name(node)
            found.setdefault(label, node.op_type)
            graphs = [a.g for a in node.attribute if a.HasField("g")]
            # What is inside of a body has the number of a round, or the name of a side, in its scope as well.
            pending += [("", g.node) for g in graphs]
            called = functions.get(node_key(node))
            if called is not None:
                pending.append((f"{label}/", called.node))
    return found


def _all_stored(file: ModelFile) -> dict[str, Stored]:
    return {s.name: s for s in stored_tensors(file.proto.graph)}
