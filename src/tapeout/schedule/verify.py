"""Checks a finished program: nothing alive overlaps, everything read was written, updates come last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.kernel.program import ALIGN, Check, Launch, Loop
from tapeout.support.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapeout.kernel.program import Buffer, Program


_NO_ROUNDS = (0,) * 128


def verify(program: Program) -> None:
    """Check the memory plan and the order of a program.

    Raises:
        VerifyError: Two live buffers overlap, something is read before it is written, or a variable is written before the last
            check; names the launch and the buffers.
    """
    _no_overlap(program)
    _written_before_read(program)
    _updates_last(program)


def _transient(program: Program) -> list[Buffer]:
    spaces = ("activation", "gradient", "output")
    return [b for b in program.buffers.values() if b.space in spaces and not b.of]


def _no_overlap(program: Program) -> None:
    found = sorted((b for b in _transient(program) if b.bytes), key=lambda b: (b.first, b.name))
    alive: list[Buffer] = []
    for b in found:
        if b.offset % ALIGN or not program.layout.bytes <= b.offset <= program.arena - b.bytes:
            raise VerifyError(
                f"buffer {b.name!r} at {b.offset} lies outside the arena", where=program.name
            )
        alive = [a for a in alive if a.last >= b.first]
        for a in alive:
            if a.offset < b.offset + b.bytes and b.offset < a.offset + a.bytes and not _part(a, b):
                raise VerifyError(
                    f"buffers {a.name!r} and {b.name!r} are alive at once and overlap",
                    where=f"{program.name}: item {b.first}",
                )
        alive.append(b)


def _part(a: Buffer, b: Buffer) -> bool:
    """Whether one of two gradients is a view of the other."""
    if a.space != "gradient" or b.space != "gradient":
        return False
    inner, outer = (a, b) if a.bytes <= b.bytes else (b, a)
    return outer.offset <= inner.offset and inner.offset + inner.bytes <= outer.offset + outer.bytes


def _written_before_read(program: Program) -> None:
    given = ("input", "variable", "constant")
    written = {n: None for n, b in program.buffers.items() if b.space in given or not b.bytes}
    views = _views(program)
    for number, item in enumerate(program.numbered):
        if isinstance(item, Loop):
            continue
        if not isinstance(item, Launch):
            names: list[tuple[str, str]] = [(item.buffer, "r")]
        else:
            params = program.kernels[item.kernel].params
            names = [(n, p.access) for n, p in zip(item.args, params, strict=True)]
        for name, access in names:
            whole = _whole(program, name)
            parts = views.get(whole, (whole,))
            if access == "r" and not all(p in written for p in parts):
                raise VerifyError(
                    f"buffer {name!r} is read before it is written",
                    where=f"{program.name}: item {number}",
                )
        for name, access in names:
            if "w" in access:
                whole = _whole(program, name)
                written.update(dict.fromkeys((whole, *views.get(whole, ()))))
    for output, name in program.outputs.items():
        if name not in written:
            raise VerifyError(f"output {output!r} is never written", where=program.name)


def _whole(program: Program, name: str) -> str:
    """Return the name of what a buffer is a part of at last; which parts of a stack are written is not followed."""
    return program.place(name, _NO_ROUNDS)[0].name


def _views(program: Program) -> Mapping[str, tuple[str, ...]]:
    """Return the parts of gradient regions: buffers that lie inside of them."""
    gradients = [b for b in program.buffers.values() if b.space == "gradient" and not b.of]
    views: dict[str, tuple[str, ...]] = {}
    for b in gradients:
        parts = tuple(a.name for a in gradients if a is not b and a.bytes < b.bytes and _part(a, b))
        if parts:
            views[b.name] = parts
    return views


def _updates_last(program: Program) -> None:
    variables = {n for n, b in program.buffers.items() if b.space == "variable"}
    updated = False
    for number, item in enumerate(program.numbered):
        if isinstance(item, Launch):
            params = program.kernels[item.kernel].params
            writes = any(
                "w" in p.access and n in variables for n, p in zip(item.args, params, strict=True)
            )
            if writes and not item.update:
                raise VerifyError(
                    f"launch {item.label!r} writes a variable but is no update",
                    where=f"{program.name}: item {number}",
                )
            updated = updated or item.update
        elif updated and isinstance(item, Check):
            raise VerifyError(
                "a check stands after an update", where=f"{program.name}: item {number}"
            )
