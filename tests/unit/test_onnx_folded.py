"""What the check tells of files that an exporter has optimised: real exports of one network (tests/torch_matrix/folded.py)."""

import numpy as np
import onnx
import pytest

from tapeout.frontend.onnx.report import report
from tests.conftest import ROOT
from tests.onnx_models import parsed

FOLDER = ROOT / "tests" / "records" / "folded"
FOLDED = "an exporter has optimised this file for inference"


def warnings(name: str) -> list[str]:
    return list(report(FOLDER / f"{name}.onnx").warnings)


@pytest.mark.parametrize("name", ["dynamo_folded", "legacy_folded"])
def test_what_is_lost_is_told(name: str) -> None:
    (told,) = [w for w in warnings(name) if w.startswith(FOLDED)]
    lines = [line.strip() for line in told.splitlines()]
    for part in (
        "batch normalisation is folded into a convolution",
        "packed gate by gate",
        "is a copy of words.weight",
        "2 weights of linear layers",
        "tables of positions",
        "tapeout.export_torch",
        "optimize=False",
        "do_constant_folding=False",
    ):
        assert any(part in line for line in lines), part


@pytest.mark.parametrize("name", ["dynamo_training", "legacy_training", "dynamo_evaluation"])
def test_what_is_whole_is_not_blamed(name: str) -> None:
    assert not [w for w in warnings(name) if w.startswith(FOLDED)]


def test_dropout_in_evaluation_form() -> None:
    assert any(
        "dropouts were exported in evaluation form" in w for w in warnings("dynamo_evaluation")
    )
    assert not any("dropout" in w for w in warnings("dynamo_training"))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.onnx")), ids=lambda p: p.stem)
def test_softmax_at_the_end(path: object) -> None:
    assert any("is a softmax" in w for w in report(path).warnings)


def test_a_convolution_with_names_of_its_own_is_whole() -> None:
    made = parsed(
        "g (float[N,2,4,4] x) => (float y) {y = Conv (x, w, b)}",
        w=np.ones((3, 2, 3, 3), np.float32),
        b=np.ones(3, np.float32),
    )
    assert not report(made).warnings
    made.graph.node[0].metadata_props.append(
        onnx.StringStringEntryProto(
            key="pkg.onnxscript.rewriter.rule_name", value="FuseBatchNormIntoConv"
        )
    )
    assert "batch normalisation" in report(made).warnings[0]


def test_several_are_counted_and_not_all_named() -> None:
    text = "; ".join(f"h{i} = MatMul ({'x' if not i else f'h{i - 1}'}, val_{i})" for i in range(6))
    weights = {f"val_{i}": np.full((2, 2), i + 1, np.float32) for i in range(6)}
    made = parsed(f"g (float[N,2] x) => (float h5) {{{text}}}", **weights)
    (told,) = report(made).warnings
    assert "6 weights of linear layers" in told
    assert "val_3 …" in told
    assert "val_4" not in told
