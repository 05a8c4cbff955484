"""A drawing as SVG: readable on light and dark ground, and safe whatever the names in the model are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.view.groups import by_source, every_node_or_groups
from tapeout.view.layout import LINE_HEIGHT, Drawing, Placed, Routed, draw
from tapeout.view.markup import escape

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# One hue per role, of like weight; ground, ink and lines in greys. The second column is for dark ground.
PALETTE: dict[str, tuple[str, str]] = {
    "ground": ("#fbfbf9", "#15171a"),
    "paper": ("#ffffff", "#1e2126"),
    "ink": ("#1d2127", "#e8eaed"),
    "soft": ("#69707a", "#9aa1ab"),
    "line": ("#b9bec6", "#4a505a"),
    "forward": ("#2f6fb0", "#6aa9e6"),
    "loss": ("#b07a12", "#e0b04c"),
    "backward": ("#b0414f", "#ec8290"),
    "update": ("#3a7f4f", "#6fc187"),
    "check": ("#6f6a86", "#a9a3c4"),
    "forward-fill": ("#edf4fb", "#1b2a3a"),
    "loss-fill": ("#fbf3e0", "#33290f"),
    "backward-fill": ("#fbeef0", "#3a1f25"),
    "update-fill": ("#ebf6ee", "#1a3022"),
    "check-fill": ("#f2f1f6", "#28263a"),
}

_ROLES = ("forward", "loss", "backward", "update", "check")


def colours(scope: str = ":root") -> str:
    """Return CSS that defines the palette as variables, light by default and dark where the reader asks for it."""
    light, dark = (
        ";".join(f"--{name}:{pair[i]}" for name, pair in PALETTE.items()) for i in (0, 1)
    )
    return f"{scope}{{{light}}}@media (prefers-color-scheme:dark){{{scope}{{{dark}}}}}"


def drawing_style() -> str:
    """Return the CSS of the shapes of a drawing, in terms of the palette's variables."""
    roles = "".join(
        f".box.{r}>.shape{{fill:var(--{r}-fill);stroke:var(--{r})}}.box.{r}>.title{{fill:var(--{r})}}"
        f".link.{r}{{stroke:var(--{r})}}.head.{r}{{fill:var(--{r})}}.lane.{r}{{fill:var(--{r})}}"
        for r in _ROLES
    )
    return (
        f"text{{font-family:{FONT}}}"
        ".box>.shape{stroke-width:1.2}"
        ".box>.inner{fill:none;stroke-width:.8;stroke:var(--line)}"
        ".title{font-size:13px;font-weight:600}"
        ".detail{font-size:11px;fill:var(--soft)}"
        ".detail.variable,.detail.update{fill:var(--ink)}"
        ".detail.update{font-weight:600}"
        ".detail.note{font-style:italic}"
        ".link{fill:none;stroke-width:1.1;opacity:.55}"
        ".edge.quiet{opacity:0}"
        ".link.side{stroke-dasharray:4 3;opacity:.5}"
        ".lane{font-size:15px;font-weight:600;letter-spacing:.02em}"
        ".caption{font-size:12px;fill:var(--soft)}" + roles
    )


def render(graph: Graph) -> str:
    """Return a graph as a whole SVG file.

    A graph with a backward part is drawn in lanes, the nodes of one source together, and so is any
    graph that is too large for a box per node.
    """
    derived = any(node.loc.role == "backward" for node in graph.nodes)
    return document(draw(by_source(graph) if derived else every_node_or_groups(graph)))


def document(drawing: Drawing) -> str:
    """Return a drawing as a whole SVG file."""
    w, h = drawing.width, drawing.height + (24 if drawing.note else 0)
    caption = (
        f'<text class="caption" x="28" y="{_n(h - 12)}">{escape(drawing.note)}</text>'
        if drawing.note
        else ""
    )
    style = f"<style>{colours(':root')}{drawing_style()}.back{{fill:var(--ground)}}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(w)} {_n(h)}" width="{_n(w)}" height="{_n(h)}" role="img">'
        f"<title>{escape(drawing.title)}</title>{style}"
        f'<rect class="back" width="100%" height="100%"/>{content(drawing)}{caption}</svg>\n'
    )


def content(drawing: Drawing) -> str:
    """Return the links, lane titles and boxes as SVG elements, links below boxes."""
    parts = [
        f'<text class="lane {role}" x="{_n(x)}" y="34" text-anchor="middle">{escape(title)}</text>'
        for title, role, x in drawing.lanes
    ]
    parts += [_link(link, drawing) for link in drawing.links]
    parts += [_box(placed) for placed in drawing.boxes]
    return "".join(parts)


