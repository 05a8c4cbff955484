"""Collects the nodes and tensors of an ONNX graph that is being written."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir import dtype as dt
from tapeout.ir.type import Dim
from tapeout.support.errors import UnboundDimension

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnx

    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType

ELEMENT_TYPES: dict[DType, int] = {
    dt.f32: 1, dt.u8: 2, dt.i8: 3, dt.u16: 4, dt.i16: 5, dt.i32: 6, dt.i64: 7, dt.bool_: 9, dt.f16: 10, dt.f64: 11,
    dt.u32: 12, dt.u64: 13, dt.bf16: 16,
}  # fmt: skip
"""TensorProto.DataType of each element type."""

_ARITHMETIC = {"+": "Add", "-": "Sub", "*": "Mul", "//": "Div"}  # sizes are not negative

PLAIN_OPSET, BITCAST_OPSET = 18, 26
"""The version of the operator set that is written, and that of graphs which reinterpret bits."""


@dataclass(frozen=True)
class Term:
    """A named value of the ONNX graph with its element type."""

    name: str
    dtype: DType


class Writer:
    """The nodes and tensors written so far.

    Attributes:
        nodes: In the order in which they must run.
        initializers: Constants, and initial values of variables.
        opset: The version of the operator set that the nodes need.
        label: The name of the node that is being spelled.
    """

    def __init__(self, taken: Iterable[str], sources: Mapping[str, tuple[str, int]]) -> None:
        """Start an empty graph.

        Args:
            taken: Names that are kept for inputs and outputs.
            sources: For each named dimension an input and the axis where it stands.
        """
        self.sources = sources
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.opset = PLAIN_OPSET
        self.label = ""
        self._taken = dict.fromkeys(taken)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._sizes: dict[object, str] = {}
        self._count = 0

    def fresh(self, stem: str) -> str:
        """Return a name that nothing has yet."""
        while True:
            name = f"{stem}{self._count}"
            self._count += 1
            if name not in self._taken:
                return name

    def emit(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Append a node with one result and return the result's name."""
        return self.emit_to(self.fresh("v"), op_type, *inputs, **attributes)

    def emit_to(self, result: str, op_type: str, *inputs: str, **attributes: object) -> str:
        """Append a node whose result has a name of its own."""
        self._append([result], op_type, inputs, attributes)
        return result

    def emit_all(self, count: int, op_type: str, *inputs: str, **attributes: object) -> list[str]:
        """Append a node with several results and return their names."""
        results = [self.fresh("v") for _ in range(count)]
        self._append(results, op_type, inputs, attributes)
        return results

    @contextmanager
    def inside(self) -> Iterator[list[onnx.NodeProto]]:
        """Collect the nodes of an inner graph, which sees all names but gives none to the outside."""
        nodes, sizes, label = self.nodes, self._sizes, self.label
        self.nodes, self._sizes = [], dict(sizes)
        try:
            yield self.nodes
        finally:
            self.nodes, self._sizes, self.label = nodes, sizes, label

    def _append(
        self,
        results: list[str],
        op_type: str,
        inputs: Sequence[str],
        attributes: Mapping[str, object],
    ) -> None:
        from onnx import helper

        name = f"{self.label}/{op_type}_{len(self.nodes)}"
        made = helper.make_node(op_type, list(inputs), results, name=name)
        made.attribute.extend(helper.make_attribute(k, v) for k, v in sorted(attributes.items()))
        self.nodes.append(made)

    def tensor(self, array: Array) -> str:
        """Return the name of a constant; equal ones are stored once."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.fresh("c")
            self.store(self._constants[key], array)
        return self._constants[key]

    def store(self, name: str, array: Array) -> None:
        """Add an initializer under a name."""
        self.initializers.append(tensor_proto(name, array))

    def ints(self, numbers: Sequence[int]) -> str:
        """Return an i64 vector: a constant, or computed from the inputs' shapes where dimensions are named."""
        if not any(isinstance(n, Dim) for n in numbers):
            return self.tensor(np.array([int(n) for n in numbers], np.int64).reshape(-1))
        parts = [
            self._dimension(group[0].expr) if isinstance(group[0], Dim) else self.ints(group)
            for group in _groups(numbers)
        ]
        return parts[0] if len(parts) == 1 else self.emit("Concat", *parts, axis=0)

    def _dimension(self, expr: object) -> str:
        """Return a named or derived size as an i64 vector of one element."""
        if isinstance(expr, int):
            return self.ints([expr])
        if expr not in self._sizes:
            assert isinstance(expr, tuple)
            sign, a, b = expr
            if sign == "dim":
                name, axis = self.sources[a]
                made = self.emit("Shape", name, start=axis, end=axis + 1)
            else:
                made = self.emit(_ARITHMETIC[sign], self._dimension(a), self._dimension(b))
            self._sizes[expr] = made
        return self._sizes[expr]

    def static(self, n: int) -> int:
        """Return a size that must be a plain number here.

        Raises:
            UnboundDimension: It follows from a named dimension.
        """
        if isinstance(n, Dim):
            text = "this operation needs a number in place of a named dimension"
            raise UnboundDimension(text, where=self.label, hint="bind the graph before saving it")
        return int(n)

    def count(self, n: int) -> str:
        """Return a size as an i64 scalar."""
        return (
            self.emit("Reshape", self.ints([n]), self.ints([]))
            if isinstance(n, Dim)
            else self.scalar(n, dt.i64)
        )

    def scalar(self, value: float, dtype: DType) -> str:
        """Return a constant of rank 0."""
        return self.tensor(np.array(value).astype(dtype.numpy))

    def cast(self, x: str, dtype: DType) -> str:
        """Return a value converted to another element type."""
        return self.emit("Cast", x, to=ELEMENT_TYPES[dtype])

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Return a value in another shape."""
        # A 0 means "as it was" unless the attribute says otherwise.
        zero = {"allowzero": 1} if 0 in shape else {}
        return self.emit("Reshape", x, self.ints(shape), **zero)

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """Return a value with its dimensions in another order."""
        if list(perm) == list(range(len(perm))):
            return x
        return self.emit("Transpose", x, perm=[int(p) for p in perm])

    def narrow(self, x: str, axis: int, start: int, limit: int, step: int = 1) -> str:
        """Return a part of a value along one axis."""
        parts = (self.ints([n]) for n in (start, limit, axis, step))
        return self.emit("Slice", x, *parts)


def tensor_proto(name: str, array: Array) -> onnx.TensorProto:
    """Return an array as a message, its bytes in row-major order, little-endian."""
    import onnx

    made = onnx.TensorProto()
    made.name = name
    made.dims.extend(int(n) for n in array.shape)
    made.data_type = ELEMENT_TYPES[dt.from_numpy(array.dtype)]
    made.raw_data = raw_bytes(array)
    return made


def raw_bytes(array: Array) -> bytes:
    """Return an array's bytes in row-major order, little-endian."""
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _groups(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Yield runs of plain numbers, and each named size alone."""
    plain: list[int] = []
    for n in numbers:
        if not isinstance(n, Dim):
            plain.append(n)
            continue
        if plain:
            yield plain
        plain = []
        yield [n]
    if plain:
        yield plain


def value_info(name: str, type_: TensorType) -> onnx.ValueInfoProto:
    """Return the declaration of an input or an output."""
    from onnx import helper

    shape = [_declared(n) for n in type_.shape]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[type_.dtype], shape)


def _declared(n: int) -> int | str | None:
    """Return a size, the name of a named one, or None for one that follows from it."""
    if not isinstance(n, Dim):
        return int(n)
    return str(n.expr[1]) if n.expr[0] == "dim" else None
