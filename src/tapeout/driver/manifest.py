"""A compiled program without its kernels' text, as JSON: what the program cache keeps beside the object code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tapeout.ir.dtype import BY_NAME
from tapeout.ir.type import TensorType
from tapeout.kernel.program import Branch, Buffer, Check, Launch, Layout, Loop, Program
from tapeout.support.loc import Loc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.kernel.program import Item


def to_json(program: Program) -> str:
    """Return the manifest of a program; kernels and data are left out."""
    return json.dumps(
        {
            "name": program.name,
            "inputs": program.inputs,
            "input_types": {n: _type(t) for n, t in program.input_types.items()},
            "outputs": dict(program.outputs),
            "buffers": [
                [
                    *(b.name, *_type(b.type), list(b.order), b.space, b.offset, b.first, b.last),
                    *(b.of, b.step, b.level),
                ]
                for b in program.buffers.values()
            ],
            "items": [_item(i) for i in program.items],
            "kernels": sorted(program.kernels),
            "arena": program.arena,
        },
        separators=(",", ":"),
    )


def from_json(text: str, layout: Layout, data: bytes) -> tuple[Program, list[str]]:
    """Return a program without kernels, and their names.

    Raises:
        ValueError, KeyError, TypeError: The text is no manifest.
    """
    m: Mapping[str, Any] = json.loads(text)
    buffers = {
        name: Buffer(name, _read_type([dtype, shape]), tuple(order), *rest)
        for name, dtype, shape, order, *rest in m["buffers"]
    }
    program = Program(
        m["name"],
        tuple(m["inputs"]),
        dict(m["outputs"]),
        buffers,
        tuple(_read_item(i) for i in m["items"]),
        {},
        layout,
        m["arena"],
        data,
        {n: _read_type(t) for n, t in m["input_types"].items()},
    )
    return program, list(m["kernels"])


def _type(t: TensorType) -> list[Any]:
    return [t.dtype.name, [int(n) for n in t.shape]]


def _read_type(spelled: list[Any]) -> TensorType:
    return TensorType(BY_NAME[spelled[0]], tuple(spelled[1]))


def _item(item: Item) -> list[Any]:
    if isinstance(item, Check):
        return ["check", item.buffer, item.code, item.message]
    loc = [item.loc.file, item.loc.name, item.loc.role]
    if isinstance(item, Loop):
        return ["loop", item.count, [_item(i) for i in item.items], loc, item.label]
    if isinstance(item, Branch):
        sides = [[_item(i) for i in side] for side in (item.then, item.otherwise)]
        return ["branch", item.buffer, *sides, loc, item.label]
    return [
        "launch",
        item.kernel,
        list(item.args),
        loc,
        item.label,
        item.flops,
        item.bytes,
        item.update,
    ]


def _read_item(spelled: list[Any]) -> Item:
    kind, *rest = spelled
    if kind == "check":
        return Check(*rest)
    if kind == "loop":
        count, items, loc, label = rest
        return Loop(count, tuple(map(_read_item, items)), Loc(*loc), label)
    if kind == "branch":
        name, then, otherwise, loc, label = rest
        sides = [tuple(map(_read_item, side)) for side in (then, otherwise)]
        return Branch(name, sides[0], sides[1], Loc(*loc), label)
    kernel, args, loc, label, flops, size, update = rest
    return Launch(kernel, tuple(args), Loc(*loc), label, flops, size, update)