def _n(x: float) -> str:
    """Return a coordinate with at most one digit after the point."""
    return f"{x:.1f}".rstrip("0").rstrip(".") if x else "0"


def _link(link: Routed, drawing: Drawing) -> str:
    source, target = drawing.boxes[link.source].box, drawing.boxes[link.target].box
    role = target.role if source.role == "forward" else source.role
    path = _curve(link)
    ends = f'data-from="{source.key}" data-to="{target.key}"'
    side = " side" if link.side else ""
    quiet = "edge quiet" if link.quiet else "edge"
    return (
        f'<g class="{quiet}" {ends}><path class="link {role}{side}" d="{path}"><title>{escape(link.label)}</title></path>'
        f'<path class="head {role}" opacity=".6" d="{_head(link)}"/></g>'
    )


def _curve(link: Routed) -> str:
    (x, y), *rest = link.points
    path = [f"M{_n(x)} {_n(y)}"]
    for nx, ny in rest:
        if nx == x and not link.side:
            path.append(f"V{_n(ny)}")
        elif link.side:
            mid = (x + nx) / 2
            path.append(f"C{_n(mid)} {_n(y)} {_n(mid)} {_n(ny)} {_n(nx)} {_n(ny)}")
        else:
            mid = (y + ny) / 2
            path.append(f"C{_n(x)} {_n(mid)} {_n(nx)} {_n(mid)} {_n(nx)} {_n(ny)}")
        x, y = nx, ny
    return "".join(path)


def _head(link: Routed) -> str:
    """Return a small arrow at the end of a link."""
    (px, py), (x, y) = link.points[-2:]
    if link.side:
        back = -6 if x > px else 6
        return f"M{_n(x)} {_n(y)}l{back} -3.4v6.8z"
    back = -6 if y > py else 6
    return f"M{_n(x)} {_n(y)}l-3.4 {back}h6.8z"


def _box(placed: Placed) -> str:
    box = placed.box
    left, top = placed.x - placed.width / 2, placed.y - placed.height / 2
    y = top + 8 + 13
    texts = [
        f'<text class="title" x="{_n(placed.x)}" y="{_n(y)}" text-anchor="middle">{escape(box.title)}</text>'
    ]
    for line in placed.lines:
        y += LINE_HEIGHT
        texts.append(
            f'<text class="detail {line.tone}" x="{_n(placed.x)}" y="{_n(y + 2)}" text-anchor="middle">{escape(line.text)}</text>'
        )
    name = f" data-name={_quoted(box.name)}" if box.name else ""
    shape = _shape(box.kind, left, top, placed.width, placed.height)
    return f'<g class="box {box.role} {box.kind}" data-key="{box.key}"{name} tabindex="0">{shape}{"".join(texts)}</g>'


def _quoted(text: str) -> str:
    return f'"{escape(text)}"'


def _shape(kind: str, x: float, y: float, w: float, h: float) -> str:
    """Return the outline that tells the kind of a box."""
    if kind == "reduction":
        return _polygon([(x, y), (x + w, y), (x + w - 9, y + h), (x + 9, y + h)])
    if kind == "movement":
        return _polygon([(x + 7, y), (x + w + 4, y), (x + w - 7, y + h), (x - 4, y + h)])
    if kind == "scatter":
        left, right, top, low = x + 9, x + w - 9, y + 9, y + h - 9
        upper = [(left, y), (right, y), (x + w, top), (x + w, low)]
        return _polygon([*upper, (right, y + h), (left, y + h), (x, low), (x, top)])
    shape = _rect("shape", x, y, w, h, min(_RADIUS.get(kind, 5.0), h / 2))
    return shape + _rect("inner", x + 3, y + 3, w - 6, h - 6, 2.0) if kind == "composite" else shape


_ROUND = 1e9
_RADIUS = {"elementwise": 14.0, "contraction": 0.0, "composite": 3.0, "group": 6.0}
_RADIUS.update(dict.fromkeys(("input", "output", "update"), _ROUND))


def _rect(part: str, x: float, y: float, w: float, h: float, radius: float) -> str:
    place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}"'
    return f'<rect class="{part}" {place} rx="{_n(radius)}"/>'


def _polygon(points: list[tuple[float, float]]) -> str:
    path = " ".join(f"{_n(px)},{_n(py)}" for px, py in points)
    return f'<polygon class="shape" points="{path}"/>'
