"""`Graph.parse` undoes `str`."""

from __future__ import annotations

import pytest

import tapeout
from tapeout.ir.same import same


def test_parse_undoes_print() -> None:
    with tapeout.Builder("small") as g:
        x = g.input("x", (2, 3))
        g.output("y", tapeout.nn.linear(x, 2, name="fc 1").tanh())
    graph = g.graph()
    assert same(tapeout.Graph.parse(str(graph)), graph)


def test_text_that_is_no_graph() -> None:
    with pytest.raises(tapeout.ParseError, match="1"):
        tapeout.Graph.parse("graph {")
