"""Operators without an entry of their own that ONNX defines as a function of others: they are written out like the model's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from tapeout.ops.sym import Sym

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from tapeout.frontend.onnx.importer import Item

DOMAINS = ("", "ai.onnx", "ai.onnx.preview")
"""Where such operators are looked for."""


class _Schema(Protocol):
    """What onnx says of an operator, as far as it is used here."""

    has_function: bool
    has_context_dependent_function: bool
    function_body: onnx.FunctionProto
    context_dependent_function_opset_versions: list[int]
    attributes: Mapping[str, Any]

    def get_context_dependent_function_with_opset_version(
        self, version: int, node: bytes, types: list[bytes], /
    ) -> bytes:
        """Return what a node is made of."""


def has_body(node: onnx.NodeProto, opset: int) -> bool:
    """Return whether ONNX says what a node's operator is made of."""
    schema = _schema(node, opset)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def body_of(
    node: onnx.NodeProto, opset: int, operands: Sequence[Item | None]
) -> onnx.FunctionProto | None:
    """Return what a node's operator is made of, None if ONNX does not say.

    Args:
        node: The node; its attributes, and the types of its operands, may decide what it is made of.
        opset: Version of the operator set.
        operands: What it is called with.
    """
    import onnx

    schema = _schema(node, opset)
    if schema is None:
        return None
    made = onnx.FunctionProto()
    if schema.has_function:
        made.CopyFrom(schema.function_body)
        stated = {a.name for a in made.attribute_proto}
        defaults = [a.default_value for n, a in schema.attributes.items() if n not in stated]
        made.attribute_proto.extend(d for d in defaults if d.name)
        return made
    if not schema.has_context_dependent_function:
        return None
    version = _version(schema, opset, node.domain)
    types = [_type(x) for x in operands]
    found = schema.get_context_dependent_function_with_opset_version(
        version, node.SerializeToString(), types
    )
    made.ParseFromString(found)
    return made if made.node else None


def _schema(node: onnx.NodeProto, opset: int) -> _Schema | None:
    import onnx

    if node.domain not in DOMAINS:
        return None
    plain = node.domain in ("", "ai.onnx")
    try:
        if plain:
            return cast("_Schema", onnx.defs.get_schema(node.op_type, opset, ""))
        return cast("_Schema", onnx.defs.get_schema(node.op_type, node.domain))
    except onnx.defs.SchemaError:
        return None


def _version(schema: _Schema, opset: int, domain: str) -> int:
    """Return the latest version of the body that the operator set has."""
    versions = schema.context_dependent_function_opset_versions
    fitting = [v for v in versions if v <= opset or domain not in ("", "ai.onnx")]
    return int(max(fitting or versions))


def _type(x: Item | None) -> bytes:
    """Return an operand's type as ONNX writes it; none for one that is left out."""
    from onnx import TypeProto, helper

    from tapeout.frontend.onnx.tensors import element_code

    if not isinstance(x, Sym):
        return bytes(TypeProto().SerializeToString())
    made = helper.make_tensor_type_proto(element_code(x.dtype), [int(n) for n in x.shape])
    return bytes(made.SerializeToString())
