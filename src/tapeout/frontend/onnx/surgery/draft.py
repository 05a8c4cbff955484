"""A copy of a model's message that is being changed, and the graph that it becomes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tapeout.frontend.onnx import tensors
from tapeout.frontend.onnx.dims import declared
from tapeout.frontend.onnx.functions import all_nodes
from tapeout.frontend.onnx.load import import_session, with_modes
from tapeout.frontend.onnx.read import read_model
from tapeout.frontend.onnx.session import Imported, Options, Session
from tapeout.frontend.onnx.weights import Stored, stored_tensors
from tapeout.ir.dtype import from_numpy
from tapeout.ir.type import Dim

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, MutableSequence, Sequence

    import onnx

    from tapeout.frontend.onnx.read import ModelFile
    from tapeout.ir.graph import Graph
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType

M = TypeVar("M")


@dataclass
class Draft:
    """A message that may be changed.

    Attributes:
        proto: The message, a copy.
        imported: What it is a copy of.
        trainable: Which parameters train, by name in the changed message; those that are not listed do.
        names: What inputs and parameters are called now, by old name, where that differs.
        notes: What was done, for people.
        changed: Values whose shapes are others than the message says.
    """

    proto: onnx.ModelProto
    imported: Imported
    trainable: dict[str, bool]
    names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        """The file, for errors."""
        return self.imported.file.name

    def makers(self) -> dict[str, onnx.NodeProto]:
        """Return the node that makes each value of the main graph."""
        return {out: node for node in self.proto.graph.node for out in node.output if out}

    def stored(self) -> dict[str, Stored]:
        """Return the initializers and the values of Constant nodes."""
        return {s.name: s for s in stored_tensors(self.proto.graph)}

    def readers(self, name: str) -> int:
        """Return how many operands and outputs are the value of a name."""
        read = [n for node in all_nodes(self.proto.graph.node) for n in node.input]
        return [*read, *(o.name for o in self.proto.graph.output)].count(name)

    def array(self, stored: Stored) -> Array:
        """Return the content of a stored tensor."""
        where = f"{self.where}: tensor {stored.name!r}"
        return tensors.decode(stored.message, where, self.imported.file.folder)

    def fresh(self, stem: str) -> str:
        """Return a name that nothing has yet."""
        graph = self.proto.graph
        taken = {n for node in all_nodes(graph.node) for n in (*node.input, *node.output)}
        taken.update(self.stored(), (v.name for v in (*graph.input, *graph.output)))
        name, count = stem, 1
        while name in taken:
            name, count = f"{stem}_{count}", count + 1
        return name

    def add(self, name: str, array: Array) -> None:
        """Add an initializer."""
        message = self.proto.graph.initializer.add()
        message.name = name
        fill(message, array)

    def retype(self, name: str, shape: tuple[int, ...]) -> None:
        """Make a tensor that is repeated among the inputs say its new shape there."""
        for repeated in self.proto.graph.input:
            if repeated.name == name:
                dims = repeated.type.tensor_type.shape.dim
                del dims[:]
                for n in shape:
                    dims.add().dim_value = n


def begin(graph: Graph, imported: Imported) -> Draft:
    """Return a draft of the model that a graph was imported from."""
    proto = type(imported.file.proto)()
    proto.CopyFrom(imported.file.proto)
    return Draft(proto, imported, {n: v.trainable for n, v in graph.parameters.items()})


def fill(message: onnx.TensorProto, array: Array) -> None:
    """Put an array in place of a tensor's content."""
    kept = {n: getattr(message, n) for n in ("name", "doc_string") if message.HasField(n)}
    message.Clear()
    for name, text in kept.items():
        setattr(message, name, text)
    message.dims.extend(array.shape)
    message.data_type = tensors.type_code(from_numpy(array.dtype))
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    message.raw_data = np.ascontiguousarray(little).tobytes()


