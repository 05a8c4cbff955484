"""Which lane and row a box of a training step stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.view.layered import ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.view.scene import Box, Scene

FORWARD, BACKWARD, UPDATE = range(3)


def lane_of(box: Box) -> int:
    """Return the number of the lane: forward (with loss and checks), backward, update."""
    return {"backward": BACKWARD, "update": UPDATE}.get(box.role, FORWARD)


def lane_rows(scene: Scene, lane: Sequence[int]) -> list[int]:
    """Return the row of each box.

    Args:
        scene: Boxes, grouped by source.
        lane: The lane of each box.
    """
    rows = _forward_rows(scene, lane)
    last = max(rows.values(), default=-1)
    _backward_rows(scene, lane, rows, last)
    _update_rows(scene, lane, rows)
    low = min(rows.values(), default=0)
    found = [rows[i] - low for i in range(len(scene.boxes))]
    used = {row: i for i, row in enumerate(sorted(set(found)))}
    return [used[row] for row in found]


def _forward_rows(scene: Scene, lane: Sequence[int]) -> dict[int, int]:
    members = [i for i, n in enumerate(lane) if n == FORWARD]
    at = {i: k for k, i in enumerate(members)}
    edges = [(at[s.source], at[s.target]) for s in scene.links if s.source in at and s.target in at]
    return dict(zip(members, ranks(len(members), edges), strict=True))


def _backward_rows(scene: Scene, lane: Sequence[int], rows: dict[int, int], last: int) -> None:
    """Put derivatives beside their source, others one row above what they read."""
    facing = {
        box.name: rows[i] for i, box in enumerate(scene.boxes) if lane[i] == FORWARD and box.name
    }
    reads: dict[int, list[int]] = {}
    for link in scene.links:
        reads.setdefault(link.target, []).append(link.source)
    for i, box in enumerate(scene.boxes):
        if lane[i] != BACKWARD:
            continue
        made = [rows[s] for s in reads.get(i, ()) if s in rows and lane[s] == BACKWARD]
        rows[i] = facing.get(box.name, min(made) - 1 if made else last)


def _update_rows(scene: Scene, lane: Sequence[int], rows: dict[int, int]) -> None:
    """Put updates beside the first box that reads the variable, others below everything."""
    reader: dict[str, int] = {}
    for i, box in enumerate(scene.boxes):
        if lane[i] == FORWARD:
            for name in _variables(box):
                reader.setdefault(name, rows[i])
    rest = []
    for i, box in enumerate(scene.boxes):
        if lane[i] != UPDATE:
            continue
        if box.name in reader:
            rows[i] = reader[box.name]
        else:
            rest.append(i)
    below = max(rows.values(), default=-1) + 1
    at = {i: k for k, i in enumerate(rest)}
    edges = [(at[s.source], at[s.target]) for s in scene.links if s.source in at and s.target in at]
    for i, row in zip(rest, ranks(len(rest), edges), strict=True):
        rows[i] = below + row


def _variables(box: Box) -> list[str]:
    """Return the names of the variables that a box reads."""
    listed = box.facts.get("variables") or [
        line.text for line in box.lines if line.tone == "variable"
    ]
    return [str(text).rpartition(":")[0] for text in listed]
