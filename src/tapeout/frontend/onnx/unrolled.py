"""Loops whose number of rounds is known at import: they are written out, round after round.

The shapes inside may then differ from round to round, as they do where exporters loop over the parts of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.frontend.onnx.listed import Listed
from tapeout.frontend.onnx.over_time import long_loop, scan
from tapeout.ir.dtype import bool_, i64
from tapeout.ops.sym import Sym, constant
from tapeout.support.errors import OnnxImportError, UnsupportedOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from tapeout.frontend.onnx.importer import Frame, Importer, Item
    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array

LIMIT_ROUNDS = 4096
"""Most rounds that are written out."""

SHORT = 2048
"""Most nodes that a loop of a known number of rounds is written out to; others are one operation over time."""

_ENDLESS = 1 << 62


@dataclass(frozen=True)
class Site:
    """A node with a body: the node, its operands, the names around it, and what to call it."""

    importer: Importer
    node: onnx.NodeProto
    operands: list[Item | None]
    frame: Frame
    label: str
    place: str

    @property
    def body(self) -> onnx.GraphProto:
        """The body."""
        found: onnx.GraphProto | None = next(
            (a.g for a in self.node.attribute if a.name == "body"), None
        )
        if found is None:
            raise OnnxImportError("attribute 'body' is missing", where=self.place)
        return found

    def round(
        self,
        number: int | None,
        given: Sequence[Item | None],
        around: Mapping[str, Item | None] | None = None,
    ) -> list[Item]:
        """Write out the body once and return its results.

        Args:
            number: Of the round; None if it stands for all rounds.
            given: What its operands stand for.
            around: What names from around it stand for, if not what they do there.
        """
        names = [v.name for v in self.body.input]
        if len(names) != len(given):
            text = f"the body takes {len(names)} operands, {len(given)} are given"
            raise OnnxImportError(text, where=self.place)
        values = {**(around or {}), **dict(zip(names, given, strict=True))}
        scope = f"{self.label}/" if number is None else f"{self.label}/{number}/"
        found = self.importer.inside(self.body, values, self.frame, scope, self.place)
        results = [item for item in found if item is not None]
        if len(results) < len(found):
            raise OnnxImportError("a node of the body could not be imported", where=self.place)
        return results

    def integer(self, name: str) -> int:
        """Return an integer attribute that must be there."""
        found = next((a for a in self.node.attribute if a.name == name), None)
        if found is None:
            raise OnnxImportError(f"attribute {name!r} is missing", where=self.place)
        return int(found.i)

    def integers(self, name: str, count: int) -> list[int]:
        """Return an attribute of so many integers; zeros when the node does not state it."""
        found = next((a for a in self.node.attribute if a.name == name), None)
        numbers = [0] * count if found is None else [int(i) for i in found.ints]
        if len(numbers) != count:
            text = f"attribute {name!r} is {numbers}, {count} numbers are expected"
            raise OnnxImportError(text, where=self.place)
        return numbers

    def known(self, x: Item, what: str) -> Array:
        """Return the content of a value that must be known at import."""
        if not isinstance(x, Sym):
            raise OnnxImportError(f"{what} is {x.type}", where=self.place)
        return self.importer.known.array(x, what, self.place)

    def number(self, value: int | bool, dtype: DType) -> Sym:
        """Return a constant scalar."""
        return constant(self.importer.builder, value, dtype)


def loop(site: Site) -> list[Item | None]:
    """Return the results of ONNX's Loop, written out."""
    trips, go, *carried = [*site.operands, None, None][: max(2, len(site.operands))]
    most = _ENDLESS if trips is None else int(site.known(trips, "the number of rounds").item())
    on = True if go is None else bool(site.known(go, "the condition").item())
    count = len(site.body.output) - 1 - len(carried)
    if count < 0:
        raise OnnxImportError("the body gives back too few results", where=site.place)
    if on and most * len(site.body.node) > SHORT and most < _ENDLESS:
        return long_loop(site, most, carried)
    rows: list[list[Item]] = []
    number = 0
    while on and number < most:
        if number >= LIMIT_ROUNDS:
            text = f"a loop of more than {LIMIT_ROUNDS} rounds is not written out"
            raise UnsupportedOperator(text, where=site.place)
        head = [site.number(number, i64), site.number(True, bool_)]
        results = site.round(number, [*head, *carried])
        on = bool(site.known(results[0], "the condition").item())
        carried = list(results[1 : 1 + len(carried)])
        rows.append(results[1 + len(carried) :])
        number += 1
    return [*carried, *_stacks(site, rows, count)]


def _stacks(site: Site, rows: list[list[Item]], count: int) -> list[Item | None]:
    """Return what each round gave, round beside round."""
    if not rows and count:
        raise UnsupportedOperator(
            "a loop of no rounds gives rows of no known shape", where=site.place
        )
    stacks: list[Item | None] = []
    for i in range(count):
        parts = [row[i] for row in rows]
        first, *rest = [p.expand_dims([0]) for p in parts if isinstance(p, Sym)]
        if len(rest) + 1 != len(parts):
            raise UnsupportedOperator("a loop gives back rows of sequences", where=site.place)
        stacks.append(first.concat(rest, 0) if rest else first)
    return stacks


def sequence_map(site: Site) -> list[Item | None]:
    """Return the results of ONNX's SequenceMap: the body of the items of sequences, one after the other."""
    first = site.operands[0] if site.operands else None
    if not isinstance(first, Listed):
        raise OnnxImportError("the first operand must be a sequence", where=site.place)
    made: list[list[Sym]] = [[] for _ in site.body.output]
    for number in range(len(first.items)):
        given = [_item(site, x, number) for x in site.operands]
        for column, result in zip(made, site.round(number, given), strict=True):
            if not isinstance(result, Sym):
                raise UnsupportedOperator("a sequence of sequences", where=site.place)
            column.append(result)
    return [Listed(tuple(column)) for column in made]


def _item(site: Site, x: Item | None, number: int) -> Item | None:
    if not isinstance(x, Listed):
        return x
    if number >= len(x.items):
        raise OnnxImportError("the sequences have different lengths", where=site.place)
    return x.items[number]


WITH_BODY = {"Loop": loop, "SequenceMap": sequence_map, "Scan": scan}
"""What imports each operator that has a body."""
