"""A profile as one self-contained page: totals, the roofline with a dot for each launch, and a table with bars.

The data are those of `Profile.to_data()`, plain numbers and text, so that a page can be made from a kept JSON file as well. There
is no script; names from the model are escaped.
"""

from __future__ import annotations

import base64
import hashlib
import math
from typing import TYPE_CHECKING, Any

from tapeout.support.units import bytes_text, count_text, seconds_text
from tapeout.view.markup import escape
from tapeout.view.svg import FONT, colours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 900.0, 420.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 20.0, 16.0, 48.0
_ROLES = {"again": "backward", "forward": "forward", "loss": "loss", "backward": "backward", "update": "update"}  # fmt: skip
_MOST_ROWS = 2000


def render(data: Mapping[str, Any]) -> str:
    """Return the page of a profile.

    Args:
        data: What `Profile.to_data()` gave.
    """
    style = colours() + _STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = escape(f"{data['name']}: profile")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{style}</style></head>\n<body><main><h1>{title}</h1>"
        f"{_figures(data)}<h2>Roofline</h2>{_caption(data)}{roofline(data)}"
        f"<h2>By role</h2>{_totals(data, 'role')}<h2>By layer</h2>{_totals(data, 'scope')}"
        f"<h2>Kernels</h2>{_kernels(data)}</main></body></html>\n"
    )


_STYLE = (
    f"body{{margin:0;background:var(--ground);color:var(--ink);font:14px/1.45 {FONT}}}main{{max-width:1200px;margin:0 auto;padding:24px}}"
    "h1{font-size:20px}h2{font-size:16px;margin:28px 0 8px}p{color:var(--soft);margin:4px 0 10px}"
    "dl{display:flex;flex-wrap:wrap;gap:10px 28px;margin:0}dt{color:var(--soft);font-size:12px}dd{margin:0;font-size:16px;font-weight:600}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th{text-align:left;color:var(--soft);font-weight:500}"
    "td,th{padding:3px 8px;border-bottom:1px solid var(--line);vertical-align:top}td.n,th.n{text-align:right;white-space:nowrap}"
    "td.names{color:var(--soft);font-size:12px;overflow-wrap:anywhere}svg.bar{width:110px;height:10px;display:block;margin-top:5px}"
    "svg.roof{width:100%;height:auto;background:var(--paper)}.axis{stroke:var(--line)}.grid{stroke:var(--line);opacity:.4}"
    ".tick{font-size:11px;fill:var(--soft)}.roofline{stroke:var(--ink);stroke-width:1.6;fill:none}.cacheline{stroke:var(--soft);"
    "stroke-width:1.2;fill:none;stroke-dasharray:5 4}"
    + "".join(
        f".{r}{{fill:var(--{r})}}" for r in ("forward", "loss", "backward", "update", "check")
    )
    + "circle{opacity:.65}.chip{margin-right:14px}.chip svg{width:10px;height:10px;margin-right:4px}"
)


def _figures(data: Mapping[str, Any]) -> str:
    c, kernels = data["ceiling"], data["native"] - data["between"]
    pairs = [
        ("a step, as called", seconds_text(data["call"])),
        ("native, clocks running", seconds_text(data["native"])),
        ("in kernels", f"{seconds_text(kernels)} ({_percent(kernels / data['native'])})"),
        ("between kernels", seconds_text(max(0.0, data["between"]))),
        ("launches", str(len(data["kernels"]))),
        ("threads", str(data["threads"])),
        ("FLOP", count_text(data["flops"])),
        ("FLOP/s", count_text(data["flops"] / data["call"])),
        ("read and written", bytes_text(data["bytes"])),
        ("steps timed", str(data["steps"])),
        ("processor", f"{c['machine']} ({c['target']})"),
    ]
    inside = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in pairs)
    return f"<dl>{inside}</dl>"


def _caption(data: Mapping[str, Any]) -> str:
    c = data["ceiling"]
    chips = "".join(
        f'<span class="chip"><svg viewBox="0 0 10 10"><circle class="{r}" cx="5" cy="5" r="5"/></svg>{r}</span>'
        for r in ("forward", "loss", "backward", "update")
    )
    return (
        f"<p>Measured on this machine with {data['threads']} threads: {count_text(c['flops'])}FLOP/s of f32 multiply-adds, "
        f"{bytes_text(c['memory'])}/s from memory (solid), {bytes_text(c['cache'])}/s from the second-level cache (dashed). "
        "A dot is a launch; its area is its share of the step. Above the solid line, operands came from a cache.</p>"
        f"<p>{chips}</p>"
    )


