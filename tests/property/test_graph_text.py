"""`parse(print(graph))` is the graph, for any graph; and damage is told, never met with a crash."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.ir.graph import Module
from tapeout.ir.parse import parse_graph, parse_module, read_tape
from tapeout.ir.same import same
from tapeout.ir.text import print_graph, print_module, tensors_of, write_tape
from tapeout.ir.verify import verify, verify_module
from tapeout.support.errors import ParseError
from tests.property.graphs import Sample, graphs


@given(graphs())
def test_graph_reads_back(sample: Sample) -> None:
    graph = sample.graph
    verify(graph)
    text = print_graph(graph)
    again = parse_graph(text, tensors_of([graph], graph.variables))
    verify(again)
    assert same(graph, again)
    assert print_graph(again) == text


@given(graphs(), st.booleans())
def test_module_reads_back(sample: Sample, all_variables: bool) -> None:
    graph = sample.graph
    variables = graph.variables if all_variables else tuple(reversed(graph.variables))
    module = Module("m", variables, (graph,))
    verify_module(module)
    text = print_module(module)
    again = parse_module(text, tensors_of([graph], graph.variables))
    verify_module(again)
    assert same(module, again)
    assert print_module(again) == text


def test_files_read_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tape")

    @given(graphs(most=6))
    def holds(sample: Sample) -> None:
        path = Path(folder / "a.tape")
        path.with_suffix(".tensors.safetensors").unlink(missing_ok=True)
        write_tape(path, sample.graph)
        assert same(read_tape(path), sample.graph)

    holds()


@given(graphs(most=6), st.data())
def test_damage_is_told(sample: Sample, data: st.DataObject) -> None:
    text = print_graph(sample.graph)
    at = data.draw(st.integers(0, len(text) - 1))
    kind = data.draw(st.sampled_from(["cut", "drop", "insert", "swap"]))
    if kind == "cut":
        damaged = text[:at]
    elif kind == "drop":
        damaged = text[:at] + text[at + 1 :]
    elif kind == "insert":
        damaged = text[:at] + data.draw(st.characters(max_codepoint=255)) + text[at:]
    else:
        other = data.draw(st.integers(0, len(text) - 1))
        damaged = text[:at] + text[other : other + 9] + text[at + 9 :]
    tensors = tensors_of([sample.graph], sample.graph.variables)
    told = ""
    try:
        parse_graph(damaged, tensors)
    except ParseError as e:
        told = e.where
    assert not told or re.fullmatch(r"line \d+, column \d+", told)
