"""Drawing together what belongs together: a box per source node and role, or larger parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tapeout.view.scene import Box, Line, Link, Scene, every_node, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapeout.ir.graph import Graph

MOST_BOXES = 1200
"""A picture with more boxes can neither be read nor laid out in a moment."""

_SHOWN_VARIABLES = 4
_SHOWN_OPS = 5
_LISTED_NODES = 400
"""How many nodes of a group the page's side panel lists."""

Key = tuple[str, str]
"""Name of the source and role."""


def by_source(graph: Graph, most: int = MOST_BOXES) -> Scene:
    """Return the scene with one box per source node and role, coarser where that is more than `most` boxes.

    Names are shortened scope by scope (`block.3/attn/MatMul`, `block.3/attn`, `block.3`) until the
    boxes are few enough; what still is too much, or has no names, is cut into runs of consecutive
    boxes. Inputs and outputs stay boxes of their own as long as they are few.
    """
    return group(every_node(graph), most)


def every_node_or_groups(graph: Graph, most: int = MOST_BOXES) -> Scene:
    """Return the scene with a box per node where these are few enough, else that of `by_source`."""
    scene = every_node(graph)
    return scene if len(scene.boxes) <= most else group(scene, most)


def group(scene: Scene, most: int = MOST_BOXES) -> Scene:
    """Return the scene with boxes of one source and role drawn together."""
    keys = [_key(box) for box in scene.boxes]
    depth = _depth(keys, most)
    keys = [_at_depth(key, depth) for key in keys]
    if len(set(keys)) > most:
        keys = _runs(scene, most)
    members: dict[Key, list[int]] = {}
    for number, key in enumerate(keys):
        members.setdefault(key, []).append(number)
    boxes = tuple(
        _merge(i, key, [scene.boxes[n] for n in found])
        for i, (key, found) in enumerate(members.items())
    )
    place = {key: i for i, key in enumerate(members)}
    links = _merged_links(scene.links, [place[key] for key in keys])
    note = (
        f"{len(scene.boxes):,} boxes drawn together as {len(boxes):,}"
        if len(boxes) < len(scene.boxes)
        else ""
    )
    return Scene(scene.title, boxes, links, note)


def _key(box: Box) -> Key:
    if box.kind in ("input", "output") or not box.name:
        return (f"\0{box.key}", box.role)
    return (box.name, box.role)


def _scopes(name: str) -> list[str]:
    """Return the name and its enclosing scopes, from the whole to the outermost."""
    found = [name]
    found += [name[:end] for end in range(len(name) - 1, 0, -1) if name[end] in "/."]
    return found


def _at_depth(key: Key, depth: int) -> Key:
    """Return the key with its name cut to `depth` scopes; -1 keeps it whole."""
    name, role = key
    if depth < 0 or name.startswith("\0"):
        return key
    scopes = _scopes(name)
    return (scopes[max(0, len(scopes) - depth)], role)


def _depth(keys: Sequence[Key], most: int) -> int:
    """Return the greatest depth of scopes at which there are at most `most` groups; -1 for whole names."""
    if len(set(keys)) <= most:
        return -1
    deepest = max((len(_scopes(name)) for name, _ in keys if not name.startswith("\0")), default=1)
    for depth in range(deepest - 1, 0, -1):
        if len({_at_depth(key, depth) for key in keys}) <= most:
            return depth
    return 1


def _runs(scene: Scene, most: int) -> list[Key]:
    """Cut the boxes into runs of one role with consecutive numbers."""
    length = -(-2 * len(scene.boxes) // most)
    keys: list[Key] = []
    start, role = 0, ""
    for number, box in enumerate(scene.boxes):
        if box.role != role or number - start >= length:
            start, role = number, box.role
        keys.append((f"\0{start}", role))
    return keys


def _merged_links(links: Sequence[Link], place: Sequence[int]) -> tuple[Link, ...]:
    labels: dict[tuple[int, int], list[str]] = {}
    for link in links:
        ends = (place[link.source], place[link.target])
        if ends[0] != ends[1]:
            labels.setdefault(ends, []).append(link.label)
    return tuple(Link(s, t, _label(found)) for (s, t), found in labels.items())


def _label(labels: list[str]) -> str:
    distinct = list(dict.fromkeys(labels))
    return distinct[0] if len(distinct) == 1 else f"{distinct[0]} and {len(distinct) - 1} more"


def _merge(number: int, key: Key, boxes: Sequence[Box]) -> Box:
    if len(boxes) == 1:
        return _alone(number, boxes[0])
    ops = Counter(box.title for box in boxes)
    name = "" if key[0].startswith("\0") else key[0]
    title = shorten(name, 34) if name else f"{len(boxes)} nodes"
    return Box(
        f"g{number}",
        "group",
        key[1],
        title,
        tuple(_lines(ops, boxes)),
        name,
        _facts(ops, boxes, name),
    )


def _alone(number: int, box: Box) -> Box:
    """Return the box of a source that has one node: titled by the source like groups, shaped like the node."""
    if box.kind in ("input", "output", "update") or not box.name:
        return replace(box, key=f"g{number}")
    lines = (Line(box.title, "note"), *box.lines)
    return replace(box, key=f"g{number}", title=shorten(box.name, 34), lines=lines)


def _ops_text(ops: Counter[str], most: int) -> str:
    """Return `conv, add, 2 max` in order of first use, cut after `most`."""
    shown = [f"{count} {op}" if count > 1 else op for op, count in list(ops.items())[:most]]
    rest = sum(list(ops.values())[most:])
    return ", ".join(shown) + (f", {rest} more" if rest else "")


def _lines(ops: Counter[str], boxes: Sequence[Box]) -> list[Line]:
    found = [Line(_ops_text(ops, _SHOWN_OPS), "note")]
    last = [line for line in boxes[-1].lines if line.tone == "type"]
    found += last[-1:]
    for tone in ("variable", "update"):
        lines = list(
            dict.fromkeys(line for box in boxes for line in box.lines if line.tone == tone)
        )
        found += lines[:_SHOWN_VARIABLES]
        if len(lines) > _SHOWN_VARIABLES:
            found.append(Line(f"{len(lines) - _SHOWN_VARIABLES} more", tone))
    return found


def _facts(ops: Counter[str], boxes: Sequence[Box], name: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "op": _ops_text(ops, 12),
        "source": name,
        "file": next((str(b.facts["file"]) for b in boxes if b.facts.get("file")), ""),
        "nodes": [
            {"op": box.title, "result": next(iter(box.facts.get("results", [])), "")}
            for box in boxes[:_LISTED_NODES]
        ],
    }
    if len(boxes) > _LISTED_NODES:
        facts["unlisted"] = len(boxes) - _LISTED_NODES
    variables = dict.fromkeys(
        operand["text"]
        for box in boxes
        for operand in box.facts.get("operands", ())
        if operand.get("from") not in (None, "constant")
    )
    if variables:
        facts["variables"] = list(variables)[:_LISTED_NODES]
    updates = dict.fromkeys(name for box in boxes for name in box.facts.get("updates", ()))
    if updates:
        facts["updates"] = list(updates)[:_LISTED_NODES]
    return facts
