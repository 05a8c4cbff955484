"""Pages and pictures: well-formed, self-contained, and harmless whatever the names in a model are."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tapeout.ir.build import Builder
from tapeout.ir.graph import Graph
from tapeout.support.loc import Loc
from tapeout.view import dot, html, kernels, memory, svg
from tests.unit.view_samples import Add, MatMul, chain, program, t, training_step

EVIL = "</script><img src=x onerror=alert(1)>\"'&\x00\x1b\u2028 --> ]]>"
VOID = {"meta", "input", "img", "br", "link"}


def evil_graph() -> Graph:
    b = Builder(EVIL)
    x = b.add_input(EVIL + "x", t(2, 2))
    w = b.add_variable(EVIL + "w", t(2, 2))
    (y,) = b.emit(MatMul(type=t(2, 2)), x, w, loc=Loc(EVIL, EVIL))
    (y,) = b.emit(Add(type=t(2, 2)), y, y, loc=Loc(EVIL, EVIL + "2", "backward"))
    b.set_update(EVIL + "w", y)
    b.set_output(EVIL + "y", y)
    return b.graph()


class Page(HTMLParser):
    """Elements of a page, with the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.raw:
            self.raw[tag].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]][-1] += data


def page_of(graph: Graph) -> str:
    stages = [
        html.Stage("import", graph, "As it came."),
        html.Stage("backward", training_step(2)),
        html.Stage("kernels", program()),
    ]
    return html.render(graph.name, stages)


@pytest.mark.parametrize(
    "graph", [training_step(3), evil_graph(), chain(3)], ids=["step", "evil", "chain"]
)
def test_page_is_well_formed_and_alone(graph: Graph) -> None:
    text = page_of(graph)
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag != "img"
        assert not {"src", "href", "style"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    urls = set(re.findall(r"https?://[^\"'\s)<]+", text))
    assert urls <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in text


def test_policy_allows_this_page_only() -> None:
    text = page_of(evil_graph())
    page = Page(text)
    policy = next(
        a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for kind, content in (("script", page.raw["script"][-1]), ("style", page.raw["style"][0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_data_carry_names_unchanged() -> None:
    page = Page(page_of(evil_graph()))
    data = json.loads(page.raw["script"][0])
    names = [
        f["source"]
        for view in data["tabs"][0]["views"]
        for f in view["boxes"].values()
        if f.get("source")
    ]
    assert EVIL in names
    assert [tab["name"] for tab in data["tabs"]] == ["import", "backward", "kernels", "memory"]


def test_every_box_has_facts() -> None:
    page = Page(page_of(training_step(3)))
    data = json.loads(page.raw["script"][0])
    known = {key for tab in data["tabs"] for view in tab.get("views", ()) for key in view["boxes"]}
    drawn = {
        a["data-key"]
        for tag, a in page.elements
        if tag == "g" and "box" in (a.get("class") or "").split()
    }
    assert drawn
    assert drawn <= known


@pytest.mark.parametrize(
    "graph", [training_step(3), evil_graph(), chain(3)], ids=["step", "evil", "chain"]
)
def test_svg_is_xml_without_script(graph: Graph) -> None:
    root = ET.fromstring(svg.render(graph))
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "style", "g", "rect", "polygon", "path", "text"}


def test_memory_picture_is_xml() -> None:
    root = ET.fromstring(memory.document(program()))
    bars = [e for e in root.iter() if "bar" in e.get("class", "").split() and e.get("data-key")]
    assert len(bars) == len(memory.bars(program()))


def test_live_bytes_follow_lifetimes() -> None:
    p = program(6)
    live = memory.live_bytes(p)
    for item, found in enumerate(live):
        expected = sum(
            b.bytes
            for b in p.buffers.values()
            if b.space == "activation" and b.first <= item <= min(b.last, len(p.items) - 1)
        )
        assert found == expected


def test_kernel_rows_tell_everything() -> None:
    p = program(6)
    rows = kernels.rows(p)
    assert [r["cells"][0] for r in rows] == [str(i) for i in range(len(p.items))]
    assert [r["role"] for r in rows].count("check") == 1
    assert rows[0]["buffers"][0] == {
        "name": "x",
        "access": "r",
        "type": "f32[64,32]",
        "space": "input",
    }
    assert set(kernels.texts(p)) == set(p.kernels)


def test_dot_quotes_names() -> None:
    text = dot.render(evil_graph())
    assert text.count("{") - text.count("}") == 0
    for line in text.split("\n")[1:-2]:
        unescaped = re.sub(r"\\.", "", line)
        assert unescaped.count('"') % 2 == 0, line


def test_unbound_dimensions_stand_by_name() -> None:
    from tapeout.ir.dtype import f32
    from tapeout.ir.type import Dim, TensorType

    b = Builder("open")
    n = Dim.named("N", 2)
    x = b.add_input("x", TensorType(f32, (n, n * 3)))
    b.set_output("y", x)
    graph = b.graph({"N": 2})
    assert "f32[N,N * 3]" in svg.render(graph)


def test_pages_do_not_depend_on_the_hash_seed() -> None:
    root = Path(__file__).resolve().parents[2]
    script = (
        "import hashlib; from tests.unit.test_view_page import page_of, training_step; "
        "print(hashlib.sha256(page_of(training_step(3)).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "12345")
    }
    assert len(found) == 1
