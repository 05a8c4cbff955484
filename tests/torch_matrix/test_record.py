"""The page of PyTorch's modules is what the record says, and the record is good enough."""

import pytest

from tests.torch_matrix.case import PLAIN, VARIANTS
from tests.torch_matrix.fast import FAST, FAST_HUGGINGFACE
from tests.torch_matrix.record import PAGE, STATUS, counts, page, read

FLOOR = 0.95
"""Of the files that PyTorch could export."""

HUGGINGFACE = (
    "BERT", "CLIP", "ConvNext", "GPT-2", "LLaMA", "Mamba", "MobileNetV2", "ResNet", "Swin", "T5", "ViT", "Whisper",
)  # fmt: skip


def test_the_page_is_made_from_the_record(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--update-golden"):
        PAGE.write_text(page(read()), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(read())


def test_most_files_agree() -> None:
    number = counts(read())
    taken = number["pass"] + number["fail"] + number["error"]
    assert number["pass"] >= FLOOR * taken
    assert taken >= 800
    assert not number["error"], "a case that died says nothing"


def test_every_way_was_tried() -> None:
    """Each module by both exporters at two operator sets; the reason stands where it did not work."""
    for name, by in read()["cases"].items():
        assert set(PLAIN) <= set(by) <= set(VARIANTS), name
        for found in by.values():
            assert found["status"] in STATUS
            assert found["status"] == "pass" or found["reason"], name


def test_what_is_asked_for_is_there() -> None:
    names = list(read()["cases"])
    assert set(FAST) | set(FAST_HUGGINGFACE) <= set(names)
    for model in HUGGINGFACE:
        assert any(n.partition(" (")[0] == model for n in names), model


def test_the_fast_subset_passes() -> None:
    cases = read()["cases"]
    for name in (*FAST, *FAST_HUGGINGFACE):
        assert cases[name]["dynamo18"]["status"] == "pass", name
