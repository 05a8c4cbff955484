"""The launches of a program as rows: what runs, on what, and how much work the analytic model says it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tapeout.kernel.program import Branch, Check, Launch, Loop, numbered
from tapeout.kernel.text import print_kernel
from tapeout.support.units import bytes_text, count_text

if TYPE_CHECKING:
    from tapeout.kernel.program import Program

COLUMNS = ("#", "what", "part", "FLOP", "bytes", "FLOP per byte", "kernel")


def rows(program: Program) -> list[dict[str, Any]]:
    """Return one record per item, those inside of loops and branches included: the cells of `COLUMNS`, and what the side panel tells."""
    return [
        _launch(i, item, program) if isinstance(item, Launch) else _other(i, item)
        for i, item in enumerate(program.numbered)
    ]


def summary(program: Program) -> list[tuple[str, str]]:
    """Return the figures that stand above the table."""
    launches = program.launches
    moved = sum(i.bytes for i in launches)
    return [
        ("launches", str(len(launches))),
        ("kernels", str(len(program.kernels))),
        ("FLOP", count_text(program.flops)),
        ("read and written", bytes_text(moved)),
        ("arena", bytes_text(program.arena)),
    ]


def texts(program: Program) -> dict[str, str]:
    """Return the level L text of every kernel by symbol, each once."""
    return {name: print_kernel(program.kernels[name]) for name in sorted(program.kernels)}


def _launch(number: int, item: Launch, program: Program) -> dict[str, Any]:
    kernel = program.kernels.get(item.kernel)
    access = [p.access for p in kernel.params] if kernel else [""] * len(item.args)
    buffers = [_buffer(name, how, program) for name, how in zip(item.args, access, strict=False)]
    ratio = f"{item.flops / item.bytes:.3g}" if item.bytes else ""
    cells = [
        str(number),
        item.label or item.loc.name,
        item.loc.role,
        count_text(item.flops),
        bytes_text(item.bytes),
        ratio,
        item.kernel,
    ]
    return {
        "cells": cells,
        "role": item.loc.role,
        "kernel": item.kernel,
        "source": item.loc.name,
        "buffers": buffers,
        "work": item.flops,
    }


def _buffer(name: str, access: str, program: Program) -> dict[str, str]:
    buffer = program.buffers.get(name)
    if buffer is None:
        return {"name": name, "access": access}
    order = (
        "" if buffer.order == tuple(range(len(buffer.order))) else f" order {list(buffer.order)}"
    )
    return {"name": name, "access": access, "type": f"{buffer.type}{order}", "space": buffer.space}


def _other(number: int, item: Check | Loop | Branch) -> dict[str, Any]:
    if isinstance(item, Check):
        return _check(number, item)
    what = f"{item.count} times" if isinstance(item, Loop) else f"if {item.buffer}"
    inside = item.items if isinstance(item, Loop) else (*item.then, *item.otherwise)
    label = f"{what}: the next {sum(1 for _ in numbered(inside))} items"
    read = [] if isinstance(item, Loop) else [{"name": item.buffer, "access": "r"}]
    return {
        "cells": [str(number), f"{item.label} {label}".strip(), item.loc.role, "", "", "", ""],
        "role": item.loc.role,
        "source": item.loc.name,
        "buffers": read,
        "work": 0,
    }


def _check(number: int, item: Check) -> dict[str, Any]:
    cells = [str(number), f"stop if {item.buffer}", "check", "", "", "", ""]
    return {
        "cells": cells,
        "role": "check",
        "message": item.message,
        "buffers": [{"name": item.buffer, "access": "r"}],
        "work": 0,
    }