def finish(draft: Draft, before: Graph) -> Graph:
    """Return the graph of a changed message: options, modes and what is frozen as they were.

    Args:
        draft: The change.
        before: The graph that the change began with.

    Raises:
        TapeoutError: The changed model cannot be imported.
    """
    keep(draft.proto.graph.value_info, lambda v: v.name not in draft.changed)
    file = _file(draft)
    preview = import_session(Session(file, _options(draft, file)))
    if _declare_outputs(draft, preview):
        file = _file(draft)
    session = Session(file, _options(draft, file))
    graph = with_modes(import_session(session), session)
    return replace(graph, notes=(*before.notes, *draft.notes))


def _file(draft: Draft) -> ModelFile:
    read, old = read_model(draft.proto), draft.imported.file
    return replace(read, name=old.name, folder=old.folder)


def _options(draft: Draft, file: ModelFile) -> Options:
    """Return the options of before, for what is left of the model."""
    old = draft.imported.options
    inputs = {v.name: v for v in file.proto.graph.input}
    shapes = {draft.names.get(n, n): s for n, s in old.shapes.items()}
    values = {draft.names.get(n, n): a for n, a in old.values.items()}
    shapes = {n: s for n, s in shapes.items() if n in inputs}
    stored = draft.stored()
    known = {
        size
        for name, v in inputs.items()
        if name not in stored
        for size in declared(v, file.name)[1] or _unnamed(name, shapes.get(name, ()))
    }
    dims = {_renamed_dim(n, draft.names): size for n, size in old.dims.items()}
    return replace(
        old,
        dims={n: size for n, size in dims.items() if n in known},
        shapes=shapes,
        values={n: a for n, a in values.items() if n in inputs},
        trainable=draft.trainable,
    )


def _unnamed(name: str, shape: Sequence[int | None]) -> list[str]:
    return [f"{name}_{i}" for i in range(len(shape))]


def _renamed_dim(dim: str, names: Mapping[str, str]) -> str:
    """Return what a dimension that is called by its input and axis is called after its input was renamed."""
    stem, _, axis = dim.rpartition("_")
    return f"{names[stem]}_{axis}" if stem in names and axis.isdigit() else dim


def _declare_outputs(draft: Draft, graph: Graph) -> bool:
    """Write the types of outputs that have none or another one now; return whether there were any."""
    inputs = draft.proto.graph.input
    stated = {d.dim_param for v in inputs for d in v.type.tensor_type.shape.dim}
    found = False
    for output in draft.proto.graph.output:
        type_ = graph.output[output.name].type
        if not output.HasField("type"):
            declare(output, type_, stated)
            found = True
        elif output.name in draft.changed:
            found |= _correct(output, type_)
    return found


def _correct(output: onnx.ValueInfoProto, type_: TensorType) -> bool:
    """Write the sizes that are others than an output says, and leave the rest as it says it."""
    dims, found = output.type.tensor_type.shape.dim, False
    if len(dims) != type_.rank:
        return found
    for said, n in zip(dims, type_.shape, strict=True):
        if said.dim_value > 0 and not isinstance(n, Dim) and said.dim_value != n:
            said.dim_value = int(n)
            found = True
    return found


def declare(value: onnx.ValueInfoProto, type_: TensorType, stated: Container[str]) -> None:
    """Write a type: sizes, and named dimensions that the file names itself; others stay open."""
    tensor = value.type.tensor_type
    tensor.elem_type = tensors.type_code(type_.dtype)
    tensor.shape.SetInParent()
    for n in type_.shape:
        dim = tensor.shape.dim.add()
        if not isinstance(n, Dim):
            dim.dim_value = int(n)
        elif n.expr[0] == "dim" and n.expr[1] in stated:
            dim.dim_param = str(n.expr[1])


def keep(part: MutableSequence[M], wanted: Callable[[M], bool]) -> None:
    """Leave out of a repeated field what is not wanted."""
    kept = [copy.deepcopy(v) for v in part if wanted(v)]
    if len(kept) < len(part):
        del part[:]
        part.extend(kept)
