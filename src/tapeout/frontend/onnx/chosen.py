"""ONNX's If on a condition that depends on data: both branches are imported, and one of them runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.frontend.onnx.over_time import captured
from tapeout.ops.control import cond
from tapeout.ops.sym import Sym, constant
from tapeout.support.errors import OnnxImportError, ShapeError, UnsupportedOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from tapeout.frontend.onnx.importer import Frame, Importer, Item
    from tapeout.ir.op import Array


def choose(
    importer: Importer,
    condition: Sym,
    branches: Mapping[str, onnx.GraphProto],
    frame: Frame,
    label: str,
    place: str,
) -> list[Sym]:
    """Return the results of the branch that the condition chooses at run time.

    Args:
        importer: Imports the branches.
        condition: One bool.
        branches: By name: `then` and `else`.
        frame: The names around the node.
        label: Prefix of the names of the branches' nodes.
        place: The node.

    Raises:
        UnsupportedOperator: The branches give different types, or read a sequence.
    """
    given: dict[str, Sym] = {}
    known: dict[str, Array] = {}
    for name in dict.fromkeys(n for g in branches.values() for n in captured(g)):
        item = importer.seen(name, frame, place)
        if not isinstance(item, Sym):
            raise UnsupportedOperator(f"a branch reads {name!r}, which is {item.type}", where=place)
        array = importer.known.get(item.value)
        if array is None:
            given[name] = item
        else:
            known[name] = array

    def branch(side: str, operands: Sequence[Sym], own: Sym) -> list[Sym]:
        with importer.within(own.builder) as builder:
            values: dict[str, Item | None] = dict(zip(given, operands, strict=True))
            values |= {n: constant(builder, a) for n, a in known.items()}
            found = importer.inside(branches[side], values, frame, f"{label}/{side}/", place)
        results = [r for r in found if isinstance(r, Sym)]
        if len(results) < len(found):
            raise UnsupportedOperator("a branch gives no tensor", where=place)
        return results

    asked = condition.reshape([])
    # The predicate goes in as well, so that a branch without operands knows where to write.
    operands = [asked, *given.values()]
    try:
        return cond(
            asked,
            lambda own, *rest: branch("then", rest, own),
            lambda own, *rest: branch("else", rest, own),
            operands,
        )
    except ShapeError as e:
        raise UnsupportedOperator(e.message, where=place, hint=e.hint) from None


def branches_of(node: onnx.NodeProto, place: str) -> dict[str, onnx.GraphProto]:
    """Return the branches of an If: `then` and `else`."""
    found = {a.name.removesuffix("_branch"): a.g for a in node.attribute if a.HasField("g")}
    for name in ("then", "else"):
        if name not in found:
            raise OnnxImportError(f"attribute '{name}_branch' is missing", where=place)
    return found
