"""The reference page of operators is the table of operators."""

from tapeout.frontend.onnx.reference import page
from tests.conftest import ROOT


def test_the_page_is_current() -> None:
    path = ROOT / "docs" / "reference" / "onnx-support.md"
    made = "python -m tapeout.frontend.onnx.reference > docs/reference/onnx-support.md"
    assert path.read_text(encoding="utf-8") == page(), f"make it anew: {made}"
