"""Loops whose rounds are alike: ONNX's Scan, and Loops too long to be written out, as one operation over a body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.ir.dtype import bool_, i64
from tapeout.ops.control import scan as over_time
from tapeout.ops.sym import Sym, constant, iota
from tapeout.support.errors import OnnxImportError, UnsupportedOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from tapeout.frontend.onnx.importer import Item
    from tapeout.frontend.onnx.unrolled import Site


def captured(graph: onnx.GraphProto) -> list[str]:
    """Return the names that a body reads from around it, those of the bodies inside it included."""
    found: dict[str, None] = {}
    todo: list[tuple[onnx.GraphProto, frozenset[str]]] = [(graph, frozenset())]
    while todo:
        inner, known = todo.pop()
        made = {v.name for v in inner.input} | {t.name for t in inner.initializer}
        made |= {name for node in inner.node for name in node.output}
        here = known | made
        for node in inner.node:
            found.update((n, None) for n in node.input if n and n not in here)
            todo += [(a.g, here) for a in node.attribute if a.HasField("g")]
        found.update((o.name, None) for o in inner.output if o.name not in here)
    return list(found)


class Rounds:
    """A body that is imported once and run many times."""

    def __init__(self, site: Site) -> None:
        """Look up what the body reads from around it: what is known is made anew inside, the rest goes in."""
        self.site = site
        self.names = captured(site.body)
        self.known, self.given = {}, dict[str, Sym]()
        for name in self.names:
            item = site.importer.seen(name, site.frame, site.place)
            if not isinstance(item, Sym):
                text = f"the body reads {name!r}, which is {item.type}"
                raise UnsupportedOperator(text, where=site.place)
            array = site.importer.known.get(item.value)
            if array is None:
                self.given[name] = item
            else:
                self.known[name] = array

    def run(
        self,
        carries: Sequence[Sym],
        slices: Sequence[Sym],
        *,
        reverse: bool = False,
        numbered: bool = False,
    ) -> tuple[list[Sym], list[Sym]]:
        """Return the histories of the carries and the stacks of the other results.

        Args:
            carries: Initial values.
            slices: [rounds, ...] each.
            reverse: Whether the last slice comes first.
            numbered: Whether the body is that of a Loop: its first operands are the number of the round (the first of the slices)
                and a condition, its first result the condition to go on.
        """

        def step(
            now: Sequence[Sym], parts: Sequence[Sym], rest: Sequence[Sym]
        ) -> tuple[list[Sym], list[Sym]]:
            with self.site.importer.within((*now, *parts, *rest)[0].builder) as builder:
                values: dict[str, Item | None] = dict(zip(self.given, rest, strict=True))
                values |= {n: constant(builder, a) for n, a in self.known.items()}
                if numbered:
                    head = [parts[0], constant(builder, True, bool_)]
                    results = self._body([*head, *now, *parts[1:]], values)
                    self._goes_on(results.pop(0))
                else:
                    results = self._body([*now, *parts], values)
            return results[: len(now)], results[len(now) :]

        rest = list(self.given.values())
        return over_time(step, list(carries), list(slices), rest, reverse=reverse)

    def _body(self, operands: Sequence[Sym], values: dict[str, Item | None]) -> list[Sym]:
        results = self.site.round(None, operands, values)
        for r in results:
            if not isinstance(r, Sym):
                text = f"a round gives {r.type}, tensors are expected"
                raise UnsupportedOperator(text, where=self.site.place)
        return [r for r in results if isinstance(r, Sym)]

    def _goes_on(self, condition: Sym) -> None:
        found = self.site.importer.known.get(condition.value)
        if found is None or not found.all():
            raise UnsupportedOperator(
                "the condition of a loop over time must be true in every round",
                where=self.site.place,
            )


def scan(site: Site) -> list[Item | None]:
    """Return the results of ONNX's Scan."""
    if site.frame.opset < 9:
        return _batched(site)
    count = site.integer("num_scan_inputs")
    tensors = [_tensor(site, x) for x in site.operands]
    if not 0 < count <= len(tensors):
        raise OnnxImportError(f"num_scan_inputs is {count}", where=site.place)
    states, inputs = tensors[: len(tensors) - count], tensors[len(tensors) - count :]
    outputs = len(site.body.output) - len(states)
    axes = site.integers("scan_input_axes", count)
    backwards = site.integers("scan_input_directions", count)
    xs = []
    for x, axis, turned in zip(inputs, axes, backwards, strict=True):
        moved = _first(x, _axis(site, axis, x.rank))
        xs.append(moved.reverse([0]) if turned else moved)
    finals, stacks = _scanned(site, states, xs)
    to = site.integers("scan_output_axes", outputs)
    turned_out = site.integers("scan_output_directions", outputs)
    made: list[Item | None] = [*finals]
    for y, axis, turned in zip(stacks, to, turned_out, strict=True):
        in_order = y.reverse([0]) if turned else y
        made.append(_away(in_order, _axis(site, axis, y.rank)))
    return made


def _scanned(site: Site, states: list[Sym], xs: list[Sym]) -> tuple[list[Sym], list[Sym]]:
    histories, stacks = Rounds(site).run(states, xs)
    return [h[int(h.shape[0]) - 1] for h in histories], stacks


def _batched(site: Site) -> list[Item | None]:
    """Return the results of the oldest Scan: of each sample by itself, its steps along the dimension after the batch."""
    lengths, *rest = site.operands
    if lengths is not None:
        raise UnsupportedOperator("sequence_lens is not supported", where=site.place)
    count = site.integer("num_scan_inputs")
    turned = site.integers("directions", count)
    tensors = [_tensor(site, x) for x in rest]
    columns: list[list[Sym]] = [[] for _ in site.body.output]
    for b in range(int(tensors[0].shape[0])):
        one = [t[b] for t in tensors]
        states, inputs = one[: len(one) - count], one[len(one) - count :]
        xs = [x.reverse([0]) if t else x for x, t in zip(inputs, turned, strict=True)]
        finals, stacks = _scanned(site, states, xs)
        for column, result in zip(columns, [*finals, *stacks], strict=True):
            column.append(result.expand_dims([0]))
    return [c[0].concat(c[1:], 0) if len(c) > 1 else c[0] for c in columns]


def long_loop(site: Site, rounds: int, carried: Sequence[Item | None]) -> list[Item | None]:
    """Return the results of a Loop of many rounds that are alike."""
    states = [_tensor(site, x) for x in carried]
    numbers = iota(site.importer.builder, [rounds], 0, i64)
    histories, stacks = Rounds(site).run(states, [numbers], numbered=True)
    return [*(h[rounds] for h in histories), *stacks]


def _tensor(site: Site, x: Item | None) -> Sym:
    if not isinstance(x, Sym):
        text = f"a tensor is expected, got {x.type if x is not None else 'nothing'}"
        raise OnnxImportError(text, where=site.place)
    return x


def _axis(site: Site, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise OnnxImportError(f"axis {axis} is out of range for rank {rank}", where=site.place)
    return axis % rank


def _first(x: Sym, axis: int) -> Sym:
    return x.transpose([axis, *(d for d in range(x.rank) if d != axis)])


def _away(y: Sym, axis: int) -> Sym:
    """Return the first dimension moved to `axis`."""
    order = list(range(1, y.rank))
    return y.transpose([*order[:axis], 0, *order[axis:]])
