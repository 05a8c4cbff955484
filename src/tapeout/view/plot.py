"""Curves over steps or epochs as SVG: the loss and the accuracy of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapeout.view.markup import escape
from tapeout.view.svg import FONT, colours

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, PANEL, GAP = 860.0, 300.0, 46.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 26.0, 58.0, 44.0
_MOST_POINTS = 1500
"""Points of a curve; longer ones are thinned, each run keeping its lowest and highest."""


@dataclass(frozen=True)
class Curve:
    """A named sequence of points.

    Attributes:
        name: For the legend.
        x: Places, rising.
        y: Values; those that are not finite leave a gap.
        role: Colour, one of the roles of the palette.
        faint: Drawn thin, behind the others (single steps behind their mean).
        marks: Whether each point has a dot.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    role: str = "forward"
    faint: bool = False
    marks: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: What the values are.
        x_label: What the places are.
        curves: What is drawn, in order.
        percent: Whether values are shares shown as per cent.
    """

    title: str
    x_label: str
    curves: Sequence[Curve]
    percent: bool = False


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and up to `window - 1` before it, leaving out what is not finite."""
    found: list[float] = []
    total, count = 0.0, 0
    for i, v in enumerate(values):
        if math.isfinite(v):
            total, count = total + v, count + 1
        old = values[i - window] if i >= window else math.nan
        if math.isfinite(old):
            total, count = total - old, count - 1
        found.append(total / count if count else math.nan)
    return found


def render(title: str, panels: Sequence[Panel], note: str = "") -> str:
    """Return panels below each other as a whole SVG file."""
    height = TOP + len(panels) * (PANEL + GAP) - GAP + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" '
        f'width="{WIDTH:.0f}" height="{height:.0f}" role="img"><title>{escape(title)}</title>'
        f"<style>{colours()}{_STYLE}</style>"
        '<rect class="back" width="100%" height="100%"/>'
        f'<text class="heading" x="{LEFT:.0f}" y="26">{escape(title)}</text>'
    ]
    if note:
        place = f'x="{WIDTH - RIGHT:.0f}" y="26" text-anchor="end"'
        parts.append(f'<text class="tick" {place}>{escape(note)}</text>')
    for i, panel in enumerate(panels):
        parts.append(_panel(panel, TOP + i * (PANEL + GAP)))
    return "".join([*parts, "</svg>\n"])


_STYLE = (
    f"text{{font-family:{FONT}}}.back{{fill:var(--ground)}}.heading{{font-size:15px;font-weight:600;fill:var(--ink)}}"
    ".name{font-size:13px;font-weight:600;fill:var(--ink)}.tick{font-size:11.5px;fill:var(--soft)}"
    ".axis{stroke:var(--line)}.grid{stroke:var(--line);stroke-width:.6;opacity:.55}"
    ".curve{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".faint{stroke-width:1;opacity:.3}"
    + "".join(
        f".curve.{r}{{stroke:var(--{r})}}.dot.{r}{{fill:var(--{r})}}"
        for r in ("forward", "loss", "backward", "update", "check")
    )
)


@dataclass(frozen=True)
class _Scale:
    """From values to places."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _panel(panel: Panel, top: float) -> str:
    xs = [x for c in panel.curves for x in c.x]
    ys = [y for c in panel.curves for y in c.y if math.isfinite(y)]
    x_ticks = ticks(min(xs, default=0.0), max(xs, default=1.0), whole=True)
    y_ticks = _value_ticks(panel, ys)
    low, high = min(xs, default=0.0), max(xs, default=1.0)
    across = _Scale(low, high if high > low else low + 1.0, LEFT, WIDTH - RIGHT)
    up = _Scale(y_ticks[0], y_ticks[-1], top + PANEL - 30.0, top + 26.0)
    parts = [f'<text class="name" x="{LEFT:.0f}" y="{top + 10:.1f}">{escape(panel.title)}</text>']
    parts.append(_legend(panel, top))
    for value in y_ticks:
        y = up(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        text = f"{100 * value:g} %" if panel.percent else f"{value:g}"
        parts.append(
            f'<text class="tick" x="{LEFT - 9:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    bottom = top + PANEL - 30.0
    for value in [v for v in x_ticks if low <= v <= high]:
        x = across(value)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{value:,.10g}</text>'
        )
    parts.append(f'<path class="axis" fill="none" d="M{LEFT} {bottom:.1f}H{WIDTH - RIGHT}"/>')
    middle = f'x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{bottom + 36:.1f}" text-anchor="middle"'
    parts.append(f'<text class="tick" {middle}>{escape(panel.x_label)}</text>')
    parts += [_curve(c, across, up) for c in panel.curves]
    return "".join(parts)


def _value_ticks(panel: Panel, ys: Sequence[float]) -> list[float]:
    if not ys:
        return [0.0, 1.0]
    low, high = min(ys), max(ys)
    if panel.percent:
        found = ticks(low, high, count=5)
        return [v for v in found if v <= 1.0 + 1e-9] if len(found) > 2 else found
    return ticks(min(low, 0.0) if low < 0.5 * high else low, high, count=5)


def ticks(low: float, high: float, count: int = 8, whole: bool = False) -> list[float]:
    """Return round numbers from at most `low` to at least `high`, about `count`, at least two.

    Args:
        low: Smallest value.
        high: Largest value.
        count: About how many are wanted.
        whole: Only whole numbers, as for epochs.
    """
    if not high > low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1.0, 2.0, 5.0, 10.0) if whole else (1.0, 2.0, 2.5, 5.0, 10.0)
    step = next(m * power for m in factors if m * power >= raw * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, max(last, first + 1) + 1)]


def _legend(panel: Panel, top: float) -> str:
    parts, x = [], WIDTH - RIGHT
    for curve in reversed([c for c in panel.curves if c.name]):
        x -= 7.0 * len(curve.name)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{top + 10:.1f}">{escape(curve.name)}</text>'
        )
        faint = " faint" if curve.faint else ""
        line = f'x1="{x - 26:.1f}" x2="{x - 6:.1f}" y1="{top + 6:.1f}" y2="{top + 6:.1f}"'
        parts.append(f'<line class="curve {curve.role}{faint}" {line}/>')
        x -= 42.0
    return "".join(parts)


def _curve(curve: Curve, across: _Scale, up: _Scale) -> str:
    points = _thinned(list(zip(curve.x, curve.y, strict=True)))
    path, pen = [], "M"
    for x, y in points:
        if not math.isfinite(y):
            pen = "M"
            continue
        path.append(f"{pen}{across(x):.1f} {up(y):.1f}")
        pen = "L"
    faint = " faint" if curve.faint else ""
    drawn = f'<path class="curve {curve.role}{faint}" d="{"".join(path)}"/>'
    if not curve.marks:
        return drawn
    dots = [
        f'<circle class="dot {curve.role}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.6"/>'
        for x, y in points
        if math.isfinite(y)
    ]
    return drawn + "".join(dots)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most about `_MOST_POINTS` points; every run keeps its lowest and highest in their order."""
    if len(points) <= _MOST_POINTS:
        return points
    length = -(-2 * len(points) // _MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), length):
        run = points[start : start + length]
        ends = {min(run, key=lambda p: p[1]), max(run, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept
