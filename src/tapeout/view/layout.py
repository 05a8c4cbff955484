"""From a scene to places: `flow` runs from top to bottom, `lanes` sets derivatives beside sources."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapeout.view.layered import arrange, ranks
from tapeout.view.scene import Box, Line, Scene, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Point = tuple[float, float]

TITLE_SIZE, LINE_SIZE = 13.0, 11.0
LINE_HEIGHT = 15.0
PADDING = 12.0
MARGIN = 28.0
ROW_GAP = 34.0
LANE_GAP = 90.0
LANE_TITLE = 34.0
_LONGEST_LINE = 44
_NARROW, _WIDE = frozenset("fijlrtI.,:;'|!()[]{}/ "), frozenset("mwMW@%→—")


@dataclass(frozen=True, slots=True)
class Placed:
    """A box with its centre and size."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Routed:
    """A link with the points it runs through, tangents standing upright (`side`: lying) at each.

    Attributes:
        source: Number of the box it starts at.
        target: Number of the box it ends at.
        points: From the border of one box to that of the other.
        side: Whether it leaves and enters at the sides.
        label: What flows.
        quiet: Whether it is shown only when one of its ends is chosen.
    """

    source: int
    target: int
    points: tuple[Point, ...]
    side: bool
    label: str
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """A scene in its place.

    Attributes:
        title: Name of the graph.
        boxes: Placed boxes, in the scene's order.
        links: Routed links.
        width: Width of the whole.
        height: Height of the whole.
        lanes: Title, role and centre of each lane; empty where there are none.
        note: The scene's note.
    """

    title: str
    boxes: tuple[Placed, ...]
    links: tuple[Routed, ...]
    width: float
    height: float
    lanes: tuple[tuple[str, str, float], ...] = ()
    note: str = ""


def text_width(text: str, size: float) -> float:
    """Return about how wide a text is set in a sans-serif face, a little on the wide side."""
    units = sum(
        0.34 if c in _NARROW else 0.92 if c in _WIDE else 0.7 if c.isupper() else 0.58 for c in text
    )
    return units * size


def draw(scene: Scene) -> Drawing:
    """Return the scene in lanes if its backward boxes are named after forward ones, else as a flow."""
    forward = {box.name for box in scene.boxes if box.role != "backward" and box.name}
    backward = [box for box in scene.boxes if box.role == "backward"]
    facing = sum(box.name in forward for box in backward)
    grouped = len({(box.name, box.role) for box in backward}) == len(backward)
    return lanes(scene) if backward and grouped and facing * 2 > len(backward) else flow(scene)


def flow(scene: Scene) -> Drawing:
    """Return the scene drawn from top to bottom in the order of the data."""
    sized = [_sized(box) for box in scene.boxes]
    edges = [(link.source, link.target) for link in scene.links]
    rank = ranks(len(sized), edges)
    low = min(rank, default=0)
    rank = [r - low for r in rank]
    x, bends = arrange(rank, [s.width for s in sized], edges)
    row = _row(rank, sized)
    top, height = _row_tops(row, MARGIN)
    placed = [_at(s, x[i] + MARGIN, top[rank[i]] + row[rank[i]] / 2) for i, s in enumerate(sized)]
    moved = {i: [b + MARGIN for b in bend] for i, bend in bends.items()}
    links = _Router(placed, rank, top, row).route(scene, edges, moved)
    width = max((p.x + p.width / 2 for p in placed), default=0.0)
    width = max(width, max((px for link in links for px, _ in link.points), default=0.0)) + MARGIN
    return Drawing(scene.title, tuple(placed), tuple(links), width, height + MARGIN, (), scene.note)


def lanes(scene: Scene) -> Drawing:
    """Return the scene in three lanes: forward runs down, backward runs up beside it, updates stand outside.

    A box of the backward lane stands in the row of the forward box of the same name, an update in
    the row of the box that reads the variable.
    """
    from tapeout.view.lanes import UPDATE, lane_of, lane_rows

    sized = [_sized(box) for box in scene.boxes]
    lane = [lane_of(box) for box in scene.boxes]
    rank = lane_rows(scene, lane)
    row = _row(rank, sized)
    top, height = _row_tops(row, MARGIN + LANE_TITLE)
    left, titles = MARGIN, []
    quiet: dict[int, None] = {}
    placed: dict[int, Placed] = {}
    bends: dict[int, list[float]] = {}
    for number, (title, role) in enumerate(_LANES):
        members = [i for i, n in enumerate(lane) if n == number]
        if not members:
            continue
        at = {i: k for k, i in enumerate(members)}
        hubs = _hubs(scene, at) if number == UPDATE else {}
        inside = [
            i
            for i, link in enumerate(scene.links)
            if link.source in at and link.target in at and link.source not in hubs
        ]
        edges = [(at[scene.links[i].source], at[scene.links[i].target]) for i in inside]
        x, found = arrange([rank[i] for i in members], [sized[i].width for i in members], edges)
        for k, i in enumerate(members):
            placed[i] = _at(sized[i], left + x[k], top[rank[i]] + row[rank[i]] / 2)
        bends.update({inside[k]: [left + b for b in bend] for k, bend in found.items()})
        ends = [placed[i].x + sized[i].width / 2 for i in members]
        right = max(ends + [b for k in found for b in bends[inside[k]]])
        titles.append((title, role, (left + right) / 2))
        quiet.update(hubs)
        left = right + LANE_GAP
    boxes = [placed[i] for i in range(len(sized))]
    edges = [(k.source, k.target) for k in scene.links]
    links = _Router(boxes, rank, top, row, lane).route(scene, edges, bends)
    links = [
        replace(k, quiet=True) if k.source in quiet and lane[k.target] == UPDATE else k
        for k in links
    ]
    return Drawing(
        scene.title,
        tuple(boxes),
        tuple(links),
        left - LANE_GAP + MARGIN,
        height + MARGIN,
        tuple(titles),
        scene.note,
    )


