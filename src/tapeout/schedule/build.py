"""From a graph of primitives to a program: fusion, order, loops, memory plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.type import TensorType
from tapeout.kernel.program import Buffer, Check, Launch, Program
from tapeout.schedule.fuse import Fused, fuse
from tapeout.schedule.layout import align
from tapeout.schedule.lower import lower
from tapeout.schedule.memory import Demand, plan, verify
from tapeout.schedule.model import Home
from tapeout.schedule.order import order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Graph
    from tapeout.kernel.loops import Kernel
    from tapeout.kernel.program import Item, Layout
    from tapeout.kernel.target import Target
    from tapeout.schedule.model import Work


def schedule(graph: Graph, layout: Layout, target: Target) -> Program:
    """Return the program of a graph of primitives.

    Args:
        graph: Every operation is pointwise, a reduction, a contraction or a scatter.
        layout: Where the variables live (`plan_variables`); holds every variable of the graph.
        target: The class of machines.

    Raises:
        CompileError: An operation cannot be scheduled.
        VerifyError: The finished program breaks a rule of its representation (a fault of this package).
    """
    fused = fuse(graph)
    homes = fused.homes
    outputs = {name: home.name for name, home in fused.outputs.items()}
    lasting = dict.fromkeys([*outputs.values(), *(home.name for home in fused.checks)])
    works = order(fused.works, homes, lasting)
    items = _Items(target, homes)
    for work in works:
        if not work.late:
            items.launch(work)
    for code, (check, home) in enumerate(zip(graph.checks, fused.checks, strict=True), 1):
        items.items.append(Check(home.name, code, check.message))
    for work in works:
        if work.late:
            items.launch(work)
    program = _program(graph, layout, items, fused, outputs)
    verify(program)
    return program


class _Items:
    """The launches of a program while it is built."""

    def __init__(self, target: Target, homes: dict[str, Home]) -> None:
        self.target = target
        self.homes = dict(homes)
        self.items: list[Item] = []
        self.kernels: dict[str, Kernel] = {}

    def launch(self, work: Work) -> None:
        """Lower a kernel and append its launches."""
        lowered = lower(work.kernel, self.target)
        names = dict(zip((b.name for b in work.kernel.buffers), work.args, strict=True))
        for scratch in lowered.scratch:
            name = f"%scratch{len(self.items)}.{scratch.name}"
            type_ = TensorType(scratch.dtype, (scratch.size,))
            self.homes[name] = Home(name, type_, (0,), "activation")
            names[scratch.name] = name
        for call in lowered.launches:
            self.kernels[call.kernel.name] = call.kernel
            args = tuple(names[a] for a in call.args)
            self.items.append(
                Launch(
                    call.kernel.name,
                    args,
                    work.loc,
                    work.label,
                    call.flops,
                    call.bytes,
                    work.late,
                )
            )


@dataclass(frozen=True)
class _Life:
    first: int
    last: int


def _program(
    graph: Graph, layout: Layout, items: _Items, fused: Fused, outputs: dict[str, str]
) -> Program:
    lives = _lives(items.items, outputs)
    used = {n: items.homes[n] for n in lives}
    inputs = {v.name for v in graph.inputs}
    used.update({h.name: h for h in fused.sources if h.name in inputs})
    demands = [
        Demand(n, h.type.bytes, lives[n].first, lives[n].last)
        for n, h in used.items()
        if h.space not in ("input", "variable", "constant")
    ]
    offsets, end = plan(demands, layout.bytes)
    constants, data = _constants(used, fused)
    positions = {v.name: i for i, v in enumerate(graph.inputs)}
    slots = layout.slot
    buffers: dict[str, Buffer] = {}
    for name, home in used.items():
        life = lives.get(name, _Life(-1, -1))
        buffer = Buffer(name, home.type, home.order, home.space, 0, life.first, life.last)
        if home.space == "input":
            buffer = replace(buffer, offset=positions[name], first=-1)
        elif home.space == "variable":
            buffer = replace(buffer, offset=slots[name].offset, first=-1, last=len(items.items))
        elif home.space == "constant":
            buffer = replace(buffer, offset=constants[name], first=-1)
        else:
            space = "output" if name in outputs.values() else home.space
            buffer = replace(buffer, offset=offsets[name], space=space)
        buffers[name] = buffer
    return Program(
        graph.name,
        tuple(v.name for v in graph.inputs),
        outputs,
        buffers,
        tuple(items.items),
        items.kernels,
        layout,
        end,
        data,
        {v.name: v.type for v in graph.inputs},
    )


def _lives(items: Sequence[Item], outputs: dict[str, str]) -> dict[str, _Life]:
    """Return the first and the last item that touch each buffer."""
    lives: dict[str, _Life] = {}
    for i, item in enumerate(items):
        names = item.args if isinstance(item, Launch) else (item.buffer,)
        for name in names:
            lives[name] = _Life(lives[name].first if name in lives else i, i)
    for name in outputs.values():
        lives[name] = _Life(lives[name].first if name in lives else -1, len(items))
    return lives


def _constants(used: dict[str, Home], fused: Fused) -> tuple[dict[str, int], bytes]:
    """Return the offsets of constants in the program's data, and the data."""
    offsets: dict[str, int] = {}
    data = bytearray()
    for name, home in used.items():
        if home.space != "constant":
            continue
        data.extend(bytes(align(len(data)) - len(data)))
        offsets[name] = len(data)
        data += np.ascontiguousarray(fused.constants[name]).tobytes()
    return offsets, bytes(data)
