"""The benchmarks' own logic, and the page that is made of their history. Nothing is timed here."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from benchmarks import report, run
from benchmarks.workloads import WORKLOADS
from tests.arch.sources import ROOT

PARAMETERS = {
    "mlp-tiny": 2_410, "mlp": 669_706, "lenet": 61_706, "lstm": 1_565_672, "mobilenetv2": 3_504_872,
    "resnet18-cifar": 11_173_962, "resnet50-224": 25_557_032, "vit-tiny": 5_717_416, "gpt-nano": 5_289_472,
    "gpt2-124m": 162_447_360,
}  # fmt: skip


@pytest.mark.parametrize("name", WORKLOADS)
def test_networks_have_their_usual_size(name: str) -> None:
    sizes = [_size(p.shape) for p in WORKLOADS[name].net.parameters.values()]
    assert sum(sizes) == PARAMETERS[name]


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def test_batches_are_the_same_in_every_process() -> None:
    (x, labels), *_ = WORKLOADS["gpt-nano"].batches(2)
    assert x.shape == (8, 128) and labels.shape == (8 * 128,)
    again, _ = WORKLOADS["gpt-nano"].batches(2)[0]
    assert (x == again).all()


def line(engine: str, ratio: float | None, **more: Any) -> dict[str, Any]:
    return {
        "at": "2026-01-01 00:00", "commit": "abc", "machine": "m", "threads": 2, "precision": "f32", "workload": "lenet",
        "engine": engine, "version": f"{engine} 1", "ms_median": 1.0, "ms_min": 0.9, "gflops": 100.0, "ratio": ratio,
        "ratio_min": ratio, "agrees": True, "peak_over_import_mib": 1.0, "ready_first_s": 0.5, **more,
    }  # fmt: skip


def test_a_peer_does_the_same_work() -> None:
    lines = [
        line("tapeout", 1.0), line("tapeout-many", 0.5), line("torch", 3.0), line("jax", 2.0),
        line("ort-training", 1.5, agrees=False),
    ]  # fmt: skip
    best = run.best_peer(lines)
    assert best is not None and best["engine"] == "jax"
    text = report.page(lines)
    assert "[1 (1.50)]" in text and "| **2.00** | 2.00 |" in text
    assert "Geometric mean of the ratios to the best peer of each row: **2.00**" in text
    ET.fromstring(report.plot(lines))


def test_the_newest_line_of_a_cell_counts() -> None:
    lines = [line("tapeout", 1.0), line("torch", 9.0), line("torch", 3.0), {**line("jax", None), "error": "a | b"}]  # fmt: skip
    text = report.page(lines)
    assert "(3.00)" in text and "(9.00)" not in text and "failed: a \\| b" in text


def test_losses_are_compared_at_every_step_that_both_tell() -> None:
    ours = {"loss": {"0": 2.0, "1": 1.0, "10": 0.5}}
    assert run._agrees([{"loss": {"0": 2.001, "1": 1.0005}}], ours)
    assert not run._agrees([{"loss": {"0": 2.0, "10": 0.502}}], ours)


def test_the_page_is_made_of_the_history() -> None:
    made = report.page(report.read(ROOT / "benchmarks" / "history"))
    page = (ROOT / "docs" / "reference" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == made, "python benchmarks/report.py"
