"""One application of an operator, as the functions of `operators` see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from tapeout.frontend.onnx import tensors
from tapeout.ir.dtype import i64
from tapeout.ir.type import Dim
from tapeout.ops.sym import Sym, constant, iota
from tapeout.support.errors import OnnxImportError, UnsupportedOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import NoReturn

    import onnx

    from tapeout.frontend.onnx.known import Known
    from tapeout.ir.build import Builder
    from tapeout.ir.dtype import DType
    from tapeout.ir.graph import Value
    from tapeout.ir.op import Array
    from tapeout.ops.sym import Scalar

# AttributeProto.AttributeType
_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 4, 5, 6, 7, 8
_KINDS = {
    _FLOAT: "a float",
    _INT: "an int",
    _STRING: "a string",
    _TENSOR: "a tensor",
    _GRAPH: "a graph",
    _FLOATS: "floats",
    _INTS: "ints",
    _STRINGS: "strings",
}


class Randomness(Protocol):
    """Where a call takes random bits from."""

    def bits(self, stream: str, shape: Sequence[int]) -> Sym:
        """Return u32 random bits, another sequence for every stream name and every step."""


class Call:
    """One application of an operator: its attributes, its place, and what is known of its operands.

    Attributes:
        op_type: The operator.
        opset: Version of the operator set.
        place: File, node and operator, for errors.
        key: A name that no other call in the model has; random streams derive from it.
        outputs: Which results the model names; empty for those that it leaves out.
        mode: `train`, `eval` or `as-exported`.
    """

    def __init__(
        self,
        *,
        op_type: str,
        opset: int,
        place: str,
        outputs: tuple[str, ...],
        key: str,
        mode: str,
        attributes: Mapping[str, onnx.AttributeProto],
        builder: Builder,
        known: Known,
        random: Randomness,
        folder: Path | None,
    ) -> None:
        """Gather what the importer knows of a node."""
        self.op_type, self.opset, self.place, self.outputs = op_type, opset, place, outputs
        self.key, self.mode, self.builder = key, mode, builder
        self._attributes, self._known, self._random, self._folder = (
            attributes,
            known,
            random,
            folder,
        )
        self._read: dict[str, None] = {}

    # -- errors -----------------------------------------------------------------------------------

    def fail(self, message: str, hint: str = "") -> NoReturn:
        """Say that the node breaks a rule."""
        raise OnnxImportError(message, where=self.place, hint=hint)

    def unsupported(self, message: str, hint: str = "") -> NoReturn:
        """Say that the node is right and not supported."""
        raise UnsupportedOperator(message, where=self.place, hint=hint)

    def require(self, condition: bool, message: str) -> None:
        """Fail unless the condition holds."""
        if not condition:
            self.fail(message)

    # -- attributes -------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Return whether the node states an attribute."""
        return name in self._attributes

    def _attribute(self, name: str, kind: int) -> onnx.AttributeProto | None:
        self._read[name] = None
        found = self._attributes.get(name)
        if found is not None and found.type != kind:
            got = _KINDS.get(found.type, f"type {found.type}")
            self.fail(f"attribute {name!r} must be {_KINDS[kind]}, it is {got}")
        return found

    def _missing(self, name: str) -> NoReturn:
        self.fail(f"attribute {name!r} is missing")

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an integer attribute; one without a default must be there."""
        found = self._attribute(name, _INT)
        if found is not None:
            return int(found.i)
        return self._missing(name) if default is None else default

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an integer attribute that says yes or no."""
        value = self.integer(name, int(default))
        self.require(value in (0, 1), f"attribute {name!r} must be 0 or 1, it is {value}")
        return bool(value)

    def real(self, name: str, default: float | None = None) -> float:
        """Return a float attribute; one without a default must be there."""
        found = self._attribute(name, _FLOAT)
        if found is not None:
            return float(found.f)
        return self._missing(name) if default is None else default

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string attribute; one without a default must be there."""
        found = self._attribute(name, _STRING)
        if found is not None:
            return found.s.decode("utf-8", "backslashreplace")
        return self._missing(name) if default is None else default

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        """Return a string attribute that is one of some words."""
        value = self.text(name, default)
        words = ", ".join(allowed)
        self.require(
            value in allowed, f"attribute {name!r} is {value!r}, one of {words} is expected"
        )
        return value

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return a list of integers, None when the node does not state it."""
        found = self._attribute(name, _INTS)
        return None if found is None else tuple(int(i) for i in found.ints)

    def reals(self, name: str) -> tuple[float, ...] | None:
        """Return a list of floats, None when the node does not state it."""
        found = self._attribute(name, _FLOATS)
        return None if found is None else tuple(float(f) for f in found.floats)

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of strings, None when the node does not state it."""
        found = self._attribute(name, _STRINGS)
        if found is None:
            return None
        return tuple(s.decode("utf-8", "backslashreplace") for s in found.strings)

    def tensor(self, name: str) -> Array | None:
        """Return a tensor, None when the node does not state it."""
        found = self._attribute(name, _TENSOR)
        if found is None:
            return None
        return tensors.decode(found.t, f"{self.place}, attribute {name!r}", self._folder)

    def dtype(self, name: str, default: DType | None = None) -> DType:
        """Return an element type."""
        if default is not None and not self.has(name):
            self._read[name] = None
            return default
        return tensors.element_type(self.integer(name), self.place)

    def skip(self, *names: str) -> None:
        """Take note of attributes that have no meaning here."""
        self._read.update(dict.fromkeys(names))

    def unread(self) -> list[str]:
        """Return the attributes that nobody has read."""
        return [name for name in self._attributes if name not in self._read]

    # -- what is known while the graph is built ---------------------------------------------------

    def value(self, x: Sym, what: str) -> Array:
        """Return the content of an operand that decides a shape or an attribute.

        Raises:
            OnnxImportError: It depends on data; the message names the source.
        """
        return self._known.array(x, what, self.place)

    def numbers(self, x: Sym, what: str) -> tuple[int, ...]:
        """Return the content of an integer operand of rank 0 or 1; named dimensions keep their name."""
        return self._known.numbers(x, what, self.place)

    def scalar(self, x: Sym, what: str) -> Scalar:
        """Return the content of an operand with one element."""
        array = self.value(x, what)
        self.require(array.size == 1, f"{what} must have one element, it has shape {array.shape}")
        item: Scalar = array.reshape(()).item()
        return item

    def is_known(self, x: Sym) -> bool:
        """Return whether `value` would succeed."""
        return self._known.get(x.value) is not None

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front.

        Raises:
            OnnxImportError: There is no such axis.
        """
        self.require(-rank <= axis < rank, f"axis {axis} is out of range for rank {rank}")
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Return axes counted from the front, in order.

        Raises:
            OnnxImportError: There is no such axis, or one is named twice.
        """
        normal = [self.axis(a, rank) for a in axes]
        self.require(len(set(normal)) == len(normal), f"axes {list(axes)} name an axis twice")
        return tuple(sorted(normal))

    def update(self, state: Sym, value: Sym, what: str, *, needed: bool) -> None:
        """Say what a state becomes after a training step.

        Args:
            state: What the node reads; a tensor stored in the file, or what it became by a node before.
            value: What it becomes.
            what: What it is, for the error.
            needed: Whether it is wrong for it not to be kept.

        Raises:
            OnnxImportError: It is no state, so it cannot be kept.
        """
        name = state.value.name
        known = self.builder.variables.get(name)
        if known is not None and known.value is state.value and known.kind == "state":
            self.builder.set_update(name, value.value)
        elif needed:
            hint = "choose mode 'eval' for the node, or export with tensors stored in the file"
            self.fail(f"cannot keep {what}, which no tensor of the file holds", hint)

    def is_computed(self, x: Sym) -> bool:
        """Return whether nodes compute a value from an input of the model."""
        inputs = set(self.builder.inputs.values())
        seen: set[Value] = set()
        todo = list(x.value.node.operands) if x.value.node else []
        while todo:
            value = todo.pop()
            if value in inputs:
                return True
            if value not in seen and value.node is not None:
                seen.add(value)
                todo += value.node.operands
        return False

    def latest(self, state: Sym) -> Sym:
        """Return what a state becomes by the nodes so far: itself, or its update."""
        update = self.builder.updates.get(state.value.name) if state.value.name else None
        return state if update is None else Sym(self.builder, update)

    # -- making values ----------------------------------------------------------------------------

    def constant(self, array: Array | Scalar, dtype: DType | None = None) -> Sym:
        """Return a constant."""
        return constant(self.builder, array, dtype)

    def shape_value(self, sizes: Sequence[int]) -> Sym:
        """Return sizes as an i64 vector that remembers named dimensions."""
        return self._known.remember(self.builder, sizes)

    def settled(self, x: Sym) -> Sym:
        """Return a size or a few that no named dimension decides as a constant; any other value as it is.

        What is computed from them then reads no shape that a named dimension is part of.
        """
        if not x.dtype.is_integer or x.rank > 1 or x.type.size > 16 or not self.is_known(x):
            return x
        numbers = self.numbers(x, "a size")
        if any(isinstance(n, Dim) for n in numbers):
            return x
        return self.constant(np.array(numbers, x.dtype.numpy).reshape(x.shape))

    def iota(self, shape: Sequence[int], axis: int, dtype: DType = i64) -> Sym:
        """Return the numbers 0, 1, ... along an axis."""
        return iota(self.builder, shape, axis, dtype)

    def random_bits(self, shape: Sequence[int]) -> Sym:
        """Return u32 random bits; the same call gives others at every step."""
        return self._random.bits(self.key, shape)