def roofline(data: Mapping[str, Any]) -> str:
    """Return the roofline plot as SVG: FLOP per byte across, FLOP per second upwards, both logarithmic."""
    c = data["ceiling"]
    dots = [k for k in data["kernels"] if k["flops"] > 0 and k["bytes"] > 0 and k["seconds"] > 0]
    xs = [k["flops"] / k["bytes"] for k in dots] + [c["flops"] / c["memory"]]
    ys = [k["flops"] / k["seconds"] for k in dots] + [c["flops"]]
    across = _Log(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    up = _Log(min(ys), max(ys), HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg class="roof" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img"><title>Roofline</title>'
    ]
    parts += [_tick_across(p, across) for p in across.decades()]
    parts += [_tick_up(p, up) for p in up.decades()]
    parts.append(_roof(c["flops"], c["cache"], across, up, "cacheline"))
    parts.append(_roof(c["flops"], c["memory"], across, up, "roofline"))
    parts += [_dot(k, across, up) for k in sorted(dots, key=lambda k: -k["seconds"])]
    parts.append(
        f'<text class="tick" x="{(_LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 8:.0f}" text-anchor="middle">FLOP per byte</text></svg>'
    )
    return "".join(parts)


class _Log:
    """From values to places on a logarithmic axis of whole decades."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
        self.high = max(self.high, self.low + 1)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def decades(self) -> list[float]:
        """Return the powers of ten on the axis."""
        return [10.0**e for e in range(self.low, self.high + 1)]


def _tick_across(value: float, across: _Log) -> str:
    x = across(value)
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text class="tick" x="{x:.1f}" y="{HEIGHT - _BOTTOM + 16:.1f}" text-anchor="middle">{value:g}</text>'
    )


def _tick_up(value: float, up: _Log) -> str:
    y = up(value)
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{count_text(value)}FLOP/s</text>'
    )


def _roof(flops: float, rate: float, across: _Log, up: _Log, kind: str) -> str:
    """Return the line `min(flops, rate * intensity)` inside of the axes."""
    first, last = 10.0**across.low, 10.0**across.high
    bottom = 10.0**up.low
    first = max(first, bottom / rate)
    ridge = min(max(flops / rate, first), last)
    points = [(first, min(flops, rate * first)), (ridge, min(flops, rate * ridge)), (last, min(flops, rate * last))]  # fmt: skip
    path = "L".join(f"{across(x):.1f} {up(max(y, bottom)):.1f}" for x, y in points)
    return f'<path class="{kind}" d="M{path}"/>'


def _dot(k: Mapping[str, Any], across: _Log, up: _Log) -> str:
    x, y = across(k["flops"] / k["bytes"]), up(k["flops"] / k["seconds"])
    radius = 2.5 + 28.0 * math.sqrt(max(0.0, k["share"]))
    told = f"{k['label']}: {seconds_text(k['seconds'])}, {_percent(k['share'])}, {_percent(k['of_roof'])} of the roof"
    return f'<circle class="{_colour(k)}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{escape(told)}</title></circle>'


def _colour(k: Mapping[str, Any]) -> str:
    return _ROLES.get(k["role"], "check")


def _totals(data: Mapping[str, Any], by: str) -> str:
    rows = data["totals"][by]
    lines = [
        [_bar(t["share"], "forward"), *_rates(t), str(t["launches"]), escape(t["name"])]
        for t in rows[:_MOST_ROWS]
    ]
    return _table(("", "time", "share", "FLOP/s", "bytes/s", "launches", by), lines, 6)


def _kernels(data: Mapping[str, Any]) -> str:
    lines = []
    for k in data["kernels"][:_MOST_ROWS]:
        names = dict.fromkeys(
            f"{s['name']} ({s['operator']})" if s["operator"] else s["name"] for s in k["sources"]
        )
        roof = f"{_percent(k['of_roof'])} {k['bound']}"
        lines.append(
            [_bar(k["share"] / max(1e-12, data["kernels"][0]["share"]), _colour(k)), *_rates(k), f"{k['runs']:g}", roof,
             escape(k["role"]), escape(k["label"]), escape(", ".join(names)), escape(k["kernel"])]
        )  # fmt: skip
    head = ("", "time", "share", "FLOP/s", "bytes/s", "runs", "of the roof", "role", "what", "nodes", "kernel")  # fmt: skip
    return _table(head, lines, 7)


def _rates(row: Mapping[str, Any]) -> list[str]:
    seconds = row["seconds"] or math.inf
    return [
        seconds_text(row["seconds"]),
        _percent(row["share"]),
        count_text(row["flops"] / seconds),
        bytes_text(row["bytes"] / seconds),
    ]


def _bar(share: float, role: str) -> str:
    width = max(0.0, min(100.0, 100 * share))
    return f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none"><rect class="{role}" width="{width:.1f}" height="8"/></svg>'


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], numbers: int) -> str:
    """Return a table; the columns from the second to before `numbers` hold numbers, the last two of a long row names."""

    def kind(i: int) -> str:
        return ' class="n"' if 0 < i < numbers else ' class="names"' if i >= 9 else ""

    top = "".join(f"<th{kind(i)}>{escape(c)}</th>" for i, c in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{kind(i)}>{c}</td>" for i, c in enumerate(line)) + "</tr>"
        for line in lines
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
