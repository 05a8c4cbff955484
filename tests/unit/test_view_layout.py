"""The layered layout: rows respect the links, nothing overlaps, and it is the same every time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.view.groups import MOST_BOXES, by_source, every_node_or_groups
from tapeout.view.layered import MOST_BENDS, arrange, crossings, layers, ranks
from tapeout.view.layout import draw, flow
from tapeout.view.place import BEND_GAP, GAP
from tapeout.view.scene import every_node
from tests.unit.view_samples import chain, training_step

EDGES = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=40)


@given(EDGES)
def test_ranks_respect_links(edges: list[tuple[int, int]]) -> None:
    rank = ranks(15, edges)
    for a, b in edges:
        if a != b:
            assert rank[min(a, b)] < rank[max(a, b)]


@given(EDGES)
def test_boxes_of_a_row_keep_apart(edges: list[tuple[int, int]]) -> None:
    edges = sorted({(min(e), max(e)) for e in edges if e[0] != e[1]})
    rank = ranks(15, edges)
    widths = [40.0 + 13.0 * (i % 7) for i in range(15)]
    x, bends = arrange(rank, widths, edges)
    rows: dict[int, list[int]] = {}
    for n in range(15):
        rows.setdefault(rank[n], []).append(n)
    for row in rows.values():
        row.sort(key=lambda n: x[n])
        for a, b in itertools.pairwise(row):
            assert x[b] - x[a] >= (widths[a] + widths[b]) / 2 + min(GAP, BEND_GAP) - 1e-6
    for i, bend in bends.items():
        assert len(bend) == abs(rank[edges[i][0]] - rank[edges[i][1]]) - 1


def test_ordering_removes_crossings() -> None:
    # A complete binary tree whose leaves are numbered against their order.
    edges = [(i, 2 * i + 1) for i in range(31)] + [(i, 2 * i + 2) for i in range(31)]
    made = layers(ranks(63, edges), edges)
    assert crossings(made) == 0


def test_a_chain_is_straight() -> None:
    x, _ = arrange(list(range(50)), [80.0] * 50, [(i, i + 1) for i in range(49)])
    assert max(x) - min(x) < 1e-9


def test_a_skip_bends_beside_the_chain() -> None:
    edges = [(0, 1), (1, 2), (2, 3), (0, 3)]
    x, bends = arrange(ranks(4, edges), [80.0] * 4, edges)
    assert all(abs(b - x[1]) >= 40.0 for b in bends[3])


def test_bends_have_a_budget() -> None:
    edges = [(i, i + 1) for i in range(999)] + [(i, 999) for i in range(900)]
    _, bends = arrange(ranks(1000, edges), [60.0] * 1000, edges)
    assert sum(map(len, bends.values())) <= MOST_BENDS


@pytest.mark.parametrize("names", [True, False])
def test_large_graphs_are_drawn_together(names: bool) -> None:
    scene = every_node_or_groups(chain(10_000, names=names))
    assert len(scene.boxes) <= MOST_BOXES
    assert "10,002 boxes drawn together" in scene.note
    drawing = draw(scene)
    assert len(drawing.boxes) == len(scene.boxes)
    # What was listed in groups is every node, none twice.
    listed = sum(
        len(b.facts["nodes"]) + b.facts.get("unlisted", 0)
        for b in scene.boxes
        if "nodes" in b.facts
    )
    alone = sum("nodes" not in b.facts for b in scene.boxes)
    assert listed + alone == 10_002


def test_long_chain_needs_no_recursion() -> None:
    scene = every_node(chain(20_000, names=False))
    drawing = flow(scene)
    assert len(drawing.boxes) == 20_002


def test_lanes_put_derivatives_beside_their_source() -> None:
    drawing = draw(by_source(training_step(4)))
    assert [title for title, _, _ in drawing.lanes] == ["forward ↓", "backward ↑", "update"]
    at = {(p.box.name, p.box.role): p for p in drawing.boxes}
    for i in range(4):
        source, derivative = at[f"fc{i}/Gemm", "forward"], at[f"fc{i}/Gemm", "backward"]
        update = at[f"fc{i}.weight", "update"]
        assert source.y == derivative.y == update.y
        assert source.x < derivative.x < update.x
    assert at["fc0/Gemm", "forward"].y < at["fc3/Gemm", "forward"].y


def test_links_end_at_their_boxes() -> None:
    for drawing in (flow(every_node(training_step(3))), draw(by_source(training_step(3)))):
        for link in drawing.links:
            for number, (x, y) in ((link.source, link.points[0]), (link.target, link.points[-1])):
                box = drawing.boxes[number]
                assert abs(x - box.x) <= box.width / 2 + 1e-6
                assert abs(y - box.y) <= box.height / 2 + 1e-6


def test_the_same_graph_has_the_same_drawing() -> None:
    assert flow(every_node(training_step(4))).links == flow(every_node(training_step(4))).links
