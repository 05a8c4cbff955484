"""The memory plan as a picture: each buffer a rectangle, from its first write to its last read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tapeout.support.units import bytes_text
from tapeout.view.markup import escape
from tapeout.view.scene import shorten
from tapeout.view.svg import FONT, colours

if TYPE_CHECKING:
    from tapeout.kernel.program import Program

LEFT, TOP, WIDTH, HEIGHT = 92.0, 40.0, 1080.0, 620.0
_RIGHT, _BOTTOM = 24.0, 46.0
_LEAST_HEIGHT = 0.6
"""Small buffers keep a visible hair line."""

_CLASSES = {
    "parameter": "forward",
    "state": "update",
    "hyper": "update",
    "gradient": "backward",
    "activation": "loss",
    "output": "check",
}
"""Space of a buffer (or kind of a variable) to the colour of its rectangle."""

LEGEND = (
    ("parameters", "forward"),
    ("optimiser state", "update"),
    ("gradients", "backward"),
    ("activations", "loss"),
    ("outputs", "check"),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle: bytes `low` to `high` of the arena, from item `first` to item `last`."""

    key: str
    name: str
    space: str
    type: str
    low: int
    high: int
    first: int
    last: int

    @property
    def facts(self) -> dict[str, Any]:
        """Plain data for the page's side panel."""
        kept = "always" if self.first < 0 else f"items {self.first} to {self.last}"
        return {
            "name": self.name,
            "kind": self.space,
            "type": self.type,
            "bytes": f"{self.high - self.low:,}",
            "offset": f"{self.low:,}",
            "live": kept,
        }


def bars(program: Program) -> list[Bar]:
    """Return the rectangles: variables first, then what lives during the program, in order of offset."""
    last = max(program.count - 1, 0)
    found = [
        Bar(f"m{i}", s.name, s.kind, str(s.type), s.offset, s.offset + s.type.bytes, -1, last)
        for i, s in enumerate(program.layout.slots)
    ]
    moving = sorted(
        (
            b
            for b in program.buffers.values()
            if b.space in ("gradient", "activation", "output") and not b.of
        ),
        key=lambda b: (b.offset, b.first),
    )
    base = len(found)
    for i, b in enumerate(moving):
        found.append(
            Bar(
                f"m{base + i}",
                b.name,
                b.space,
                str(b.type),
                b.offset,
                b.offset + b.bytes,
                max(b.first, 0),
                min(max(b.last, b.first), last),
            )
        )
    return found


def live_bytes(program: Program) -> list[int]:
    """Return, per item, how many bytes of the transient part hold something that is still needed."""
    change = [0] * (program.count + 1)
    for bar in bars(program):
        if bar.first >= 0:
            change[bar.first] += bar.high - bar.low
            change[bar.last + 1] -= bar.high - bar.low
    total, found = 0, []
    for step in change[:-1]:
        total += step
        found.append(total)
    return found


def summary(program: Program) -> list[tuple[str, str]]:
    """Return the figures that stand above the picture."""
    transient = program.arena - program.layout.bytes
    peak = max(live_bytes(program), default=0)
    found = [("arena", bytes_text(program.arena)), ("variables", bytes_text(program.layout.bytes))]
    found += [("during the step", bytes_text(transient)), ("peak in use", bytes_text(peak))]
    if transient:
        found.append(("packing", f"{100 * peak / transient:.0f} %"))
    return found


def picture(program: Program) -> str:
    """Return the picture's SVG elements, in a box of `WIDTH` by `HEIGHT`."""
    plot_h = HEIGHT - TOP - _BOTTOM
    plot_w = WIDTH - LEFT - _RIGHT
    items = max(program.count, 1)
    per_byte = plot_h / max(program.arena, 1)
    parts = [_axes(program, plot_w, plot_h)]
    for bar in bars(program):
        x = LEFT + plot_w * max(bar.first, 0) / items
        w = plot_w * (bar.last + 1 - max(bar.first, 0)) / items
        h = max((bar.high - bar.low) * per_byte, _LEAST_HEIGHT)
        y = TOP + plot_h - bar.low * per_byte - h
        parts.append(_bar(bar, x, y, w, h))
    return "".join(parts)


def document(program: Program) -> str:
    """Return the memory picture as a whole SVG file."""
    style = f"<style>{colours()}{style_rules()}.back{{fill:var(--ground)}}text{{font-family:{FONT}}}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" width="{WIDTH:.0f}" height="{HEIGHT:.0f}">'
        f"<title>{escape(program.name)}: memory</title>{style}"
        f'<rect class="back" width="100%" height="100%"/>{_legend()}{picture(program)}</svg>\n'
    )


def style_rules() -> str:
    """Return the CSS of the picture."""
    roles = sorted(set(_CLASSES.values()))
    bar_rules = "".join(
        f".bar.{r}>rect{{fill:var(--{r}-fill);stroke:var(--{r})}}.bar.{r}>text{{fill:var(--{r})}}"
        for r in roles
    )
    return (
        ".axis{stroke:var(--line);stroke-width:1}.grid{stroke:var(--line);stroke-width:.5;opacity:.5}"
        ".tick{font-size:11px;fill:var(--soft)}.bar>rect{stroke-width:.7}"
        ".bar>text{font-size:10.5px;pointer-events:none}.key{font-size:12px;fill:var(--soft)}"
        + bar_rules
    )


def _bar(bar: Bar, x: float, y: float, w: float, h: float) -> str:
    role = _CLASSES.get(bar.space, "check")
    label = ""
    if h >= 13 and w >= 46:
        text = shorten(bar.name, max(4, int(w / 6.4)))
        label = f'<text x="{x + 5:.1f}" y="{y + h / 2 + 3.7:.1f}">{escape(text)}</text>'
    tip = f"{bar.name}: {bar.type}, {bytes_text(bar.high - bar.low)} at {bar.low:,}"
    rect = f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>'
    return f'<g class="bar {role}" data-key="{bar.key}" tabindex="0"><title>{escape(tip)}</title>{rect}{label}</g>'


def _axes(program: Program, w: float, h: float) -> str:
    bottom = TOP + h
    parts = []
    for value in byte_ticks(program.arena):
        y = bottom - h * value / max(program.arena, 1)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{LEFT + w:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{LEFT - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{bytes_text(value)}</text>'
        )
    items = max(program.count, 1)
    step = max(1, -(-items // 12))
    for i in range(0, items, step):
        x = LEFT + w * (i + 0.5) / items
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{i}</text>'
        )
    parts.append(
        f'<text class="tick" x="{LEFT + w / 2:.1f}" y="{bottom + 38:.1f}" text-anchor="middle">launches and checks, in order →</text>'
    )
    parts.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{LEFT + w:.1f}"/>')
    return "".join(parts)


def byte_ticks(most: int) -> list[int]:
    """Return four to eight round numbers of bytes from 0 to `most`."""
    step = 1
    while most // step > 8:
        step *= 2
    return list(range(0, most + 1, step))


def _legend() -> str:
    parts, x = [], LEFT
    for text, role in LEGEND:
        parts.append(
            f'<g class="bar {role}"><rect x="{x:.0f}" y="12" width="12" height="12" rx="2"/></g>'
        )
        parts.append(f'<text class="key" x="{x + 18:.0f}" y="22">{escape(text)}</text>')
        x += 34 + 7 * len(text)
    return "".join(parts)
