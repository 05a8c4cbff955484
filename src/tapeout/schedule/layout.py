"""Places the variables of a module: the persistent part of the arena.

Trainable parameters come first, in the order of their declaration. Each kind of state that mirrors them (`adam.m/fc1.weight` for
`fc1.weight`) follows as a block with the same offsets from its start, so that the optimiser can be one sweep over all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.kernel.program import ALIGN, Layout, Slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Variable


def align(offset: int) -> int:
    """Return the offset rounded up to a multiple of `ALIGN`."""
    return -(-offset // ALIGN) * ALIGN


def plan_variables(variables: Sequence[Variable]) -> Layout:
    """Return the place of every variable, each 64-byte aligned.

    Args:
        variables: In the order of their declaration.

    Returns:
        Trainable parameters, frozen parameters, one block per prefix of mirroring states, other states, hyper-parameters.
    """
    trained = [v for v in variables if v.kind == "parameter" and v.trainable]
    by_name = {v.name: v for v in trained}
    blocks: dict[str, dict[str, Variable]] = {}
    others: list[Variable] = []
    for v in variables:
        mirrored = _mirrored(v, by_name)
        if mirrored is None:
            others.append(v)
        else:
            blocks.setdefault(v.name[: -len(mirrored.name)], {})[mirrored.name] = v

    slots: list[Slot] = []
    end = _append(slots, trained, 0)
    relative = {s.name: s.offset for s in slots}
    span = end
    end = _append(slots, [v for v in others if v.kind == "parameter" and not v.trainable], end)
    for block in blocks.values():
        slots += [
            Slot(block[name].name, block[name].type, block[name].kind, end + offset)
            for name, offset in relative.items()
            if name in block
        ]
        end += span
    end = _append(slots, [v for v in others if v.kind == "state"], end)
    end = _append(slots, [v for v in others if v.kind == "hyper"], end)
    return Layout(tuple(slots), end)


def _mirrored(state: Variable, parameters: dict[str, Variable]) -> Variable | None:
    """Return the parameter that a state belongs to: `prefix/<name>` of the same type."""
    if state.kind != "state":
        return None
    # A parameter's own name may hold slashes, so every suffix after a slash is tried, the longest first.
    at = state.name.find("/")
    while at >= 0:
        found = parameters.get(state.name[at + 1 :])
        if found is not None and found.type == state.type:
            return found
        at = state.name.find("/", at + 1)
    return None


def _append(slots: list[Slot], variables: Sequence[Variable], start: int) -> int:
    end = start
    for v in variables:
        slots.append(Slot(v.name, v.type, v.kind, end))
        end = align(end + v.type.bytes)
    return end
