"""The program cache: a graph's structure and the options name a file with its manifest and object code.

Weights and provenance take no part in the name, so that a fine-tuned model loads what its origin compiled. A file ends with the
SHA-256 of the rest; one that does not fit is dropped.
"""

from __future__ import annotations

import hashlib
import json
import struct
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tapeout.codegen.cache import store_of
from tapeout.driver.manifest import from_json, to_json

if TYPE_CHECKING:
    from tapeout.driver.options import Options
    from tapeout.driver.pipeline import Compiled
    from tapeout.ir.graph import Graph, Value
    from tapeout.kernel.program import Layout

_FORMAT = 2

_ROOMS = ("ir", "ops", "kernel", "passes", "schedule", "driver")
"""The rooms whose sources decide what a graph becomes; those of codegen are in its `version`."""


def program_key(graph: Graph, layout: Layout, options: Options, choices: str = "") -> str:
    """Return the name under which a compilation is kept, in hex; `choices` stands for those that tuning made."""
    from tapeout.codegen.build import version

    h = hashlib.sha256()
    h.update(
        f"{_FORMAT}\n{version()}\n{sources()}\n{options.key}{choices}\n{graph.name}\n".encode()
    )
    for slot in layout.slots:
        h.update(f"slot {slot.name} {slot.type} {slot.kind} {slot.offset}\n".encode())
    numbers: dict[Value, int] = {}

    def number(v: Value) -> int:
        return numbers.setdefault(v, len(numbers))

    for value in graph.inputs:
        h.update(f"input {value.name} {value.type} {number(value)}\n".encode())
    for variable in graph.variables:
        h.update(
            f"variable {variable.name} {variable.type} {variable.kind} {number(variable.value)}\n".encode()
        )
    for node in graph.nodes:
        operands = [number(v) for v in node.operands]
        types = [f"{number(r)}:{r.type}" for r in node.results]
        h.update(f"{node.op!r} {operands} {types}\n".encode())
    for name, value in (*graph.outputs, *graph.updates):
        h.update(f"result {name} {number(value)}\n".encode())
    for check in graph.checks:
        h.update(f"check {number(check.bad)} {check.message}\n".encode())
    return h.hexdigest()


@cache
def sources() -> str:
    """Return a hash of the sources between graph and kernels: a program of an older pass must not outlive it."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def load(key: str, graph: Graph, layout: Layout) -> Compiled | None:
    """Return a kept compilation, or None."""
    from tapeout.driver.pipeline import Compiled

    blob = store_of("programs").get(key)
    if blob is None:
        return None
    try:
        (size,) = struct.unpack_from("<Q", blob)
        head = json.loads(blob[8 : 8 + size])
        at = 8 + size
        data, at = blob[at : at + head["data"]], at + head["data"]
        objects = {}
        for symbol, length in head["objects"]:
            objects[symbol], at = blob[at : at + length], at + length
        program, _ = from_json(head["manifest"], layout, data)
    except (ValueError, KeyError, TypeError, struct.error):
        return None
    return Compiled(program, objects, head["entry"], cached=True)


def store(key: str, compiled: Compiled) -> None:
    """Keep a compilation; an unwritable cache is no error."""
    head = json.dumps(
        {
            "manifest": to_json(compiled.program),
            "data": len(compiled.program.data),
            "objects": [[s, len(b)] for s, b in compiled.objects.items()],
            "entry": compiled.entry,
        }
    ).encode()
    parts = [struct.pack("<Q", len(head)), head, compiled.program.data, *compiled.objects.values()]
    store_of("programs").put(key, b"".join(parts))
