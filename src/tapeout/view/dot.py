"""A graph as Graphviz DOT, for those who lay it out with tools of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapeout.view.scene import every_node
from tapeout.view.svg import PALETTE

if TYPE_CHECKING:
    from tapeout.ir.graph import Graph
    from tapeout.view.scene import Box, Scene

_SHAPES = {
    "input": "oval",
    "output": "oval",
    "update": "oval",
    "reduction": "invtrapezium",
    "movement": "parallelogram",
    "scatter": "octagon",
    "composite": "box3d",
    "contraction": "box",
    "group": "folder",
}


def render(graph: Graph) -> str:
    """Return the DOT text of a graph: one node per box, edges labelled with types."""
    return of_scene(every_node(graph))


def of_scene(scene: Scene) -> str:
    """Return the DOT text of a scene."""
    lines = [f"digraph {_quote(scene.title)} {{"]
    lines += ['  node [fontname="Helvetica", fontsize=11, style="filled,rounded"];']
    lines += ['  edge [fontname="Helvetica", fontsize=9, color="#8a909a"];']
    lines += [f"  {box.key} {_attributes(box)};" for box in scene.boxes]
    for link in scene.links:
        ends = f"{scene.boxes[link.source].key} -> {scene.boxes[link.target].key}"
        lines.append(f"  {ends} [label={_quote(link.label)}];")
    return "\n".join([*lines, "}", ""])


def _attributes(box: Box) -> str:
    label = "\n".join([box.title, *(line.text for line in box.lines)])
    shape = _SHAPES.get(box.kind, "box")
    fill, colour = PALETTE[f"{box.role}-fill"][0], PALETTE[box.role][0]
    return f'[label={_quote(label)}, shape={shape}, fillcolor="{fill}", color="{colour}", tooltip={_quote(box.name)}]'


def _quote(text: str) -> str:
    """Return a DOT string: backslashes would start escapes, line ends are escaped."""
    safe = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", " ").replace("\n", "\\n")
    return f'"{safe}"'
