"""One self-contained page: graphs of every stage, kernels and memory, to pan, zoom, search and click.

The page needs nothing but itself and works from a file. Its content policy forbids every other
source; style and script are allowed by their hashes, names from the model are escaped as text or
carried as data, and nothing is evaluated.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from tapeout.view import kernels, memory
from tapeout.view.groups import MOST_BOXES, group
from tapeout.view.layout import Drawing, draw, flow
from tapeout.view.markup import escape
from tapeout.view.scene import KINDS, ROLES, Scene, every_node, type_text
from tapeout.view.svg import colours, content, drawing_style

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tapeout.ir.graph import Graph
    from tapeout.kernel.program import Program

_LONGEST_TEXT = 2_000_000
"""Characters of `.tape` text that a page carries."""


@dataclass(frozen=True, eq=False)
class Stage:
    """A tab of the page.

    Attributes:
        name: The tab's title, `import`, `backward`, `optimized`, …; a program becomes the two tabs
            `kernels` and `memory`.
        content: What the stage made.
        explanation: One sentence for the reader.
    """

    name: str
    content: Graph | Program
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class _Tab:
    """A tab as it stands in the page."""

    name: str
    body: str
    data: dict[str, Any]
    templates: str = ""


def render(title: str, stages: Iterable[Stage]) -> str:
    """Return the page.

    Args:
        title: Heading and title of the window.
        stages: Tabs from left to right; at least one.
    """
    from tapeout.ir.graph import Graph

    tabs: list[_Tab] = []
    for stage in stages:
        if isinstance(stage.content, Graph):
            tabs.append(_graph_tab(stage.name, stage.content, stage.explanation, len(tabs)))
        else:
            tabs += [_kernel_tab(stage.content, stage.explanation), _memory_tab(stage.content)]
    return _page(title, tabs)


def _page(title: str, tabs: Sequence[_Tab]) -> str:
    style = colours() + drawing_style() + memory.style_rules() + _asset("page.css")
    script = _asset("page.js")
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    buttons = "".join(
        f'<button role="tab" data-tab="{i}" aria-selected="false">{escape(t.name)}</button>'
        for i, t in enumerate(tabs)
    )
    bodies = "".join(
        f'<section class="tab" data-tab="{i}" hidden>{t.body}</section>' for i, t in enumerate(tabs)
    )
    templates = "".join(t.templates for t in tabs)
    data = _json({"tabs": [{"name": t.name, **t.data} for t in tabs], "roles": ROLES})
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>"
        f'<header><h1>{escape(title)}</h1><nav role="tablist">{buttons}</nav>'
        '<label class="find"><span>Search</span><input id="search" type="search" spellcheck="false" '
        'placeholder="op, name, type, parameter" autocomplete="off"><output id="hits"></output></label></header>'
        f'<main>{bodies}<aside id="panel" aria-live="polite"></aside></main>{templates}'
        f'<script type="application/json" id="data">{data}</script><script>{script}</script></body></html>\n'
    )


def _graph_tab(name: str, graph: Graph, explanation: str, number: int) -> _Tab:
    scene = every_node(graph)
    views: list[tuple[str, Drawing]] = []
    grouped = group(scene)
    if len(grouped.boxes) < len(scene.boxes):
        views.append(("by source", draw(grouped)))
    if len(scene.boxes) <= MOST_BOXES:
        views.append(("every node", flow(scene)))
    templates = "".join(
        _template(f"view-{number}-{i}", drawing) for i, (_, drawing) in enumerate(views)
    )
    options = "".join(
        f'<button data-view="{i}">{escape(label)}</button>' for i, (label, _) in enumerate(views)
    )
    options += '<button data-view="text">text</button>'
    text = str(graph)
    if len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT] + "\n… (cut: the text is long)\n"
    parameters = [
        [v.name, str(v.type), "frozen" if v.kind == "parameter" and not v.trainable else v.kind]
        for v in graph.variables
    ]
    body = (
        f'<div class="tools"><span class="views">{options}</span><button data-zoom="fit">fit</button><button data-zoom="in">+</button>'
        f'<button data-zoom="out">−</button></div><div class="stage"></div><div class="legend">{_legend(scene)}</div>'
    )
    data = {
        "kind": "graph",
        "explanation": explanation,
        "views": [
            {"id": f"view-{number}-{i}", "boxes": _facts(d), "note": d.note}
            for i, (_, d) in enumerate(views)
        ],
        "text": text,
        "parameters": parameters,
        "summary": _graph_summary(graph),
    }
    return _Tab(name, body, data, templates)


def _graph_summary(graph: Graph) -> list[tuple[str, str]]:
    size = sum(v.type.size for v in graph.parameters.values())
    trained = sum(v.type.size for v in graph.parameters.values() if v.trainable)
    found = [
        ("nodes", f"{len(graph.nodes):,}"),
        ("parameters", f"{len(graph.parameters):,} tensors, {size:,} numbers"),
    ]
    if trained != size:
        found.append(("trainable", f"{trained:,} numbers"))
    found.append(
        ("inputs", ", ".join(f"{v.name}: {type_text(v.type, graph.dims)}" for v in graph.inputs))
    )
    found.append(
        (
            "outputs",
            ", ".join(f"{name}: {type_text(v.type, graph.dims)}" for name, v in graph.outputs[:8]),
        )
    )
    return found


def _facts(drawing: Drawing) -> dict[str, Any]:
    return {
        p.box.key: {
            "title": p.box.title,
            "kind": p.box.kind,
            "role": p.box.role,
            "name": p.box.name,
            **p.box.facts,
        }
        for p in drawing.boxes
    }


def _template(name: str, drawing: Drawing) -> str:
    size = f'viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}"'
    return f'<template id="{name}"><svg xmlns="http://www.w3.org/2000/svg" {size} class="drawing">{content(drawing)}</svg></template>'


def _legend(scene: Scene) -> str:
    roles = {box.role: None for box in scene.boxes}
    kinds = {box.kind: None for box in scene.boxes}
    shown = [f'<span class="chip {r}">{r}</span>' for r in ROLES if r in roles]
    shown += [
        f'<span class="outline {k}">{k}</span>'
        for k in KINDS
        if k in kinds and k not in ("input", "output", "group", "update")
    ]
    return "".join(shown)


def _kernel_tab(program: Program, explanation: str) -> _Tab:
    found = kernels.rows(program)
    most = max((r["work"] for r in found), default=0) or 1
    head = "".join(f"<th>{escape(c)}</th>" for c in kernels.COLUMNS)
    lines = "".join(_row(i, r, most) for i, r in enumerate(found))
    body = f'<div class="scroll">{_figures(kernels.summary(program))}<table class="kernels"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    rows = [{k: v for k, v in r.items() if k != "work"} for r in found]
    data = {
        "kind": "kernels",
        "rows": rows,
        "texts": kernels.texts(program),
        "explanation": explanation,
    }
    return _Tab("kernels", body, data)


def _row(number: int, row: dict[str, Any], most: int) -> str:
    cells = "".join(f"<td>{escape(c)}</td>" for c in row["cells"][:3])
    share = max(0, round(100 * row["work"] / most))
    bar = (
        f'<svg class="work" viewBox="0 0 100 4" preserveAspectRatio="none"><rect width="{share}" height="4"/></svg>'
        if share
        else ""
    )
    cells += f"<td>{escape(row['cells'][3])}{bar}</td>"
    cells += "".join(f"<td>{escape(c)}</td>" for c in row["cells"][4:])
    role = row["role"] if row["role"] in ROLES else "forward"
    return f'<tr class="{role}" data-row="{number}" tabindex="0">{cells}</tr>'


def _memory_tab(program: Program) -> _Tab:
    size = f'viewBox="0 0 {memory.WIDTH:.0f} {memory.HEIGHT:.0f}"'
    legend = "".join(
        f'<span class="chip {role}">{escape(text)}</span>' for text, role in memory.LEGEND
    )
    body = (
        f'<div class="scroll">{_figures(memory.summary(program))}<div class="legend flat">{legend}</div>'
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="memory">{memory.picture(program)}</svg></div>'
    )
    items = [r["cells"][1] for r in kernels.rows(program)]
    data = {
        "kind": "memory",
        "bars": {b.key: b.facts for b in memory.bars(program)},
        "items": items,
    }
    return _Tab("memory", body, data)


def _figures(pairs: Sequence[tuple[str, str]]) -> str:
    inside = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs
    )
    return f'<dl class="figures">{inside}</dl>'


def _asset(name: str) -> str:
    return resources.files("tapeout.view").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the hash source of a content policy for an element with this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode(
        "ascii"
    )


def _json(data: object) -> str:
    """Return JSON that cannot end the script element it stands in, whatever strings it holds."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