def _hubs(scene: Scene, lane: Mapping[int, int]) -> dict[int, None]:
    """Return the boxes of a lane that feed many others in it, such as the optimiser's scalars."""
    fed: dict[int, int] = {}
    for link in scene.links:
        if link.source in lane and link.target in lane:
            fed[link.source] = fed.get(link.source, 0) + 1
    return {number: None for number, count in fed.items() if count > _MANY}


_MANY = 4
"""More links than this from one box to its lane are shown only when the box or its reader is chosen."""

_LANES = (("forward ↓", "forward"), ("backward ↑", "backward"), ("update", "update"))


def _sized(box: Box) -> Placed:
    lines = tuple(Line(shorten(line.text, _LONGEST_LINE), line.tone) for line in box.lines)
    title = text_width(box.title, TITLE_SIZE) * 1.06
    width = max([title, *(text_width(line.text, LINE_SIZE) for line in lines)]) + 2 * PADDING
    width += 12.0 if box.kind in ("reduction", "movement") else 0.0
    return Placed(box, 0.0, 0.0, max(width, 64.0), 2 * 8.0 + 17.0 + LINE_HEIGHT * len(lines), lines)


def _at(sized: Placed, x: float, y: float) -> Placed:
    return Placed(sized.box, x, y, sized.width, sized.height, sized.lines)


def _row(rank: Sequence[int], sized: Sequence[Placed]) -> list[float]:
    """Return the height of each row."""
    heights = [0.0] * (max(rank, default=-1) + 1)
    for r, s in zip(rank, sized, strict=True):
        heights[r] = max(heights[r], s.height)
    return heights


def _row_tops(row: Sequence[float], start: float) -> tuple[list[float], float]:
    """Return the top of each row, and the bottom of the last."""
    tops, y = [], start
    for height in row:
        tops.append(y)
        y += height + ROW_GAP
    return tops, y - ROW_GAP


class _Router:
    """Runs links through the gaps between rows."""

    def __init__(
        self,
        boxes: Sequence[Placed],
        rank: Sequence[int],
        top: Sequence[float],
        row: Sequence[float],
        lane: Sequence[int] = (),
    ) -> None:
        self.boxes, self.rank, self.top, self.row = boxes, rank, top, row
        self.lane = lane or [0] * len(boxes)

    def route(
        self, scene: Scene, edges: Sequence[tuple[int, int]], bends: dict[int, list[float]]
    ) -> list[Routed]:
        ports = self._ports(edges, bends)
        links = []
        for i, (a, b) in enumerate(edges):
            label = scene.links[i].label
            if self._sideways(a, b):
                links.append(Routed(a, b, self._beside(a, b), True, label))
                continue
            points = [
                (ports[i, a], self._border(a, b)),
                *self._bent(i, a, b, bends),
                (ports[i, b], self._border(b, a)),
            ]
            links.append(Routed(a, b, tuple(points), False, label))
        return links

    def _sideways(self, a: int, b: int) -> bool:
        return self.lane[a] != self.lane[b] or self.rank[a] == self.rank[b]

    def _border(self, n: int, other: int) -> float:
        """Return the border of a box that faces a box in another row."""
        half = self.boxes[n].height / 2
        return self.boxes[n].y + (half if self.rank[other] > self.rank[n] else -half)

    def _beside(self, a: int, b: int) -> tuple[Point, ...]:
        """Return the way between the sides that face each other."""
        p, q = self.boxes[a], self.boxes[b]
        sign = 1 if q.x >= p.x else -1
        return ((p.x + sign * p.width / 2, p.y), (q.x - sign * q.width / 2, q.y))

    def _bent(self, i: int, a: int, b: int, bends: dict[int, list[float]]) -> list[Point]:
        """Return the points where a link enters and leaves each row between its ends."""
        first = min(self.rank[a], self.rank[b]) + 1
        points: list[Point] = []
        for k, x in enumerate(bends.get(i, ())):
            points += [(x, self.top[first + k]), (x, self.top[first + k] + self.row[first + k])]
        return points if self.rank[a] < self.rank[b] else points[::-1]

    def _ports(
        self, edges: Sequence[tuple[int, int]], bends: dict[int, list[float]]
    ) -> dict[tuple[int, int], float]:
        """Return the x at which each link meets its boxes: spread over the border, in order."""
        meeting: dict[tuple[int, bool], list[tuple[float, int]]] = {}
        for i, (a, b) in enumerate(edges):
            if self._sideways(a, b):
                continue
            for n, other in ((a, b), (b, a)):
                below = self.rank[other] > self.rank[n]
                bend = bends.get(i)
                near = self.boxes[other].x if not bend else bend[0 if below else -1]
                meeting.setdefault((n, below), []).append((near, i))
        ports: dict[tuple[int, int], float] = {}
        for (n, _), found in meeting.items():
            found.sort()
            step = min(14.0, (self.boxes[n].width - 24.0) / len(found))
            for k, (_, i) in enumerate(found):
                ports[i, n] = self.boxes[n].x + (k - (len(found) - 1) / 2) * step
        return ports
